//! Restart policy: what one program's history says about its next start.

use std::collections::VecDeque;
use std::time::Duration;

use super::exit::ExitReason;
use super::vocabulary::Cause;

/// When and whether a program is started again.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// After which ends it is started again.
    pub restart: RestartMode,
    /// Automatic restarts of every kind, since a person last started it; `None` is unlimited.
    pub max_restarts: Option<u32>,
    /// The first restart waits exactly this.
    pub restart_delay: Duration,
    /// Later ones double up to this.
    pub restart_delay_max: Duration,
    /// Give or take this share of the delay, from the second on; 0 to 1.
    pub restart_jitter: f64,
    /// A run of this length starts the delays over.
    pub stable_after: Duration,
    /// Crashes within the window at which it is given up; 1 or more.
    pub crash_threshold: u32,
    /// Run time (not waiting time) within which crashes count.
    pub crash_window: Duration,
    /// What giving up means.
    pub on_crash_loop: OnCrashLoop,
    /// Exit codes that are not crashes.
    pub success_exit_codes: Vec<i32>,
    /// Exit codes after which it is not started again.
    pub no_restart_exit_codes: Vec<i32>,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// From spawn to ready; only where readiness is shown.
    pub start_timeout: Duration,
    /// What counts as being up.
    pub ready: Readiness,
    /// Its giving up brings the daemon down even if others run.
    pub critical: bool,
}

impl Default for Policy {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            restart: RestartMode::Always,
            max_restarts: None,
            restart_delay: Duration::from_secs(1),
            restart_delay_max: Duration::from_secs(30),
            restart_jitter: 0.1,
            stable_after: Duration::from_secs(60),
            crash_threshold: 5,
            crash_window: Duration::from_secs(60),
            on_crash_loop: OnCrashLoop::GiveUp,
            success_exit_codes: vec![0],
            no_restart_exit_codes: Vec::new(),
            stop_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(30),
            ready: Readiness::Alive(Duration::from_secs(1)),
            critical: false,
        }
    }
}

/// What counts as being up, for everybody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// That it has a process.
    Spawned,
    /// That its main process has lived this long.
    Alive(Duration),
    /// That it says or shows it: within `start_timeout`, or it is ended.
    Shown,
    /// That it has ended with a success code: what it is for is done then. However long it takes.
    Exit,
}

/// After which ends a program is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartMode {
    /// After every end.
    Always,
    /// After a crash.
    OnFailure,
    /// After none.
    Never,
}

/// The rule by which a program is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `crash_threshold` crashes within `crash_window` of run time.
    CrashLoop,
    /// One automatic restart more than `max_restarts`.
    MaxRestarts,
}

impl Rule {
    /// Returns its name, fit for a log line and `status`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CrashLoop => "crash loop",
            Self::MaxRestarts => "max_restarts reached",
        }
    }
}

/// What a crash loop leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrashLoop {
    /// It stays down.
    GiveUp,
    /// It is tried again this long after each give-up.
    Retry {
        /// From the give-up to the next try.
        after: Duration,
    },
}

/// How a run ended, as far as policy needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The class of the end.
    pub reason: ExitReason,
    /// The exit code, if it exited with one.
    pub code: Option<i32>,
    /// From spawn to end; zero when it could not be spawned.
    pub ran: Duration,
}

/// What the policy says after an end. Every one carries its reason.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Start it again.
    Restart {
        /// This long after the end.
        delay: Duration,
        /// Which restart it will be.
        cause: Cause,
        /// Crashes left before it is given up.
        crashes_left: u32,
    },
    /// Stop trying, at least for now.
    GiveUp {
        /// Which rule.
        rule: Rule,
        /// The number that rule compares with.
        limit: u32,
        /// Try again this long after the end all the same.
        retry: Option<Duration>,
        /// The last end was a crash.
        crash: bool,
    },
    /// Not to be started again, as configured.
    End {
        /// Which rule.
        reason: &'static str,
        /// The last end was a crash.
        crash: bool,
    },
}

/// One program's history: all that a verdict depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Run time of all ended runs together. Never goes back.
    ran: Duration,
    /// When the crashes in the window happened, on the clock of `ran`. Oldest first.
    crashes: VecDeque<Duration>,
    /// Restarts since the last stable run: the exponent of the next delay.
    streak: u32,
    /// Automatic restarts since a person last started it.
    restarts: u32,
}

impl Record {
    /// Forgets what counts against the program; run time stays.
    pub fn clear(&mut self) {
        self.crashes.clear();
        self.streak = 0;
        self.restarts = 0;
    }

    /// Adds the run time of a run whose end needs no verdict.
    pub fn add_run(&mut self, ran: Duration) {
        self.ran += ran;
    }

    pub fn ran(&self) -> Duration {
        self.ran
    }

    pub fn crashes(&self) -> impl Iterator<Item = Duration> + '_ {
        self.crashes.iter().copied()
    }

    /// Decides what follows an end (contract, section 4). `chance` is uniform in [0, 1).
    pub fn judge(&mut self, policy: &Policy, end: End, chance: f64) -> Verdict {
        let crash = end.reason.is_crash();
        self.ran += end.ran;
        if end.ran >= policy.stable_after {
            self.streak = 0;
        }
        if crash {
            self.crashes.push_back(self.ran);
        }
        self.drop_old_crashes(policy);

        if let Some(reason) = not_wanted_again(policy, end) {
            return Verdict::End { reason, crash };
        }
        if let Some(verdict) = self.too_often(policy, crash) {
            return verdict;
        }
        self.streak = self.streak.saturating_add(1);
        self.restarts = self.restarts.saturating_add(1);
        Verdict::Restart {
            delay: backoff(policy, self.streak, chance),
            cause: Cause::after(end.reason),
            crashes_left: self.crashes_left(policy),
        }
    }

    /// Counts the automatic restart that `on_crash_loop = "retry"` makes.
    pub fn count_retry(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
    }

    fn too_often(&self, policy: &Policy, crash: bool) -> Option<Verdict> {
        let looping = crash && self.crashes_left(policy) == 0;
        let exhausted = policy.max_restarts.filter(|max| self.restarts >= *max);
        let retry = match (policy.on_crash_loop, exhausted) {
            (OnCrashLoop::Retry { after }, None) => Some(after),
            (OnCrashLoop::Retry { .. } | OnCrashLoop::GiveUp, _) => None,
        };
        if looping {
            return Some(Verdict::GiveUp {
                rule: Rule::CrashLoop,
                limit: policy.crash_threshold,
                retry,
                crash,
            });
        }
        let limit = exhausted?;
        Some(Verdict::GiveUp {
            rule: Rule::MaxRestarts,
            limit,
            retry: None,
            crash,
        })
    }

    /// Drops crashes older than the window of run time; one exactly as old as the window stays.
    fn drop_old_crashes(&mut self, policy: &Policy) {
        while self
            .crashes
            .front()
            .is_some_and(|at| self.ran - *at > policy.crash_window)
        {
            self.crashes.pop_front();
        }
    }

    fn crashes_left(&self, policy: &Policy) -> u32 {
        let counted = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        policy.crash_threshold.saturating_sub(counted)
    }
}

/// Why the configuration rules out another start after this end, if it does.
fn not_wanted_again(policy: &Policy, end: End) -> Option<&'static str> {
    if end
        .code
        .is_some_and(|code| policy.no_restart_exit_codes.contains(&code))
    {
        return Some("exit code is in no_restart_exit_codes");
    }
    match policy.restart {
        RestartMode::Always => None,
        // An end whose status is lost may have been a crash: only a proven success ends it.
        RestartMode::OnFailure if end.reason == ExitReason::Success => {
            Some("clean exit under restart = \"on-failure\"")
        }
        RestartMode::OnFailure => None,
        RestartMode::Never => Some("restart = \"never\""),
    }
}

/// The delay before restart number `k` (from 1) since the last stable run: exact for the first,
/// doubling up to the maximum and jittered from the second on.
pub(super) fn backoff(policy: &Policy, k: u32, chance: f64) -> Duration {
    if k <= 1 {
        return policy.restart_delay;
    }
    let doublings = 1u32.checked_shl(k - 1).unwrap_or(u32::MAX);
    let plain = policy
        .restart_delay
        .saturating_mul(doublings)
        .min(policy.restart_delay_max);
    let share = policy.restart_jitter * (2.0 * chance - 1.0);
    plain.mul_f64((1.0 + share).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: End = End {
        reason: ExitReason::ExitCode,
        code: Some(1),
        ran: Duration::ZERO,
    };

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn the_first_delay_is_exact_and_later_ones_double_up_to_the_maximum_within_the_jitter() {
        let p = Policy::default();
        for chance in [0.0, 0.3, 0.999] {
            assert_eq!(backoff(&p, 1, chance), seconds(1.0));
        }
        assert_eq!(backoff(&p, 2, 0.5), seconds(2.0));
        assert_eq!(backoff(&p, 2, 0.0), seconds(1.8));
        assert_eq!(backoff(&p, 5, 0.5), seconds(16.0));
        assert_eq!(backoff(&p, 6, 0.5), seconds(30.0));
        assert_eq!(backoff(&p, u32::MAX, 0.5), seconds(30.0));
    }

    #[test]
    fn by_default_it_is_up_when_it_has_stayed_up_for_a_second_and_nothing_is_critical() {
        let policy = Policy::default();
        assert_eq!(policy.ready, Readiness::Alive(seconds(1.0)));
        assert!(!policy.critical);
    }

    #[test]
    fn a_stable_run_starts_the_delays_over_but_not_a_shorter_one() {
        let policy = Policy {
            crash_threshold: 100,
            ..Policy::default()
        };
        let mut record = Record::default();
        let delay = |record: &mut Record, ran: f64| match record.judge(
            &policy,
            End {
                ran: seconds(ran),
                ..CRASH
            },
            0.5,
        ) {
            Verdict::Restart { delay, .. } => delay.as_secs_f64(),
            other @ (Verdict::GiveUp { .. } | Verdict::End { .. }) => {
                panic!("expected a restart, got {other:?}")
            }
        };
        assert_eq!(delay(&mut record, 0.0), 1.0);
        assert_eq!(delay(&mut record, 59.999), 2.0);
        assert_eq!(delay(&mut record, 60.0), 1.0);
    }

    #[test]
    fn a_clean_exit_is_a_restart_without_being_a_crash() {
        let mut record = Record::default();
        let end = End {
            reason: ExitReason::Success,
            code: Some(0),
            ran: Duration::ZERO,
        };
        for _ in 0..50 {
            let verdict = record.judge(&Policy::default(), end, 0.5);
            assert!(
                matches!(
                    verdict,
                    Verdict::Restart {
                        cause: Cause::Exit,
                        crashes_left: 5,
                        ..
                    }
                ),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_restart_after_a_failed_check_or_watchdog_is_a_crash_and_says_which() {
        let causes = [
            (ExitReason::Health, Cause::Health),
            (ExitReason::Watchdog, Cause::Watchdog),
            (ExitReason::Signal, Cause::Crash),
        ];
        for (reason, expected) in causes {
            let end = End {
                reason,
                // As it ends when it obeys the stop signal: no less of a crash for that.
                code: Some(0),
                ran: Duration::ZERO,
            };
            let policy = Policy {
                restart: RestartMode::OnFailure,
                ..Policy::default()
            };
            let verdict = Record::default().judge(&policy, end, 0.5);
            let Verdict::Restart {
                cause,
                crashes_left,
                ..
            } = verdict
            else {
                panic!("expected a restart, got {verdict:?}")
            };
            assert_eq!((cause, crashes_left), (expected, 4));
        }
    }

    #[test]
    fn max_restarts_allows_that_many_and_no_more() {
        let policy = Policy {
            max_restarts: Some(2),
            ..Policy::default()
        };
        let mut record = Record::default();
        assert!(matches!(
            record.judge(&policy, CRASH, 0.5),
            Verdict::Restart { .. }
        ));
        assert!(matches!(
            record.judge(&policy, CRASH, 0.5),
            Verdict::Restart { .. }
        ));
        let last = record.judge(&policy, CRASH, 0.5);
        assert_eq!(
            last,
            Verdict::GiveUp {
                rule: Rule::MaxRestarts,
                limit: 2,
                retry: None,
                crash: true
            }
        );
    }

    #[test]
    fn modes_and_exit_codes_decide_who_comes_back() {
        let clean = End {
            reason: ExitReason::Success,
            code: Some(0),
            ran: Duration::ZERO,
        };
        let lost = End {
            reason: ExitReason::Lost,
            code: None,
            ran: Duration::ZERO,
        };
        let comes_back = |restart, end| {
            let policy = Policy {
                restart,
                no_restart_exit_codes: vec![78],
                ..Policy::default()
            };
            matches!(
                Record::default().judge(&policy, end, 0.5),
                Verdict::Restart { .. }
            )
        };
        assert!(comes_back(RestartMode::Always, clean));
        assert!(comes_back(RestartMode::Always, CRASH));
        assert!(!comes_back(RestartMode::OnFailure, clean));
        assert!(comes_back(RestartMode::OnFailure, CRASH));
        assert!(comes_back(RestartMode::OnFailure, lost));
        assert!(!comes_back(RestartMode::Never, clean));
        assert!(!comes_back(RestartMode::Never, CRASH));
        assert!(!comes_back(
            RestartMode::Always,
            End {
                code: Some(78),
                ..CRASH
            }
        ));
    }
}
