//! Control: the Unix socket through which a running daemon is asked and told, and its client.
//!
//! HTTP/1.1 and JSON, so that `curl --unix-socket` works too.

pub mod api;
pub mod client;
pub mod names;
pub mod server;
