//! The give-up timeline: the runtime's own policy code, played forward for `eternal check`.

use std::time::Duration;

use super::exit::ExitReason;
use super::policy::{End, Policy, Record, RestartMode, Verdict};

/// What a policy does with a program that always lives equally long: `eternal check` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The crashes in order, until it is given up or the delays no longer grow.
    pub crashes: Vec<CrashStep>,
    /// When it is given up, from the first start; `None`: never.
    pub gives_up_at: Option<Duration>,
    /// A program that lives longer than this each time never trips the crash limit; `None` when
    /// every lifetime does, or when the mode never restarts it.
    pub never_trips_above: Option<Duration>,
}

/// One crash of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashStep {
    /// From the first start.
    pub at: Duration,
    /// The wait before the next start; `None`: none follows, or only a retry after a give-up.
    pub restart_after: Option<Duration>,
}

/// Plays a program that crashes `lifetime` after each start against the policy, without jitter.
#[must_use]
pub fn timeline(policy: &Policy, lifetime: Duration) -> Timeline {
    const NO_JITTER: f64 = 0.5;
    const LONGEST: usize = 1_000;
    let mut record = Record::default();
    let mut crashes = Vec::new();
    let mut at = Duration::ZERO;
    let mut gives_up_at = None;
    while crashes.len() < LONGEST {
        at += lifetime;
        let end = End {
            reason: ExitReason::ExitCode,
            code: None,
            ran: lifetime,
        };
        let Verdict::Restart { delay, .. } = record.judge(policy, end, NO_JITTER) else {
            gives_up_at = Some(at);
            crashes.push(CrashStep {
                at,
                restart_after: None,
            });
            break;
        };
        crashes.push(CrashStep {
            at,
            restart_after: Some(delay),
        });
        at += delay;
        // From here on nothing changes any more: the delay is at its maximum and the window full.
        let in_window = record.crashes().count();
        if delay >= policy.restart_delay_max
            && lifetime > Duration::ZERO
            && crashes.len() > in_window + 1
            && policy.max_restarts.is_none()
        {
            break;
        }
    }
    Timeline {
        crashes,
        gives_up_at,
        never_trips_above: never_trips_above(policy),
    }
}

fn never_trips_above(policy: &Policy) -> Option<Duration> {
    if policy.restart == RestartMode::Never || policy.max_restarts.is_some() {
        return None;
    }
    // The threshold-th crash finds the first one (threshold − 1) lifetimes old.
    policy
        .crash_threshold
        .checked_sub(1)
        .filter(|gaps| *gaps > 0)
        .map(|gaps| policy.crash_window / gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn the_defaults_give_up_at_the_fifth_instant_crash_after_fifteen_seconds() {
        let t = timeline(&Policy::default(), Duration::ZERO);
        let at: Vec<f64> = t.crashes.iter().map(|c| c.at.as_secs_f64()).collect();
        assert_eq!(at, [0.0, 1.0, 3.0, 7.0, 15.0]);
        assert_eq!(t.gives_up_at, Some(seconds(15.0)));
        assert_eq!(t.never_trips_above, Some(seconds(15.0)));
    }

    #[test]
    fn a_program_that_lives_exactly_the_limit_trips_and_one_that_lives_longer_does_not() {
        let policy = Policy::default();
        assert!(timeline(&policy, seconds(15.0)).gives_up_at.is_some());
        assert_eq!(timeline(&policy, seconds(15.001)).gives_up_at, None);
    }

    #[test]
    fn waiting_does_not_age_a_crash() {
        let policy = Policy {
            restart_delay: seconds(3600.0),
            restart_delay_max: seconds(3600.0),
            ..Policy::default()
        };
        assert!(timeline(&policy, seconds(1.0)).gives_up_at.is_some());
    }
}
