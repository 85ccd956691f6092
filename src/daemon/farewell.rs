//! The end of whatever descends from us and belongs to no program: nothing outlives the daemon but
//! what its config leaves alone.

use std::time::{Duration, Instant};

use nix::libc;

use super::core::Core;
use super::mode::Mode;
use crate::control::server::Refusal;
use crate::observe::DaemonEvent;
use crate::supervision::Outcome;

/// From SIGTERM to SIGKILL: nobody has configured one for those that belong to nobody.
const GRACE: Duration = Duration::from_secs(5);
/// How long the killed may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// All programs have ended, and somebody is left.
pub(super) struct Farewell {
    /// How the daemon ends.
    outcome: Outcome,
    pub until: Instant,
    killed: bool,
}

impl Farewell {
    /// Ends the grace.
    pub(super) fn hurry(&mut self) {
        if !self.killed {
            self.until = Instant::now();
        }
    }
}

impl Core {
    /// Begins to end what is left when all programs have ended; nothing where nobody is.
    pub(super) fn bid_farewell(&mut self, outcome: Outcome) {
        let count = self.children.rest_len();
        if count == 0 {
            return self.retire(outcome);
        }
        self.observer.tell(&DaemonEvent::RestFound { count });
        self.children.bid_farewell(libc::SIGTERM);
        self.mode = Mode::SeeingOff(Farewell {
            outcome,
            until: Instant::now() + GRACE,
            killed: false,
        });
    }

    /// Goes on when the last is gone.
    pub(super) fn see_off(&mut self) {
        if let Mode::SeeingOff(Farewell { outcome, .. }) = self.mode
            && self.children.rest_len() == 0
        {
            self.retire(outcome);
        }
    }

    /// The grace is over: kills, and when that was done gives up.
    pub(super) fn end_farewell(&mut self) {
        let Mode::SeeingOff(farewell) = &mut self.mode else {
            return;
        };
        if !farewell.killed {
            farewell.killed = true;
            farewell.until = Instant::now() + KILL_LIMIT;
            return self.children.bid_farewell(libc::SIGKILL);
        }
        let outcome = farewell.outcome;
        let count = self.children.rest_len();
        let message = format!("processes that outlive SIGKILL are left behind: {count}");
        self.observer.tell(&DaemonEvent::Trouble { message });
        self.retire(outcome);
    }
}

/// Answers an order that comes when all programs have ended.
pub(super) fn too_late() -> Refusal {
    Refusal::Conflict("the daemon is about to end".into())
}
