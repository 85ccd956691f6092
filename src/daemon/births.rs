//! Starts: from the decision that a run shall be to the news that it is.
//!
//! ```text
//! Action::Spawn ─ nothing to look up ───────▶ room? ─▶ Children::begin ─▶ Spawned
//!        ╰─ env_file, user, log ─▶ errand ────▲  ╰─ waits for it        ╰▶ SpawnFailed
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::mpsc;

use super::commands::{Commands, Purpose};
use super::core::Core;
use super::errands::Errands;
use super::slots::Slot;
use crate::config::{Check, Ready};
use crate::control::server::reserve::{self, Claim};
use crate::os::children::{Prepared, Stdio};
use crate::os::logs::LogError;
use crate::supervision::{FailureKind, Id, Input, Run, SpawnFailure};

/// What has been looked up for a run, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// To start it.
    Start(Run),
    /// To run commands in its surroundings.
    Surroundings(Run),
}

/// What comes back from an errand.
pub(super) type LookedUp = (Errand, Result<Prepared, SpawnFailure>);

/// Starts under way that have no process yet, and what is kept of those that have.
#[derive(Debug)]
pub(super) struct Births {
    errands: Errands<Errand, Result<Prepared, SpawnFailure>>,
    /// Runs of which something is looked up: how far that is.
    looking: HashMap<Run, Arc<AtomicU8>>,
    /// Looked up, and waiting for others to be born.
    waiting: VecDeque<(Run, Arc<Prepared>)>,
    /// For the commands that look after a run; `None`: somebody looks it up.
    surroundings: HashMap<Run, Option<Arc<Prepared>>>,
}

impl Births {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<LookedUp>) {
        let (errands, answers) = Errands::new();
        let births = Self {
            errands,
            looking: HashMap::new(),
            waiting: VecDeque::new(),
            surroundings: HashMap::new(),
        };
        (births, answers)
    }

    /// A run is over.
    pub fn forget(&mut self, run: Run) {
        self.surroundings.remove(&run);
    }
}

impl Core {
    /// Begins a run. What becomes of it is told by `Spawned` or `SpawnFailed`.
    pub(super) fn spawn(&mut self, id: Id, run: Run) {
        let Some(slot) = self.slots.get(&id).cloned() else {
            let message = "the program is not configured any more".to_owned();
            return self.start_failed(run, refuse(FailureKind::Exec, message));
        };
        let trace = self.observer.try_start(id);
        if !slot.looks_up() && self.logs.is_ready(id) {
            let prepared = self.prepare(&slot, run, trace, &AtomicU8::new(0));
            return self.prepared(run, prepared);
        }
        // It opens a log file, and the reserve is not for those either.
        if let Err(failure) = self.may_start() {
            return self.start_failed(run, failure);
        }
        let far = Arc::new(AtomicU8::new(0));
        self.births.looking.insert(run, Arc::clone(&far));
        if let Err(failure) = self.send_for(Errand::Start(run), slot, trace, far) {
            self.births.looking.remove(&run);
            self.start_failed(run, failure);
        }
    }

    /// Takes what was looked up.
    pub(super) fn looked_up(&mut self, (errand, prepared): LookedUp) {
        match errand {
            // Otherwise it was given up meanwhile.
            Errand::Start(run) => {
                if self.births.looking.remove(&run).is_some() {
                    self.prepared(run, prepared);
                }
            }
            Errand::Surroundings(run) => {
                if let Some(kept) = self.births.surroundings.get_mut(&run) {
                    *kept = prepared.ok().map(Arc::new);
                    if kept.is_none() {
                        self.births.surroundings.remove(&run);
                    }
                }
            }
        }
    }

    /// A run, or a command that finds out about one, executes its program.
    pub(super) fn spawned(&mut self, id: Id, run: Run, pid: i32) {
        if !Commands::is_command(id) {
            self.step(id, Input::Spawned(run, pid));
        }
        self.let_in();
    }

    /// A run, or a command that finds out about one, has come to nothing.
    pub(super) fn not_spawned(&mut self, id: Id, run: Run, failure: SpawnFailure) {
        if Commands::is_command(id) {
            match self.commands.ended(run) {
                Some((Purpose::Readiness, of)) => self.readiness.command_failed(of),
                Some((Purpose::Health, of)) => self.check_failed((run, of), failure),
                None => {}
            }
        } else {
            self.start_failed(run, failure);
        }
        self.let_in();
    }

    /// Kills a run, wherever it is on its way.
    pub(super) fn kill_run(&mut self, run: Run) {
        let place = self.whereabouts(run);
        let waits = self.births.waiting.iter().any(|(of, _)| *of == run);
        if self.births.looking.remove(&run).is_none() && !waits {
            return self.children.kill(run);
        }
        self.births.errands.take_back(&Errand::Start(run));
        self.births.waiting.retain(|(of, _)| *of != run);
        let message = format!("its start hung and was ended: {place}");
        self.start_failed(run, refuse(FailureKind::Timeout, message));
    }

    /// A start takes long: says what it hangs in, and lets others pass.
    pub(super) fn start_hangs(&mut self, run: Run) -> String {
        let place = self.whereabouts(run);
        // Should we end before it: the next daemon has to know of it, or it may come to run twice.
        if let (Some(pid), Some(slot)) = (self.children.pid(run), self.slots.get(&run.id())) {
            self.journal.running(run.id().0, pid, &slot.display_name());
        }
        let queued = Errand::Start(run);
        if self.births.looking.contains_key(&run) && self.births.errands.take_back(&queued) {
            self.births.looking.remove(&run);
            let failure = SpawnFailure {
                kind: FailureKind::Limits,
                transient: true,
                message: format!("{place}: look-ups for other programs hang"),
            };
            self.start_failed(run, failure);
        }
        self.let_in();
        place
    }

    /// Returns what the commands of a run find around them; `None`: it has to be looked up, which
    /// somebody does now.
    ///
    /// # Errors
    ///
    /// As for a start.
    pub(super) fn surroundings(&mut self, run: Run) -> Result<Option<Arc<Prepared>>, SpawnFailure> {
        if let Some(kept) = self.births.surroundings.get(&run) {
            return Ok(kept.clone());
        }
        let Some(slot) = self.slots.get(&run.id()).cloned() else {
            return Ok(None);
        };
        if !slot.looks_up() {
            let prepared = self.prepare(&slot, run, None, &AtomicU8::new(0))?;
            return Ok(Some(Arc::new(prepared)));
        }
        self.births.surroundings.insert(run, None);
        let sent = self.send_for(Errand::Surroundings(run), slot, None, Arc::default());
        sent.inspect_err(|_| self.births.forget(run))?;
        Ok(None)
    }

    /// Prepares a command that finds out about a run, if its surroundings are known.
    pub(super) fn prepare_command(&mut self, run: Run, words: &[String]) -> Option<Prepared> {
        let surroundings = self.surroundings(run).ok()??;
        let slot = self.slots.get(&run.id())?;
        let launch = slot.probe_launch(words, surroundings.launch());
        surroundings.sibling(launch, "").ok()
    }

    fn prepare(
        &self,
        slot: &Slot,
        run: Run,
        trace: Option<String>,
        far: &AtomicU8,
    ) -> Result<Prepared, SpawnFailure> {
        let notify = self.readiness.notify_address();
        let launch = slot.launch(&self.inherited, notify, trace)?;
        far.store(1, Ordering::Relaxed);
        Prepared::new(launch, &self.children.mark(run.id(), run))
    }

    /// As [`Self::prepare`], by somebody else.
    fn send_for(
        &self,
        errand: Errand,
        slot: Slot,
        trace: Option<String>,
        far: Arc<AtomicU8>,
    ) -> Result<(), SpawnFailure> {
        let (Errand::Start(run) | Errand::Surroundings(run)) = errand;
        let mark = self.children.mark(run.id(), run);
        let (inherited, notify) = (
            self.inherited.clone(),
            self.readiness.notify_address().to_owned(),
        );
        let logs = self.logs.clone();
        let work = move || {
            let launch = slot.launch(&inherited, &notify, trace)?;
            far.store(1, Ordering::Relaxed);
            let prepared = Prepared::new(launch, &mark)?;
            far.store(2, Ordering::Relaxed);
            let opened = match errand {
                Errand::Start(run) => logs.prepare(run.id()),
                Errand::Surroundings(_) => Ok(()),
            };
            opened.map_err(|error| unloggable(&error))?;
            Ok(prepared)
        };
        let sent = self.births.errands.send(errand, work);
        sent.map_err(|error| SpawnFailure {
            kind: FailureKind::Limits,
            transient: true,
            message: format!("cannot make a thread that prepares it: {error}"),
        })
    }

    fn prepared(&mut self, run: Run, prepared: Result<Prepared, SpawnFailure>) {
        match prepared {
            Ok(prepared) if self.children.has_room() => self.bear(run, Arc::new(prepared)),
            Ok(prepared) => self.births.waiting.push_back((run, Arc::new(prepared))),
            Err(failure) => self.start_failed(run, failure),
        }
    }

    fn bear(&mut self, run: Run, prepared: Arc<Prepared>) {
        let id = run.id();
        let slot = self.slots.get(&id);
        if slot.is_some_and(|slot| slot.looks_up() && has_commands(slot)) {
            let kept = Some(Arc::clone(&prepared));
            self.births.surroundings.insert(run, kept);
        }
        let begun = self
            .may_start()
            .and_then(|()| self.streams(id, run))
            .and_then(|stdio| self.children.begin((id, run), prepared, stdio));
        self.logs.attend();
        if let Err(failure) = begun {
            self.start_failed(run, failure);
        }
    }

    /// Leaves the last descriptors to those who can help when programs have used up the others.
    fn may_start(&self) -> Result<(), SpawnFailure> {
        if reserve::allows(Claim::Start(self.births.looking.len())) {
            return Ok(());
        }
        let message = "the daemon has only its last descriptors left, which it keeps for orders and \
                       logs: raise its limit (ulimit -n, LimitNOFILE=) or stop other programs";
        Err(SpawnFailure {
            kind: FailureKind::Limits,
            transient: true,
            message: message.to_owned(),
        })
    }

    fn streams(&mut self, id: Id, run: Run) -> Result<Stdio, SpawnFailure> {
        let opened = self.logs.open(id, run);
        let (stdout, stderr) = opened.map_err(|error| SpawnFailure {
            kind: FailureKind::Limits,
            transient: true,
            message: format!("cannot make a pipe for its output: {error}"),
        })?;
        Ok(Stdio { stdout, stderr })
    }

    /// Lets in those who waited for room.
    fn let_in(&mut self) {
        while self.children.has_room()
            && let Some((run, prepared)) = self.births.waiting.pop_front()
        {
            self.bear(run, prepared);
        }
    }

    fn start_failed(&mut self, run: Run, failure: SpawnFailure) {
        self.births.forget(run);
        self.journal.ended(run.id().0);
        self.step(run.id(), Input::SpawnFailed(run, failure));
    }

    /// Says what a start is busy with.
    fn whereabouts(&mut self, run: Run) -> String {
        if let Some(place) = self.children.hangs(run) {
            return place;
        }
        let slot = self.slots.get(&run.id());
        let far = self.births.looking.get(&run);
        match (far, slot) {
            (Some(far), Some(slot)) => slot.looks_for(far.load(Ordering::Relaxed)),
            _ => "many others are being started".to_owned(),
        }
    }
}

/// Whether commands find out about it.
fn has_commands(slot: &Slot) -> bool {
    let program = &slot.program;
    matches!(program.ready, Ready::Check(Check::Exec(_)))
        || matches!(program.health.check, Some(Check::Exec(_)))
}

fn refuse(kind: FailureKind, message: String) -> SpawnFailure {
    SpawnFailure {
        kind,
        transient: false,
        message,
    }
}

/// A program whose lines have no place is not started: a failed start as others are.
fn unloggable(error: &LogError) -> SpawnFailure {
    SpawnFailure {
        kind: if error.is_denied() {
            FailureKind::Permission
        } else {
            FailureKind::Exec
        },
        transient: false,
        message: error.with_cause(),
    }
}
