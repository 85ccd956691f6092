//! What came of starts: whether a program is up, is on its way, or does not come up and why. Asked
//! by everybody who waits for one: the start of the daemon, an order, a reload.

use std::collections::HashMap;

use super::core::Core;
use crate::observe;
use crate::supervision::{Event, ExitReason, Id, Run, State};

/// Lines of its last output that a failed start is told with.
const LAST_LINES: usize = 5;

/// Why the latest run of each program that is not up ended, or was never begun.
#[derive(Default)]
pub(super) struct Ends(HashMap<Id, (Option<Run>, String)>);

impl Ends {
    /// In a sentence.
    pub fn why(&self, id: Id) -> Option<&str> {
        self.0.get(&id).map(|(_, sentence)| sentence.as_str())
    }

    pub fn hear(&mut self, id: Id, event: &Event) {
        let end = match event {
            Event::StartFailed { run, failure, .. } => (Some(*run), failure.message.clone()),
            Event::StartDeferred { failure, .. } => (None, failure.message.clone()),
            Event::StartTimedOut { run, after } => {
                let limit = observe::duration(*after);
                (Some(*run), format!("not ready within {limit}"))
            }
            Event::Exited(exit) => {
                let known = self
                    .0
                    .get(&id)
                    .is_some_and(|(run, _)| *run == Some(exit.run));
                let asked = matches!(exit.reason, ExitReason::Stop | ExitReason::Restart);
                if known || asked {
                    return;
                }
                let how = observe::describe(exit.reason, exit.status);
                let ran = observe::duration(exit.ran);
                (Some(exit.run), format!("{how}, ran {ran}"))
            }
            Event::Ready { .. } | Event::Removed => {
                self.0.remove(&id);
                return;
            }
            Event::Waiting { .. }
            | Event::Started { .. }
            | Event::StartHangs { .. }
            | Event::FamilyLeft { .. }
            | Event::Stopping { .. }
            | Event::StopEscalated { .. }
            | Event::Unkillable { .. }
            | Event::Stopped { .. }
            | Event::BackingOff { .. }
            | Event::GaveUp { .. }
            | Event::Failed { .. }
            | Event::Completed { .. } => return,
        };
        self.0.insert(id, end);
    }
}

/// How a program that somebody wants up stands.
pub(super) enum Standing {
    /// It is up, or has done what it is for.
    Up(String),
    /// It is not up, and waiting would not change that soon: why.
    Down(String),
    /// It did not come up, and what it said last is still being read.
    Reading,
    /// It is on its way.
    UnderWay,
}

impl Core {
    /// Tells how a program stands that somebody wants up.
    pub(super) fn standing(&mut self, id: Id) -> Standing {
        let Some(view) = self.fleet.view(id) else {
            return Standing::Down("it was removed from the config".into());
        };
        match view.state {
            State::Running => {
                let pid = view.run.map_or(0, |(_, pid, _)| pid);
                Standing::Up(format!("running, pid {pid}"))
            }
            State::Completed => Standing::Up("completed".into()),
            State::Stopped => Standing::Down("it was stopped again".into()),
            _ if view.failed_starts > 0 => self.end(id),
            State::Backoff | State::Failed => self.end(id),
            // No deadline is left: it outlives SIGKILL.
            State::Stopping if view.deadline.is_none() => Standing::Down(view.why.into()),
            State::Starting if self.waits_in_vain(id) => Standing::Down(self.observer.why(id)),
            State::Starting | State::Stopping => Standing::UnderWay,
        }
    }

    /// Follows who waits for whom to the one at the end, which is not on its way.
    pub(super) fn waits_in_vain(&self, id: Id) -> bool {
        let mut waits_for = self.fleet.view(id).and_then(|view| view.waits_for);
        while let Some(dependency) = waits_for {
            let Some(view) = self.fleet.view(dependency) else {
                return true;
            };
            if view.waits_for.is_none() {
                return match view.state {
                    State::Stopped | State::Backoff | State::Failed => true,
                    State::Starting => view.failed_starts > 0,
                    State::Running | State::Stopping | State::Completed => false,
                };
            }
            // The config has no circles.
            waits_for = view.waits_for;
        }
        false
    }

    /// Why the latest run of a program ended, with the last it said.
    fn end(&mut self, id: Id) -> Standing {
        let lines = match self.crashes.last_words(id) {
            Some(lines) => lines,
            None if self.ending => Vec::new(),
            None => return Standing::Reading,
        };
        let known = self.ends.why(id).map(str::to_owned);
        let why = known.unwrap_or_else(|| self.observer.why(id));
        Standing::Down(with_last_lines(why, &lines))
    }
}

/// Puts the last lines of a run below the reason of its end.
pub(super) fn with_last_lines(mut why: String, lines: &[String]) -> String {
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
        why.push_str("\n  | ");
        why.push_str(line);
    }
    why
}
