//! How a run begins and ends, and what the policy makes of it.

use std::time::{Duration, Instant};

use super::Program;
use crate::supervision::exit::{ExitReason, WaitStatus};
use crate::supervision::phase::{Ending, Grace, Intent, Life, Next, Phase};
use crate::supervision::policy::{End, Verdict};
use crate::supervision::vocabulary::{Action, Ailment, Event, Moment};
use crate::supervision::{Outbox, Output, Run};

/// From SIGKILL to the alarm that a process outlives it.
pub(super) const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// The signal that cannot be caught; the same number on every Linux.
const SIGKILL: i32 = 9;

impl Program {
    /// Begins to end a run: stop signal, grace period, SIGKILL.
    pub(super) fn end(
        &mut self,
        at: Moment,
        life: Life,
        intent: Intent,
        next: Next,
        out: &mut Outbox,
    ) {
        let (why, told) = match intent {
            Intent::Stop => ("stopping, as asked", Some("stop requested")),
            Intent::Restart => ("stopping for a restart", Some("restart requested")),
            Intent::StartTimeout => (
                "not ready in start_timeout: being ended",
                Some("not ready in start_timeout"),
            ),
            Intent::Ailing(Ailment::Health) => (
                "health check failed: being ended",
                Some("health check failed"),
            ),
            Intent::Ailing(Ailment::Watchdog) => {
                ("watchdog ran out: being ended", Some("watchdog ran out"))
            }
            Intent::Leftovers => ("ended, and what it left behind is being ended", None),
        };
        self.why = why;
        if let Some(reason) = told {
            self.tell(
                Event::Stopping {
                    run: life.run,
                    reason,
                },
                out,
            );
        }
        let immediately = self.policy.stop_timeout.is_zero();
        let grace = if immediately {
            killed(at)
        } else {
            Grace::Polite {
                kill_at: at.now + self.policy.stop_timeout,
            }
        };
        let main_alive = intent != Intent::Leftovers;
        self.phase = Phase::Ending(Ending {
            life,
            main_alive,
            intent,
            asked_at: at.now,
            grace,
            next,
        });
        self.act(
            if immediately {
                Action::Kill(life.run)
            } else {
                Action::Stop(life.run)
            },
            out,
        );
    }

    /// Everything of a run is gone, or it never came to be: does what was to follow.
    pub(super) fn settle(
        &mut self,
        at: Moment,
        next: Next,
        ended: Option<(Run, Instant)>,
        out: &mut Outbox,
    ) {
        match next {
            Next::Down | Next::Gone => {
                let stopped =
                    ended.map(|(run, asked_at)| (run, at.now.saturating_duration_since(asked_at)));
                self.settle_down(next, stopped, out);
            }
            Next::Up(cause) => self.launch(at, cause, out),
            Next::Wait { until, cause, .. } if until <= at.now => {
                self.launch(at, Some(cause), out);
            }
            Next::Wait {
                until,
                delay,
                cause,
            } => {
                self.why = "waiting to be restarted";
                self.phase = Phase::Backoff {
                    until,
                    delay,
                    cause: Some(cause),
                }
            }
            Next::Fail { retry_at } => {
                self.why = self.verdict;
                self.phase = Phase::Failed { retry_at };
            }
            Next::Complete => {
                self.why = self.verdict;
                self.phase = Phase::Completed;
            }
            Next::Judge => debug_assert!(false, "judged when the main process ended"),
        }
    }

    pub(super) fn settle_down(
        &mut self,
        next: Next,
        stopped: Option<(Run, Duration)>,
        out: &mut Outbox,
    ) {
        let (run, took) = stopped.map_or((None, Duration::ZERO), |(run, took)| (Some(run), took));
        self.tell(Event::Stopped { run, took }, out);
        self.why = "stopped, as asked";
        self.phase = Phase::Stopped;
        if next == Next::Gone {
            self.phase = Phase::Removed;
            self.tell(Event::Removed, out);
        }
    }

    /// Asks the policy, tells what it says, and returns what is to follow once the family is gone.
    pub(super) fn judge(&mut self, at: Moment, end: End, out: &mut Outbox) -> Next {
        match self.record.judge(&self.policy, end, at.chance) {
            Verdict::Restart {
                delay,
                cause,
                crashes_left,
            } => {
                self.tell(
                    Event::BackingOff {
                        delay,
                        cause,
                        crashes_left,
                    },
                    out,
                );
                Next::Wait {
                    until: at.now + delay,
                    delay,
                    cause,
                }
            }
            Verdict::GiveUp {
                rule,
                limit,
                retry,
                crash,
            } => {
                self.tell(Event::GaveUp { rule, limit, retry }, out);
                self.conclude(rule.label(), crash, retry.map(|after| at.now + after), out)
            }
            Verdict::End { reason, crash } => self.conclude(reason, crash, None, out),
        }
    }

    pub(super) fn conclude(
        &mut self,
        reason: &'static str,
        crash: bool,
        retry_at: Option<Instant>,
        out: &mut Outbox,
    ) -> Next {
        self.verdict = reason;
        if crash {
            self.tell(Event::Failed { reason }, out);
            Next::Fail { retry_at }
        } else {
            self.tell(Event::Completed { reason }, out);
            Next::Complete
        }
    }

    /// Finds the reason of an end: ours first, then the kernel's.
    pub(super) fn classify(&self, status: WaitStatus, ending: Option<&Ending>) -> ExitReason {
        let intent = ending.map(|e| e.intent);
        let killed = ending.is_some_and(|e| matches!(e.grace, Grace::Killed { .. }));
        match (status, intent) {
            (WaitStatus::Signaled { oom: true, .. }, _) => ExitReason::Oom,
            (_, Some(Intent::Ailing(ailment))) => ailment.reason(),
            (
                WaitStatus::Signaled {
                    signal: SIGKILL, ..
                },
                Some(Intent::Stop | Intent::Restart),
            ) if killed => ExitReason::StopTimeout,
            (_, Some(Intent::Stop)) => ExitReason::Stop,
            (_, Some(Intent::Restart)) => ExitReason::Restart,
            (_, Some(Intent::StartTimeout)) => ExitReason::StartupTimeout,
            (
                WaitStatus::Signaled {
                    core_dumped: true, ..
                },
                _,
            ) => ExitReason::CoreDump,
            (WaitStatus::Signaled { .. }, _) => ExitReason::Signal,
            (WaitStatus::Exited { code }, _) if self.policy.success_exit_codes.contains(&code) => {
                ExitReason::Success
            }
            (WaitStatus::Exited { .. }, _) => ExitReason::ExitCode,
            (WaitStatus::Lost, _) => ExitReason::Lost,
        }
    }

    /// The alarm that something outlives SIGKILL.
    pub(super) fn unkillable(&mut self, at: Moment, run: Run, since: Instant, out: &mut Outbox) {
        self.why = "it outlives SIGKILL: in uninterruptible sleep, or not to be signalled";
        let after = at.now.saturating_duration_since(since);
        self.tell(Event::Unkillable { run, after }, out);
    }

    pub(super) fn tell(&self, event: Event, out: &mut Outbox) {
        out.push_back(Output::Event(self.id, event));
    }

    pub(super) fn act(&self, action: Action, out: &mut Outbox) {
        out.push_back(Output::Action(self.id, action));
    }
}

/// SIGKILL was sent now.
pub(super) fn killed(at: Moment) -> Grace {
    Grace::Killed {
        since: at.now,
        alarm_at: Some(at.now + UNKILLABLE_AFTER),
    }
}
