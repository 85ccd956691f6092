//! Why a run ended: the taxonomy behind the log line, the label and the verdict.

use std::fmt;

/// Why a run ended. The label of `eternal_program_exits_total`; first match wins, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitReason {
    /// SIGKILL while the out-of-memory kill count of its cgroup rose.
    Oom,
    /// Ended by us for exceeding its memory limit.
    MemoryLimit,
    /// Ended by us because its watchdog ran out.
    Watchdog,
    /// Ended by us because a health check failed.
    Health,
    /// Asked to stop, and killed by us after the grace period.
    StopTimeout,
    /// Asked to stop, and stopped.
    Stop,
    /// Asked to stop for a restart, and stopped.
    Restart,
    /// Not ready within `start_timeout`, so ended by us.
    StartupTimeout,
    /// Death by a signal that left a core dump.
    CoreDump,
    /// Death by a signal that we did not send.
    Signal,
    /// An exit code in `success_exit_codes`.
    Success,
    /// Any other exit code.
    ExitCode,
    /// It could not be started at all.
    SpawnError,
    /// The status cannot be known.
    Lost,
}

impl ExitReason {
    /// Every reason, in the order of precedence.
    pub const ALL: [Self; 14] = [
        Self::Oom,
        Self::MemoryLimit,
        Self::Watchdog,
        Self::Health,
        Self::StopTimeout,
        Self::Stop,
        Self::Restart,
        Self::StartupTimeout,
        Self::CoreDump,
        Self::Signal,
        Self::Success,
        Self::ExitCode,
        Self::SpawnError,
        Self::Lost,
    ];

    /// Returns the label value used in metrics, JSON and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::MemoryLimit => "memory_limit",
            Self::Watchdog => "watchdog",
            Self::Health => "health",
            Self::StopTimeout => "stop_timeout",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::StartupTimeout => "startup_timeout",
            Self::CoreDump => "core_dump",
            Self::Signal => "signal",
            Self::Success => "success",
            Self::ExitCode => "exit_code",
            Self::SpawnError => "spawn_error",
            Self::Lost => "lost",
        }
    }

    /// Tells whether an end for this reason is a crash (contract, section 4).
    #[must_use]
    pub const fn is_crash(self) -> bool {
        match self {
            Self::Oom
            | Self::MemoryLimit
            | Self::Watchdog
            | Self::Health
            | Self::StartupTimeout
            | Self::CoreDump
            | Self::Signal
            | Self::ExitCode
            | Self::SpawnError => true,
            Self::StopTimeout | Self::Stop | Self::Restart | Self::Success | Self::Lost => false,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// How the kernel says a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// It exited with this code.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// It died by a signal.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// It left a core dump.
        core_dumped: bool,
        /// The out-of-memory kill count of its cgroup rose during this run.
        oom: bool,
    },
    /// Someone else reaped it, so nobody knows.
    Lost,
}

impl WaitStatus {
    /// Returns the exit code, if it exited with one.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(code),
            Self::Signaled { .. } | Self::Lost => None,
        }
    }

    /// Returns the number of the signal that killed it, if one did.
    #[must_use]
    pub const fn signal(self) -> Option<i32> {
        match self {
            Self::Signaled { signal, .. } => Some(signal),
            Self::Exited { .. } | Self::Lost => None,
        }
    }
}

/// What kind of obstacle a start met. The label of `eternal_program_start_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// The command is missing, is a directory, or is not a program.
    Exec,
    /// The kernel refused: not executable, or not allowed to do what the config asks.
    Permission,
    /// The user or group does not exist.
    User,
    /// The working directory cannot be entered.
    Directory,
    /// Out of processes, memory or descriptors.
    Limits,
    /// Not ready in `start_timeout`.
    Timeout,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Exec,
        Self::Permission,
        Self::User,
        Self::Directory,
        Self::Limits,
        Self::Timeout,
    ];

    /// Returns the label value used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Permission => "permission",
            Self::User => "user",
            Self::Directory => "directory",
            Self::Limits => "limits",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a process could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnFailure {
    /// The kind of obstacle.
    pub kind: FailureKind,
    /// The machine is short of something and a later try may succeed (EAGAIN, ENOMEM, EMFILE,
    /// ENFILE): a retry that never counts towards a give-up.
    pub transient: bool,
    /// Names the operation, the object and the cause: "cannot execute /srv/app: no such file".
    pub message: String,
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
