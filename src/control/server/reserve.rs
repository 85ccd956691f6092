//! Descriptors that clients never get: the daemon needs its last ones for pipes, log files and pids.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// As many are kept.
const RESERVE: u64 = 12;

/// Tells whether only the last descriptors are left, of which clients get none.
#[must_use]
pub fn is_touched() -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| in_use() + RESERVE > limit)
}

/// Counts our open descriptors. Since Linux 6.2 the directory's size is their number.
fn in_use() -> u64 {
    const OURS: &str = "/proc/self/fd";
    match fs::metadata(OURS).map(|directory| directory.len()) {
        Ok(0) => fs::read_dir(OURS).map_or(0, |entries| entries.count() as u64),
        Ok(count) => count,
        Err(_) => 0,
    }
}
