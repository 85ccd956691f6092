//! The start: which programs have come up, told to whoever waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::control::api::Progress;
use crate::observe;
use crate::os::session;
use crate::supervision::{Event, Id};

/// The programs that start with the daemon, until each is up or has failed to come up.
#[derive(Default)]
pub(super) struct StartUp {
    pending: BTreeMap<Id, String>,
    waiting: BTreeSet<Id>,
    expected: usize,
    /// How the latest run of a pending program ended.
    last_words: BTreeMap<Id, String>,
    failures: Vec<String>,
    /// Whoever started us in the background listens on our standard output.
    reports: bool,
    interrupted: bool,
    concluded: bool,
}

/// How the start went.
pub(super) struct Conclusion {
    /// One sentence for each program that did not come up.
    pub failures: Vec<String>,
    started: usize,
    reports: bool,
}

impl StartUp {
    pub fn new(reports: bool) -> Self {
        Self {
            reports,
            ..Self::default()
        }
    }

    /// A program is going to be started.
    pub fn expect(&mut self, id: Id, name: String) {
        self.expected += 1;
        self.pending.insert(id, name);
    }

    /// The daemon is told to end before it has come up.
    pub fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// Tells whether it is known how the start went.
    pub fn is_over(&self) -> bool {
        self.concluded
    }

    pub fn hear(&mut self, id: Id, event: &Event) {
        if self.concluded || !self.pending.contains_key(&id) {
            return;
        }
        match event {
            Event::Waiting { .. } => {
                self.waiting.insert(id);
            }
            Event::Started { pid, .. } => {
                self.waiting.remove(&id);
                self.report(id, &format!("started, pid {pid}"));
            }
            Event::Ready { .. } | Event::Completed { .. } => {
                self.report(id, "ready");
                self.pending.remove(&id);
            }
            Event::StartFailed { failure, .. } | Event::StartDeferred { failure, .. } => {
                self.last_words.insert(id, failure.message.clone());
                self.failed(id);
            }
            Event::StartTimedOut { after, .. } => {
                self.last_words.insert(
                    id,
                    format!("not ready within {}", observe::duration(*after)),
                );
            }
            Event::Exited(exit) => {
                let words = observe::describe(exit.reason, exit.status);
                self.last_words.entry(id).or_insert(words);
            }
            Event::BackingOff { .. }
            | Event::GaveUp { .. }
            | Event::Failed { .. }
            | Event::Stopped { .. }
            | Event::Removed => {
                self.failed(id);
            }
            Event::FamilyLeft { .. }
            | Event::Stopping { .. }
            | Event::StopEscalated { .. }
            | Event::Unkillable { .. } => {}
        }
    }

    /// Returns how the start went, once, when it is over.
    pub fn conclude(&mut self) -> Option<Conclusion> {
        let only_waiters = self.pending.keys().all(|id| self.waiting.contains(id));
        let stuck = only_waiters && !self.failures.is_empty();
        if self.concluded || !(self.pending.is_empty() || stuck || self.interrupted) {
            return None;
        }
        self.concluded = true;
        for name in std::mem::take(&mut self.pending).into_values() {
            let why = if self.interrupted {
                "the daemon was told to stop"
            } else {
                "it waits for one that did not come up"
            };
            self.failures.push(format!("{name}: {why}"));
        }
        let mut failures = std::mem::take(&mut self.failures);
        if self.interrupted && failures.is_empty() {
            failures.push("the daemon was told to stop".into());
        }
        Some(Conclusion {
            failures,
            started: self.expected,
            reports: self.reports,
        })
    }

    fn failed(&mut self, id: Id) {
        if let Some(name) = self.pending.remove(&id) {
            self.waiting.remove(&id);
            let words = self
                .last_words
                .remove(&id)
                .unwrap_or_else(|| "it did not come up".into());
            self.failures.push(format!("{name}: {words}"));
        }
    }

    fn report(&self, id: Id, what: &str) {
        if let Some(name) = self.pending.get(&id)
            && self.reports
        {
            say(&Progress {
                message: format!("{name}: {what}"),
                outcome: None,
                code: None,
            });
        }
    }
}

/// Tells whoever started us in the background how it went, and lets go of its terminal.
pub(super) fn report(conclusion: &Conclusion) {
    if !conclusion.reports {
        return;
    }
    let pid = std::process::id();
    let failures = conclusion.failures.join("\n");
    let message = if conclusion.failures.is_empty() {
        format!("started, pid {pid}: {} up", plural(conclusion.started))
    } else {
        format!(
            "{failures}\nthe daemon (pid {pid}) goes on as its restart policy says: see `eternal status`"
        )
    };
    say(&Progress {
        message,
        outcome: Some(conclusion.failures.is_empty()),
        code: None,
    });
    if let Err(error) = session::let_go_of_output() {
        tracing::warn!("cannot let go of the terminal: {error}");
    }
}

fn plural(programs: usize) -> String {
    if programs == 1 {
        "1 program".into()
    } else {
        format!("{programs} programs")
    }
}

/// Writes one report; whoever listened may be gone.
pub(super) fn say(progress: &Progress) {
    if let Ok(mut line) = serde_json::to_vec(progress) {
        line.push(b'\n');
        let _ = std::io::stdout().write_all(&line);
        let _ = std::io::stdout().flush();
    }
}
