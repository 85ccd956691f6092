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

mod births;
mod doubts;
mod glance;
mod kin;
mod rest;
mod telling;
mod unwatched;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Instant;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::births::Birth;
use self::glance::Glimpsed;
use self::kin::Kin;
use self::unwatched::Unwatched;
use super::cgroups::Cgroups;
use super::exits::Exits;
pub use super::launch::{Launch, Prepared, Stdio};
use super::pidfd;
use super::procfs::Endings;
use super::spawn::Spawner;
use crate::supervision::{Id, Run, SpawnFailure, WaitStatus};

/// What happened to processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A run executes its program.
    Spawned {
        /// The program.
        id: Id,
        /// Which run.
        run: Run,
        /// Its main process.
        pid: i32,
    },
    /// A run that was begun has come to nothing.
    SpawnFailed {
        /// The program.
        id: Id,
        /// Which run.
        run: Run,
        /// Why.
        failure: SpawnFailure,
    },
    /// The main process of a run ended.
    Exited {
        /// The program.
        id: Id,
        /// Which run.
        run: Run,
        /// How it ended.
        status: WaitStatus,
        /// When it was seen to have ended: at most a look after it did, however long the news waits.
        at: Instant,
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
    /// The main process of a run in process mode ended and has left descendants alone: so many of
    /// this program live by now.
    LeftAlone {
        /// The program.
        id: Id,
        /// Their number, those of earlier runs included.
        count: usize,
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
    clock: fn() -> Instant,
    spawner: Spawner,
    null: File,
    cgroups: Cgroups,
    exits: AsyncFd<Exits>,
    /// What was seen at a glance and is not news yet.
    glimpsed: Glimpsed,
    /// Wakes us for the ends of adopted orphans, which have no pidfd here.
    sigchld: Signal,
    runs: HashMap<Run, Child>,
    /// Those of them that have not executed their program yet.
    births: HashMap<Run, Birth>,
    /// Those of both that no descriptor tells of.
    unwatched: Unwatched,
    /// The runs by the number of their main process, which is also their group and session.
    mains: HashMap<i32, Run>,
    kin: Kin,
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
    /// Why a process of it could not be signalled.
    refused: Option<Errno>,
    /// Orphans that belong to it.
    members: HashSet<i32>,
    relatives: Vec<(i32, u64)>,
    in_cgroup: bool,
    /// Others live in its cgroup: the file that calls out when they are gone.
    crowd: Option<File>,
}

impl Child {
    fn new(id: Id, (pid, pidfd): (i32, OwnedFd), family: bool, in_cgroup: bool) -> Self {
        Self {
            id,
            pid,
            pidfd,
            family,
            ended: false,
            asked: None,
            refused: None,
            members: HashSet::new(),
            relatives: Vec::new(),
            in_cgroup,
            crowd: None,
        }
    }
}

/// Rounds after which a loop of dying orphans lets other work through.
const ROUNDS: usize = 64;

impl Children {
    /// Sets up an empty table and makes this process the reaper of all its descendants.
    ///
    /// `marker` is this installation's token, without colons; `clock` says when ends are seen. To be
    /// called inside the runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a descriptor, memory or the role of a reaper.
    pub fn new(marker: &str, clock: fn() -> Instant) -> Result<Self, SetupError> {
        let failed = |operation| move |source| SetupError { operation, source };
        if !pidfd::are_known() {
            let operation = "wait for processes by descriptor: that takes Linux 5.4 or later";
            return Err(failed(operation)(std::io::ErrorKind::Unsupported.into()));
        }
        if !super::is_pid_1() {
            nix::sys::prctl::set_child_subreaper(true)
                .map_err(|errno| failed("become the reaper of orphans")(errno.into()))?;
        }
        let exits = Exits::new().map_err(|errno| failed("make an epoll instance")(errno.into()))?;
        Ok(Self {
            marker: marker.to_owned(),
            clock,
            glimpsed: Glimpsed::new(clock()),
            spawner: Spawner::new(),
            null: File::open("/dev/null").map_err(failed("open /dev/null"))?,
            cgroups: Cgroups::none("not asked for"),
            exits: exits.watched().map_err(failed("watch an epoll instance"))?,
            sigchld: signal(SignalKind::child()).map_err(failed("watch SIGCHLD"))?,
            runs: HashMap::new(),
            births: HashMap::new(),
            unwatched: Unwatched::default(),
            mains: HashMap::new(),
            kin: Kin::new(),
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

    /// Returns the value of [`super::launch::MARKER`] for a run.
    #[must_use]
    pub fn mark(&self, id: Id, run: Run) -> String {
        format!("{}:{}:{}", self.marker, id.0, run.0)
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

    /// Tells whether there is news that was not taken yet.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// As [`Self::next`], for one who waits for other things, too.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<News> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Poll::Ready(news);
            }
            self.counted = false;
            let mut woken = std::mem::take(&mut self.unsettled);
            while self.sigchld.poll_recv(context).is_ready() {
                woken = true;
                self.rouse();
            }
            woken |= self.poll_unwatched(context);
            if let Poll::Ready(findings) = self.kin.doubts.poll(context) {
                self.hear(findings);
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

    /// Brings the table up to date with the kernel after these main processes have ended.
    fn settle(&mut self, mut ended: Vec<(Run, WaitStatus)>, stirred: HashSet<Run>) {
        for (run, _) in &ended {
            if let Some(child) = self.runs.get_mut(run) {
                child.ended = true;
            }
        }
        ended.extend(self.take_undecided());
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
            if self.puts_off(run, status) {
                continue;
            }
            let Some(child) = self.runs.get(&run) else {
                continue;
            };
            let (id, lenient) = (child.id, !child.family);
            let seen = self.glimpsed.ended.remove(&run);
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
                at: seen.unwrap_or_else(self.clock),
                family,
            });
            if lenient {
                self.parts(id);
            }
            if !family {
                self.forget(run);
            }
        }
        bereaved.extend(self.relieved());
        for run in bereaved {
            if !self.is_alone(run) {
                continue;
            }
            if let Some(child) = self.runs.get(&run).filter(|child| child.ended) {
                self.news.push_back(News::FamilyGone { id: child.id, run });
                self.forget(run);
            }
        }
        self.tell_partings();
    }

    /// Reaps a main process that has ended, and forgets its run.
    fn forget(&mut self, run: Run) {
        let Some(child) = self.runs.remove(&run) else {
            return;
        };
        self.kin.forget(run, &child.relatives);
        self.unwatched.forget(run);
        pidfd::reap(child.pidfd.as_fd());
        self.mains.remove(&child.pid);
    }
}
