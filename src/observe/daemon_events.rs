//! What there is to tell about the daemon itself.

use std::time::Duration;

/// Something that happened to the daemon, not to one program.
#[derive(Clone, Debug, PartialEq)]
pub enum DaemonEvent {
    /// It runs and is about to start its programs.
    Started {
        /// How many replicas it supervises.
        programs: usize,
    },
    /// Every program that starts with it is ready.
    Ready,
    /// It got a signal.
    SignalReceived {
        /// `SIGTERM`, `SIGHUP`, …
        name: &'static str,
    },
    /// A new configuration is in force.
    ReloadSucceeded {
        /// What was done.
        message: String,
    },
    /// A new configuration is bad, and nothing was changed.
    ReloadFailed {
        /// Every problem.
        message: String,
    },
    /// A process that belongs to no program ended and was reaped.
    OrphanReaped {
        /// Its process id.
        pid: i32,
    },
    /// An earlier daemon left processes behind.
    SurvivorsFound {
        /// How many.
        count: usize,
    },
    /// They are gone.
    SurvivorsEnded {
        /// How many.
        count: usize,
    },
    /// The statistics line is due.
    Statistics,
    /// It stops every program and then itself.
    Stopping {
        /// Why: "SIGTERM", "asked to", "nothing is left to run".
        reason: String,
    },
    /// It gave up and goes on serving its last numbers.
    Lingering {
        /// At most this long.
        limit: Duration,
    },
    /// It is done.
    Ended {
        /// Its exit code.
        code: u8,
    },
    /// Log files were closed and opened again.
    LogsReopened,
    /// Log lines cannot be written, or could not for a while.
    LogTrouble {
        /// Names the file and the cause.
        message: String,
    },
    /// A crash history, pid file or other state could not be kept.
    Trouble {
        /// Names the operation, the object and the cause.
        message: String,
    },
    /// The loop woke up this much later than it had asked for.
    LoopLag {
        /// How much.
        late: Duration,
    },
    /// Spans could not be exported.
    SpansDropped {
        /// How many.
        count: u64,
    },
}
