//! What a valid configuration is made of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::supervision::Policy;

/// A whole configuration, every value checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from; `None` when there was none.
    pub file: Option<PathBuf>,
    /// What relative paths are relative to: the file's directory, else the current one. Absolute.
    pub base: PathBuf,
    /// The daemon's own settings.
    pub daemon: Daemon,
    /// The metrics listener.
    pub metrics: Metrics,
    /// Trace export.
    pub tracing: Tracing,
    /// Every program, in the order of the file.
    pub programs: Vec<Program>,
}

/// `[daemon]`. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Locked while running.
    pub pid_file: PathBuf,
    /// `None`: only stderr.
    pub log_file: Option<PathBuf>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The least important level that is written.
    pub log_level: LogLevel,
    /// Bytes at which a log file is rotated.
    pub log_max_size: u64,
    /// Rotated files kept beside the current one.
    pub log_keep: u32,
    /// How often the statistics line is written; `None`: only on SIGUSR2 and at shutdown.
    pub stats_interval: Option<Duration>,
    /// The control socket.
    pub socket: PathBuf,
    /// Crash history and identities of running programs.
    pub state_dir: PathBuf,
    /// Whether replicas get cgroups.
    pub cgroups: Cgroups,
}

/// Whether replicas get cgroups of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Where the daemon's own cgroup is its to arrange.
    Auto,
    /// Never.
    Off,
    /// As `Auto`, and where it is not the daemon does not start.
    Required,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object a line.
    Json,
}

/// The importance of a log line, most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is wrong and the daemon goes on.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `None`: off.
    pub listen: Option<Listen>,
    /// How long the final numbers are served after a give-up, at most.
    pub linger: Duration,
    /// Server certificate chain (PEM); set together with `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// Server private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// `user: bcrypt-hash` pairs.
    pub basic_auth_file: Option<PathBuf>,
}

/// Where the metrics listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket, `unix:/path`. Absolute.
    Unix(PathBuf),
}

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// OTLP/HTTP endpoint; `None`: off.
    pub otlp_endpoint: Option<String>,
}

/// One `[programs.NAME]`, with `[defaults]` applied. Paths are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Matches `[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}`.
    pub name: String,
    /// The program and its arguments; never empty. A first word with a `/` that is not absolute is
    /// relative to `working_directory`, as after a `cd`; one without a `/` is looked up in PATH.
    pub command: Vec<String>,
    /// Where it runs.
    pub working_directory: PathBuf,
    /// Added to what is inherited, after `env_file`.
    pub environment: BTreeMap<String, String>,
    /// `KEY=VALUE` lines, read at every start.
    pub env_file: Option<PathBuf>,
    /// What else a program with a `user` gets of the daemon's own environment: names, and
    /// beginnings of names followed by `*`.
    pub pass_environment: Vec<String>,
    /// User name or number.
    pub user: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// File mode creation mask.
    pub umask: u32,
    /// Niceness, −20 to 19; `None`: the daemon's.
    pub nice: Option<i32>,
    /// −1000 to 1000; `None`: the daemon's.
    pub oom_score_adj: Option<i32>,
    /// Resource limits, by their name without `RLIMIT_`, in lower case.
    pub limits: BTreeMap<String, Limit>,
    /// Bytes of memory of a whole replica; `None`: no limit.
    pub memory_max: Option<u64>,
    /// Processes and threads of a whole replica; `None`: no limit.
    pub pids_max: Option<u32>,
    /// Processor time of a whole replica, in thousandths of one processor; `None`: no limit.
    pub cpu_max: Option<u32>,
    /// Started with the daemon.
    pub autostart: bool,
    /// Replicas, 1 or more.
    pub instances: u32,
    /// Names of programs that must be ready first.
    pub after: Vec<String>,
    /// When and whether it is started again.
    pub policy: Policy,
    /// The signal that asks it to stop, by number.
    pub stop_signal: i32,
    /// Whom a stop is for.
    pub kill_mode: KillMode,
    /// When it counts as ready.
    pub ready: Ready,
    /// Whether it still does its work.
    pub health: Health,
    /// The longest silence between two `WATCHDOG=1`; `None`: nobody listens for them.
    pub watchdog: Option<Duration>,
    /// `None`: into the daemon log, prefixed with the name.
    pub log_file: Option<PathBuf>,
    /// `HOST:PORT` where the program itself can be scraped; published on `/sd`.
    pub metrics_address: Option<String>,
}

/// A resource limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the program may raise it.
    pub hard: Option<u64>,
}

/// Whom a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// Every descendant, on stop and before a restart.
    Family,
    /// The program's own process alone.
    Process,
}

/// When a program counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as it runs.
    Immediately,
    /// When its main process has lived this long; positive.
    Alive(Duration),
    /// When it has ended with a success code.
    Exit,
    /// When it sends `READY=1` (sd_notify).
    Notify,
    /// When it passes this check.
    Check(Check),
}

/// A question to a program from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Passed when this `HOST:PORT` accepts a connection.
    Tcp(String),
    /// Passed when a GET of this URL answers 2xx.
    Http {
        /// `HOST:PORT`.
        authority: String,
        /// With its leading `/`.
        path: String,
    },
    /// Passed when this command exits with 0.
    Exec(Vec<String>),
}

impl Check {
    /// Returns the label value used in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http { .. } => "http",
            Self::Exec(_) => "exec",
        }
    }
}

/// Whether a program that is ready still does its work, asked again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `None`: nobody asks.
    pub check: Option<Check>,
    /// From ready to the first check, and from the end of each to the next; positive.
    pub interval: Duration,
    /// A check that takes longer has failed; positive.
    pub timeout: Duration,
    /// Failed checks in a row at which the program is ended; 1 or more.
    pub failures: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failures: 3,
        }
    }
}
