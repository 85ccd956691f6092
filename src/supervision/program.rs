//! One program: the state machine that keeps one slot alive.
//!
//! ```text
//!              Start                 Spawned               Ready
//!   Stopped ──────────▶ Spawning ───────────▶ Starting ───────────▶ Running
//!      ▲  ╲ Await          ▲  │ SpawnFailed       │ start_timeout      │ │
//!      │   ▼               │  ▼                   ▼                    │ │
//!      │  Waiting ─Proceed─┤ judged ◀── Exited ─ Ending ◀─Stop/Restart─┘ │
//!      │                   │  │  ▲               │ │ ▲                   │
//!      │            delay  │  │  └── family gone ┘ │ └─ Exited, family ──┤
//!      └───────────────────┼──┼─────── asked down ─┘                     │
//!                          │  ├─▶ Backoff ──┐          judged ◀── Exited ┘
//!                          └──┼─────────────┘ delay over
//!                             ├─▶ Failed ────▶ (after retry_after: Spawning)
//!                             └─▶ Completed
//! ```
//!
//! A deadline is a field of the phase that waits for it: leaving the phase destroys it. News of
//! another run is a no-op. A failed spawn is judged like a death.

use std::time::{Duration, Instant};

use super::exit::{ExitReason, SpawnFailure, WaitStatus};
use super::phase::{Ending, Grace, Intent, Life, Next, Phase};
use super::policy::{End, Policy, Record, Verdict, backoff};
use super::vocabulary::{Action, Cause, Event, Exit, Input, Moment, Order, State, View};
use super::{Id, Outbox, Output, Run};

/// From SIGKILL to the alarm that a process outlives it.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// The signal that cannot be caught; the same number on every Linux.
const SIGKILL: i32 = 9;

/// One slot and all that is known of it.
#[derive(Clone, Debug)]
pub struct Program {
    id: Id,
    policy: Policy,
    phase: Phase,
    record: Record,
    /// Runs so far: the number of the latest.
    runs: u32,
    /// Spawns in a row that were put off for want of resources.
    deferrals: u32,
    why: &'static str,
    /// The rule behind the latest `Failed` or `Completed`.
    verdict: &'static str,
}

impl Program {
    /// Makes a program that nobody wants yet.
    #[must_use]
    pub fn new(id: Id, policy: Policy) -> Self {
        let record = Record::default();
        Self {
            id,
            policy,
            phase: Phase::Stopped,
            record,
            runs: 0,
            deferrals: 0,
            why: "not started",
            verdict: "",
        }
    }

    /// Replaces the policy; it holds from the next decision on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes one thing that happened and leaves what follows in `out`.
    pub fn step(&mut self, at: Moment, input: Input, out: &mut Outbox) {
        match input {
            Input::Order(order) => self.obey(at, order, out),
            Input::Spawned(run, pid) => self.spawned(at, run, pid, out),
            Input::SpawnFailed(run, failure) => self.spawn_failed(at, run, failure, out),
            Input::Ready(run) => self.ready(at, run, out),
            Input::Exited {
                run,
                status,
                family,
            } => self.exited(at, run, (status, family), out),
            Input::FamilyGone(run) => self.family_gone(at, run, out),
            Input::Tick => self.tick(at, out),
        }
    }

    /// When time alone will change something; `None` when it cannot.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.phase.deadline()
    }

    /// The contract's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.phase.state()
    }

    /// It lives, or will live again without anybody asking.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self.phase {
            Phase::Spawning { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Ending(_)
            | Phase::Backoff { .. } => true,
            Phase::Failed { retry_at } => retry_at.is_some(),
            Phase::Stopped | Phase::Waiting { .. } | Phase::Completed | Phase::Removed => false,
        }
    }

    /// It has a process, or is about to have one, or has left one behind.
    #[must_use]
    pub fn has_process(&self) -> bool {
        matches!(
            self.phase,
            Phase::Spawning { .. }
                | Phase::Starting { .. }
                | Phase::Running { .. }
                | Phase::Ending(_)
        )
    }

    /// Somebody wants it up: it is, is to be, or failed to be.
    #[must_use]
    pub fn is_desired(&self) -> bool {
        self.phase.is_desired()
    }

    /// It waits for another program.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// It outlives SIGKILL, and the alarm has been told.
    #[must_use]
    pub fn is_unkillable(&self) -> bool {
        matches!(
            &self.phase,
            Phase::Ending(Ending {
                grace: Grace::Killed { alarm_at: None, .. },
                ..
            })
        )
    }

    /// It was removed and is gone.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self.phase, Phase::Removed)
    }

    /// The program as it stands.
    #[must_use]
    pub fn view(&self) -> View {
        let life = self.phase.life();
        View {
            state: self.state(),
            desired: self.is_desired(),
            ready: life.is_some_and(|life| life.ready)
                && matches!(self.phase, Phase::Running { .. }),
            run: life.map(|life| (life.run, life.pid, life.since)),
            ran: self.record.ran(),
            crashes: self.record.crashes().collect(),
            deadline: self.deadline(),
            backoff: match self.phase {
                Phase::Backoff { delay, .. } => Some(delay),
                _ => None,
            },
            why: self.why,
            waits_for: match self.phase {
                Phase::Waiting { dependency } => Some(dependency),
                _ => None,
            },
        }
    }

    // ---- orders -----------------------------------------------------------------------------

    fn obey(&mut self, at: Moment, order: Order, out: &mut Outbox) {
        match order {
            Order::Start => self.start(out),
            Order::Await(dependency) => self.wait_for(dependency, out),
            Order::Proceed => {
                if let Phase::Waiting { .. } = self.phase {
                    self.launch(None, out);
                }
            }
            Order::Stop => self.take_down(at, Next::Down, out),
            Order::Remove => self.take_down(at, Next::Gone, out),
            Order::Restart(cause) => self.restart(at, cause, out),
            Order::Kill => self.kill_now(at, out),
        }
    }

    fn start(&mut self, out: &mut Outbox) {
        self.record.clear();
        match &mut self.phase {
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed => {
                self.launch(None, out);
            }
            Phase::Spawning { asked, .. } => {
                if *asked == Some(Next::Down) {
                    *asked = None;
                }
            }
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

    fn wait_for(&mut self, dependency: Id, out: &mut Outbox) {
        self.record.clear();
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
                self.start(out);
            }
        }
    }

    fn take_down(&mut self, at: Moment, next: Next, out: &mut Outbox) {
        match &mut self.phase {
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. }
            | Phase::Completed => {
                self.settle_down(next, None, out);
            }
            Phase::Spawning { asked, .. } => match asked {
                Some(Next::Gone) => {}
                _ => *asked = Some(next),
            },
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

    fn restart(&mut self, at: Moment, cause: Cause, out: &mut Outbox) {
        // What is being spawned is as fresh as a restart would be, and keeps its record.
        if !matches!(self.phase, Phase::Spawning { .. }) {
            self.record.clear();
        }
        match &mut self.phase {
            Phase::Stopped | Phase::Completed => self.launch(None, out),
            Phase::Backoff { .. } | Phase::Failed { .. } => self.launch(Some(cause), out),
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
                _ => *asked = None,
            },
            Phase::Waiting { .. } | Phase::Removed => {}
        }
    }

    fn kill_now(&mut self, at: Moment, out: &mut Outbox) {
        self.take_down(at, Next::Down, out);
        if let Phase::Ending(ending) = &mut self.phase
            && let Grace::Polite { .. } = ending.grace
        {
            ending.grace = killed(at);
            let run = ending.life.run;
            self.act(Action::Kill(run), out);
        }
    }

    // ---- news -------------------------------------------------------------------------------

    fn spawned(&mut self, at: Moment, run: Run, pid: i32, out: &mut Outbox) {
        let Phase::Spawning {
            run: expected,
            cause,
            asked,
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
        if let Some(next) = asked {
            self.end(at, life, Intent::Stop, next, out);
        } else if self.policy.gated {
            self.why = "started, not ready yet";
            self.phase = Phase::Starting {
                life,
                give_up_at: at.now + self.policy.start_timeout,
            };
        } else {
            self.become_ready(at, life, out);
        }
    }

    fn spawn_failed(&mut self, at: Moment, run: Run, failure: SpawnFailure, out: &mut Outbox) {
        let Phase::Spawning {
            run: expected,
            cause,
            asked,
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

    fn ready(&mut self, at: Moment, run: Run, out: &mut Outbox) {
        if let Phase::Starting { life, .. } = self.phase
            && life.run == run
        {
            self.become_ready(at, life, out);
        }
    }

    fn become_ready(&mut self, at: Moment, life: Life, out: &mut Outbox) {
        self.tell(
            Event::Ready {
                run: life.run,
                took: at.now.saturating_duration_since(life.since),
            },
            out,
        );
        self.why = "running";
        self.phase = Phase::Running {
            life: Life {
                ready: true,
                ..life
            },
        };
    }

    fn exited(
        &mut self,
        at: Moment,
        run: Run,
        (status, family): (WaitStatus, bool),
        out: &mut Outbox,
    ) {
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
                ran,
                was_ready: life.ready,
            }),
            out,
        );
        let next = match ending.as_ref().map_or(Next::Judge, |e| e.next) {
            Next::Judge => self.judge(
                at,
                End {
                    reason,
                    code: status.code(),
                    ran,
                },
                out,
            ),
            next => {
                self.record.add_run(ran);
                next
            }
        };
        let asked_at = ending.as_ref().map_or(at.now, |e| e.asked_at);
        if family {
            self.outlived_by_family(at, life, ending, next, out);
        } else {
            self.settle(at, next, Some((run, asked_at)), out);
        }
    }

    /// The main process is gone and descendants are not: they get the stop signal (if they have not
    /// had it) and what is left of the grace period.
    fn outlived_by_family(
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

    fn family_gone(&mut self, at: Moment, run: Run, out: &mut Outbox) {
        if let Phase::Ending(ending) = &self.phase
            && !ending.main_alive
            && ending.life.run == run
        {
            let (next, asked_at) = (ending.next, ending.asked_at);
            self.settle(at, next, Some((run, asked_at)), out);
        }
    }

    fn tick(&mut self, at: Moment, out: &mut Outbox) {
        if self.deadline().is_none_or(|deadline| at.now < deadline) {
            return;
        }
        match &mut self.phase {
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
                        self.why = "it outlives SIGKILL: probably in uninterruptible sleep";
                        self.tell(
                            Event::Unkillable {
                                run,
                                after: at.now.saturating_duration_since(since),
                            },
                            out,
                        );
                    }
                }
            }
            Phase::Backoff { cause, .. } => {
                let cause = *cause;
                self.launch(cause, out);
            }
            Phase::Failed { .. } => {
                self.record.count_retry();
                self.launch(Some(Cause::Crash), out);
            }
            Phase::Stopped
            | Phase::Waiting { .. }
            | Phase::Spawning { .. }
            | Phase::Running { .. }
            | Phase::Completed
            | Phase::Removed => {}
        }
    }

    // ---- decisions --------------------------------------------------------------------------

    fn launch(&mut self, cause: Option<Cause>, out: &mut Outbox) {
        self.runs = self.runs.wrapping_add(1);
        let run = Run::new(self.id, self.runs);
        self.why = "starting";
        self.phase = Phase::Spawning {
            run,
            cause,
            asked: None,
        };
        self.act(Action::Spawn(run), out);
    }

    /// Begins to end a run: stop signal, grace period, SIGKILL.
    fn end(&mut self, at: Moment, life: Life, intent: Intent, next: Next, out: &mut Outbox) {
        let (why, told) = match intent {
            Intent::Stop => ("stopping, as asked", Some("stop requested")),
            Intent::Restart => ("stopping for a restart", Some("restart requested")),
            Intent::StartTimeout => (
                "not ready in start_timeout: being ended",
                Some("not ready in start_timeout"),
            ),
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
    fn settle(&mut self, at: Moment, next: Next, ended: Option<(Run, Instant)>, out: &mut Outbox) {
        match next {
            Next::Down | Next::Gone => {
                let stopped =
                    ended.map(|(run, asked_at)| (run, at.now.saturating_duration_since(asked_at)));
                self.settle_down(next, stopped, out);
            }
            Next::Up(cause) => self.launch(cause, out),
            Next::Wait { until, cause, .. } if until <= at.now => self.launch(Some(cause), out),
            Next::Wait {
                until,
                delay,
                cause,
            } => {
                self.phase = Phase::Backoff {
                    until,
                    delay,
                    cause: Some(cause),
                }
            }
            Next::Fail { retry_at } => self.phase = Phase::Failed { retry_at },
            Next::Complete => self.phase = Phase::Completed,
            Next::Judge => debug_assert!(false, "judged when the main process ended"),
        }
        match self.phase {
            Phase::Backoff { .. } => self.why = "waiting to be restarted",
            Phase::Failed { .. } | Phase::Completed => self.why = self.verdict,
            _ => {}
        }
    }

    fn settle_down(&mut self, next: Next, stopped: Option<(Run, Duration)>, out: &mut Outbox) {
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
    fn judge(&mut self, at: Moment, end: End, out: &mut Outbox) -> Next {
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
                reason,
                limit,
                retry,
                crash,
            } => {
                self.tell(
                    Event::GaveUp {
                        reason,
                        limit,
                        retry,
                    },
                    out,
                );
                self.conclude(reason, crash, retry.map(|after| at.now + after), out)
            }
            Verdict::End { reason, crash } => self.conclude(reason, crash, None, out),
        }
    }

    fn conclude(
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
    fn classify(&self, status: WaitStatus, ending: Option<&Ending>) -> ExitReason {
        let intent = ending.map(|e| e.intent);
        let killed = ending.is_some_and(|e| matches!(e.grace, Grace::Killed { .. }));
        match (status, intent) {
            (WaitStatus::Signaled { oom: true, .. }, _) => ExitReason::Oom,
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

    fn tell(&self, event: Event, out: &mut Outbox) {
        out.push_back(Output::Event(self.id, event));
    }

    fn act(&self, action: Action, out: &mut Outbox) {
        out.push_back(Output::Action(self.id, action));
    }
}

fn killed(at: Moment) -> Grace {
    Grace::Killed {
        since: at.now,
        alarm_at: Some(at.now + UNKILLABLE_AFTER),
    }
}
