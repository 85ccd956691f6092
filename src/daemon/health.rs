//! Health checks: whether a program that is ready still does its work, asked again and again.
//!
//! ```text
//! ready ─ interval ─▶ check ─ passed or failed ─ interval ─▶ check …
//!                                 └─ so many failures in a row ─▶ Input::Failing
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::commands::Purpose;
use super::core::Core;
use super::readiness::Found;
use super::task::{Task, caught};
use crate::config::{self, Check};
use crate::observe::{self, Checked, HealthTally};
use crate::os::probe;
use crate::supervision::{Ailment, Id, Input, Run, SpawnFailure, WaitStatus};
use crate::text::command_name;

/// What a task has to say about the check of a run.
#[derive(Debug)]
pub(super) struct Report {
    run: Run,
    /// Of which turn: what came of an earlier one is old news.
    turn: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A check is over.
    Answer(Result<(), String>),
    /// The command is to be run.
    Due,
    /// The command takes too long.
    Overdue,
}

/// Runs that are checked, and what has been counted of each slot.
pub(super) struct Health {
    found: mpsc::Sender<Found>,
    /// The thread that asks servers: what those make of it takes nothing from the loop.
    asks_on: Handle,
    patients: HashMap<Run, Patient>,
    /// They outlive runs: counters do not start over with a restart.
    tallies: HashMap<Id, Arc<HealthTally>>,
    turns: u64,
}

/// A run that is checked.
struct Patient {
    check: Check,
    health: config::Health,
    /// Failed checks in a row.
    row: u32,
    turn: u64,
    task: Task,
    /// The command under way.
    command: Option<Run>,
}

impl Health {
    pub fn new(found: mpsc::Sender<Found>, asks_on: Handle) -> Self {
        Self {
            found,
            asks_on,
            patients: HashMap::new(),
            tallies: HashMap::new(),
            turns: 0,
        }
    }

    /// Returns where the checks of a slot are counted. The same as before while it is the same series.
    pub fn tally(&mut self, id: Id, health: &config::Health) -> Option<Arc<HealthTally>> {
        let Some(check) = &health.check else {
            self.tallies.remove(&id);
            return None;
        };
        let known = self.tallies.get(&id);
        if let Some(tally) = known.filter(|tally| tally.check() == check.label()) {
            return Some(Arc::clone(tally));
        }
        let tally = Arc::new(HealthTally::new(check.label()));
        self.tallies.insert(id, Arc::clone(&tally));
        Some(tally)
    }

    /// A slot is gone.
    pub fn remove(&mut self, id: Id) {
        self.tallies.remove(&id);
    }

    /// Begins to check a run, if a check is configured.
    fn begin(&mut self, run: Run, health: &config::Health) {
        let Some(check) = health.check.clone() else {
            return;
        };
        self.turns += 1;
        let turn = self.turns;
        let task = match &check {
            Check::Tcp(authority) => {
                let (authority, limit) = (authority.clone(), health.timeout);
                let probe = move || {
                    let authority = authority.clone();
                    async move { probe::tcp(&authority, limit).await }
                };
                self.ask(run, health.interval, probe)
            }
            Check::Http { authority, path } => {
                let (authority, path) = (authority.clone(), path.clone());
                let limit = health.timeout;
                let probe = move || {
                    let (authority, path) = (authority.clone(), path.clone());
                    async move { probe::http(&authority, &path, limit).await }
                };
                self.ask(run, health.interval, probe)
            }
            Check::Exec(_) => self.wait(run, health.interval, What::Due),
        };
        self.patients.insert(
            run,
            Patient {
                check,
                health: health.clone(),
                row: 0,
                turn,
                task,
                command: None,
            },
        );
    }

    /// Nobody asks any more. A command under way is to be killed.
    fn forget(&mut self, run: Run) -> Option<Run> {
        self.patients.remove(&run)?.command
    }

    /// Finds whom a report is about, unless it is old news.
    fn current(&mut self, report: &Report) -> Option<&mut Patient> {
        let patient = self.patients.get_mut(&report.run)?;
        (patient.turn == report.turn).then_some(patient)
    }

    /// Lets the next turn of a command's check begin with this news, after a while.
    fn next_turn(&mut self, run: Run, after: Duration, what: What) {
        self.turns += 1;
        let task = self.wait(run, after, what);
        if let Some(patient) = self.patients.get_mut(&run) {
            patient.turn = self.turns;
            patient.task = task;
        }
    }

    /// Probes again and again.
    fn ask<F>(
        &self,
        run: Run,
        interval: Duration,
        probe: impl Fn() -> F + Send + Sync + 'static,
    ) -> Task
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let (found, turn) = (self.found.clone(), self.turns);
        Task::spawn_on(&self.asks_on, async move {
            loop {
                sleep(interval).await;
                let what = What::Answer(caught(probe()).await);
                let report = Report { run, turn, what };
                if found.send(Found::Health(report)).await.is_err() {
                    return;
                }
            }
        })
    }

    fn wait(&self, run: Run, after: Duration, what: What) -> Task {
        let found = self.found.clone();
        let report = Report {
            run,
            turn: self.turns,
            what,
        };
        Task::spawn(async move {
            sleep(after).await;
            let _ = found.send(Found::Health(report)).await;
        })
    }
}

impl Core {
    /// Begins to check a run that is ready.
    pub(super) fn begin_checks(&mut self, run: Run) {
        if let Some(slot) = self.slots.get(&run.id()) {
            self.health.begin(run, &slot.program.health);
        }
    }

    /// Ends the checks of a run: it is being stopped, or gone.
    pub(super) fn end_checks(&mut self, run: Run) {
        if let Some(command) = self.health.forget(run) {
            self.children.kill(command);
        }
    }

    /// Puts a check that a reload brought in force for the run of a slot that is ready.
    pub(super) fn change_checks(&mut self, id: Id) {
        let view = self.fleet.view(id).filter(|view| view.ready);
        let (Some((run, ..)), Some(slot)) = (view.and_then(|view| view.run), self.slots.get(&id))
        else {
            return;
        };
        let before = self.health.patients.get(&run).map(|p| &p.health);
        if before.is_none_or(|before| *before != slot.program.health) {
            self.end_checks(run);
            self.begin_checks(run);
        }
    }

    /// Takes what a task has to say about a check.
    pub(super) fn checked(&mut self, report: Report) {
        let Some(patient) = self.health.current(&report) else {
            return;
        };
        let run = report.run;
        let (interval, timeout) = (patient.health.interval, patient.health.timeout);
        match report.what {
            What::Answer(answer) => self.diagnose(run, answer),
            What::Due => self.start_check(run),
            What::Overdue => {
                let what = told(&patient.check);
                if let Some(command) = patient.command.take() {
                    self.children.kill(command);
                }
                self.health.next_turn(run, interval, What::Due);
                let limit = observe::duration(timeout);
                self.diagnose(run, Err(format!("{what}: not done in {limit}")));
            }
        }
    }

    /// Takes the end of the command that checks a run.
    pub(super) fn check_ended(&mut self, (command, run): (Run, Run), status: WaitStatus) {
        let patient = self.health.patients.get_mut(&run);
        // One that was killed for taking too long has been counted then.
        let Some(patient) = patient.filter(|patient| patient.command == Some(command)) else {
            return;
        };
        patient.command = None;
        let answer = match status {
            WaitStatus::Exited { code: 0 } => Ok(()),
            WaitStatus::Exited { .. } | WaitStatus::Signaled { .. } | WaitStatus::Lost => Err(
                format!("{}: {}", told(&patient.check), observe::how(status)),
            ),
        };
        let interval = patient.health.interval;
        self.health.next_turn(run, interval, What::Due);
        self.diagnose(run, answer);
    }

    /// The command that checks a run could not be started.
    pub(super) fn check_failed(&mut self, (command, run): (Run, Run), failure: SpawnFailure) {
        let patient = self.health.patients.get_mut(&run);
        let Some(patient) = patient.filter(|patient| patient.command == Some(command)) else {
            return;
        };
        patient.command = None;
        let interval = patient.health.interval;
        self.health.next_turn(run, interval, What::Due);
        // The machine's want says nothing about the program.
        if !failure.transient {
            self.diagnose(run, Err(failure.message));
        }
    }

    fn start_check(&mut self, run: Run) {
        let Some(patient) = self.health.patients.get(&run) else {
            return;
        };
        let Check::Exec(words) = patient.check.clone() else {
            return;
        };
        let (interval, timeout) = (patient.health.interval, patient.health.timeout);
        let Some(like) = self.prepare_command(run, &words) else {
            // Somebody looks up what it takes.
            return self.health.next_turn(run, interval, What::Due);
        };
        let started = self
            .commands
            .start((Purpose::Health, run), &like, &mut self.children);
        match started {
            Ok(command) => {
                self.health.next_turn(run, timeout, What::Overdue);
                if let Some(patient) = self.health.patients.get_mut(&run) {
                    patient.command = Some(command);
                }
            }
            Err(failure) => {
                self.health.next_turn(run, interval, What::Due);
                // The machine's want says nothing about the program.
                if !failure.transient {
                    self.diagnose(run, Err(failure.message));
                }
            }
        }
    }

    /// Counts and tells what a check has found, and what follows from it.
    fn diagnose(&mut self, run: Run, answer: Result<(), String>) {
        let Some(patient) = self.health.patients.get_mut(&run) else {
            return;
        };
        let (before, of) = (patient.row, patient.health.failures);
        patient.row = match answer {
            Ok(()) => 0,
            Err(_) => before.saturating_add(1),
        };
        let row = patient.row;
        if let Some(tally) = self.health.tallies.get(&run.id()) {
            tally.count(answer.is_ok());
        }
        let checked = match &answer {
            Ok(()) => Checked::Passed { before },
            Err(why) => Checked::Failed { why, row, of },
        };
        self.observer.checked(run.id(), checked);
        // How the row of failures stands is part of the status.
        if before > 0 || row > 0 {
            self.changed.insert(run.id());
        }
        if row >= of {
            self.step(run.id(), Input::Failing(run, Ailment::Health));
        }
    }
}

/// Whom a check asks. Strangers read it, so a command goes without its arguments.
fn told(check: &Check) -> String {
    match check {
        Check::Exec(words) => command_name(words).to_owned(),
        Check::Tcp(authority) | Check::Http { authority, .. } => authority.clone(),
    }
}
