//! How a run comes to be: from the decision to the news that the program is executed, or not.

use std::time::Duration;

use super::Program;
use super::ending::UNKILLABLE_AFTER;
use crate::supervision::exit::{ExitReason, SpawnFailure};
use crate::supervision::phase::{Birth, Ending, Grace, Intent, Life, Next, Phase, Stage, Until};
use crate::supervision::policy::{End, Readiness, backoff};
use crate::supervision::vocabulary::{Action, Cause, Event, Moment};
use crate::supervision::{Outbox, Run};

/// From the decision to the word that a start hangs. Most take a few milliseconds.
const HANGS_AFTER: Duration = Duration::from_secs(1);

impl Program {
    pub(super) fn launch(&mut self, at: Moment, cause: Option<Cause>, out: &mut Outbox) {
        self.runs = self.runs.wrapping_add(1);
        let run = Run::new(self.id, self.runs);
        self.why = "starting";
        self.phase = Phase::Spawning {
            run,
            cause,
            asked: None,
            birth: Birth {
                since: at.now,
                stage: Stage::Fresh {
                    hangs_at: at.now + HANGS_AFTER,
                },
            },
        };
        self.act(Action::Spawn(run), out);
    }

    pub(super) fn spawned(&mut self, at: Moment, run: Run, pid: i32, out: &mut Outbox) {
        let Phase::Spawning {
            run: expected,
            cause,
            asked,
            birth,
        } = self.phase
        else {
            return;
        };
        if run != expected {
            return;
        }
        self.deferrals = 0;
        self.tell(Event::Started { run, pid, cause }, out);
        let life = Life {
            run,
            pid,
            since: at.now,
            ready: false,
        };
        if let Stage::Killed { since, alarm_at } = birth.stage {
            self.slipped_through(life, (since, alarm_at), asked, out);
        } else if let Some(next) = asked {
            self.end(at, life, Intent::Stop, next, out);
        } else {
            self.prove_ready(at, life, birth, out);
        }
    }

    /// A new run has to show that it is up, in the way that is configured.
    fn prove_ready(&mut self, at: Moment, life: Life, birth: Birth, out: &mut Outbox) {
        let (why, until) = match self.policy.ready {
            Readiness::Spawned | Readiness::Alive(Duration::ZERO) => {
                return self.become_ready(at, life, out);
            }
            Readiness::Alive(least) => (
                "started: it is up when it has stayed up",
                Until::Ready(at.now + least),
            ),
            Readiness::Shown => (
                "started, not ready yet",
                // What the start took counts.
                Until::GivenUp(birth.since + self.policy.start_timeout),
            ),
            Readiness::Exit => (
                "at work: it is ready when it has ended with success",
                Until::Done,
            ),
        };
        self.why = why;
        self.phase = Phase::Starting { life, until };
    }

    /// A start came to nothing: whoever waits for it hears so.
    pub(super) fn count_failed_start(&mut self) {
        self.failed_starts = self.failed_starts.saturating_add(1);
    }

    /// It executed the program just before SIGKILL came.
    fn slipped_through(
        &mut self,
        life: Life,
        (since, alarm_at): (std::time::Instant, Option<std::time::Instant>),
        asked: Option<Next>,
        out: &mut Outbox,
    ) {
        let (intent, reason) = match asked {
            Some(Next::Up(_)) => (Intent::Restart, "restart requested"),
            Some(_) => (Intent::Stop, "stop requested"),
            None => (Intent::StartTimeout, "not ready in start_timeout"),
        };
        let run = life.run;
        self.tell(Event::Stopping { run, reason }, out);
        self.phase = Phase::Ending(Ending {
            life,
            main_alive: true,
            intent,
            asked_at: since,
            grace: Grace::Killed { since, alarm_at },
            next: asked.unwrap_or(Next::Judge),
        });
        // What it has started meanwhile has to go as well.
        self.act(Action::Kill(run), out);
    }

    pub(super) fn spawn_failed(
        &mut self,
        at: Moment,
        run: Run,
        failure: SpawnFailure,
        out: &mut Outbox,
    ) {
        let Phase::Spawning {
            run: expected,
            cause,
            asked,
            ..
        } = self.phase
        else {
            return;
        };
        if run != expected {
            return;
        }
        if failure.transient && asked.is_none() {
            return self.defer(at, cause, failure, out);
        }
        self.count_failed_start();
        self.deferrals = 0;
        self.tell(
            Event::StartFailed {
                run,
                cause,
                failure,
            },
            out,
        );
        let next = match asked {
            Some(next) => next,
            None => self.judge(
                at,
                End {
                    reason: ExitReason::SpawnError,
                    code: None,
                    ran: Duration::ZERO,
                },
                out,
            ),
        };
        self.settle(at, next, None, out);
    }

    /// Puts a start off without holding it against the program: the machine is short of something.
    fn defer(&mut self, at: Moment, cause: Option<Cause>, failure: SpawnFailure, out: &mut Outbox) {
        self.count_failed_start();
        self.deferrals = self.deferrals.saturating_add(1);
        // Not a zero wait even where restart_delay is: the want will not pass in no time.
        let delay =
            backoff(&self.policy, self.deferrals, at.chance).max(Duration::from_millis(100));
        self.tell(Event::StartDeferred { failure, delay }, out);
        self.why = "the machine is short of resources: the start is put off";
        self.phase = Phase::Backoff {
            until: at.now + delay,
            delay,
            cause,
        };
    }

    /// The deadline of a start has come.
    pub(super) fn birth_is_late(&mut self, at: Moment, out: &mut Outbox) {
        let Phase::Spawning {
            run, asked, birth, ..
        } = &mut self.phase
        else {
            return;
        };
        let run = *run;
        match birth.stage {
            Stage::Fresh { .. } => {
                let give_up_at = birth.since + self.policy.start_timeout;
                let over = asked.is_some() || give_up_at <= at.now;
                birth.stage = Stage::Hanging { give_up_at };
                self.why = "its start hangs";
                self.tell(Event::StartHangs { run }, out);
                if over {
                    self.end_birth(at, out);
                }
            }
            Stage::Hanging { .. } => self.end_birth(at, out),
            Stage::Killed { since, .. } => {
                birth.stage = Stage::Killed {
                    since,
                    alarm_at: None,
                };
                self.unkillable(at, run, since, out);
            }
        }
    }

    /// Ends a start that hangs: there is no program yet that could be asked.
    pub(super) fn end_birth(&mut self, at: Moment, out: &mut Outbox) {
        if let Phase::Spawning { run, birth, .. } = &mut self.phase {
            let run = *run;
            if matches!(birth.stage, Stage::Killed { .. }) {
                return;
            }
            birth.stage = Stage::Killed {
                since: at.now,
                alarm_at: Some(at.now + UNKILLABLE_AFTER),
            };
            self.why = "its start is being ended";
            self.act(Action::Kill(run), out);
        }
    }
}
