//! What Linux offers and asks: the only room that talks to the kernel about processes, files and
//! sockets, and the only one with `unsafe`.

pub mod identity;
pub mod journal;
pub mod notify;
pub mod pid_file;
pub mod probe;
pub mod procfs;
pub mod survivors;
