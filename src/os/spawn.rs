//! From a launch to a newborn process, without waiting for it.
//!
//! `clone(CLONE_VM | CLONE_PIDFD)` on a stack of its own: no page table is copied, so a restart takes
//! the same time however large the daemon is. We are not suspended meanwhile (no CLONE_VFORK): what
//! the child meets on its way to `execve` (a file system that does not answer, a signal that stops
//! it, a frozen cgroup) delays nobody else. Whether it has arrived is told by a pipe that closes with
//! the execution. The price: until then the child lives *in our memory* while we use it, so it may do
//! nothing but system calls by hand, and what it reads is kept for it.
#![expect(
    unsafe_code,
    reason = "clone, and memory that a child uses while we run"
)]

mod descriptors;

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use self::descriptors::Descriptors;
pub(super) use self::descriptors::Streams;
use super::clone3;
use super::cradle::{Cradle, Cradles};
use super::launch::Prepared;
use super::newborn::{MASK_SIZE, Plan, Report, child};
use super::pidfd;
use super::raw;

/// What a new process is doing, or was doing when it failed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Clone,
    Cgroup,
    Session,
    Stdio,
    Limit,
    Nice,
    OomScore,
    Credentials,
    Privileges,
    /// It was told that it has switched, and has not.
    Unchanged,
    Directory,
    Execute,
}

/// Why a new process did not become the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) step: Step,
    /// Which limit, or which of the paths to execute.
    pub(super) detail: usize,
    pub(super) errno: Errno,
}

impl Obstacle {
    fn clone(errno: Errno) -> Self {
        Self {
            step: Step::Clone,
            detail: 0,
            errno,
        }
    }

    fn cgroup(errno: Errno) -> Self {
        Self {
            step: Step::Cgroup,
            ..Self::clone(errno)
        }
    }
}

/// How to make a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In our memory: fast.
    Shared,
    /// In a copy of our memory: where the first is refused (sandboxes, emulators), and for those
    /// that must not share it ([`needs_a_copy`]).
    Copied,
}

/// Without system calls by hand we wait after all: the newborn uses our `errno`.
const SHARED: c_int = if raw::ARE_HERE {
    libc::CLONE_VM | libc::CLONE_PIDFD
} else {
    libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_VFORK
};

/// The cgroup of a new process: its directory.
#[derive(Clone, Copy)]
pub(super) struct Home<'fd> {
    pub(super) directory: BorrowedFd<'fd>,
    /// It has to go there itself.
    pub(super) walk: bool,
}

/// Makes processes, any number at a time.
#[derive(Debug)]
pub(super) struct Spawner {
    cradles: Cradles,
    pub(super) way: Way,
    /// The kernel makes processes right in a cgroup; else they go there themselves.
    pub(super) born_inside: bool,
}

impl Spawner {
    pub(super) fn new() -> Self {
        Self {
            cradles: Cradles::default(),
            way: Way::Shared,
            born_inside: clone3::IS_HERE,
        }
    }

    /// Begins a process that is to become the program.
    ///
    /// Falls back to copied processes for good where sharing is refused, and says so once.
    pub(super) fn begin(
        &mut self,
        prepared: &Arc<Prepared>,
        streams: &Streams<'_>,
        home: Option<Home<'_>>,
    ) -> Result<Newborn, Obstacle> {
        let way = if needs_a_copy(prepared, home.is_some()) {
            Way::Copied
        } else {
            self.way
        };
        let inside = home
            .filter(|home| self.born_inside && !home.walk && way == Way::Shared)
            .map(|home| home.directory);
        let door = match home {
            Some(home) if inside.is_none() => {
                Some(membership(home.directory).map_err(Obstacle::cgroup)?)
            }
            Some(_) | None => None,
        };
        let fds = Descriptors::new(streams, door).map_err(Obstacle::clone)?;
        let cradle = self.cradles.take().map_err(Obstacle::clone)?;
        let held = Held::new(cradle, Arc::clone(prepared), &fds);
        let cloned = match (way, inside) {
            (Way::Shared, Some(directory)) => clone_inside(&held, directory),
            (Way::Shared, None) => clone_shared(&held),
            (Way::Copied, _) => clone_copied(&held),
        };
        let Descriptors { answer, .. } = fds;
        match cloned {
            Ok((pid, pidfd)) => Ok(Newborn {
                pid,
                pidfd: Some(pidfd),
                inside: inside.is_some(),
                answer,
                held: ManuallyDrop::new(held),
            }),
            Err(errno) => {
                self.cradles.put(held.cradle);
                match (errno, way, inside.is_some()) {
                    // No clone3 here (an old kernel, a sandbox): from here on the other way.
                    (
                        Errno::ENOSYS | Errno::EINVAL | Errno::EPERM | Errno::E2BIG,
                        Way::Shared,
                        true,
                    ) => {
                        self.born_inside = false;
                        self.begin(prepared, streams, home)
                    }
                    (Errno::EINVAL | Errno::ENOSYS | Errno::EPERM, Way::Shared, false) => {
                        self.way = Way::Copied;
                        tracing::warn!(
                            "cannot make processes that share memory: starts will be slower"
                        );
                        self.begin(prepared, streams, home)
                    }
                    // The machine is short of something, or so is the cgroup: its `pids.max`.
                    (Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE, ..)
                    | (_, _, false) => Err(Obstacle::clone(errno)),
                    (_, _, true) => Err(Obstacle::cgroup(errno)),
                }
            }
        }
    }

    /// Takes back what a newborn used that has executed its program or ended.
    pub(super) fn is_grown(&mut self, newborn: Newborn) {
        let Held { cradle, .. } = ManuallyDrop::into_inner(newborn.held);
        self.cradles.put(cradle);
    }
}

/// Who lives in our memory without CLONE_VFORK is one with us for the kernel in two places, which
/// must not be: a change of its `oom_score_adj` is ours as well (`__set_oom_adj`), and where it is
/// chosen for want of memory, as within the `memory.max` of its cgroup, we are killed with it.
fn needs_a_copy(prepared: &Prepared, in_cgroup: bool) -> bool {
    let limited = prepared.launch.cgroup.as_ref();
    prepared.oom_score_adj.is_some()
        || (in_cgroup && limited.is_some_and(|wanted| wanted.limits.memory_max.is_some()))
}

/// A process on its way to its program.
///
/// Dropped as it is, it leaves what it uses where it is: it may still run.
#[derive(Debug)]
pub(super) struct Newborn {
    pub(super) pid: i32,
    pidfd: Option<OwnedFd>,
    /// The kernel made it in its cgroup.
    pub(super) inside: bool,
    /// Closes when it executes the program or ends.
    answer: OwnedFd,
    held: ManuallyDrop<Held>,
}

impl Newborn {
    /// Hands over the descriptor of the process, once.
    pub(super) fn take_pidfd(&mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    /// Returns what becomes readable when it executes the program or ends.
    pub(super) fn answer(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }

    /// Tells whether it has executed the program or is ending: it has left our memory.
    ///
    /// In `execve` the kernel changes the memory before it closes descriptors, and gives up the
    /// memory of one that ends before its descriptors.
    pub(super) fn has_left(&self) -> bool {
        !matches!(
            nix::unistd::read(&self.answer, &mut [0]),
            Err(Errno::EAGAIN | Errno::EINTR)
        )
    }

    /// Returns what it has left word of.
    pub(super) fn report(&self) -> Report {
        // SAFETY: the cradle is mapped; the child only ever writes whole valid fields. What is read
        // while it lives is for display alone.
        unsafe { self.held.cradle.report().read_volatile() }
    }

    /// Returns what it is to become.
    pub(super) fn prepared(&self) -> &Arc<Prepared> {
        &self.held.prepared
    }

    /// Returns what stopped it, if anything did.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        let report = self.report();
        (report.failed != 0).then(|| Obstacle {
            step: report.step,
            detail: report.detail,
            errno: Errno::from_raw(report.errno),
        })
    }
}

/// What a newborn uses of our memory.
#[derive(Debug)]
struct Held {
    cradle: Cradle,
    plan: Box<Plan>,
    prepared: Arc<Prepared>,
    _arrays: [Vec<*const c_char>; 3],
}

// SAFETY: the pointers are into what is held here, which nobody changes, on whichever thread.
unsafe impl Send for Held {}

impl Held {
    fn new(cradle: Cradle, prepared: Arc<Prepared>, fds: &Descriptors<'_>) -> Self {
        let arrays = [
            pointers(&prepared.argv),
            pointers(&prepared.environment),
            pointers(&prepared.candidates),
        ];
        let null = ptr::null();
        let oom = prepared.oom_score_adj.as_ref();
        let credentials = prepared.identity.credentials.as_ref();
        let report = cradle.report();
        let plan = Plan {
            argv: arrays[0].as_ptr(),
            environment: arrays[1].as_ptr(),
            candidates: arrays[2].as_ptr(),
            directory: prepared.directory.as_ptr(),
            stdio: fds.stdio.numbers(),
            limits: prepared.limits.as_ptr(),
            limit_count: prepared.limits.len(),
            nice: prepared.launch.nice,
            oom: oom.map_or(null, |text| text.as_ptr()),
            oom_length: oom.map_or(0, |text| text.count_bytes()),
            umask: prepared.launch.umask,
            credentials: credentials.map_or(ptr::null(), ptr::from_ref),
            cgroup: fds.door.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            answer: fds.theirs.as_raw_fd(),
            report,
        };
        let fresh = Report {
            began: 0,
            failed: 0,
            step: Step::Clone,
            detail: 0,
            errno: 0,
        };
        // SAFETY: the place is ours, aligned, and no process writes to it yet.
        unsafe { report.write(fresh) };
        Self {
            cradle,
            plan: Box::new(plan),
            prepared,
            _arrays: arrays,
        }
    }

    fn plan(&self) -> *mut c_void {
        ptr::from_ref(&*self.plan).cast_mut().cast()
    }
}

fn clone_shared(held: &Held) -> Result<(i32, OwnedFd), Errno> {
    let mut fd: RawFd = -1;
    let pid = clone(held, SHARED, &raw mut fd)?;
    // SAFETY: a successful clone has put a descriptor there that is ours alone.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn clone_inside(held: &Held, cgroup: BorrowedFd<'_>) -> Result<(i32, OwnedFd), Errno> {
    let mut fd: RawFd = -1;
    let all = Blocked::new();
    // SAFETY: as for `clone`.
    let pid = unsafe {
        clone3::into_cgroup(clone3::Newborn {
            stack: held.cradle.stack(),
            pidfd: &raw mut fd,
            cgroup,
            plan: held.plan(),
        })
    };
    drop(all);
    // SAFETY: a successful clone has put a descriptor there that is ours alone.
    pid.map(|pid| (pid, unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn clone_copied(held: &Held) -> Result<(i32, OwnedFd), Errno> {
    let pid = clone(held, 0, ptr::null_mut())?;
    // The child is unreaped, so that its number still means it.
    pidfd::open(pid).map(|fd| (pid, fd)).inspect_err(|_| {
        // SAFETY: a signal to our own unreaped child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    })
}

fn clone(held: &Held, flags: c_int, pidfd: *mut RawFd) -> Result<i32, Errno> {
    let (stack, size) = held.cradle.stack();
    let all = Blocked::new();
    // SAFETY: `child` runs on a stack that nothing else uses until it is known to have left it. It
    // only reads the plan, which is held as long, and makes system calls by hand. Signals are
    // blocked, so that no handler of ours runs in it.
    let pid = unsafe {
        let top = stack.byte_add(size);
        libc::clone(child, top, flags | libc::SIGCHLD, held.plan(), pidfd)
    };
    let result = Errno::result(pid);
    drop(all);
    result
}

/// Opens the file of a cgroup that takes its members.
fn membership(cgroup: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(cgroup, "cgroup.procs", flags, nix::sys::stat::Mode::empty())
}

/// Every signal blocked, those of the C library too, until dropped.
struct Blocked(u64);

impl Blocked {
    fn new() -> Self {
        let (all, mut before) = (u64::MAX, 0_u64);
        // SAFETY: both point to masks of the size that is given.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const all,
                &raw mut before,
                MASK_SIZE,
            )
        };
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let nowhere = ptr::null_mut::<u64>();
        // SAFETY: points to a mask of the size that is given.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const self.0,
                nowhere,
                MASK_SIZE,
            )
        };
    }
}

/// An array of pointers as the kernel takes it, with a null at its end.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([ptr::null()])
        .collect()
}

#[cfg(test)]
mod tests;
