//! Supervision: what to do, decided without doing it.
//!
//! PURE: std only. No clock, no randomness, no I/O, no logging, no tokio. Time and chance come in
//! with every [`Moment`]; what the world has to do goes out as [`Action`]s, what there is to tell
//! as [`Event`]s. `daemon` performs the first and hands the second to `observe`.

mod exit;
mod fleet;
mod phase;
mod policy;
mod program;
mod timeline;
mod vocabulary;

pub use exit::{ExitReason, FailureKind, SpawnFailure, WaitStatus};

pub use fleet::{Fleet, Member, Outcome, Request};
pub use policy::{OnCrashLoop, Policy, Readiness, RestartMode, Rule, Verdict};
pub use program::Program;
pub use timeline::{CrashStep, Timeline, timeline};
pub use vocabulary::{Action, Ailment, Cause, Event, Exit, Input, Moment, Order, State, View};

/// One supervised process slot: a replica of a program. Never reused while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u32);

/// One life of a program, from spawn to exit. Unique over all programs while the daemon lives, so
/// that news of another life can be told from news of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run(pub u64);

impl Run {
    /// Returns the `number`-th run of slot `id`, counted from 1.
    #[must_use]
    pub const fn new(id: Id, number: u32) -> Self {
        Self((id.0 as u64) << 32 | number as u64)
    }

    /// Returns the slot this run is of.
    #[must_use]
    pub const fn id(self) -> Id {
        Id((self.0 >> 32) as u32)
    }

    /// Returns which run of its slot this is, counted from 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// What a decision has for the world and for the observer, in the order it happened.
#[derive(Debug)]
pub enum Output {
    /// Something to tell.
    Event(Id, Event),
    /// Something to do.
    Action(Id, Action),
}

/// Where a step leaves what it decided.
pub type Outbox = std::collections::VecDeque<Output>;
