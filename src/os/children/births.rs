//! Runs that are being born: their process is there and has not executed the program yet. Nobody
//! waits for it; what becomes of it is news like any other.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::telling::send;
use super::{Child, Children, News};
use crate::os::failure;
use crate::os::family;
use crate::os::launch::{Prepared, Stdio};
use crate::os::pidfd;
use crate::os::spawn::{Home, Newborn, Obstacle, Step, Streams};
use crate::supervision::{FailureKind, Id, Run, SpawnFailure, WaitStatus};

/// So many that nobody knows to hang are on their way at a time: each holds a copy of our table of
/// descriptors for its first moments.
const AT_A_TIME: usize = 128;

/// A newborn that was stopped so often by somebody's signals is not continued once more.
const STOPS: u32 = 100;

/// A run whose process has not executed the program yet.
#[derive(Debug)]
pub(super) struct Birth {
    newborn: Newborn,
    /// Kept for as long as there may be another try: descriptors may be scarce.
    stdio: Option<Stdio>,
    place: Place,
    /// How often somebody stopped it.
    stops: u32,
    /// It has left our memory without having executed the program: its end is all that is missing.
    failed: bool,
    /// It is known to take long.
    hangs: bool,
}

/// Where a process is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In its cgroup.
    Inside,
    /// It goes there itself.
    ///
    /// Kernels since 6.14, and older ones with the same change, compare how often the cgroups of
    /// parent and child were killed through `cgroup.kill`, and kill a child that is born into one
    /// that was killed more often: one kill, and nobody could be born there any more.
    Walking,
    /// In its cgroup, which did not take it before it was made anew.
    Repaired,
    /// With the daemon.
    Outside,
}

impl Birth {
    /// Returns what becomes readable when the newborn has left our memory, until it is known to.
    pub(super) fn answer(&self) -> Option<BorrowedFd<'_>> {
        (!self.failed).then(|| self.newborn.answer())
    }
}

/// What a look at a newborn has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing new.
    Nothing,
    /// Something has changed, and it may end soon.
    Changed,
    /// It is a program now.
    Grown,
}

impl Children {
    /// Begins a run: [`News::Spawned`] or [`News::SpawnFailed`] follows, whenever it is known. Waits
    /// for nothing.
    ///
    /// # Errors
    ///
    /// Every obstacle to having a process at all.
    pub fn begin(
        &mut self,
        (id, run): (Id, Run),
        prepared: Arc<Prepared>,
        stdio: Stdio,
    ) -> Result<(), SpawnFailure> {
        let place = match prepared.launch.cgroup {
            Some(_) => Place::Inside,
            None => Place::Outside,
        };
        if let Some(user) = &prepared.identity.credentials {
            stdio.belong_to(user);
        }
        self.bear((id, run), &prepared, stdio, place)
    }

    /// Tells whether another birth may begin now; otherwise after one of the next news.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let quick = self.births.values().filter(|birth| !birth.hangs);
        self.births.len() < AT_A_TIME || quick.count() < AT_A_TIME
    }

    /// Tells whether a process is on its way to its program.
    #[must_use]
    pub fn bears(&self) -> bool {
        !self.births.is_empty()
    }

    /// Tells that a birth takes too long; returns what it hangs in, or nothing if it is over.
    pub fn hangs(&mut self, run: Run) -> Option<String> {
        let birth = self.births.get_mut(&run)?;
        birth.hangs = true;
        let newborn = &birth.newborn;
        Some(failure::whereabouts(&newborn.report(), newborn.prepared()))
    }

    /// Takes what the kernel has to say at this moment, without waiting; [`Self::drain`] has it then.
    pub fn look(&mut self) {
        self.counted = false;
        let (ended, stirred) = self.take_ended();
        self.settle(ended, stirred);
    }

    fn bear(
        &mut self,
        (id, run): (Id, Run),
        prepared: &Arc<Prepared>,
        stdio: Stdio,
        place: Place,
    ) -> Result<(), SpawnFailure> {
        let (mut newborn, place) = self
            .try_places((id, run), prepared, &stdio, place)
            .map_err(|obstacle| failure::explain(&obstacle, prepared))?;
        let Some(pidfd) = newborn.take_pidfd() else {
            return Err(unwatched(prepared, Errno::EBADF));
        };
        let pid = newborn.pid;
        self.note_mode(id, prepared.launch.family);
        self.mains.insert(pid, run);
        let birth = Birth {
            newborn,
            stdio: (place != Place::Outside).then_some(stdio),
            place,
            stops: 0,
            failed: false,
            hangs: false,
        };
        self.births.insert(run, birth);
        let (family, in_cgroup) = (prepared.launch.family, place != Place::Outside);
        self.runs
            .insert(run, Child::new(id, (pid, pidfd), family, in_cgroup));
        self.watch(run);
        Ok(())
    }

    /// Makes a process in its cgroup; outside of it where that is not possible. Tells which.
    fn try_places(
        &mut self,
        (id, run): (Id, Run),
        prepared: &Arc<Prepared>,
        stdio: &Stdio,
        mut place: Place,
    ) -> Result<(Newborn, Place), Obstacle> {
        let streams = Streams {
            stdin: self.null.as_fd(),
            stdout: stdio.stdout.as_fd(),
            stderr: stdio.stderr.as_fd(),
        };
        let mut refused = None;
        loop {
            let (cgroups, wanted) = (&mut self.cgroups, prepared.launch.cgroup.as_ref());
            let opened = wanted.and_then(|wanted| match place {
                Place::Inside | Place::Walking => cgroups.enter(id, run, wanted),
                Place::Repaired => cgroups.repair(id, run, wanted),
                Place::Outside => None,
            });
            let Some(directory) = &opened else {
                if let (Some(wanted), Some(errno)) = (wanted, refused) {
                    cgroups.left_outside(wanted, errno);
                }
                let newborn = self.spawner.begin(prepared, &streams, None)?;
                return Ok((newborn, Place::Outside));
            };
            let home = Home {
                directory: directory.as_fd(),
                walk: place == Place::Walking,
            };
            match self.spawner.begin(prepared, &streams, Some(home)) {
                Err(obstacle) if obstacle.step == Step::Cgroup => {
                    refused = Some(obstacle.errno);
                    place = place.after_refusal();
                }
                other => return other.map(|newborn| (newborn, place)),
            }
        }
    }

    /// Looks what has become of a newborn. Its end, if it has one, is read and left to be taken.
    pub(super) fn look_at(&mut self, run: Run) -> Look {
        let (Some(birth), Some(child)) = (self.births.get_mut(&run), self.runs.get(&run)) else {
            return Look::Grown;
        };
        let end = pidfd::peek(child.pidfd.as_fd());
        let left = birth.failed || birth.newborn.has_left();
        let Some((status, _)) = end else {
            // One that we killed is about to end, whatever it had come to.
            let killed = child.asked == Some(libc::SIGKILL);
            if !left || birth.failed {
                return Look::Nothing;
            }
            if !killed && birth.newborn.obstacle().is_none() {
                self.grow(run);
                return Look::Grown;
            }
            birth.failed = true;
            self.exits.get_ref().remove(birth.newborn.answer());
            return Look::Changed;
        };
        if birth.newborn.obstacle().is_none() && has_executed(child.pid, status) {
            self.grow(run);
            return Look::Grown;
        }
        self.miscarried(run, status);
        Look::Changed
    }

    /// Continues newborns that somebody has stopped: whoever has the program's user can, between the
    /// change of user and the execution.
    pub(super) fn rouse(&mut self) {
        for (run, birth) in &mut self.births {
            let Some(child) = self.runs.get(run) else {
                continue;
            };
            // Looked at in this order: whoever is a program by now may have stopped itself.
            if !pidfd::was_stopped(child.pidfd.as_fd()) || birth.newborn.has_left() {
                continue;
            }
            birth.stops += 1;
            let signal = if birth.stops > STOPS {
                libc::SIGKILL
            } else {
                libc::SIGCONT
            };
            // Where it cannot be signalled, it is found to hang.
            let _ = send(Some(child.pidfd.as_fd()), child.pid, signal);
        }
    }

    /// The program is executed.
    fn grow(&mut self, run: Run) {
        if let (Some(birth), Some(child)) = (self.births.remove(&run), self.runs.get(&run)) {
            if !birth.failed {
                self.exits.get_ref().remove(birth.newborn.answer());
            }
            // It has left our memory: that is how it came here.
            self.spawner.is_grown(birth.newborn);
            let (id, pid) = (child.id, child.pid);
            self.news.push_back(News::Spawned { id, run, pid });
        }
    }

    /// A newborn has ended before it was a program: another try elsewhere, or a failed start.
    fn miscarried(&mut self, run: Run, status: WaitStatus) {
        let (Some(birth), Some(child)) = (self.births.remove(&run), self.runs.get(&run)) else {
            return;
        };
        let exits = self.exits.get_ref();
        exits.remove(child.pidfd.as_fd());
        if !birth.failed {
            exits.remove(birth.newborn.answer());
        }
        let (id, asked) = (child.id, child.asked);
        let prepared = Arc::clone(birth.newborn.prepared());
        let (report, obstacle) = (birth.newborn.report(), birth.newborn.obstacle());
        let again = match obstacle {
            _ if asked.is_some() => None,
            Some(obstacle) if obstacle.step == Step::Cgroup => {
                self.refused(&prepared, obstacle.errno, birth.place);
                Some(birth.place.after_refusal())
            }
            None if birth.newborn.inside && report.began == 0 => Some(Place::Walking),
            Some(_) | None => None,
        };
        // It has ended, and with that left our memory.
        self.spawner.is_grown(birth.newborn);
        self.forget(run);
        let failure = match (again.zip(birth.stdio), obstacle) {
            (Some((place, stdio)), _) => match self.bear((id, run), &prepared, stdio, place) {
                Ok(()) => return,
                Err(failure) => failure,
            },
            (None, Some(obstacle)) => failure::explain(&obstacle, &prepared),
            (None, None) => {
                let place = failure::whereabouts(&report, &prepared);
                killed(place, status, asked)
            }
        };
        self.news.push_back(News::SpawnFailed { id, run, failure });
    }

    fn refused(&mut self, prepared: &Prepared, errno: Errno, place: Place) {
        if let (Place::Repaired, Some(wanted)) = (place, &prepared.launch.cgroup) {
            self.cgroups.left_outside(wanted, errno);
        }
    }
}

impl Place {
    fn after_refusal(self) -> Self {
        match self {
            Self::Inside | Self::Walking => Self::Repaired,
            Self::Repaired | Self::Outside => Self::Outside,
        }
    }
}

/// Whether a process that has ended had executed a program before.
///
/// A newborn that fails leaves a report, so that an exit code is the program's; of one that was
/// killed the kernel tells whether it has only forked (`PF_FORKNOEXEC`).
fn has_executed(pid: i32, status: WaitStatus) -> bool {
    match status {
        WaitStatus::Exited { .. } | WaitStatus::Lost => true,
        WaitStatus::Signaled { .. } => !family::has_only_forked(pid),
    }
}

fn killed(place: String, status: WaitStatus, asked: Option<i32>) -> SpawnFailure {
    let (kind, message) = match (asked, status.signal()) {
        (Some(_), _) => (
            FailureKind::Timeout,
            format!("its start hung and was ended: {place}"),
        ),
        (None, signal) => (
            FailureKind::Exec,
            format!(
                "killed by signal {} before it was executed: {place}",
                signal.unwrap_or_default()
            ),
        ),
    };
    SpawnFailure {
        kind,
        transient: false,
        message,
    }
}

fn unwatched(prepared: &Prepared, errno: Errno) -> SpawnFailure {
    let command = prepared.launch.argv.first().map_or("", String::as_str);
    failure::from_errno(
        FailureKind::Limits,
        errno,
        format!("cannot watch {command}"),
    )
}
