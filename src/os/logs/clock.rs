//! The only place in this room that reads a clock: lines are stamped where they are read, and the
//! deadlines here are those of the room's own input and output.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The moment a line is stamped with.
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock, for deadlines.
pub(super) fn ticks() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, the precision of a log line; 0 for earlier times.
pub(super) fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
