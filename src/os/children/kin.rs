//! Who is left of a run: orphans, whose they are, and when the last of a family is gone.
//!
//! Whose an orphan is tell, in this order: that it was met while its parents lived; its session and
//! its group; its cgroup; our marker in its environment; the session or group of one that was met;
//! and, where nobody else's it could be, that there is one run that it could descend from.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::time::Duration;

use super::doubts::{Doubts, Finding, LONGEST};
use super::{Child, Children, News};
use crate::os::cgroups;
use crate::os::family::{self, Process};
use crate::os::pidfd;
use crate::supervision::{Id, Run, WaitStatus};

use super::telling::tell;

/// All that is known about descent.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) orphans: HashMap<i32, Orphan>,
    pub(super) doubts: Doubts,
    /// Something about the doubts has changed since the families were last counted.
    doubted: bool,
    /// Main processes that have ended, whose families nobody can tell yet.
    undecided: Vec<(Run, WaitStatus)>,
    /// Ended runs that doubts hold up, and how long there had been doubts by then.
    held: HashMap<Run, Duration>,
    /// Descendants met while their parents lived, by number and start time: whose they are stays
    /// known when they have changed session and environment.
    pub(super) relatives: HashMap<(i32, u64), Relative>,
    /// Programs whose descendants are not ours to end: they had a run in process mode.
    lenient: HashSet<Id>,
    /// Programs in process mode of which a main process has ended, and whose descendants are not
    /// counted yet.
    partings: HashSet<Id>,
    /// Our children from before we were what we are.
    strangers: HashSet<(i32, u64)>,
    /// The signal that whoever belongs to nobody has to get: the daemon ends.
    pub(super) farewell: Option<i32>,
}

#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) process: Process,
    pub(super) owner: Owner,
}

/// Whose a relative is, and where it was when it was met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relative {
    pub(super) run: Run,
    leagues: [i32; 2],
}

/// Whose an orphan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Run(Run),
    /// A program's in process mode.
    LeftAlone(Id),
    /// Of a run that is over: it escaped the eyes of all who looked, and may not stay.
    Late,
    Nobody,
    /// Was here before us.
    Stranger,
    Unknown,
}

impl Kin {
    pub(super) fn new() -> Self {
        let strangers = family::own_children().into_iter().filter_map(Process::read);
        Self {
            orphans: HashMap::new(),
            doubts: Doubts::new(),
            doubted: false,
            undecided: Vec::new(),
            held: HashMap::new(),
            relatives: HashMap::new(),
            lenient: HashSet::new(),
            partings: HashSet::new(),
            strangers: strangers.map(|process| process.identity()).collect(),
            farewell: None,
        }
    }

    /// A run is over.
    pub(super) fn forget(&mut self, run: Run, relatives: &[(i32, u64)]) {
        for relative in relatives {
            self.relatives.remove(relative);
        }
        self.held.remove(&run);
    }

    /// Finds the run of one that was met in the same session or group.
    fn by_league(&self, orphan: &Process) -> Option<Run> {
        let of = [orphan.session, orphan.group];
        let mut relatives = self.relatives.values();
        let one = relatives.find(|one| one.leagues.iter().any(|league| of.contains(league)))?;
        Some(one.run)
    }
}

impl Children {
    /// Tells whether nobody is left of a run but its main process. Whoever else lives in its cgroup
    /// is told what the run was told, and watched.
    pub(super) fn is_alone(&mut self, run: Run) -> bool {
        let child = self.runs.get(&run);
        if child.is_none_or(|child| !child.members.is_empty()) {
            return false;
        }
        if self.is_held(run) {
            return false;
        }
        let Some(child) = self.runs.get_mut(&run) else {
            return false;
        };
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

    /// Tells whether a run that has ended may have left one of those behind of whom nobody can tell
    /// whose they are. True for a bounded time only.
    fn is_held(&mut self, run: Run) -> bool {
        let Some(child) = self.runs.get(&run) else {
            return false;
        };
        // Where a cgroup tells who belongs to it, nobody has to be guessed at.
        if !child.family || child.in_cgroup || self.kin.doubts.is_empty() {
            return false;
        }
        let Some(main) = Process::read(child.pid) else {
            return false;
        };
        let lasted = self.kin.doubts.lasted();
        let since = *self.kin.held.entry(run).or_insert(lasted);
        self.kin.doubts.any_since(main.started) && lasted - since < LONGEST
    }

    /// Takes those main processes that ended earlier and waited for the doubts.
    pub(super) fn take_undecided(&mut self) -> Vec<(Run, WaitStatus)> {
        std::mem::take(&mut self.kin.undecided)
    }

    /// Puts off the news of an end while nobody can tell whether a family is left; tells whether it
    /// did.
    pub(super) fn puts_off(&mut self, run: Run, status: WaitStatus) -> bool {
        let alone = self.runs.get(&run).is_some_and(|c| c.members.is_empty());
        let held = alone && self.is_held(run);
        if held {
            self.kin.undecided.push((run, status));
        }
        held
    }

    /// Returns the ended runs that may have waited for what has become known since the last time.
    pub(super) fn relieved(&mut self) -> Vec<Run> {
        if !std::mem::take(&mut self.kin.doubted) {
            return Vec::new();
        }
        let ended = self.runs.iter().filter(|(_, child)| child.ended);
        ended.map(|(run, _)| *run).collect()
    }

    /// Finds the orphans that have come to us, unless that was done in this turn.
    pub(super) fn count(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        for pid in family::own_children() {
            if self.kin.orphans.contains_key(&pid) || self.mains.contains_key(&pid) {
                continue;
            }
            let Some(process) = Process::read(pid) else {
                continue;
            };
            let owner = self.evident_owner(&process);
            let orphan = Orphan {
                process,
                owner: Owner::Unknown,
            };
            self.kin.orphans.insert(pid, orphan);
            match owner {
                Some(owner) => self.assign(&process, owner),
                None => self.kin.doubts.add(process),
            }
        }
    }

    /// Finds whose an orphan is without asking itself.
    fn evident_owner(&self, orphan: &Process) -> Option<Owner> {
        if self.kin.strangers.contains(&orphan.identity()) {
            return Some(Owner::Stranger);
        }
        let met = self.kin.relatives.get(&orphan.identity());
        let run = met
            .map(|relative| relative.run)
            .or_else(|| self.mains.get(&orphan.session).copied())
            .or_else(|| self.mains.get(&orphan.group).copied())
            .or_else(|| self.cgroups.owner(orphan.pid));
        match run {
            Some(run) => Some(self.owner_in(run.id(), run)),
            // A dead one has nothing to say, and nothing to be done about.
            None => orphan.zombie.then_some(Owner::Nobody),
        }
    }

    /// Says whose those are that descend from a run.
    fn owner_in(&self, id: Id, run: Run) -> Owner {
        match self.runs.get(&run) {
            Some(child) if child.family => Owner::Run(run),
            Some(_) => Owner::LeftAlone(id),
            None if self.kin.lenient.contains(&id) => Owner::LeftAlone(id),
            None => Owner::Late,
        }
    }

    /// Hears what has become known of orphans in doubt.
    pub(super) fn hear(&mut self, findings: Vec<Finding>) {
        self.kin.doubted = true;
        for finding in findings {
            let known = self.kin.orphans.get(&finding.pid);
            let known = known.filter(|orphan| orphan.process.started == finding.started);
            let Some(process) = known.and_then(|orphan| {
                let open = matches!(orphan.owner, Owner::Unknown | Owner::Nobody);
                open.then_some(orphan.process)
            }) else {
                continue;
            };
            let marked = finding.marker.and_then(|value| self.marked(&value));
            // It may have changed its session meanwhile.
            let now = process.again().unwrap_or(process);
            let owner = marked
                .or_else(|| {
                    self.kin
                        .by_league(&now)
                        .map(|run| self.owner_in(run.id(), run))
                })
                .or_else(|| self.only_owner(&now))
                .unwrap_or(Owner::Nobody);
            self.assign(&now, owner);
        }
    }

    /// Finds whose one is that was given this marker.
    fn marked(&self, value: &str) -> Option<Owner> {
        let rest = value.strip_prefix(&self.marker)?.strip_prefix(':')?;
        let (id, run) = rest.split_once(':')?;
        Some(self.owner_in(Id(id.parse().ok()?), Run(run.parse().ok()?)))
    }

    /// Finds whose an orphan is that can be nobody else's. Not where others come to us than those
    /// that descend from us.
    fn only_owner(&self, orphan: &Process) -> Option<Owner> {
        if super::super::is_pid_1() || !self.kin.strangers.is_empty() {
            return None;
        }
        let as_old = |child: &&Child| {
            let main = Process::read(child.pid);
            main.is_some_and(|main| main.started <= orphan.started)
        };
        let orphans = self.kin.orphans.values();
        let others = || {
            orphans
                .clone()
                .filter(|other| other.process.pid != orphan.pid)
        };
        let ancestors: Vec<&Child> = self.runs.values().filter(as_old).collect();
        let lenient = ancestors.iter().all(|child| !child.family);
        match ancestors.as_slice() {
            [child] if child.family => {
                let run = self.mains.get(&child.pid).copied()?;
                let of_runs = others().all(|other| matches!(other.owner, Owner::Run(_)));
                of_runs.then_some(Owner::Run(run))
            }
            _ if lenient => {
                let left = others().all(|other| matches!(other.owner, Owner::LeftAlone(_)));
                let mut programs = self.kin.lenient.iter();
                programs
                    .next()
                    .filter(|_| left)
                    .map(|id| Owner::LeftAlone(*id))
            }
            _ => None,
        }
    }

    /// Puts an orphan where it belongs, and tells it what it missed.
    fn assign(&mut self, process: &Process, owner: Owner) {
        if let Some(orphan) = self.kin.orphans.get_mut(&process.pid) {
            orphan.owner = owner;
        }
        match owner {
            Owner::Run(run) => {
                let Some(child) = self.runs.get_mut(&run) else {
                    return;
                };
                child.members.insert(process.pid);
                if let Some(signal) = child.asked {
                    self.tell_newcomer(run, process, signal);
                }
            }
            Owner::Late => self.tell_stray(process, libc::SIGKILL),
            Owner::Nobody => {
                if let Some(signal) = self.kin.farewell {
                    self.tell_stray(process, signal);
                }
            }
            Owner::LeftAlone(id) => match self.kin.farewell {
                Some(signal) if super::super::is_pid_1() => self.tell_stray(process, signal),
                // Whoever waits for the last to go has to know that this one will not.
                Some(_) => self.parts(id),
                None => {}
            },
            Owner::Stranger | Owner::Unknown => {}
        }
    }

    /// Reaps the orphans that have ended; tells whether there were any.
    pub(super) fn reap_orphans(&mut self, bereaved: &mut HashSet<Run>) -> bool {
        let pids = self.kin.orphans.keys();
        let dead: Vec<(i32, WaitStatus)> = pids
            .filter_map(|&pid| Some((pid, pidfd::reap_number(pid)?)))
            .collect();
        for &(pid, status) in &dead {
            self.kin.doubts.forget(pid);
            self.kin.doubted = true;
            let owner = self.kin.orphans.remove(&pid).map(|orphan| orphan.owner);
            match owner {
                Some(Owner::Run(run)) if self.runs.contains_key(&run) => {
                    if let Some(child) = self.runs.get_mut(&run) {
                        child.members.remove(&pid);
                    }
                    bereaved.insert(run);
                }
                Some(_) | None => self.news.push_back(News::OrphanReaped { pid, status }),
            }
        }
        !dead.is_empty()
    }

    /// Remembers who descends from a run at this moment: that stays known when parents end and
    /// environments are wiped. Reads a few small files; for when something has happened to a run.
    pub fn remember(&mut self, run: Run) {
        self.counted = false;
        self.count();
        self.meet(run);
    }

    /// Returns the living descendants of a run, and remembers whose they are.
    pub(super) fn meet(&mut self, run: Run) -> Vec<Process> {
        let Some(child) = self.runs.get_mut(&run) else {
            return Vec::new();
        };
        let orphans = &self.kin.orphans;
        let members = child.members.iter().filter_map(|pid| orphans.get(pid));
        let mut met: Vec<Process> = members
            .filter_map(|orphan| orphan.process.again())
            .collect();
        let roots = met.iter().map(|process| process.pid).chain([child.pid]);
        met.extend(family::descendants(roots));
        let mut known: HashSet<(i32, u64)> = met.iter().map(Process::identity).collect();
        let relatives = &mut self.kin.relatives;
        for gone in std::mem::take(&mut child.relatives) {
            let alive = Process::read(gone.0).is_some_and(|now| now.identity() == gone);
            if known.contains(&gone) || (alive && known.insert(gone)) {
                continue;
            }
            relatives.remove(&gone);
        }
        child.relatives.extend(known);
        let leagues = |process: &Process| [process.session, process.group];
        relatives.extend(met.iter().map(|process| {
            let leagues = leagues(process);
            (process.identity(), Relative { run, leagues })
        }));
        met
    }

    /// A run begins.
    pub(super) fn note_mode(&mut self, id: Id, family: bool) {
        if !family {
            self.kin.lenient.insert(id);
        }
    }

    /// A main process of this program has ended, and leaves its descendants alone.
    pub(super) fn parts(&mut self, id: Id) {
        self.kin.partings.insert(id);
    }

    /// Tells how many descendants were left alone, as soon as nobody is in doubt.
    pub(super) fn tell_partings(&mut self) {
        if !self.kin.doubts.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.kin.partings) {
            let orphans = self.kin.orphans.iter();
            let left = orphans.filter(|(_, orphan)| orphan.owner == Owner::LeftAlone(id));
            let roots: Vec<i32> = left.map(|(pid, _)| *pid).collect();
            let count = roots.len() + family::descendants(roots).len();
            if count > 0 {
                self.news.push_back(News::LeftAlone { id, count });
            }
        }
    }
}
