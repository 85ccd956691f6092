//! What a program does when somebody wants something of it.

use super::Program;
use super::ending::killed;
use crate::supervision::Id;
use crate::supervision::Outbox;
use crate::supervision::phase::{Birth, Grace, Intent, Next, Phase, Stage};
use crate::supervision::vocabulary::{Action, Cause, Event, Moment, Order};

impl Program {
    pub(super) fn obey(&mut self, at: Moment, order: Order, out: &mut Outbox) {
        match order {
            Order::Start => self.start(at, out),
            Order::Await(dependency) => self.wait_for(at, dependency, out),
            Order::Proceed => {
                if let Phase::Waiting { .. } = self.phase {
                    self.launch(at, None, out);
                }
            }
            Order::Stop => self.take_down(at, Next::Down, out),
            Order::Remove => self.take_down(at, Next::Gone, out),
            Order::Restart(cause) => self.restart(at, cause, out),
            Order::Kill => self.kill_now(at, out),
        }
    }

    pub(super) fn start(&mut self, at: Moment, out: &mut Outbox) {
        self.record.clear();
        self.failed_starts = 0;
        match &mut self.phase {
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed => {
                self.launch(at, None, out);
            }
            Phase::Spawning { asked, birth, .. } => match (*asked, birth.stage) {
                (Some(Next::Gone | Next::Up(_)), _) => {}
                // That one is on its way out.
                (_, Stage::Killed { .. }) => *asked = Some(Next::Up(None)),
                _ => *asked = None,
            },
            Phase::Ending(ending) => match ending.next {
                Next::Up(_) | Next::Gone => {}
                Next::Down
                | Next::Judge
                | Next::Wait { .. }
                | Next::Fail { .. }
                | Next::Complete => {
                    ending.next = Next::Up(None);
                }
            },
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Removed => {}
        }
    }

    pub(super) fn wait_for(&mut self, at: Moment, dependency: Id, out: &mut Outbox) {
        self.record.clear();
        self.failed_starts = 0;
        match &mut self.phase {
            Phase::Stopped | Phase::Failed { .. } | Phase::Completed => {
                self.phase = Phase::Waiting { dependency };
                self.why = "waiting for a program it comes after";
                self.tell(Event::Waiting { dependency }, out);
            }
            Phase::Waiting { dependency: waits } => *waits = dependency,
            // It has run before, so what it waits for was ready once: no second wait.
            Phase::Spawning { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Removed => {
                self.start(at, out);
            }
        }
    }

    pub(super) fn take_down(&mut self, at: Moment, next: Next, out: &mut Outbox) {
        match &mut self.phase {
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed => {
                self.settle_down(next, None, out);
            }
            Phase::Spawning { asked, birth, .. } => {
                if *asked != Some(Next::Gone) {
                    *asked = Some(next);
                }
                if let Stage::Hanging { .. } = birth.stage {
                    self.end_birth(at, out);
                }
            }
            Phase::Starting { life, .. } | Phase::Running { life } => {
                let life = *life;
                self.end(at, life, Intent::Stop, next, out);
            }
            Phase::Ending(ending) => match (ending.next, next) {
                (Next::Gone, _) => {}
                _ => ending.next = next,
            },
            Phase::Removed => {}
        }
    }

    pub(super) fn restart(&mut self, at: Moment, cause: Cause, out: &mut Outbox) {
        self.failed_starts = 0;
        // What is just being spawned is as fresh as a restart would be, and keeps its record.
        let is_fresh = self.is_being_born();
        if !is_fresh {
            self.record.clear();
        }
        match &mut self.phase {
            Phase::Stopped | Phase::Completed => self.launch(at, None, out),
            Phase::Backoff { .. } | Phase::Failed { .. } => self.launch(at, Some(cause), out),
            Phase::Starting { life, .. } | Phase::Running { life } => {
                let life = *life;
                self.end(at, life, Intent::Restart, Next::Up(Some(cause)), out);
            }
            Phase::Ending(ending) => {
                if ending.next != Next::Gone {
                    ending.next = Next::Up(Some(cause));
                }
            }
            Phase::Spawning { asked, .. } => match asked {
                Some(Next::Gone) => {}
                _ if is_fresh => *asked = None,
                _ => {
                    *asked = Some(Next::Up(Some(cause)));
                    self.end_birth(at, out);
                }
            },
            Phase::Waiting { .. } | Phase::Removed => {}
        }
    }

    pub(super) fn kill_now(&mut self, at: Moment, out: &mut Outbox) {
        self.take_down(at, Next::Down, out);
        self.end_birth(at, out);
        if let Phase::Ending(ending) = &mut self.phase
            && let Grace::Polite { .. } = ending.grace
        {
            ending.grace = killed(at);
            let run = ending.life.run;
            self.act(Action::Kill(run), out);
        }
    }

    /// Its start is under way and may still be quick.
    fn is_being_born(&self) -> bool {
        matches!(
            self.phase,
            Phase::Spawning {
                birth: Birth {
                    stage: Stage::Fresh { .. },
                    ..
                },
                ..
            }
        )
    }
}
