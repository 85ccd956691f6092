//! One cgroup for each replica, where a part of the tree of cgroups is ours.
//!
//! ```text
//! our cgroup            handed over (see `ownership`), empty: only cgroups without members of
//! ├── supervisor        their own may give controllers to those below
//! ├── program-web-0     the daemon is in `supervisor`
//! └── program-web-1     replica 1 of web, and all that descends from it
//! ```
//!
//! A replica keeps its cgroup from its first start until it is removed: its limits, and the counts
//! of what all its runs have used, outlive a run. The names cannot be those of the kernel's files
//! (`cgroup.procs`, `memory.max`), since no controller is called `program-…`; a replica's number is
//! what follows the last dash.

mod accounts;
mod files;
mod left_overs;
mod limits;
mod ownership;
mod place;
mod tree;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

pub use accounts::Accounts;
pub use left_overs::{LeftOver, LeftOvers};
pub use limits::Limits;
use tree::Tree;

use super::family::Process;
use super::pidfd;
use crate::supervision::{Id, Run};

/// The cgroup that the daemon itself lives in.
const SUPERVISOR: &str = "supervisor";

/// The cgroup that a replica is to live in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The program's name in the config.
    pub program: String,
    /// Which of its replicas.
    pub replica: u32,
    /// The most it may use.
    pub limits: Limits,
}

/// The cgroups of all replicas, or why there are none.
#[derive(Debug)]
pub struct Cgroups {
    tree: Result<Tree, String>,
    groups: HashMap<Id, Group>,
    /// What each program has to do without.
    lacking: HashMap<String, String>,
    /// What was said of each program: said again only when it changes.
    said: HashMap<String, String>,
}

/// The cgroup of one replica.
#[derive(Debug)]
struct Group {
    name: String,
    /// Those in force; `None`: one was refused, so that all are tried again.
    limits: Option<Limits>,
    /// The latest run in it.
    run: Run,
    /// Out-of-memory kills before that run; `None` where they are not counted.
    oom_kills: Option<u64>,
}

/// Rounds of killing one by one, against a program that forks for ever.
const KILL_ROUNDS: usize = 64;

impl Cgroups {
    /// Looks whether the cgroup of this process is ours to arrange; if so, moves the daemon to a
    /// place of its own in it, so that controllers can be turned on.
    #[must_use]
    pub fn claim() -> Self {
        Self::of(Tree::claim())
    }

    /// Uses no cgroups, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self::of(Err(reason.to_owned()))
    }

    fn of(tree: Result<Tree, String>) -> Self {
        Self {
            tree,
            groups: HashMap::new(),
            said: HashMap::new(),
            lacking: HashMap::new(),
        }
    }

    /// Describes what there is: the place and the controllers.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub fn describe(&self) -> Result<String, &str> {
        match &self.tree {
            Ok(tree) => Ok(tree.to_string()),
            Err(reason) => Err(reason),
        }
    }

    /// Returns the accounts of all replicas; empty ones where there are no cgroups.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.tree
            .as_ref()
            .map_or_else(|_| Accounts::default(), |tree| tree.accounts.clone())
    }

    /// Opens the cgroup that a new run is to live in, made and limited as wanted; `None`: it lives
    /// with the daemon. What cannot be had is said once for each program.
    pub(super) fn enter(&mut self, id: Id, run: Run, wanted: &Wanted) -> Option<OwnedFd> {
        let opened = match &mut self.tree {
            Ok(tree) => tree.open(&wanted.directory()),
            Err(_) => {
                self.refuse_limits(wanted);
                return None;
            }
        };
        let (directory, fresh) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                self.say(wanted, format!("it runs outside of a cgroup: {reason}"));
                return None;
            }
        };
        self.furnish(id, run, wanted, fresh);
        Some(directory)
    }

    fn furnish(&mut self, id: Id, run: Run, wanted: &Wanted, fresh: bool) {
        let Ok(tree) = &mut self.tree else { return };
        let name = wanted.directory();
        let known = self.groups.get(&id).filter(|_| !fresh);
        if known.is_none() {
            tree.accounts.open(id.0, &name, &tree.directory(&name));
        }
        let known_limits = match known {
            Some(group) => group.limits,
            // A new one has no limits.
            None => fresh.then(Limits::default),
        };
        let refused = tree.limit(&name, known_limits, wanted.limits);
        let group = Group {
            oom_kills: tree.oom_kills(&name),
            name,
            limits: refused.is_none().then_some(wanted.limits),
            run,
        };
        self.groups.insert(id, group);
        self.say_refused(wanted, refused);
    }

    /// Puts changed limits in force for the processes that a replica has.
    pub fn limit(&mut self, id: Id, wanted: &Wanted) {
        let Ok(tree) = &mut self.tree else {
            return self.refuse_limits(wanted);
        };
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let refused = tree.limit(&group.name, group.limits, wanted.limits);
        group.limits = refused.is_none().then_some(wanted.limits);
        self.say_refused(wanted, refused);
    }

    /// There are no cgroups, so no limits either.
    fn refuse_limits(&mut self, wanted: &Wanted) {
        let Err(reason) = &self.tree else { return };
        let set = wanted
            .limits
            .settings()
            .into_iter()
            .filter(limits::Setting::is_set);
        let all: Vec<String> = set.map(|setting| setting.to_string()).collect();
        let refused = (!all.is_empty()).then(|| format!("{}: {reason}", all.join(", ")));
        self.say_refused(wanted, refused);
    }

    /// Returns the limits that a program should have and has not, and why: "without memory_max 1GiB: …".
    #[must_use]
    pub fn lacking(&self, program: &str) -> Option<&str> {
        self.lacking.get(program).map(String::as_str)
    }

    fn say_refused(&mut self, wanted: &Wanted, refused: Option<String>) {
        let Some(refused) = refused else {
            self.lacking.remove(&wanted.program);
            return;
        };
        let lacking = format!("without {refused}");
        self.say(wanted, format!("runs {lacking}"));
        self.lacking.insert(wanted.program.clone(), lacking);
    }

    fn say(&mut self, wanted: &Wanted, what: String) {
        if self.said.get(&wanted.program) != Some(&what) {
            tracing::warn!(program = wanted.program, "{what}");
            self.said.insert(wanted.program.clone(), what);
        }
    }

    /// A cgroup that takes no process is emptied and made again, as far as that is possible: the
    /// program may have given its controllers away to cgroups of its own.
    pub(super) fn repair(&mut self, id: Id, run: Run, wanted: &Wanted) -> Option<OwnedFd> {
        if let (Ok(tree), Some(group)) = (&self.tree, self.groups.get(&id)) {
            tree.remove(&group.name);
        }
        self.enter(id, run, wanted)
    }

    /// A process could not be made in its cgroup, and lives with the daemon.
    pub(super) fn left_outside(&mut self, wanted: &Wanted, errno: nix::errno::Errno) {
        let cause = files::cause(&errno.into());
        self.say(wanted, format!("it runs outside of its cgroup: {cause}"));
    }

    /// Tells whether a process of this run was killed for want of memory since the run began, or
    /// since [`Self::excuse`].
    pub(super) fn had_oom_kill(&self, id: Id, run: Run) -> bool {
        let (Ok(tree), Some(group)) = (&self.tree, self.groups.get(&id)) else {
            return false;
        };
        let before = group.oom_kills.filter(|_| group.run == run);
        before.is_some_and(|before| tree.oom_kills(&group.name) > Some(before))
    }

    /// Returns the latest run in whose cgroup a process is.
    pub(super) fn owner(&self, pid: i32) -> Option<Run> {
        let tree = self.tree.as_ref().ok()?;
        let id = Id(tree.accounts.key_of(pid)?);
        self.groups.get(&id).map(|group| group.run)
    }

    /// Returns who lives in the cgroup of a replica.
    pub(super) fn members(&self, id: Id) -> Vec<Process> {
        let (Ok(tree), Some(group)) = (&self.tree, self.groups.get(&id)) else {
            return Vec::new();
        };
        let all = files::all_members(&tree.directory(&group.name));
        all.into_iter()
            .filter_map(Process::read)
            .filter(|process| !process.zombie)
            .collect()
    }

    /// Opens the file that the kernel calls out about (EPOLLPRI) when the last one goes, for
    /// [`says_populated`].
    pub(super) fn events(&self, id: Id) -> Option<File> {
        let tree = self.tree.as_ref().ok()?;
        let name = &self.groups.get(&id)?.name;
        File::open(tree.directory(name).join("cgroup.events")).ok()
    }

    /// We send SIGKILL: what the kernel has killed for want of memory so far tells nothing about the
    /// end of the run any more.
    pub(super) fn excuse(&mut self, id: Id) {
        if let (Ok(tree), Some(group)) = (&self.tree, self.groups.get_mut(&id)) {
            group.oom_kills = tree.oom_kills(&group.name).or(group.oom_kills);
        }
    }

    /// Kills everything in the cgroup of a replica, those included that are being born.
    pub(super) fn kill(&mut self, id: Id) {
        self.excuse(id);
        let (Ok(tree), Some(group)) = (&self.tree, self.groups.get(&id)) else {
            return;
        };
        if tree.kill(&group.name) {
            return;
        }
        let mut hit = HashSet::new();
        for _ in 0..KILL_ROUNDS {
            let fresh = self
                .members(id)
                .into_iter()
                .filter(|process| hit.insert((process.pid, process.started)));
            let mut found = false;
            for process in fresh {
                found = true;
                if let Ok(fd) = pidfd::open(process.pid)
                    && process.again().is_some()
                {
                    let _ = pidfd::send(std::os::fd::AsFd::as_fd(&fd), libc::SIGKILL);
                }
            }
            if !found {
                break;
            }
        }
    }

    /// A replica was removed: its cgroup goes as soon as nobody lives there.
    pub fn forget(&mut self, id: Id) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        if let Ok(tree) = &self.tree {
            tree.remove(&group.name);
            tree.accounts.close(id.0);
        }
    }

    /// Returns what an earlier daemon left in our part of the tree.
    #[must_use]
    pub fn left_overs(&self) -> LeftOvers {
        self.tree.as_ref().map(Tree::left_overs).unwrap_or_default()
    }
}

/// Leaves the tree as it was found, as far as nobody lives there.
impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Ok(tree) = &self.tree {
            for group in self.groups.values() {
                tree.remove(&group.name);
            }
            tree.leave();
        }
    }
}

/// Reads `cgroup.events`: whether anybody lives in the cgroup or below it. Zombies do not.
pub(super) fn says_populated(events: &File) -> bool {
    let mut buffer = [0; 256];
    let length = events.read_at(&mut buffer, 0).unwrap_or(0);
    files::number(&String::from_utf8_lossy(&buffer[..length]), "populated") == Some(1)
}

impl Wanted {
    fn directory(&self) -> String {
        format!("program-{}-{}", self.program, self.replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_refused_is_tried_again_with_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| {
            std::fs::write(directory.path().join(file), text).expect("written");
        };
        write("cgroup.controllers", "memory");
        write("cgroup.subtree_control", "");
        let mut cgroups = Cgroups::of(Ok(Tree::at(directory.path())));
        let wanted = Wanted {
            program: "web".into(),
            replica: 0,
            limits: Limits {
                memory_max: Some(1 << 20),
                ..Limits::default()
            },
        };
        cgroups.enter(Id(1), Run(1), &wanted).expect("made");
        assert_eq!(cgroups.said.len(), 1, "there is no file yet: refused");
        write("program-web-0/memory.max", "");
        cgroups.enter(Id(1), Run(2), &wanted).expect("opened");
        let file = directory.path().join("program-web-0/memory.max");
        assert_eq!(std::fs::read_to_string(&file).expect("a limit"), "1048576");
        std::fs::write(&file, "as it is").expect("written");
        cgroups.enter(Id(1), Run(3), &wanted).expect("opened");
        let now = std::fs::read_to_string(&file).expect("a limit");
        assert_eq!(now, "as it is", "what is in force is not written again");
    }

    #[test]
    fn a_kill_for_want_of_memory_tells_nothing_after_our_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cgroups = Cgroups::of(Ok(Tree::at(directory.path())));
        let wanted = Wanted {
            program: "web".into(),
            replica: 0,
            limits: Limits::default(),
        };
        let inside = directory.path().join(wanted.directory());
        let show = |kills: u64| {
            let text = format!("oom 9\noom_kill {kills}\n");
            std::fs::write(inside.join("memory.events"), text).expect("written");
        };
        let (id, run) = (Id(1), Run(7));
        std::fs::create_dir(&inside).expect("made");
        show(3);
        cgroups.enter(id, run, &wanted).expect("opened");
        assert!(!cgroups.had_oom_kill(id, run), "an earlier run's");
        show(4);
        assert!(cgroups.had_oom_kill(id, run));
        assert!(!cgroups.had_oom_kill(id, Run(6)), "the latest run's");
        cgroups.excuse(id);
        assert!(!cgroups.had_oom_kill(id, run), "we are going to kill it");
        show(5);
        assert!(cgroups.had_oom_kill(id, run), "the kernel was faster");
    }
}
