//! The record of one replica between two publications.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::ledger::{LastExit, Ledger, describe};
use super::published::Program;
use super::telling::Facts;
use super::{About, text, why};
use crate::control::api;
use crate::supervision::{Cause, Exit, ExitReason, Id, SpawnFailure, State, View};

/// What is kept of one replica.
pub(super) struct Record {
    pub(super) about: Arc<About>,
    pub(super) ledger: Ledger,
    pub(super) view: View,
    pub(super) shown: Arc<AtomicU64>,
    /// A crash whose consequence is not known yet.
    pub(super) crash: Option<api::Crash>,
    /// An end that a restart may follow: when it was seen, and the delays decided since.
    pub(super) pause: Option<(Instant, Duration)>,
    /// Why its last health check failed, if it did, and which of how many in a row that was.
    pub(super) failing: Option<Failing>,
    /// A limit that is configured and not in force, and why.
    pub(super) lacking: Option<Arc<str>>,
    /// It was asked to go at this moment, and is not gone yet.
    pub(super) stopping: Option<Instant>,
}

/// A health check that failed.
pub(super) struct Failing {
    pub row: u32,
    pub of: u32,
    pub why: String,
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, of, why } = self;
        write!(f, "health check failed {row} of {of}: {why}")
    }
}

/// What to say of an event: how important, its kind, the sentence and the facts in it.
pub(super) type Line<'a> = (Level, &'static str, String, Facts<'a>);

impl Record {
    pub(super) fn started(&mut self, cause: Option<Cause>, now: Instant) {
        self.ledger.start(cause);
        self.failing = None;
        self.gone(now);
        // One that came before its delay was over is a person's doing, and has no latency.
        if let Some((since, delay)) = self.pause.take()
            && cause.is_some()
            && let Some(latency) = now.saturating_duration_since(since).checked_sub(delay)
        {
            self.ledger.restart_latency.observe(latency);
        }
    }

    /// Everything of a run that was asked to go is gone.
    pub(super) fn gone(&mut self, now: Instant) {
        if let Some(since) = self.stopping.take() {
            self.ledger
                .stop
                .observe(now.saturating_duration_since(since));
        }
    }

    pub(super) fn delayed(&mut self, by: Duration) {
        if let Some((_, delay)) = &mut self.pause {
            *delay += by;
        }
    }

    pub(super) fn start_hangs(&self) -> String {
        why::start_hangs(self.ledger.start_hangs.as_deref().unwrap_or_default())
    }

    pub(super) fn start_failed(&mut self, failure: &SpawnFailure, now: Instant, at: SystemTime) {
        self.ledger.start_failed(failure, at);
        self.pause = Some((now, Duration::ZERO));
        self.crash = self.crash_record(None);
    }

    pub(super) fn exited(&mut self, exit: &Exit, now: Instant, at: SystemTime) {
        self.ledger.exit(exit, at);
        // After an end of our own making the policy has the next word, not an order.
        if matches!(
            exit.reason,
            ExitReason::StartupTimeout | ExitReason::Health | ExitReason::Watchdog
        ) {
            self.gone(now);
        }
        if let (ExitReason::Health, Some(why), Some(last)) =
            (exit.reason, self.failing.take(), &mut self.ledger.last_exit)
        {
            let how = describe(exit.reason, exit.status);
            let cause = how
                .strip_suffix(')')
                .map(|how| format!("{how}: {})", why.why));
            last.description = cause.unwrap_or(how).into();
        }
        self.pause = Some((now, Duration::ZERO));
        if exit.reason.is_crash() {
            self.crash = self.crash_record(Some(exit.pid));
        }
    }

    fn crash_record(&self, pid: Option<i32>) -> Option<api::Crash> {
        let exit: &LastExit = self.ledger.last_exit.as_ref()?;
        Some(api::Crash {
            at: text::rfc3339(exit.at),
            program: self.about.name.clone(),
            replica: self.about.replica,
            pid,
            reason: exit.reason.label().to_owned(),
            code: exit.code(),
            signal: exit.signal(),
            description: exit.description.to_string(),
            ran_seconds: exit.ran.as_secs_f64(),
            verdict: String::new(),
            last_output: Vec::new(),
        })
    }

    pub(super) fn exit_line<'a>(&self, exit: &Exit) -> Line<'a> {
        let how = self
            .ledger
            .last_exit
            .as_ref()
            .map_or("", |last| &*last.description);
        let level = if exit.reason.is_crash() {
            Level::WARN
        } else {
            Level::INFO
        };
        let facts = Facts {
            pid: Some(exit.pid),
            run: Some(exit.run.number()),
            reason: Some(exit.reason.label()),
            code: exit.status.code(),
            signal: exit.status.signal(),
            took: Some(exit.ran),
            ..Facts::default()
        };
        (
            level,
            "exited",
            format!("exited: {how}, ran {}", text::duration(exit.ran)),
            facts,
        )
    }

    pub(super) fn program(&self, id: Id, (now, wall): (Instant, SystemTime)) -> Program {
        let due = matches!(self.view.state, State::Backoff | State::Failed);
        let deadline = self.view.deadline.filter(|_| due);
        Program {
            id,
            about: Arc::clone(&self.about),
            view: self.view.clone(),
            ledger: self.ledger.clone(),
            failing: self
                .failing
                .as_ref()
                .map(|failing| failing.to_string().into()),
            lacking: self.lacking.clone(),
            next_start: deadline.map(|at| wall + at.saturating_duration_since(now)),
            shown: Arc::clone(&self.shown),
        }
    }
}

pub(super) fn started_sentence(cause: Option<Cause>) -> String {
    match cause {
        None => "started".to_owned(),
        Some(cause) => format!("restarted ({})", cause.label()),
    }
}

/// How a program stands before the loop has said anything about it.
pub(super) fn unknown() -> View {
    View {
        state: State::Stopped,
        desired: false,
        ready: false,
        run: None,
        ran: Duration::ZERO,
        crashes: Vec::new(),
        deadline: None,
        ready_at: None,
        failed_starts: 0,
        backoff: None,
        why: "not started yet",
        waits_for: None,
    }
}
