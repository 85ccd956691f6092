//! Health checks of programs: their counters, and what is said of them.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::Level;

use super::Observer;
use super::record::Failing;
use super::telling::{Facts, Telling, tell};
use crate::supervision::Id;

/// What is counted of the health check of one replica: read at every scrape.
#[derive(Debug)]
pub struct HealthTally {
    check: &'static str,
    /// Together, so that no scrape sees a failure without its check.
    counts: Mutex<HealthCounts>,
}

/// How the health check of one replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCounts {
    /// The last check passed. True before the first, and kept while the program is down: a restart
    /// is not a failed check.
    pub up: bool,
    /// Checks made.
    pub checks: u64,
    /// Those that failed.
    pub failures: u64,
}

impl HealthTally {
    /// Makes one for a check of this kind (`tcp`, `http`, `exec`), that has not failed yet.
    #[must_use]
    pub const fn new(check: &'static str) -> Self {
        let counts = Mutex::new(HealthCounts {
            up: true,
            checks: 0,
            failures: 0,
        });
        Self { check, counts }
    }

    /// Counts a check.
    pub fn count(&self, passed: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.up = passed;
        counts.checks += 1;
        counts.failures += u64::from(!passed);
    }

    /// Returns the kind of the check: the label of its series.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        self.check
    }

    /// Returns the counts.
    #[must_use]
    pub fn counts(&self) -> HealthCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug)]
pub enum Checked<'a> {
    /// The program does its work.
    Passed {
        /// How many checks in a row had failed before this one.
        before: u32,
    },
    /// It does not.
    Failed {
        /// What was tried, and what came of it.
        why: &'a str,
        /// The how-manieth in a row.
        row: u32,
        /// So many make an end of it.
        of: u32,
    },
}

impl Observer {
    /// Tells what a health check has found: the first failure of a row, the one that ends the
    /// program, and the recovery. What is in between is for those who look closely; how the row stands
    /// is published with the program's next change.
    pub fn checked(&mut self, id: Id, checked: Checked<'_>) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let (level, kind, message) = match checked {
            Checked::Passed { before: 0 } => {
                record.failing = None;
                let message = "health check passed".to_owned();
                (Level::DEBUG, "health_check_passed", message)
            }
            Checked::Passed { before } => {
                record.failing = None;
                let message = format!("health check passed again after {before} failed");
                (Level::INFO, "health_check_passed", message)
            }
            Checked::Failed { why, row, of } => {
                record.failing = Some(Failing {
                    row,
                    of,
                    why: why.to_owned(),
                });
                let level = if row == 1 || row >= of {
                    Level::WARN
                } else {
                    Level::DEBUG
                };
                let message = format!("health check failed ({row} of {of}): {why}");
                (level, "health_check_failed", message)
            }
        };
        let telling = Telling {
            level,
            program: &record.about.display_name,
            kind,
            message,
            facts: Facts::default(),
        };
        // A check that passes as it always does is no event.
        if level == Level::DEBUG {
            telling.log();
        } else {
            tell(telling, SystemTime::now(), &self.events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_until_a_check_fails_and_again_when_one_passes() {
        let tally = HealthTally::new("tcp");
        let now = || {
            let counts = tally.counts();
            (counts.up, counts.checks, counts.failures)
        };
        assert_eq!(now(), (true, 0, 0));
        tally.count(true);
        assert_eq!(now(), (true, 1, 0));
        tally.count(false);
        assert_eq!(now(), (false, 2, 1));
        tally.count(true);
        assert_eq!(now(), (true, 3, 1));
    }
}
