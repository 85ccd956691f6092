//! startsecs and startretries as a restart policy.
//!
//! supervisord counts starts in a row that fail within `startsecs`, waits 1, 2, 3, … seconds
//! between them and gives up after `startretries` + 1. A window of run time does the same: that
//! many runs shorter than `startsecs` fit into `startsecs` each.

use std::time::Duration;

use super::seconds;
use crate::import::draft::Table;

/// What supervisord does about a program that does not stay up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    /// `startsecs`, in seconds.
    pub startsecs: i64,
    /// `startretries`.
    pub startretries: i64,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            startsecs: 1,
            startretries: 3,
        }
    }
}

impl Retries {
    /// The largest number that the config takes for a count.
    const MOST: i64 = u32::MAX as i64 - 1;
    /// A hundred years would be too long for the config.
    const LONGEST: i64 = 10 * 365 * 24 * 3600;

    /// Writes what differs from the policy of a program that says nothing.
    pub fn write_difference(self, keys: &mut Table) {
        let (mut own, mut usual) = (Table::default(), Table::default());
        self.write(&mut own);
        Self::default().write(&mut usual);
        own.drop_shared(&usual);
        keys.take_over(own);
    }

    /// Writes the policy.
    pub fn write(self, keys: &mut Table) {
        let attempts = self.startretries.clamp(1, Self::MOST) + 1;
        let least = self.startsecs.clamp(1, Self::LONGEST);
        let window = least.saturating_mul(attempts).min(Self::LONGEST);
        keys.set("crash_threshold", attempts);
        keys.set_length("crash_window", seconds(window));
        keys.set_length("stable_after", seconds(least));
        keys.set_length("restart_delay", Duration::from_secs(1));
        let longest = self.startretries.clamp(1, Self::LONGEST);
        keys.set_length("restart_delay_max", seconds(longest));
        keys.set("restart_jitter", 0.0);
    }

    /// A program that may end at any time is never given up.
    pub fn is_endless(self) -> bool {
        self.startsecs <= 0
    }
}
