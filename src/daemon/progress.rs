//! The start: which programs have come up, told to whoever waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::core::Core;
use super::herald::Herald;
use super::mode::Mode;
use super::outcomes::Standing;
use super::slots::Slot;
use crate::config::Ready;
use crate::control::api::Progress;
use crate::observe::DaemonEvent;
use crate::os::memory;
use crate::os::notify::Systemd;
use crate::supervision::{Event, Id};

/// The last output of what failed may take this long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The programs that start with the daemon, until each is up or has failed to come up.
#[derive(Default)]
pub(super) struct StartUp {
    expected: BTreeMap<Id, Expected>,
    /// Those of them that have neither been up nor failed.
    pending: BTreeSet<Id>,
    /// Whoever started us in the background listens on our standard output.
    herald: Option<Herald>,
    interrupted: bool,
    concluded: bool,
}

struct Expected {
    name: String,
    /// It is up when it has ended.
    runs_once: bool,
}

impl StartUp {
    pub fn new(herald: Option<Herald>) -> Self {
        Self {
            herald,
            ..Self::default()
        }
    }

    /// Gives back who reports; nobody does from then on.
    pub fn take_herald(&mut self) -> Option<Herald> {
        self.herald.take()
    }

    /// A program is going to be started.
    pub fn expect(&mut self, id: Id, slot: &Slot) {
        let name = slot.display_name();
        let runs_once = slot.program.ready == Ready::Exit;
        self.pending.insert(id);
        self.expected.insert(id, Expected { name, runs_once });
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
        if self.concluded || !self.pending.contains(&id) {
            return;
        }
        match event {
            Event::Started { pid, .. } => {
                let runs_once = self.expected.get(&id).is_some_and(|of| of.runs_once);
                let then = if runs_once { ", until it ends" } else { "" };
                self.report(id, &format!("started, pid {pid}{then}"));
            }
            Event::Ready { .. } => {
                self.report(id, "ready");
                self.pending.remove(&id);
            }
            Event::Completed { .. } => {
                self.report(id, "completed");
                self.pending.remove(&id);
            }
            Event::StartFailed { .. }
            | Event::StartDeferred { .. }
            | Event::BackingOff { .. }
            | Event::GaveUp { .. }
            | Event::Failed { .. }
            | Event::Stopped { .. }
            | Event::Removed => {
                self.pending.remove(&id);
            }
            Event::Waiting { .. }
            | Event::Exited(_)
            | Event::StartTimedOut { .. }
            | Event::StartHangs { .. }
            | Event::FamilyLeft { .. }
            | Event::Stopping { .. }
            | Event::StopEscalated { .. }
            | Event::Unkillable { .. } => {}
        }
    }

    fn report(&self, id: Id, what: &str) {
        if let Some(Expected { name, .. }) = self.expected.get(&id)
            && let Some(herald) = &self.herald
        {
            herald.report(Progress {
                message: format!("{name}: {what}"),
                outcome: None,
                code: None,
            });
        }
    }
}

impl Core {
    /// The daemon ends: whoever waits for a start hears now how that went, last output included.
    pub(super) async fn conclude_starts(&mut self) {
        self.crashes.are_noted(LAST_WORDS).await;
        self.ending = true;
        self.publish();
        self.answer_orders();
        self.answer_reloads();
        self.report_start_up();
    }

    /// Tells how the start went, once every program has been up, has failed, or waits in vain. What
    /// counts is how they stand at that moment: one that was up may be down again.
    pub(super) fn report_start_up(&mut self) {
        // While nothing is started yet, nothing being down means nothing.
        if !matches!(self.mode, Mode::Supervising) {
            return;
        }
        let start_up = &self.start_up;
        let settled = || start_up.pending.iter().all(|id| self.waits_in_vain(*id));
        if start_up.concluded || !(start_up.interrupted || settled()) {
            return;
        }
        let Some(failures) = self.not_up() else {
            return;
        };
        self.start_up.concluded = true;
        self.systemd_says(Systemd::ready);
        if failures.is_empty() && !self.start_up.interrupted {
            self.observer.tell(&DaemonEvent::Ready);
        }
        if let Some(herald) = &self.start_up.herald {
            herald.report(self.outcome(failures));
        }
        // Who has started is known no more.
        self.start_up.expected = BTreeMap::new();
        memory::give_back();
    }

    /// One sentence for each program that is not up; `None` while what one said is being read.
    fn not_up(&mut self) -> Option<Vec<String>> {
        let hurried = self.start_up.interrupted || self.ending;
        let mut failures = Vec::new();
        let expected: Vec<Id> = self.start_up.expected.keys().copied().collect();
        for id in expected {
            let standing = self.standing(id);
            let why = match (standing, self.ends.why(id)) {
                (Standing::Up(_), _) => continue,
                (Standing::Down(why), _) => why,
                // It was up, and what comes after its end is not known yet.
                (Standing::UnderWay, Some(end)) => end.to_owned(),
                (Standing::Reading | Standing::UnderWay, _) if !hurried => return None,
                (Standing::Reading | Standing::UnderWay, _) => self.observer.why(id),
            };
            let name = self.start_up.expected.get(&id).map(|of| of.name.as_str());
            failures.push(format!("{}: {why}", name.unwrap_or_default()));
        }
        Some(failures)
    }

    /// How it went, for whoever started us in the background.
    fn outcome(&self, mut said: Vec<String>) -> Progress {
        let (pid, expected) = (std::process::id(), self.start_up.expected.len());
        let up = expected - said.len();
        let good = said.is_empty() && !self.start_up.interrupted;
        said.push(if self.start_up.interrupted {
            format!("the daemon was told to stop: {up} of {} up", plural(expected))
        } else if good {
            format!("started, pid {pid}: {} up", plural(expected))
        } else if self.ending {
            format!("{up} of {} up: the daemon ends", plural(expected))
        } else {
            let programs = plural(expected);
            format!(
                "{up} of {programs} up; the daemon (pid {pid}) goes on as its restart policy says: see `eternal status`"
            )
        });
        Progress {
            message: said.join("\n"),
            outcome: Some(good),
            code: None,
        }
    }
}

fn plural(programs: usize) -> String {
    if programs == 1 {
        "1 program".into()
    } else {
        format!("{programs} programs")
    }
}
