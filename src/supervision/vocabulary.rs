//! The vocabulary of the machine: moment, input, action, event, view. Nobody good has a fifth.

use std::time::{Duration, Instant};

use super::exit::{ExitReason, SpawnFailure, WaitStatus};
use super::policy::Rule;
use super::{Id, Run};

/// What the world lends to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock.
    pub now: Instant,
    /// Uniform in [0, 1): the only source of jitter.
    pub chance: f64,
}

/// What can happen to a program.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants something of it.
    Order(Order),
    /// The spawn succeeded.
    Spawned(Run, i32),
    /// The spawn failed.
    SpawnFailed(Run, SpawnFailure),
    /// It says, or a probe found, that it is ready.
    Ready(Run),
    /// It runs, and is found not to do its work any more.
    Failing(Run, Ailment),
    /// Its main process ended.
    Exited {
        /// Whose.
        run: Run,
        /// How.
        status: WaitStatus,
        /// Descendants are still alive and have to go.
        family: bool,
    },
    /// No descendant of a run that has ended is left.
    FamilyGone(Run),
    /// Time passed.
    Tick,
}

/// What a program that runs can suffer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Its health check failed as often in a row as is allowed.
    Health,
    /// Its watchdog ran out.
    Watchdog,
}

impl Ailment {
    /// Returns the reason that the end it leads to will have.
    #[must_use]
    pub const fn reason(self) -> ExitReason {
        match self {
            Self::Health => ExitReason::Health,
            Self::Watchdog => ExitReason::Watchdog,
        }
    }
}

/// What somebody wants of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A person or the daemon's own start wants it up; clears its crash record.
    Start,
    /// The same, but this program has to be ready first.
    Await(Id),
    /// Everything it waits for is ready.
    Proceed,
    /// It shall be down.
    Stop,
    /// It shall be down and come up again.
    Restart(Cause),
    /// It shall be down and be forgotten.
    Remove,
    /// It shall be down, at once: no grace.
    Kill,
}

/// Why a program is restarted. The label of `eternal_program_restarts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// It crashed.
    Crash,
    /// It exited cleanly.
    Exit,
    /// A health check failed.
    Health,
    /// Its watchdog ran out.
    Watchdog,
    /// It exceeded its memory limit.
    Memory,
    /// The restart command.
    Operator,
    /// A reload or SIGHUP.
    Config,
    /// A program it depends on was restarted.
    Dependency,
    /// A schedule.
    Schedule,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::Crash,
        Self::Exit,
        Self::Health,
        Self::Watchdog,
        Self::Memory,
        Self::Operator,
        Self::Config,
        Self::Dependency,
        Self::Schedule,
    ];

    /// Returns the cause of a restart that follows an end by itself.
    #[must_use]
    pub const fn after(reason: ExitReason) -> Self {
        match reason {
            ExitReason::Health => Self::Health,
            ExitReason::Watchdog => Self::Watchdog,
            ExitReason::MemoryLimit => Self::Memory,
            ExitReason::Oom
            | ExitReason::StartupTimeout
            | ExitReason::CoreDump
            | ExitReason::Signal
            | ExitReason::ExitCode
            | ExitReason::SpawnError => Self::Crash,
            ExitReason::StopTimeout
            | ExitReason::Stop
            | ExitReason::Restart
            | ExitReason::Success
            | ExitReason::Lost => Self::Exit,
        }
    }

    /// Returns the label value used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Exit => "exit",
            Self::Health => "health",
            Self::Watchdog => "watchdog",
            Self::Memory => "memory",
            Self::Operator => "operator",
            Self::Config => "config",
            Self::Dependency => "dependency",
            Self::Schedule => "schedule",
        }
    }
}

/// All a program ever asks of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the process; answer with `Spawned` or `SpawnFailed`.
    Spawn(Run),
    /// Send the stop signal to the run's main process and family.
    Stop(Run),
    /// SIGKILL the run's main process and family, or what is on its way to be that: the answer to
    /// `Spawn` still follows.
    Kill(Run),
}

/// How a run ended: told exactly once for each run.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Which run.
    pub run: Run,
    /// Its main process.
    pub pid: i32,
    /// The class of the end.
    pub reason: ExitReason,
    /// What the kernel said.
    pub status: WaitStatus,
    /// When it ended.
    pub at: Instant,
    /// From spawn to end.
    pub ran: Duration,
    /// It had become ready.
    pub was_ready: bool,
}

/// What there is to tell about a program. `observe` turns each into metrics, log lines and spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is wanted and waits for another program to be ready.
    Waiting {
        /// The first program it waits for.
        dependency: Id,
    },
    /// A process runs. Counts as a start, and as a restart when there is a cause.
    Started {
        /// Which run.
        run: Run,
        /// Its main process.
        pid: i32,
        /// Why it was restarted; `None` for a first start or one that a person asked for.
        cause: Option<Cause>,
    },
    /// It could not be started at all. Counts as a start and as an exit with reason `spawn_error`
    /// (a crash): no `Started` and no `Exited` is told for this run.
    StartFailed {
        /// Which run.
        run: Run,
        /// As in `Started`.
        cause: Option<Cause>,
        /// Why.
        failure: SpawnFailure,
    },
    /// The machine is short of something: tried again after `delay`. No start, no exit, no crash.
    StartDeferred {
        /// Why.
        failure: SpawnFailure,
        /// Until the next try.
        delay: Duration,
    },
    /// It was to be started a second ago, and nobody knows yet whether the program is executed. Told
    /// once for a run; `Started`, `StartFailed` or `StartDeferred` follows when it is known.
    StartHangs {
        /// Which run.
        run: Run,
    },
    /// It is ready.
    Ready {
        /// Which run.
        run: Run,
        /// From spawn to ready.
        took: Duration,
    },
    /// It did not become ready in `start_timeout` and is ended. Counts as a start failure
    /// (`timeout`); the exit follows, with reason `startup_timeout`.
    StartTimedOut {
        /// Which run.
        run: Run,
        /// The limit.
        after: Duration,
    },
    /// Its main process ended.
    Exited(Exit),
    /// Its main process ended, and descendants of it have to be ended before anything else.
    FamilyLeft {
        /// Which run.
        run: Run,
    },
    /// It got its stop signal.
    Stopping {
        /// Which run.
        run: Run,
        /// Why, fit for a log line: "stop requested", "restart requested", …
        reason: &'static str,
    },
    /// It (or a descendant) outlived the grace period and got SIGKILL.
    StopEscalated {
        /// Which run.
        run: Run,
        /// The grace period.
        after: Duration,
    },
    /// It (or a descendant) outlives even SIGKILL: it is in uninterruptible sleep, or may
    /// not be signalled.
    Unkillable {
        /// Which run.
        run: Run,
        /// How long ago it got SIGKILL.
        after: Duration,
    },
    /// An asked-for stop is complete: main process and family are gone.
    Stopped {
        /// Which run; `None` when nothing ran (it was waiting or backing off).
        run: Option<Run>,
        /// From the request to the end.
        took: Duration,
    },
    /// It will be restarted after a delay.
    BackingOff {
        /// How long.
        delay: Duration,
        /// What the restart will count as.
        cause: Cause,
        /// Crashes left before it is given up.
        crashes_left: u32,
    },
    /// It is given up: a crash loop, or one restart more than `max_restarts`.
    GaveUp {
        /// Which rule.
        rule: Rule,
        /// The number the rule compares with: `crash_threshold`, or `max_restarts`.
        limit: u32,
        /// When it is tried again all the same (`on_crash_loop = "retry"`).
        retry: Option<Duration>,
    },
    /// It is not started again, and its last end was a crash (also told after `GaveUp`).
    Failed {
        /// Which rule.
        reason: &'static str,
    },
    /// It is not started again, and its last end was clean.
    Completed {
        /// Which rule.
        reason: &'static str,
    },
    /// It was removed from the config and is gone.
    Removed,
}

/// The states of a program that the contract names. The label of `eternal_program_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nobody wants it to run.
    Stopped,
    /// Wanted and not ready yet: it waits for others, is being spawned, has not lived long enough,
    /// has not passed its check, or is to be ready when it is done.
    Starting,
    /// It runs, and is ready.
    Running,
    /// It, or what it left behind, is being ended.
    Stopping,
    /// Waiting for its next start.
    Backoff,
    /// It crashed and is not started again (or only after `retry_after`).
    Failed,
    /// It ended cleanly and is not started again.
    Completed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Backoff,
        Self::Failed,
        Self::Completed,
    ];

    /// Returns the label value used in metrics and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

/// A program as it stands: what `observe` publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The contract's state.
    pub state: State,
    /// Somebody wants it to run.
    pub desired: bool,
    /// It has a process and passed its readiness check.
    pub ready: bool,
    /// The present run, its main process while that lives, and when it was spawned.
    pub run: Option<(Run, i32, Instant)>,
    /// Run time of all earlier runs together.
    pub ran: Duration,
    /// Crashes that can still count, each as the accumulated run time at which it happened.
    pub crashes: Vec<Duration>,
    /// When it is started (backoff), tried again (failed), given up as not ready (starting), or
    /// killed (stopping).
    pub deadline: Option<Instant>,
    /// When it will be ready if it stays up (starting).
    pub ready_at: Option<Instant>,
    /// Starts that came to nothing since it was last up or somebody asked for it: they failed, were
    /// put off, or the run ended before it was ready.
    pub failed_starts: u32,
    /// The delay in force, in `Backoff`.
    pub backoff: Option<Duration>,
    /// Why it is in this state, fit for `status`.
    pub why: &'static str,
    /// Whom it waits for.
    pub waits_for: Option<Id>,
}
