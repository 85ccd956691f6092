//! The table of running programs.
//!
//! Rules that everything here keeps:
//! - an end is known from the pidfd, never from a pipe or a number;
//! - the zombie of a main process is reaped last: while it stands, its number can mean nobody else,
//!   so its group can be signalled;
//! - an adopted orphan is our child, so its number is safe until we reap it; nobody but this table
//!   reaps;
//! - because we are the reaper of all descendants, whoever lives of a run whose main process has
//!   ended hangs below one of *our* children: one file tells whether a family remains;
//! - where a run has a cgroup, that says whose a process is, whatever the process did to hide it,
//!   and holds up the end of the family for those who were moved there from elsewhere, too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::future::{Future as _, poll_fn};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal as group_signal;
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};

use super::cgroups::{self, Cgroups, Wanted};
use super::exits::Exits;
use super::failure;
use super::family::{self, Marker, Process};
use super::launch::Prepared;
pub use super::launch::{Launch, Stdio};
use super::pidfd;
use super::procfs::Endings;
use super::spawn::{Obstacle, Spawner, Step, Streams};
use crate::supervision::{FailureKind, Id, Run, SpawnFailure, WaitStatus};

/// What happened to processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The main process of a run ended.
    Exited {
        /// The program.
        id: Id,
        /// Which run.
        run: Run,
        /// How it ended.
        status: WaitStatus,
        /// Descendants are still alive; `FamilyGone` follows. Never in process mode.
        family: bool,
    },
    /// The last descendant of a run that has ended is gone.
    FamilyGone {
        /// The program.
        id: Id,
        /// Which run.
        run: Run,
    },
    /// An adopted orphan that belongs to no run ended.
    OrphanReaped {
        /// Its number, which is free again.
        pid: i32,
        /// How it ended.
        status: WaitStatus,
    },
}

/// Why the table cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct SetupError {
    operation: &'static str,
    source: std::io::Error,
}

/// Every process that was started here and is not reaped, and every orphan that came to us.
#[derive(Debug)]
pub struct Children {
    marker: String,
    spawner: Spawner,
    null: File,
    cgroups: Cgroups,
    exits: AsyncFd<Exits>,
    /// Wakes us for the ends of adopted orphans, which have no pidfd here.
    sigchld: Signal,
    runs: HashMap<Run, Child>,
    /// The runs by the number of their main process, which is also their group and session.
    mains: HashMap<i32, Run>,
    orphans: HashMap<i32, Orphan>,
    /// Orphans that are just executing a program, so that nobody can tell yet whose they are. Until
    /// that is known no family counts as gone.
    unknown: HashSet<i32>,
    /// There have been such since the families were last counted without any.
    doubted: bool,
    /// When to look at those again: nothing tells that an execution is over.
    look_again: Option<Pin<Box<Sleep>>>,
    /// Descendants met while their parents lived, by number and start time: whose they are stays
    /// known when they have changed session and environment.
    relatives: HashMap<(i32, u64), Run>,
    /// The list of orphans is as fresh as this turn of the loop.
    counted: bool,
    /// Orphans may have ended without anybody telling.
    unsettled: bool,
    news: VecDeque<News>,
    endings: Endings,
}

/// A run: its main process and what is left of it.
#[derive(Debug)]
struct Child {
    id: Id,
    pid: i32,
    pidfd: OwnedFd,
    family: bool,
    ended: bool,
    /// The signal that whoever belongs to it has to get.
    asked: Option<i32>,
    /// Orphans that belong to it.
    members: HashSet<i32>,
    relatives: Vec<(i32, u64)>,
    in_cgroup: bool,
    /// Others live in its cgroup: the file that calls out when they are gone.
    crowd: Option<File>,
}

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

#[derive(Debug)]
struct Orphan {
    process: Process,
    owner: Option<Run>,
}

/// Rounds after which a loop of dying orphans lets other work through.
const ROUNDS: usize = 64;

/// How long after one look at an execution the next one is: most are over within microseconds.
const EXECUTION: Duration = Duration::from_millis(1);

impl Children {
    /// Sets up an empty table and makes this process the reaper of all its descendants.
    ///
    /// `marker` is this installation's token, without colons. To be called inside the runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a descriptor, memory or the role of a reaper.
    pub fn new(marker: &str) -> Result<Self, SetupError> {
        let failed = |operation| move |source| SetupError { operation, source };
        if !super::is_pid_1() {
            nix::sys::prctl::set_child_subreaper(true)
                .map_err(|errno| failed("become the reaper of orphans")(errno.into()))?;
        }
        let exits = Exits::new().map_err(|errno| failed("make an epoll instance")(errno.into()))?;
        Ok(Self {
            marker: marker.to_owned(),
            spawner: Spawner::new()
                .map_err(|errno| failed("map a stack for new processes")(errno.into()))?,
            null: File::open("/dev/null").map_err(failed("open /dev/null"))?,
            cgroups: Cgroups::none("not asked for"),
            exits: exits.watched().map_err(failed("watch an epoll instance"))?,
            sigchld: signal(SignalKind::child()).map_err(failed("watch SIGCHLD"))?,
            runs: HashMap::new(),
            mains: HashMap::new(),
            orphans: HashMap::new(),
            unknown: HashSet::new(),
            doubted: false,
            look_again: None,
            relatives: HashMap::new(),
            counted: false,
            unsettled: true,
            news: VecDeque::new(),
            endings: Endings::default(),
        })
    }

    /// Returns where it is noted what main processes had used when they ended.
    #[must_use]
    pub fn endings(&self) -> Endings {
        self.endings.clone()
    }

    /// Starts what comes from here on in these cgroups.
    pub fn use_cgroups(&mut self, cgroups: Cgroups) {
        self.cgroups = cgroups;
    }

    /// Returns the cgroups of replicas.
    pub fn cgroups(&mut self) -> &mut Cgroups {
        &mut self.cgroups
    }

    /// Starts a process: returns its number once it executes the program.
    ///
    /// # Errors
    ///
    /// Every obstacle up to and including the execution of the program.
    pub fn spawn(
        &mut self,
        id: Id,
        run: Run,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<i32, SpawnFailure> {
        let prepared = Prepared::new(launch, &self.mark(id, run))?;
        let streams = Streams {
            stdin: self.null.as_fd(),
            stdout: stdio.stdout.as_fd(),
            stderr: stdio.stderr.as_fd(),
        };
        let (spawner, cgroups) = (&mut self.spawner, &mut self.cgroups);
        let born = spawn_inside(
            spawner,
            cgroups,
            (id, run),
            launch.cgroup.as_ref(),
            |s, c| s.spawn(launch, &prepared, &streams, c),
        );
        let (pid, pidfd, in_cgroup) =
            born.map_err(|obstacle| failure::explain(&obstacle, launch, &prepared))?;
        if let Err(errno) = self.exits.get_ref().add(pidfd.as_fd(), run.0) {
            let _ = pidfd::send(pidfd.as_fd(), libc::SIGKILL);
            pidfd::reap_soon(pidfd.as_fd());
            return Err(unwatched(launch, errno));
        }
        self.mains.insert(pid, run);
        let child = Child {
            id,
            pid,
            pidfd,
            family: launch.family,
            ended: false,
            asked: None,
            members: HashSet::new(),
            relatives: Vec::new(),
            in_cgroup,
            crowd: None,
        };
        self.runs.insert(run, child);
        Ok(pid)
    }

    /// Sends the stop signal: to the group and every known descendant, or, in process mode, to the
    /// main process alone. A stopped (SIGSTOP) process is continued so that it can obey.
    pub fn stop(&mut self, run: Run, signal: i32) {
        self.ask(run, signal);
    }

    /// Kills what `stop` would stop, and whatever of it appears later, until nothing is left.
    pub fn kill(&mut self, run: Run) {
        self.ask(run, libc::SIGKILL);
    }

    /// Returns the number of a run's main process until it is reaped.
    #[must_use]
    pub fn pid(&self, run: Run) -> Option<i32> {
        self.runs.get(&run).map(|child| child.pid)
    }

    /// Returns how many runs have a process, ended ones with a family included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Tells whether nothing is left of any run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Waits for the next news. Cancel-safe: what was taken from the kernel is kept in the table.
    pub async fn next(&mut self) -> News {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Returns news that are known already: the rest of a burst.
    pub fn drain(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<News> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Poll::Ready(news);
            }
            self.counted = false;
            let mut woken = std::mem::take(&mut self.unsettled);
            while self.sigchld.poll_recv(context).is_ready() {
                woken = true;
            }
            if let Some(later) = &mut self.look_again
                && later.as_mut().poll(context).is_ready()
            {
                self.look_again = None;
                woken = true;
            }
            while let Poll::Ready(Ok(mut ready)) = self.exits.poll_read_ready(context) {
                woken = true;
                ready.clear_ready();
            }
            if !woken {
                return Poll::Pending;
            }
            let (ended, stirred) = self.take_ended();
            self.settle(ended, stirred);
            if self.unsettled && self.news.is_empty() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Takes every main process that has ended out of the set of watched ones. Returns also the
    /// runs whose cgroups have news.
    fn take_ended(&self) -> (Vec<(Run, WaitStatus)>, HashSet<Run>) {
        let exits = self.exits.get_ref();
        let (mut ended, mut stirred) = (Vec::new(), HashSet::new());
        loop {
            let known = ended.len();
            for run in exits.ready().into_iter().map(Run) {
                let Some(child) = self.runs.get(&run) else {
                    continue;
                };
                if child.ended {
                    stirred.insert(run);
                } else if let Some((status, used)) = pidfd::peek(child.pidfd.as_fd()) {
                    // Before it is reaped: whoever misses it in `/proc` finds this afterwards.
                    self.endings.add(child.id.0, child.pid, used);
                    exits.remove(child.pidfd.as_fd());
                    ended.push((run, status));
                }
            }
            // A debugger may hold back the status of a process that has ended: SIGCHLD follows.
            if ended.len() == known {
                return (ended, stirred);
            }
        }
    }

    /// Brings the table up to date with the kernel after these main processes have ended.
    fn settle(&mut self, ended: Vec<(Run, WaitStatus)>, stirred: HashSet<Run>) {
        for (run, _) in &ended {
            if let Some(child) = self.runs.get_mut(run) {
                child.ended = true;
            }
        }
        let mut bereaved = stirred;
        let mut rounds = 0;
        // A reaped orphan may have left us orphans of its own: look until nobody dies.
        loop {
            self.count();
            if !self.reap_orphans(&mut bereaved) {
                break;
            }
            self.counted = false;
            rounds += 1;
            if rounds == ROUNDS {
                self.unsettled = true;
                self.count();
                break;
            }
        }
        for (run, status) in ended {
            let Some(child) = self.runs.get(&run) else {
                continue;
            };
            let id = child.id;
            let family = !self.is_alone(run);
            let status = match status {
                WaitStatus::Signaled {
                    signal: libc::SIGKILL,
                    core_dumped,
                    ..
                } => WaitStatus::Signaled {
                    signal: libc::SIGKILL,
                    core_dumped,
                    oom: self.cgroups.had_oom_kill(id, run),
                },
                WaitStatus::Exited { .. } | WaitStatus::Signaled { .. } | WaitStatus::Lost => {
                    status
                }
            };
            self.news.push_back(News::Exited {
                id,
                run,
                status,
                family,
            });
            if !family {
                self.forget(run);
            }
        }
        if self.unknown.is_empty() && std::mem::take(&mut self.doubted) {
            // Each of them may have waited for one that turned out to be somebody else's.
            let ended = self.runs.iter().filter(|(_, child)| child.ended);
            bereaved.extend(ended.map(|(run, _)| *run));
        }
        for run in bereaved {
            if !self.is_alone(run) {
                continue;
            }
            if let Some(child) = self.runs.get(&run).filter(|child| child.ended) {
                self.news.push_back(News::FamilyGone { id: child.id, run });
                self.forget(run);
            }
        }
    }

    /// Tells whether nobody is left of a run but its main process. Whoever else lives in its cgroup
    /// is told what the run was told, and watched.
    fn is_alone(&mut self, run: Run) -> bool {
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
            others.iter().for_each(|process| tell(process, signal));
        }
        false
    }

    /// Finds the orphans that have come to us, unless that was done in this turn.
    fn count(&mut self) {
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

    /// Signals an orphan that came after its run was asked to end. One that is known from before
    /// was told then; only SIGKILL is worth repeating.
    fn tell_newcomer(&mut self, run: Run, process: &Process, signal: i32) {
        let known = self.relatives.contains_key(&(process.pid, process.started));
        let in_group = self.mains.get(&process.group) == Some(&run);
        if signal == libc::SIGKILL {
            kill_group_of(process);
        }
        if signal == libc::SIGKILL || !(known || in_group) {
            tell(process, signal);
        }
    }

    /// Reaps the orphans that have ended; tells whether there were any.
    fn reap_orphans(&mut self, bereaved: &mut HashSet<Run>) -> bool {
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

    fn ask(&mut self, run: Run, signal: i32) {
        let Some(child) = self.runs.get_mut(&run) else {
            return;
        };
        if child.asked != Some(libc::SIGKILL) {
            child.asked = Some(signal);
        }
        if !child.family {
            if child.in_cgroup && signal == libc::SIGKILL {
                self.cgroups.excuse(child.id);
            }
            send(child.pidfd.as_fd(), signal);
            return;
        }
        let (id, pid) = (child.id, child.pid);
        let inside = child.in_cgroup;
        // Whoever left the group, while the tree still shows it.
        self.count();
        let mut relatives = self.meet(run);
        if inside && signal == libc::SIGKILL {
            self.cgroups.kill(id);
        } else if inside {
            let known: HashSet<i32> = relatives.iter().map(|process| process.pid).collect();
            let strangers = self.cgroups.members(id).into_iter();
            relatives.extend(strangers.filter(|p| p.pid != pid && !known.contains(&p.pid)));
        }
        signal_group(pid, signal);
        // Read again: one that was in the group when it was met may have left it before the signal.
        let elsewhere = |process: &Process| process.again().is_some_and(|now| now.group != pid);
        for process in relatives.iter().filter(|process| elsewhere(process)) {
            tell(process, signal);
        }
    }

    /// Returns the living descendants of a run, and remembers whose they are.
    fn meet(&mut self, run: Run) -> Vec<Process> {
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

    /// Reaps a main process that has ended, and forgets its run.
    fn forget(&mut self, run: Run) {
        let Some(child) = self.runs.remove(&run) else {
            return;
        };
        for relative in &child.relatives {
            self.relatives.remove(relative);
        }
        pidfd::reap(child.pidfd.as_fd());
        self.mains.remove(&child.pid);
    }

    fn mark(&self, id: Id, run: Run) -> String {
        format!("{}:{}:{}", self.marker, id.0, run.0)
    }
}

/// Makes a process in its cgroup; outside of it where that is not possible. Tells which.
fn spawn_inside(
    spawner: &mut Spawner,
    cgroups: &mut Cgroups,
    (id, run): (Id, Run),
    wanted: Option<&Wanted>,
    spawn: impl Fn(&mut Spawner, Option<BorrowedFd<'_>>) -> Result<(i32, OwnedFd), Obstacle>,
) -> Result<(i32, OwnedFd, bool), Obstacle> {
    let opened = wanted.and_then(|wanted| Some((wanted, cgroups.enter(id, run, wanted)?)));
    let Some((wanted, cgroup)) = opened else {
        return spawn(spawner, None).map(|(pid, pidfd)| (pid, pidfd, false));
    };
    let refused = |born: &Result<(i32, OwnedFd), Obstacle>| match born {
        Err(obstacle) if obstacle.step == Step::Cgroup => Some(obstacle.errno),
        Ok(_) | Err(_) => None,
    };
    let mut born = spawn(spawner, Some(cgroup.as_fd()));
    if refused(&born).is_some()
        && let Some(cgroup) = cgroups.repair(id, run, wanted)
    {
        born = spawn(spawner, Some(cgroup.as_fd()));
    }
    if let Some(errno) = refused(&born) {
        cgroups.left_outside(wanted, errno);
        return spawn(spawner, None).map(|(pid, pidfd)| (pid, pidfd, false));
    }
    born.map(|(pid, pidfd)| (pid, pidfd, true))
}

fn unwatched(launch: &Launch, errno: Errno) -> SpawnFailure {
    let command = launch.argv.first().map_or("", String::as_str);
    failure::from_errno(
        FailureKind::Limits,
        errno,
        format!("cannot watch {command}"),
    )
}

/// Signals the group of an unreaped main process.
fn signal_group(leader: i32, signal: i32) {
    let leader = Pid::from_raw(leader);
    let Ok(kind) = group_signal::Signal::try_from(signal) else {
        return;
    };
    // ESRCH: nobody is left.
    let _ = group_signal::killpg(leader, kind);
    if kind != group_signal::SIGKILL {
        let _ = group_signal::killpg(leader, group_signal::SIGCONT);
    }
}

/// Kills the whole group of an orphan, so that one that forks for ever cannot outrun us.
///
/// The number is safe: the orphan is in the group and is not reaped.
fn kill_group_of(orphan: &Process) {
    let Some(process) = orphan.again() else {
        return;
    };
    let own = nix::unistd::getpgrp().as_raw();
    if process.group > 1 && process.group != own {
        signal_group(process.group, libc::SIGKILL);
    }
}

/// Signals a process if it is still the one that was met.
fn tell(process: &Process, signal: i32) {
    let Ok(pidfd) = pidfd::open(process.pid) else {
        return;
    };
    // Looked at after opening: the descriptor is for the process that was met.
    if process.again().is_some() {
        send(pidfd.as_fd(), signal);
    }
}

/// Signals a process; a stopped one is continued, so that it can act on it.
fn send(pidfd: BorrowedFd<'_>, signal: i32) {
    // ESRCH: it has ended, and the news is on its way.
    let _ = pidfd::send(pidfd, signal);
    if signal != libc::SIGKILL {
        let _ = pidfd::send(pidfd, libc::SIGCONT);
    }
}
