//! The types both sides of the control socket speak. Their JSON is public: fields are added, never
//! renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /v1/status`: everything there is to know, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The supervisor itself.
    pub daemon: DaemonStatus,
    /// Every replica of every program, in the order of the config; those that a reload added last.
    pub programs: Vec<ProgramStatus>,
}

/// The supervisor itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// The config file in force; `None` when there is none.
    pub config_file: Option<String>,
    /// How the last reload ended; `None` before the first.
    pub last_reload: Option<ReloadStatus>,
    /// The daemon is ending.
    pub stopping: bool,
    /// Where `/metrics` is served: `127.0.0.1:10477`, `unix:/path`; `None` when it is off.
    pub metrics_address: Option<String>,
    /// The command line it was started with, without the program's own name.
    pub arguments: Vec<String>,
    /// The directory it was started in.
    pub directory: String,
    /// A service manager started it and is told how it is (sd_notify).
    #[serde(default)]
    pub service: bool,
    /// What `systemctl` calls that service: `eternal.service`, `--user eternal.service`.
    #[serde(default)]
    pub unit: Option<String>,
}

/// What a daemon leaves in its `state_dir` as `last.json`, for questions that are asked when it is gone.
/// It is written when something changed, at most once a second, and at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// RFC 3339, UTC.
    pub written_at: String,
    /// How it ended; `None`: it had not when this was written.
    pub ended: Option<Ended>,
    /// How everything stood, without what the programs used.
    pub status: Status,
}

/// How a daemon ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// RFC 3339, UTC.
    pub at: String,
    /// Its exit code.
    pub code: u8,
    /// Why, in a sentence: "SIGTERM", "gave up: web: crash loop: …".
    pub reason: String,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// RFC 3339, UTC.
    pub at: String,
    /// Whether the new config is in force.
    pub successful: bool,
    /// What went wrong, or what was done.
    pub message: String,
}

/// One replica of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// The program's name in the config.
    pub name: String,
    /// 0, 1, …; 0 for a program with one instance.
    pub replica: u32,
    /// How people call it: `web`, or `web/1` where there are several instances.
    pub display_name: String,
    /// `stopped`, `starting`, `running`, `stopping`, `backoff`, `failed` or `completed`.
    pub state: String,
    /// It has a process and passed its readiness check.
    pub ready: bool,
    /// Somebody wants it to run.
    pub desired_running: bool,
    /// Its main process.
    pub pid: Option<i32>,
    /// Seconds since the present run began.
    pub uptime_seconds: Option<f64>,
    /// Seconds of all runs together, the present one included.
    #[serde(default)]
    pub run_time_seconds: f64,
    /// When the present run began; RFC 3339, UTC.
    pub started_at: Option<String>,
    /// Starts, successful or not.
    pub starts: u64,
    /// Starts that were restarts, of every cause.
    pub restarts: u64,
    /// The same by cause.
    pub restarts_by_cause: BTreeMap<String, u64>,
    /// Ends that were crashes.
    pub crashes: u64,
    /// Ends by reason; reasons that never happened are left out.
    pub exits: BTreeMap<String, u64>,
    /// Crashes within the window at which it is given up.
    pub crash_budget: u32,
    /// Crashes left before it is given up.
    pub crash_budget_remaining: u32,
    /// Resident memory of the whole process tree, in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time of the whole process tree, in seconds, this run.
    pub cpu_seconds: Option<f64>,
    /// How the last run ended.
    pub last_exit: Option<LastExit>,
    /// Why it is in this state, in a sentence.
    pub why: String,
    /// What happens next, or what it takes, in a sentence; `None` when nothing is due.
    pub next: Option<String>,
    /// How its health check fails, while it does: "health check failed 2 of 3: …".
    #[serde(default)]
    pub health_failing: Option<String>,
    /// The limits that are configured and not in force, and why.
    #[serde(default)]
    pub limits_not_in_force: Option<String>,
    /// Seconds until the next automatic restart, while one is due.
    pub next_restart_seconds: Option<f64>,
    /// The command line.
    pub command: Vec<String>,
}

impl ProgramStatus {
    /// Whether a name people use means it: `web` for every replica, `web/1` for one.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name
            || self.display_name == name
            || name.split_once('/').is_some_and(|(program, replica)| {
                program == self.name && replica.parse() == Ok(self.replica)
            })
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastExit {
    /// RFC 3339, UTC.
    pub at: String,
    /// A label of `eternal_program_exits_total`.
    pub reason: String,
    /// It counted as a crash.
    pub crash: bool,
    /// The exit code, if it exited with one.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// How long the run lasted, in seconds.
    pub ran_seconds: f64,
    /// The same for people: "exit code 3", "SIGSEGV (core dumped)", "cannot execute …".
    pub description: String,
}

/// One line of the crash history: `GET /v1/crashes`, and a line of the file in `state_dir`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crash {
    /// RFC 3339, UTC.
    pub at: String,
    /// The program's name in the config.
    pub program: String,
    /// 0, 1, …
    pub replica: u32,
    /// The process that crashed; `None` when there was none.
    pub pid: Option<i32>,
    /// A label of `eternal_program_exits_total`.
    pub reason: String,
    /// The exit code, if it exited with one.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// How it ended, for people.
    pub description: String,
    /// How long the run lasted, in seconds.
    pub ran_seconds: f64,
    /// What was decided: "restart in 2 s", "gave up: 5 crashes within 60 s of run time".
    pub verdict: String,
    /// The last lines it wrote, oldest first.
    pub last_output: Vec<String>,
}

/// `GET /v1/crashes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crashes {
    /// Oldest first.
    pub crashes: Vec<Crash>,
}

/// `GET /v1/health`: answered by the supervision loop itself, so a loop that is stuck gives none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What `/-/ready` waits for: display names of the programs that start with the daemon and are
    /// not ready.
    pub not_ready: Vec<String>,
}

/// What a person may ask of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Start it; clears its crash record.
    Start,
    /// Stop it and its family.
    Stop,
    /// Stop it if it runs, then start it.
    Restart,
}

impl Verb {
    /// Returns its word in paths and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// Reads its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Start, Self::Stop, Self::Restart]
            .into_iter()
            .find(|verb| verb.as_str() == word)
    }
}

/// The answer to `POST /v1/programs/NAME/VERB`: sent when the order is carried out, or has failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The order was carried out: the program is ready, or down.
    pub ok: bool,
    /// What became of it, a sentence for each replica.
    pub messages: Vec<String>,
}

/// `POST /v1/reload`, with `?restart=true` to restart every program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Programs added and started.
    pub added: Vec<String>,
    /// Programs stopped and removed.
    pub removed: Vec<String>,
    /// Programs that were restarted.
    pub restarted: Vec<String>,
    /// Programs that run something else from their next start on: they are not up, and stay so.
    #[serde(default)]
    pub not_running: Vec<String>,
    /// Programs with another number of replicas, and the numbers.
    #[serde(default)]
    pub resized: Vec<String>,
    /// Programs whose policy changed without a restart.
    pub updated: Vec<String>,
    /// How many were left alone.
    pub unchanged: usize,
    /// Settings that only a restart of the daemon can change.
    pub needs_daemon_restart: Vec<String>,
}

/// Any answer that is not a success: status code 4xx or 5xx with this body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Names the thing, the value and the rule.
    pub error: String,
}

/// A captured line: `GET /v1/logs?program=NAME&lines=N&follow=true`, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// RFC 3339, UTC; `null` where the line's file does not say.
    pub at: Option<String>,
    /// How people call the replica.
    pub program: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end; what is not UTF-8 is replaced.
    pub line: String,
}

/// A lifecycle event: `GET /v1/events`, as server-sent events whose `event:` is `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// RFC 3339, UTC.
    pub at: String,
    /// How people call the replica; empty for the daemon's own.
    pub program: String,
    /// `started`, `ready`, `exited`, `backing_off`, …
    pub kind: String,
    /// The sentence of the log.
    pub message: String,
}

/// A line that a daemon starting in the background writes to its standard output, for the command
/// that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What happens at this moment, or how it ended.
    pub message: String,
    /// `None` while it goes on; then whether every program is up. Nothing follows an outcome.
    pub outcome: Option<bool>,
    /// The exit code of a daemon that ends with this; `None` when it goes on.
    #[serde(default)]
    pub code: Option<u8>,
}
