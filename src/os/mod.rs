//! Linux: what the daemon needs of the kernel. The only room with `unsafe`.

pub mod logs;
