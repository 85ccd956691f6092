//! The ledger: what has happened to one program since the daemon began. It only ever counts up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::text;
use crate::control::api;
use crate::supervision::{Cause, Exit, ExitReason, FailureKind, SpawnFailure, WaitStatus};

/// Upper bounds, in seconds, of `eternal_program_run_duration_seconds`.
pub const RUN_BOUNDS: &[f64] = &[
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0,
];
/// Upper bounds, in seconds, of the start-up and stop histograms.
pub const STEP_BOUNDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// Upper bounds, in seconds, of `eternal_program_restart_latency_seconds`.
pub const LATENCY_BOUNDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const MOST_BOUNDS: usize = 16;

/// A histogram with fixed bounds.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// Not cumulative; what exceeds the last bound is in `count` alone.
    counts: [u64; MOST_BOUNDS],
    sum: f64,
    count: u64,
}

impl Histogram {
    /// Makes an empty one with at most sixteen upper bounds, in seconds.
    #[must_use]
    pub const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= MOST_BOUNDS);
        Self {
            bounds,
            counts: [0; MOST_BOUNDS],
            sum: 0.0,
            count: 0,
        }
    }

    /// Adds one observation.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(bucket) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// Returns the upper bounds, in seconds.
    #[must_use]
    pub const fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Returns each upper bound with the number of observations not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds
            .iter()
            .zip(self.counts)
            .scan(0, |below, (bound, count)| {
                *below += count;
                Some((*bound, *below))
            })
    }

    /// Returns the sum of all observations, in seconds.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns the number of observations.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

/// How a run ended, or how a start failed.
#[derive(Clone, Debug)]
pub struct LastExit {
    /// Wall clock, when it was told.
    pub at: SystemTime,
    /// The class of the end.
    pub reason: ExitReason,
    /// What the kernel said; `None` when nothing had run.
    pub status: Option<WaitStatus>,
    /// From spawn to end; zero when nothing had run.
    pub ran: Duration,
    /// For people: "exit code 3", "SIGSEGV (core dumped)", "cannot execute …".
    pub description: Arc<str>,
}

impl LastExit {
    /// Returns the exit code, if it exited with one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(WaitStatus::code)
    }

    /// Returns the number of the signal that killed it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(WaitStatus::signal)
    }

    /// Returns it as the control socket sends it.
    #[must_use]
    pub fn to_api(&self) -> api::LastExit {
        api::LastExit {
            at: text::rfc3339(self.at),
            reason: self.reason.label().to_owned(),
            crash: self.reason.is_crash(),
            code: self.code(),
            signal: self.signal(),
            ran_seconds: self.ran.as_secs_f64(),
            description: self.description.to_string(),
        }
    }
}

/// Says how a process ended: "exit code 3", "SIGSEGV (core dumped)".
#[must_use]
pub fn how(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited { code } => format!("exit code {code}"),
        WaitStatus::Signaled {
            signal,
            core_dumped: true,
            ..
        } => {
            format!("{} (core dumped)", text::signal(signal))
        }
        WaitStatus::Signaled { signal, .. } => text::signal(signal),
        WaitStatus::Lost => "unknown, someone else reaped it".to_owned(),
    }
}

/// Says how a run ended: "exit code 3", "SIGKILL (out of memory)", "not ready in time (SIGTERM)".
#[must_use]
pub fn describe(reason: ExitReason, status: WaitStatus) -> String {
    let how = how(status);
    let why = match reason {
        ExitReason::Oom => "out of memory",
        ExitReason::MemoryLimit => "memory limit exceeded",
        ExitReason::Watchdog => "watchdog ran out",
        ExitReason::Health => "health check failed",
        ExitReason::StopTimeout => "killed while it was stopping",
        ExitReason::Stop => "stop requested",
        ExitReason::Restart => "restart requested",
        ExitReason::StartupTimeout => "not ready in time",
        ExitReason::CoreDump
        | ExitReason::Signal
        | ExitReason::Success
        | ExitReason::ExitCode
        | ExitReason::SpawnError
        | ExitReason::Lost => return how,
    };
    format!("{how} ({why})")
}

/// Everything counted about one program.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Starts, successful or not.
    pub starts: u64,
    /// Starts that were restarts, in the order of [`Cause::ALL`].
    pub restarts: [u64; Cause::ALL.len()],
    /// Ends that were crashes.
    pub crashes: u64,
    /// Ends, in the order of [`ExitReason::ALL`].
    pub exits: [u64; ExitReason::ALL.len()],
    /// Failed starts, in the order of [`FailureKind::ALL`].
    pub start_failures: [u64; FailureKind::ALL.len()],
    /// Times it was given up.
    pub gave_up: u64,
    /// SIGKILLs after the grace period.
    pub escalations: u64,
    /// From spawn to end.
    pub run_duration: Histogram,
    /// From spawn to ready.
    pub startup: Histogram,
    /// From the stop request to the end.
    pub stop: Histogram,
    /// From the end of one run to the next, without the configured delay.
    pub restart_latency: Histogram,
    /// How the last run ended.
    pub last_exit: Option<LastExit>,
    /// Wall clock at the present run's start.
    pub started_at: Option<SystemTime>,
    /// Why it was last given up, in a sentence; `None` once it is started again.
    pub given_up: Option<Arc<str>>,
    /// What its start hangs in; `None` when none does.
    pub start_hangs: Option<Arc<str>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            starts: 0,
            restarts: [0; Cause::ALL.len()],
            crashes: 0,
            exits: [0; ExitReason::ALL.len()],
            start_failures: [0; FailureKind::ALL.len()],
            gave_up: 0,
            escalations: 0,
            run_duration: Histogram::new(RUN_BOUNDS),
            startup: Histogram::new(STEP_BOUNDS),
            stop: Histogram::new(STEP_BOUNDS),
            restart_latency: Histogram::new(LATENCY_BOUNDS),
            last_exit: None,
            started_at: None,
            given_up: None,
            start_hangs: None,
        }
    }
}

impl Ledger {
    /// Counts a start, and a restart when there is a cause.
    pub fn start(&mut self, cause: Option<Cause>) {
        self.starts += 1;
        self.given_up = None;
        self.start_hangs = None;
        if let Some(cause) = cause {
            self.restarts[cause as usize] += 1;
        }
    }

    /// Counts the end of a run.
    pub fn exit(&mut self, exit: &Exit, at: SystemTime) {
        self.run_duration.observe(exit.ran);
        self.started_at = None;
        self.end(LastExit {
            at,
            reason: exit.reason,
            status: Some(exit.status),
            ran: exit.ran,
            description: describe(exit.reason, exit.status).into(),
        });
    }

    /// Counts a start that failed: it is an end too.
    pub fn start_failed(&mut self, failure: &SpawnFailure, at: SystemTime) {
        self.start_failures[failure.kind as usize] += 1;
        self.started_at = None;
        self.end(LastExit {
            at,
            reason: ExitReason::SpawnError,
            status: None,
            ran: Duration::ZERO,
            description: failure.message.as_str().into(),
        });
    }

    fn end(&mut self, exit: LastExit) {
        self.exits[exit.reason as usize] += 1;
        self.crashes += u64::from(exit.reason.is_crash());
        self.last_exit = Some(exit);
    }

    /// Returns the restarts of every cause together.
    #[must_use]
    pub fn all_restarts(&self) -> u64 {
        self.restarts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_index_the_counters_they_name() {
        assert!(
            ExitReason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
        assert!(Cause::ALL.iter().enumerate().all(|(i, c)| *c as usize == i));
        assert!(
            FailureKind::ALL
                .iter()
                .enumerate()
                .all(|(i, k)| *k as usize == i)
        );
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_buckets_add_up() {
        let mut histogram = Histogram::new(STEP_BOUNDS);
        for millis in [10, 11, 400_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets[0].1, 1, "exactly 10 ms is within 0.01");
        assert_eq!(buckets[1].1, 2);
        assert_eq!(
            buckets.last().map(|b| b.1),
            Some(2),
            "400 s is only in +Inf"
        );
        assert_eq!(histogram.count(), 3);
    }
}
