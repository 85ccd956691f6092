//! Runs that the kernel does not watch for us: it lacked memory, or watches.
//!
//! They live as others do, for to end them would be to lose a program that runs. Until they are
//! watched they are looked at every now and then.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::{Sleep, sleep};

use super::Children;
use super::births::Birth;
use crate::supervision::Run;

/// From one look to the next: short beside what a person notices.
const PAUSE: Duration = Duration::from_millis(20);

/// Which runs, and when they are looked at.
#[derive(Debug, Default)]
pub(super) struct Unwatched {
    runs: BTreeSet<Run>,
    later: Option<Pin<Box<Sleep>>>,
}

impl Unwatched {
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().copied()
    }

    pub(super) fn forget(&mut self, run: Run) {
        self.runs.remove(&run);
    }
}

impl Children {
    /// Has the kernel tell of a run, or notes that it does not.
    pub(super) fn watch(&mut self, run: Run) {
        if self.try_watch(run).is_ok() {
            self.unwatched.forget(run);
        } else {
            self.unwatched.runs.insert(run);
        }
    }

    fn try_watch(&self, run: Run) -> Result<(), Errno> {
        let add = |descriptor: BorrowedFd<'_>| match self.exits.get_ref().add(descriptor, run.0) {
            // By an earlier try that came half way.
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        };
        let Some(child) = self.runs.get(&run) else {
            return Ok(());
        };
        add(child.pidfd.as_fd())?;
        let answer = self.births.get(&run).and_then(Birth::answer);
        answer.map_or(Ok(()), add)
    }

    /// Tells whether it is time to look at those that are not watched; tries to have them watched then.
    pub(super) fn poll_unwatched(&mut self, context: &mut Context<'_>) -> bool {
        if self.unwatched.runs.is_empty() {
            self.unwatched.later = None;
            return false;
        }
        let later = &mut self.unwatched.later;
        let later = later.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
        if later.as_mut().poll(context).is_pending() {
            return false;
        }
        self.unwatched.later = None;
        for run in self.unwatched.runs.clone() {
            self.watch(run);
        }
        true
    }
}
