//! Who has ended, and when that was seen.
//!
//! The kernel does not keep the time of an end. What is left is to look often: at each wake-up, and
//! in between while the news of others is being dealt with.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Children;
use super::births::Look;
use crate::os::pidfd;
use crate::supervision::{Run, WaitStatus};

/// How long after one glance the next is worth its while.
const GLANCE: Duration = Duration::from_millis(1);

/// What the kernel has shown between two looks.
#[derive(Debug)]
pub(super) struct Glimpsed {
    /// The latest glance.
    at: Instant,
    /// Main processes that have ended, and when that was seen.
    pub(super) ended: HashMap<Run, Instant>,
    /// Runs whose cgroups have news, which the kernel tells once.
    pub(super) stirred: HashSet<Run>,
}

impl Glimpsed {
    pub(super) fn new(at: Instant) -> Self {
        Self {
            at,
            ended: HashMap::new(),
            stirred: HashSet::new(),
        }
    }
}

impl Children {
    /// Notes who has ended since the last look, for one who is busy with the news of that: the time
    /// of an end is when it was seen. The kernel does not keep it.
    pub fn glance(&mut self) {
        let now = (self.clock)();
        if now.saturating_duration_since(self.glimpsed.at) < GLANCE {
            return;
        }
        self.glimpsed.at = now;
        for run in self.exits.get_ref().ready().into_iter().map(Run) {
            if self.births.contains_key(&run) {
                continue;
            }
            match self.runs.get(&run) {
                Some(child) if child.ended => {
                    self.unsettled |= self.glimpsed.stirred.insert(run);
                }
                Some(_) => {
                    if let Entry::Vacant(unseen) = self.glimpsed.ended.entry(run) {
                        unseen.insert(now);
                        self.unsettled = true;
                    }
                }
                None => {}
            }
        }
    }

    /// Takes every main process that has ended out of the set of watched ones. Returns also the
    /// runs whose cgroups have news.
    pub(super) fn take_ended(&mut self) -> (Vec<(Run, WaitStatus)>, HashSet<Run>) {
        let now = (self.clock)();
        let (mut ended, mut grown) = (Vec::new(), HashSet::new());
        let mut stirred = std::mem::take(&mut self.glimpsed.stirred);
        loop {
            let mut news = false;
            let ready = self.exits.get_ref().ready().into_iter().map(Run);
            for run in ready.chain(self.unwatched.runs()).collect::<Vec<_>>() {
                if self.births.contains_key(&run) {
                    let look = self.look_at(run);
                    news |= look != Look::Nothing;
                    grown.extend((look == Look::Grown).then_some(run));
                    continue;
                }
                if grown.contains(&run) {
                    // It has ended already: that it ran is news of its own, before that.
                    self.unsettled = true;
                    continue;
                }
                let Some(child) = self.runs.get(&run) else {
                    continue;
                };
                if child.ended {
                    stirred.insert(run);
                } else if let Some((status, used)) = pidfd::peek(child.pidfd.as_fd()) {
                    // Before it is reaped: whoever misses it in `/proc` finds this afterwards.
                    self.endings.add(child.id.0, child.pid, used);
                    self.exits.get_ref().remove(child.pidfd.as_fd());
                    self.unwatched.forget(run);
                    self.glimpsed.ended.entry(run).or_insert(now);
                    ended.push((run, status));
                    news = true;
                }
            }
            // A debugger may hold back the status of a process that has ended: SIGCHLD follows.
            if !news {
                return (ended, stirred);
            }
        }
    }
}
