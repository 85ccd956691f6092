//! Eternal keeps servers running for ever and says exactly how that went.
//!
//! The rooms, and the layer rule (an arrow may only point down; `tests/layers.rs` holds it):
//!
//! ```text
//! main ─ cli ─▶ control::{client, api}, config, import     never daemon, supervision, os
//! main ─ daemon ─▶ supervision, os, observe, control, config
//! observe ─▶ supervision (Event), control::api (Status)    never os
//! os ─▶ supervision (ids, exit)                            never observe, config, control
//! import ─▶ config
//! config ─▶ supervision (Policy)
//! supervision ─▶ std only
//! text ─▶ std only; every room but supervision may use it
//! ```

pub mod api_server;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod import;
pub mod observe;
pub mod os;
pub mod supervision;
pub mod text;
