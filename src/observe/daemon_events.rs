//! What there is to tell about the daemon itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::Level;

use super::telling::{Facts, Telling, tell};
use super::{Observer, statistics, text};
use crate::control::api;
use crate::supervision::Outcome;

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
    /// Processes that speak for no program said READY=1 or WATCHDOG=1.
    StrangersSpoke {
        /// How many times since this was told last.
        count: u64,
        /// The last of them.
        pid: i32,
        /// The user that it was.
        uid: u32,
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
    /// A run of a program in process mode ended and left descendants alone.
    LeftAlone {
        /// The program's display name.
        program: String,
        /// How many of this program live by now.
        count: usize,
    },
    /// All programs have ended, and processes that belong to none are left.
    RestFound {
        /// How many.
        count: usize,
    },
    /// The statistics line is due.
    Statistics,
    /// It stops every program and then itself.
    Stopping {
        /// Why: "SIGTERM", "asked to stop …", "nothing is left to run".
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
    /// A thread of it has ended before its time.
    ThreadEnded {
        /// What it is called.
        thread: &'static str,
        /// What ended it.
        why: String,
    },
    /// Spans could not be exported.
    SpansDropped {
        /// How many.
        count: u64,
    },
}

impl Observer {
    /// Records something that happened to the daemon.
    pub fn tell(&mut self, event: &DaemonEvent) {
        let at = SystemTime::now();
        if let DaemonEvent::Stopping { reason } = event {
            self.shutting_down(reason);
        }
        let shutdown = self.shutdown();
        let _inside = shutdown.enter();
        let (level, kind, message) = match event {
            DaemonEvent::Started { programs } => {
                let version = &self.draft.identity.version;
                let message = format!("eternal {version} started, programs: {programs}");
                (Level::INFO, "daemon_started", message)
            }
            DaemonEvent::Ready => (
                Level::INFO,
                "daemon_ready",
                "every program is ready".to_owned(),
            ),
            DaemonEvent::SignalReceived { name } => {
                self.metrics.signal(name);
                (Level::INFO, "signal", format!("{name} received"))
            }
            DaemonEvent::ReloadSucceeded { message } => {
                self.reloaded(true, message, at);
                (
                    Level::INFO,
                    "reloaded",
                    format!("configuration reloaded: {message}"),
                )
            }
            DaemonEvent::ReloadFailed { message } => {
                self.reloaded(false, message, at);
                (
                    Level::ERROR,
                    "reload_failed",
                    format!("reload failed, nothing changed: {message}"),
                )
            }
            DaemonEvent::OrphanReaped { pid } => {
                self.metrics.orphan();
                (
                    Level::DEBUG,
                    "orphan_reaped",
                    format!("reaped orphan {pid}"),
                )
            }
            DaemonEvent::StrangersSpoke { count, pid, uid } => {
                let message = format!(
                    "notifications ignored: {count}, the last from process {pid} of uid {uid}, \
                     which speaks for no program here"
                );
                (Level::WARN, "notifications_ignored", message)
            }
            DaemonEvent::SurvivorsFound { count } => {
                let message =
                    format!("an earlier daemon left processes behind: {count}; ending them");
                (Level::WARN, "survivors_found", message)
            }
            DaemonEvent::SurvivorsEnded { count } => (
                Level::INFO,
                "survivors_ended",
                format!("left-over processes ended: {count}"),
            ),
            DaemonEvent::LeftAlone { program, count } => {
                let these = if *count == 1 { "process" } else { "processes" };
                let message = format!(
                    "{program}: ended and left {count} {these} alone, as kill_mode = \"process\" says"
                );
                (Level::WARN, "left_alone", message)
            }
            DaemonEvent::RestFound { count } => {
                let message = format!("processes that belong to no program: {count}; ending them");
                (Level::WARN, "rest_found", message)
            }
            DaemonEvent::Statistics => return statistics::log(&self.reader.status()),
            DaemonEvent::Stopping { reason } => {
                self.draft.stopping = true;
                self.draft.end.get_or_insert_with(|| reason.as_str().into());
                self.publish_draft();
                (
                    Level::INFO,
                    "daemon_stopping",
                    format!("stopping: {reason}"),
                )
            }
            DaemonEvent::Lingering { limit } => {
                let limit = text::duration(*limit);
                (
                    Level::INFO,
                    "lingering",
                    format!("serving the final metrics for at most {limit}"),
                )
            }
            DaemonEvent::Ended { code } => {
                self.shut_down();
                (
                    Level::INFO,
                    "daemon_ended",
                    format!("ended with exit code {code}"),
                )
            }
            DaemonEvent::LogsReopened => (
                Level::INFO,
                "logs_reopened",
                "log files reopened".to_owned(),
            ),
            DaemonEvent::ThreadEnded { thread, why } => (
                Level::ERROR,
                "thread_ended",
                format!("the thread {thread} has ended: {why}"),
            ),
            DaemonEvent::LogTrouble { message } => (Level::WARN, "log_trouble", message.clone()),
            DaemonEvent::Trouble { message } => (Level::WARN, "trouble", message.clone()),
            DaemonEvent::LoopLag { late } => return self.metrics.turns().woke(*late),
            DaemonEvent::SpansDropped { count } => return self.metrics.spans_dropped(*count),
        };
        let telling = Telling {
            level,
            program: "",
            kind,
            message,
            facts: Facts::default(),
        };
        tell(telling, at, &self.events);
    }

    /// Says why the daemon ends, in a sentence: who gave up and why, or who asked for it.
    #[must_use]
    pub fn why_it_ends(&self, outcome: Outcome, status: &api::Status) -> String {
        let told = self.draft.end.as_deref().unwrap_or_default();
        match outcome {
            Outcome::Stopped | Outcome::Completed => told.to_owned(),
            Outcome::Unkillable => format!("{told}; some processes could not be killed"),
            Outcome::Failed => {
                let failed = status.programs.iter().filter(|p| p.state == "failed");
                let reasons: Vec<String> = failed
                    .map(|program| format!("{}: {}", program.display_name, program.why))
                    .collect();
                format!("gave up: {}", reasons.join("; "))
            }
        }
    }

    fn reloaded(&mut self, successful: bool, message: &str, at: SystemTime) {
        self.metrics.reload(successful, text::unix_seconds(at));
        self.draft.last_reload = Some(Arc::new(api::ReloadStatus {
            at: text::rfc3339(at),
            successful,
            message: message.to_owned(),
        }));
        self.publish_draft();
    }
}
