//! What the loop is there for at a time. One loop serves all of them; what an order to end means, and
//! whether there is anything to be ordered, is said here.

use std::task::{Context, Poll};
use std::time::Instant;

use super::Refusal;
use super::core::Core;
use super::farewell::{self, Farewell};
use super::linger::{self, Linger};
use super::recovery::Recovery;
use crate::control::server;
use crate::observe::DaemonEvent;
use crate::os::notify::Systemd;
use crate::supervision::{Outcome, Request};

/// The times of a daemon's life, in order.
pub(super) enum Mode {
    /// What an earlier daemon left is being ended.
    Recovering(Box<Recovery>),
    /// Programs run.
    Supervising,
    /// All programs have ended, and what belongs to none is being ended.
    SeeingOff(Farewell),
    /// It gave up, and its last numbers are served.
    Lingering(Linger),
    /// It is done, or found that it must not begin.
    Over(Result<Outcome, Refusal>),
}

impl Mode {
    /// Waits for what only this mode waits for.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Recovering(recovery) => recovery.clearing.poll_next(context),
            Self::Lingering(linger) => linger.scraped.as_mut().poll(context),
            Self::Supervising | Self::SeeingOff(_) | Self::Over(_) => Poll::Pending,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Recovering(recovery) => recovery.clearing.deadline(),
            Self::SeeingOff(farewell) => Some(farewell.until),
            Self::Lingering(linger) => Some(linger.until),
            Self::Supervising | Self::Over(_) => None,
        }
    }
}

impl Core {
    /// Takes what this mode waits for; tells whether there was anything.
    pub(super) fn take_own(&mut self, context: &mut Context<'_>) -> bool {
        let is_ready = self.mode.poll(context).is_ready();
        if is_ready {
            match self.mode {
                Mode::Recovering(_) => self.advance_recovery(),
                Mode::Lingering(_) => self.mode = Mode::Over(Ok(Outcome::Failed)),
                Mode::Supervising | Mode::SeeingOff(_) | Mode::Over(_) => {}
            }
        }
        is_ready
    }

    /// Does what is due in this mode.
    pub(super) fn mode_is_due(&mut self, now: Instant) {
        match &self.mode {
            Mode::Recovering(_) => self.advance_recovery(),
            Mode::Lingering(linger) if linger.until <= now => {
                self.mode = Mode::Over(Ok(Outcome::Failed));
            }
            Mode::SeeingOff(farewell) if farewell.until <= now => self.end_farewell(),
            Mode::SeeingOff(_) | Mode::Lingering(_) | Mode::Supervising | Mode::Over(_) => {}
        }
    }

    /// Somebody wants the daemon to end. Said `again`, the grace is over; an order does not insist, a
    /// signal does.
    pub(super) fn asked_to_end(&mut self, reason: &str, insists: bool) {
        let again = self.fleet.is_shutting_down();
        match &mut self.mode {
            Mode::Recovering(recovery) => recovery.hurry(again && insists),
            Mode::Supervising if again && insists => return self.request(Request::Kill),
            Mode::Supervising => {}
            Mode::SeeingOff(farewell) if insists => {
                farewell.hurry();
                return;
            }
            Mode::Lingering(_) => {
                self.mode = Mode::Over(Ok(Outcome::Failed));
                return;
            }
            Mode::SeeingOff(_) | Mode::Over(_) => return,
        }
        if !again {
            self.stop_everything(reason);
        }
    }

    /// A new configuration is wanted by signal.
    pub(super) fn reload_by_signal(&mut self) {
        match &mut self.mode {
            Mode::Recovering(recovery) => recovery.reload = true,
            Mode::Supervising => self.reload(true, None),
            Mode::SeeingOff(_) | Mode::Lingering(_) | Mode::Over(_) => {}
        }
    }

    /// Returns why nothing can be ordered of programs; `None` when it can.
    pub(super) fn has_no_ear(&self) -> Option<server::Refusal> {
        match &self.mode {
            Mode::Recovering(recovery) => Some(recovery.not_yet()),
            Mode::Supervising => None,
            Mode::SeeingOff(_) => Some(farewell::too_late()),
            Mode::Lingering(_) | Mode::Over(_) => Some(linger::too_late()),
        }
    }

    /// Nothing is left to supervise.
    pub(super) async fn wind_up(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Stopped | Outcome::Unkillable) {
            self.start_up.interrupted();
        }
        self.conclude_starts().await;
        if !self.fleet.is_shutting_down() {
            let reason = "nothing is left to run".to_owned();
            self.observer.tell(&DaemonEvent::Stopping { reason });
        }
        self.systemd_says(Systemd::stopping);
        self.observer.tell(&DaemonEvent::Statistics);
        self.bid_farewell(outcome);
    }

    /// Nothing is left at all. Lingers if that was a give-up.
    pub(super) fn retire(&mut self, outcome: Outcome) {
        let limit = self.config.metrics.linger;
        let linger = (outcome == Outcome::Failed)
            .then(|| Linger::new(limit, self.app.scrapes()))
            .flatten();
        self.mode = match linger {
            Some(linger) => {
                self.observer.tell(&DaemonEvent::Lingering { limit });
                Mode::Lingering(linger)
            }
            None => Mode::Over(Ok(outcome)),
        };
    }
}
