//! The published snapshot: the one source of `status`, `/metrics`, `/-/ready`, the status page and
//! the statistics line.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::ledger::Ledger;
use super::resources::Sample;
use super::{About, Identity, text, why};
use crate::control::api;
use crate::supervision::{Cause, ExitReason, Id, State, View};

/// Programs that share one allocation: a change copies one chunk and the list of chunks.
const CHUNK: usize = 64;
type Chunk = [Option<Arc<Program>>; CHUNK];

/// One replica of a program at the moment of publication.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which one.
    pub id: Id,
    /// What it is.
    pub about: Arc<About>,
    /// How it stands.
    pub view: View,
    /// What has happened to it.
    pub ledger: Ledger,
    /// Its last health check failed: how the row of failures stands, and why.
    pub failing: Option<Arc<str>>,
    /// A limit that is configured and not in force, and why.
    pub lacking: Option<Arc<str>>,
    /// When its next automatic start is due, by the wall clock at publication.
    pub next_start: Option<SystemTime>,
    /// The most run time ever shown, in nanoseconds. A run may be seen to have lasted longer than
    /// it turns out to have, and a counter may not go back.
    pub(super) shown: Arc<AtomicU64>,
}

impl Program {
    /// Returns how long the present run has lasted.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Option<Duration> {
        self.view
            .run
            .map(|(_, _, since)| now.saturating_duration_since(since))
    }

    /// Returns the accumulated run time, the present run included; it never goes back.
    #[must_use]
    pub fn run_time(&self, now: Instant) -> Duration {
        let true_time = self.view.ran + self.uptime(now).unwrap_or_default();
        let nanos = u64::try_from(true_time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.shown.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }

    /// Returns the crashes left before it is given up.
    #[must_use]
    pub fn crashes_left(&self, now: Instant) -> u32 {
        self.about
            .crash_budget
            .saturating_sub(self.recent_crashes(now))
    }

    /// Returns the crashes within the window.
    #[must_use]
    pub fn recent_crashes(&self, now: Instant) -> u32 {
        let ran = self.view.ran + self.uptime(now).unwrap_or_default();
        let since = ran.saturating_sub(self.about.crash_window);
        let recent = self
            .view
            .crashes
            .iter()
            .filter(|stamp| **stamp >= since)
            .count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// Tells whether it is missing: it starts with the daemon and is neither ready nor done.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.about.autostart && !self.view.ready && self.view.state != State::Completed
    }

    fn status(&self, among: &Published, now: Instant, sample: &Sample) -> api::ProgramStatus {
        let ledger = &self.ledger;
        let run = self.view.run;
        let usage = run.and_then(|(run, _, _)| sample.runs.get(&(self.id, run)));
        let due = self.view.deadline.filter(|_| self.next_start.is_some());
        api::ProgramStatus {
            name: self.about.name.clone(),
            replica: self.about.replica,
            display_name: self.about.display_name.clone(),
            state: self.view.state.label().to_owned(),
            ready: self.view.ready,
            desired_running: self.view.desired,
            pid: run.map(|(_, pid, _)| pid),
            run_time_seconds: self.run_time(now).as_secs_f64(),
            uptime_seconds: self.uptime(now).map(|d| d.as_secs_f64()),
            started_at: run.and(ledger.started_at).map(text::rfc3339),
            starts: ledger.starts,
            restarts: ledger.all_restarts(),
            restarts_by_cause: named(Cause::ALL.map(Cause::label), &ledger.restarts),
            crashes: ledger.crashes,
            exits: named(ExitReason::ALL.map(ExitReason::label), &ledger.exits),
            crash_budget: self.about.crash_budget,
            crash_budget_remaining: self.crashes_left(now),
            memory_bytes: usage.map(|u| u.resident_bytes),
            cpu_seconds: usage.map(|u| u.run_cpu_seconds),
            last_exit: ledger
                .last_exit
                .as_ref()
                .map(super::ledger::LastExit::to_api),
            why: why::why(self, among),
            next: why::next(self, now),
            health_failing: self.failing.as_deref().map(str::to_owned),
            limits_not_in_force: self.lacking.as_deref().map(str::to_owned),
            next_restart_seconds: due.map(|at| at.saturating_duration_since(now).as_secs_f64()),
            command: self.about.command.clone(),
        }
    }
}

fn named<const N: usize>(labels: [&str; N], counts: &[u64; N]) -> BTreeMap<String, u64> {
    let counted = labels
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0);
    counted
        .map(|(label, count)| (label.to_owned(), *count))
        .collect()
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Published {
    /// What does not change while the daemon lives.
    pub identity: Arc<Identity>,
    /// How the last reload ended.
    pub last_reload: Option<Arc<api::ReloadStatus>>,
    /// The daemon is ending.
    pub stopping: bool,
    /// Why, once it is.
    pub end: Option<Arc<str>>,
    chunks: Vec<Arc<Chunk>>,
}

impl Published {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            last_reload: None,
            stopping: false,
            end: None,
            chunks: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, id: Id, program: Option<Arc<Program>>) {
        let (chunk, slot) = (id.0 as usize / CHUNK, id.0 as usize % CHUNK);
        while self.chunks.len() <= chunk {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[chunk])[slot] = program;
    }

    /// Returns every replica, in the order in which they were added.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// Returns one replica.
    #[must_use]
    pub fn program(&self, id: Id) -> Option<&Arc<Program>> {
        self.chunks.get(id.0 as usize / CHUNK)?[id.0 as usize % CHUNK].as_ref()
    }

    /// Returns the display names of the programs that start with the daemon and are not ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let missing = self.programs().filter(|program| program.is_missing());
        missing
            .map(|program| program.about.display_name.as_str())
            .collect()
    }

    /// Returns the whole status: the only place that makes one.
    #[must_use]
    pub fn status(&self, sample: &Sample) -> api::Status {
        let now = Instant::now();
        let identity = &self.identity;
        api::Status {
            daemon: api::DaemonStatus {
                version: identity.version.clone(),
                pid: std::process::id(),
                started_at: text::rfc3339(identity.started_at),
                uptime_seconds: now.saturating_duration_since(identity.since).as_secs_f64(),
                config_file: identity.config_file.clone(),
                last_reload: self.last_reload.as_deref().cloned(),
                stopping: self.stopping,
                metrics_address: identity.metrics_address.clone(),
                arguments: identity.arguments.clone(),
                directory: identity.directory.clone(),
                service: identity.service,
                unit: identity.unit.clone(),
            },
            programs: self
                .side_by_side()
                .into_iter()
                .map(|p| p.status(self, now, sample))
                .collect(),
        }
    }

    /// Returns every replica beside the others of its program, those that came later, too.
    fn side_by_side(&self) -> Vec<&Arc<Program>> {
        let mut programs: Vec<_> = self.programs().collect();
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (place, program) in programs.iter().enumerate() {
            first.entry(&program.about.name).or_insert(place);
        }
        programs.sort_by_key(|program| {
            let about = &program.about;
            (first.get(about.name.as_str()).copied(), about.replica)
        });
        programs
    }
}
