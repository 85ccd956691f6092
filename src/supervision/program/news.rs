//! What a program does when the world has news of it, or time passes.

use super::Program;
use super::ending::killed;
use crate::supervision::exit::WaitStatus;
use crate::supervision::phase::{Ending, Grace, Intent, Life, Next, Phase, Until};
use crate::supervision::policy::End;
use crate::supervision::vocabulary::{Action, Ailment, Cause, Event, Exit, Moment};
use crate::supervision::{Outbox, Run};

impl Program {
    pub(super) fn ready(&mut self, at: Moment, run: Run, out: &mut Outbox) {
        if let Phase::Starting {
            life,
            until: Until::GivenUp(_),
        } = self.phase
            && life.run == run
        {
            self.become_ready(at, life, out);
        }
    }

    pub(super) fn failing(&mut self, at: Moment, (run, ailment): (Run, Ailment), out: &mut Outbox) {
        if let Phase::Running { life } = self.phase
            && life.run == run
        {
            self.end(at, life, Intent::Ailing(ailment), Next::Judge, out);
        }
    }

    pub(super) fn become_ready(&mut self, at: Moment, life: Life, out: &mut Outbox) {
        self.tell(
            Event::Ready {
                run: life.run,
                took: at.now.saturating_duration_since(life.since),
            },
            out,
        );
        self.why = "running";
        self.failed_starts = 0;
        self.phase = Phase::Running {
            life: Life {
                ready: true,
                ..life
            },
        };
    }

    pub(super) fn exited(
        &mut self,
        at: Moment,
        run: Run,
        (status, family): (WaitStatus, bool),
        out: &mut Outbox,
    ) {
        self.notice_that_it_stayed_up(at, run, out);
        let (life, ending) = match &self.phase {
            Phase::Starting { life, .. } | Phase::Running { life } => (*life, None),
            Phase::Ending(ending) if ending.main_alive => (ending.life, Some(ending.clone())),
            Phase::Ending(_)
            | Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Spawning { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed
            | Phase::Removed => return,
        };
        if life.run != run {
            return;
        }
        let reason = self.classify(status, ending.as_ref());
        let ran = at.now.saturating_duration_since(life.since);
        self.tell(
            Event::Exited(Exit {
                run,
                pid: life.pid,
                reason,
                status,
                at: at.now,
                ran,
                was_ready: life.ready,
            }),
            out,
        );
        let intended = ending.as_ref().map_or(Next::Judge, |e| e.next);
        let next = if intended == Next::Judge {
            let code = status.code();
            let next = self.judge(at, End { reason, code, ran }, out);
            if !life.ready && next != Next::Complete {
                self.count_failed_start();
            }
            next
        } else {
            self.record.add_run(ran);
            intended
        };
        let asked_at = ending.as_ref().map_or(at.now, |e| e.asked_at);
        if family {
            self.outlived_by_family(at, life, ending, next, out);
        } else {
            self.settle(at, next, Some((run, asked_at)), out);
        }
    }

    /// The news of an end may come before the tick that was due: what had lived long enough by then
    /// was up.
    fn notice_that_it_stayed_up(&mut self, at: Moment, run: Run, out: &mut Outbox) {
        if let Phase::Starting {
            life,
            until: Until::Ready(due),
        } = self.phase
            && life.run == run
            && due <= at.now
        {
            self.become_ready(at, life, out);
        }
    }

    /// The main process is gone and descendants are not: they get the stop signal (if they have not
    /// had it) and what is left of the grace period.
    pub(super) fn outlived_by_family(
        &mut self,
        at: Moment,
        life: Life,
        ending: Option<Ending>,
        next: Next,
        out: &mut Outbox,
    ) {
        self.tell(Event::FamilyLeft { run: life.run }, out);
        match ending {
            Some(ending) => {
                let killed = matches!(ending.grace, Grace::Killed { .. });
                self.phase = Phase::Ending(Ending {
                    main_alive: false,
                    next,
                    ..ending
                });
                self.act(
                    if killed {
                        Action::Kill(life.run)
                    } else {
                        Action::Stop(life.run)
                    },
                    out,
                );
            }
            None => self.end(at, life, Intent::Leftovers, next, out),
        }
    }

    pub(super) fn family_gone(&mut self, at: Moment, run: Run, out: &mut Outbox) {
        if let Phase::Ending(ending) = &self.phase
            && !ending.main_alive
            && ending.life.run == run
        {
            let (next, asked_at) = (ending.next, ending.asked_at);
            self.settle(at, next, Some((run, asked_at)), out);
        }
    }

    pub(super) fn tick(&mut self, at: Moment, out: &mut Outbox) {
        if self.deadline().is_none_or(|deadline| at.now < deadline) {
            return;
        }
        match &mut self.phase {
            Phase::Starting {
                life,
                until: Until::Ready(_),
            } => {
                let life = *life;
                self.become_ready(at, life, out);
            }
            Phase::Starting { life, .. } => {
                let life = *life;
                self.tell(
                    Event::StartTimedOut {
                        run: life.run,
                        after: self.policy.start_timeout,
                    },
                    out,
                );
                self.end(at, life, Intent::StartTimeout, Next::Judge, out);
            }
            Phase::Ending(ending) => {
                let run = ending.life.run;
                match ending.grace {
                    Grace::Polite { .. } => {
                        ending.grace = killed(at);
                        self.tell(
                            Event::StopEscalated {
                                run,
                                after: self.policy.stop_timeout,
                            },
                            out,
                        );
                        self.act(Action::Kill(run), out);
                    }
                    Grace::Killed { since, .. } => {
                        ending.grace = Grace::Killed {
                            since,
                            alarm_at: None,
                        };
                        self.unkillable(at, run, since, out);
                    }
                }
            }
            Phase::Backoff { cause, .. } => {
                let cause = *cause;
                self.launch(at, cause, out);
            }
            Phase::Failed { .. } => {
                self.record.count_retry();
                self.launch(at, Some(Cause::Crash), out);
            }
            Phase::Spawning { .. } => self.birth_is_late(at, out),
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Running { .. }
            | Phase::Completed
            | Phase::Removed => {}
        }
    }
}
