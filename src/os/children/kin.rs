//! Who is left of a run: orphans, whose they are, and when the last of a family is gone.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::time::sleep;

use super::telling::tell;
use super::{Children, News, Orphan};
use crate::os::cgroups;
use crate::os::family::{self, Marker, Process};
use crate::os::pidfd;
use crate::supervision::{Run, WaitStatus};

/// How long after one look at an execution the next one is: most are over within microseconds.
const EXECUTION: Duration = Duration::from_millis(1);

/// Whose an orphan is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Run(Run),
    Nobody,
    Unknown,
}

impl Owner {
    fn run(self) -> Option<Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

impl Children {
    /// Tells whether nobody is left of a run but its main process. Whoever else lives in its cgroup
    /// is told what the run was told, and watched.
    pub(super) fn is_alone(&mut self, run: Run) -> bool {
        let Some(child) = self
            .runs
            .get_mut(&run)
            .filter(|child| child.members.is_empty())
        else {
            return false;
        };
        // Where a cgroup tells who belongs to it, nobody has to be guessed at.
        if child.family && !child.in_cgroup && !self.unknown.is_empty() {
            return false;
        }
        if !(child.family && child.ended && child.in_cgroup) {
            return true;
        }
        let exits = self.exits.get_ref();
        let watched = child.crowd.take();
        let is_watched = watched.is_some();
        let Some(events) = watched.or_else(|| self.cgroups.events(child.id)) else {
            return true;
        };
        // The kernel may still count one whose end is known, so that it is not enough to ask it.
        let others = if cgroups::says_populated(&events) {
            self.cgroups.members(child.id)
        } else {
            Vec::new()
        };
        if others.is_empty() {
            if is_watched {
                exits.remove(events.as_fd());
            }
            return true;
        }
        if !is_watched && exits.watch(events.as_fd(), run.0).is_err() {
            return true;
        }
        child.crowd = Some(events);
        if let Some(signal) = child.asked {
            for process in &others {
                let sent = tell(process, signal);
                self.note_refusal(run, process.pid, signal, sent);
            }
        }
        false
    }

    /// Finds the orphans that have come to us, unless that was done in this turn.
    pub(super) fn count(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        for pid in family::own_children() {
            let known = self.orphans.contains_key(&pid) && !self.unknown.contains(&pid);
            if known || self.mains.contains_key(&pid) {
                continue;
            }
            let Some(process) = Process::read(pid) else {
                continue;
            };
            let owner = self.owner(&process);
            match owner {
                Owner::Unknown => {
                    self.unknown.insert(pid);
                    self.doubted = true;
                }
                Owner::Run(_) | Owner::Nobody => {
                    self.unknown.remove(&pid);
                }
            }
            let owner = owner.run();
            self.orphans.insert(pid, Orphan { process, owner });
            if let Some((run, child)) = owner.and_then(|run| Some((run, self.runs.get_mut(&run)?)))
            {
                child.members.insert(pid);
                if let Some(signal) = child.asked {
                    self.tell_newcomer(run, &process, signal);
                }
            }
        }
        if self.doubted {
            self.look_again = Some(Box::pin(sleep(EXECUTION)));
        }
    }

    /// Finds the run that an orphan belongs to, if that run keeps a family.
    fn owner(&self, orphan: &Process) -> Owner {
        let run = self
            .relatives
            .get(&(orphan.pid, orphan.started))
            .or_else(|| self.mains.get(&orphan.session))
            .or_else(|| self.mains.get(&orphan.group))
            .copied()
            .or_else(|| self.cgroups.owner(orphan.pid));
        let run = match run {
            Some(run) => Some(run),
            None => match family::marker(orphan.pid) {
                Marker::Of(value) => self.marked(&value),
                Marker::None => None,
                Marker::NotYet => return Owner::Unknown,
            },
        };
        match run.and_then(|run| Some((run, self.runs.get(&run)?))) {
            Some((run, child)) if child.family => Owner::Run(run),
            Some(_) | None => Owner::Nobody,
        }
    }

    /// Finds the run that was given this marker.
    fn marked(&self, value: &str) -> Option<Run> {
        let run = Run(value.rsplit_once(':')?.1.parse().ok()?);
        let child = self.runs.get(&run)?;
        (value == self.mark(child.id, run)).then_some(run)
    }

    /// Reaps the orphans that have ended; tells whether there were any.
    pub(super) fn reap_orphans(&mut self, bereaved: &mut HashSet<Run>) -> bool {
        let dead: Vec<(i32, WaitStatus)> = self
            .orphans
            .keys()
            .filter_map(|&pid| Some((pid, pidfd::reap_number(pid)?)))
            .collect();
        for &(pid, status) in &dead {
            self.unknown.remove(&pid);
            let owner = self.orphans.remove(&pid).and_then(|orphan| orphan.owner);
            match owner.and_then(|run| Some((run, self.runs.get_mut(&run)?))) {
                Some((run, child)) => {
                    child.members.remove(&pid);
                    bereaved.insert(run);
                }
                None => self.news.push_back(News::OrphanReaped { pid, status }),
            }
        }
        !dead.is_empty()
    }

    /// Returns the living descendants of a run, and remembers whose they are.
    pub(super) fn meet(&mut self, run: Run) -> Vec<Process> {
        let Some(child) = self.runs.get(&run) else {
            return Vec::new();
        };
        let members = child.members.iter().filter_map(|pid| self.orphans.get(pid));
        let mut met: Vec<Process> = members
            .filter_map(|orphan| orphan.process.again())
            .collect();
        let roots = met.iter().map(|process| process.pid).chain([child.pid]);
        met.extend(family::descendants(roots));
        let keys = met.iter().map(|process| (process.pid, process.started));
        self.relatives.extend(keys.clone().map(|key| (key, run)));
        if let Some(child) = self.runs.get_mut(&run) {
            child.relatives.extend(keys);
        }
        met
    }
}
