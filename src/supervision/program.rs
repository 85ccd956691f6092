//! One program: the state machine that keeps one slot alive.
//!
//! ```text
//!              Start                 Spawned       Ready, or it stayed up
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
//! another run is a no-op. A failed spawn is judged like a death. A spawn without an answer is told
//! to hang, and ended (at once where nobody wants it any more, else after start_timeout). `Failing`
//! ends what runs as a stop does, and that end is judged.

mod birth;
mod ending;
mod news;
mod orders;

use std::time::Instant;

use super::phase::{Birth, Ending, Grace, Phase, Stage};
use super::policy::{Policy, Record};
use super::vocabulary::{Input, Moment, State, View};
use super::{Id, Outbox};

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
    /// Starts that came to nothing since it was last up or somebody asked for it.
    failed_starts: u32,
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
            failed_starts: 0,
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
            Input::Failing(run, ailment) => self.failing(at, (run, ailment), out),
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

    /// Whom it waits for.
    #[must_use]
    pub fn waits_for(&self) -> Option<Id> {
        self.phase.dependency()
    }

    /// A start came to nothing since it was last up or somebody asked for it.
    #[must_use]
    pub fn did_not_come_up(&self) -> bool {
        self.failed_starts > 0
    }

    /// It outlives SIGKILL, and the alarm has been told.
    #[must_use]
    pub fn is_unkillable(&self) -> bool {
        matches!(
            &self.phase,
            Phase::Ending(Ending {
                grace: Grace::Killed { alarm_at: None, .. },
                ..
            }) | Phase::Spawning {
                birth: Birth {
                    stage: Stage::Killed { alarm_at: None, .. },
                    ..
                },
                ..
            }
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
            deadline: self
                .phase
                .announced()
                .filter(|_| self.phase.ready_at().is_none()),
            ready_at: self.phase.ready_at(),
            failed_starts: self.failed_starts,
            backoff: self.phase.delay(),
            why: self.why,
            waits_for: self.phase.dependency(),
        }
    }
}
