//! The first moments of a process, between `clone` and `execve`.
//!
//! It lives in the daemon's memory while the daemon goes on, on a stack of its own but with the
//! thread's registers: it may not use anything of a thread (`errno`, say), allocate, lock or panic.
//! Hence system calls by hand only, and memory that nobody else writes to.
#![expect(unsafe_code, reason = "raw system calls on plain memory")]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::{mem, ptr};

use super::become_user::become_user;
use super::limits::Setting;
use super::raw::call;
use super::spawn::Step;
use super::users::Credentials;

/// The size of a kernel signal mask, in bytes.
pub(super) const MASK_SIZE: usize = mem::size_of::<u64>();

/// Signals are numbered from 1 to this.
const SIGNALS: usize = 64;

/// All that a child needs, as plain memory.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) argv: *const *const c_char,
    pub(super) environment: *const *const c_char,
    pub(super) candidates: *const *const c_char,
    pub(super) directory: *const c_char,
    pub(super) stdio: [RawFd; 3],
    pub(super) limits: *const Setting,
    pub(super) limit_count: usize,
    pub(super) nice: Option<i32>,
    pub(super) oom: *const c_char,
    pub(super) oom_length: usize,
    pub(super) umask: u32,
    pub(super) credentials: *const Credentials,
    /// An open `cgroup.procs` to move to; -1: it is where it belongs.
    pub(super) cgroup: RawFd,
    /// The end of a pipe that is closed when it executes the program or ends.
    pub(super) answer: RawFd,
    pub(super) report: *mut Report,
}

/// What a child leaves for us: where it is, and where it failed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// It has executed an instruction.
    pub(super) began: i32,
    pub(super) failed: i32,
    /// Where it is, or where it failed.
    pub(super) step: Step,
    pub(super) detail: usize,
    pub(super) errno: i32,
}

/// Where a child failed: the step, which part of it, and the number of the error.
type Failure = (Step, usize, i32);

/// Runs in the child.
pub(super) extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `Spawner` passes a plan that lives until the program is executed or the child is
    // gone, and its pointers are to live memory, null-terminated or with their lengths beside them.
    unsafe {
        let plan = &*plan.cast::<Plan>();
        (&raw mut (*plan.report).began).write_volatile(1);
        let (step, detail, errno) = become_program(plan);
        plan.report.write_volatile(Report {
            began: 1,
            failed: 1,
            step,
            detail,
            errno,
        });
        loop {
            let _ = call(libc::SYS_exit_group, [127]);
        }
    }
}

/// Becomes the program, or returns where it failed.
///
/// # Safety
///
/// As for [`child`]: `plan` and all it points to are valid.
unsafe fn become_program(plan: &Plan) -> Failure {
    // SAFETY: see above; every call is the child's own affair.
    unsafe {
        if let Err(failure) = prepare(plan) {
            return failure;
        }
        arrive(plan, Step::Directory, 0);
        if let Err(errno) = call(libc::SYS_chdir, [plan.directory as usize]) {
            return (Step::Directory, 0, errno);
        }
        // To be nicer is everybody's right, and would only make what came before take longer.
        if let Some(nice) = plan.nice.filter(|nice| *nice > 0)
            && let Err(errno) = set_nice(nice)
        {
            return (Step::Nice, 0, errno);
        }
        no_mask();
        execute(plan)
    }
}

/// Everything that cannot take long.
///
/// # Safety
///
/// As for [`become_program`].
unsafe fn prepare(plan: &Plan) -> Result<(), Failure> {
    let at = |step| move |errno| (step, 0, errno);
    // SAFETY: see above.
    unsafe {
        default_signals();
        stdio(plan).map_err(at(Step::Stdio))?;
        // "0" is whoever writes it.
        if plan.cgroup >= 0 {
            arrive(plan, Step::Cgroup, 0);
            let (door, zero) = (plan.cgroup as usize, c"0".as_ptr() as usize);
            call(libc::SYS_write, [door, zero, 1]).map_err(at(Step::Cgroup))?;
        }
        arrive(plan, Step::Session, 0);
        call(libc::SYS_setsid, []).map_err(at(Step::Session))?;
        let mut index = 0;
        while index < plan.limit_count {
            let limit = plan.limits.add(index);
            let new = &raw const (*limit).value;
            let number = (*limit).number as usize;
            call(libc::SYS_prlimit64, [0, number, new as usize, 0])
                .map_err(|errno| (Step::Limit, index, errno))?;
            index += 1;
        }
        if let Some(nice) = plan.nice.filter(|nice| *nice <= 0) {
            set_nice(nice).map_err(at(Step::Nice))?;
        }
        if !plan.oom.is_null() {
            write_oom_score(plan).map_err(at(Step::OomScore))?;
        }
        let _ = call(libc::SYS_umask, [plan.umask as usize]);
        if !plan.credentials.is_null() {
            arrive(plan, Step::Credentials, 0);
            become_user(&*plan.credentials).map_err(|(step, errno)| (step, 0, errno))?;
        }
    }
    Ok(())
}

/// Leaves word of where the child is, for those who wonder what it hangs in.
///
/// # Safety
///
/// `plan.report` points to a report that only the child writes.
unsafe fn arrive(plan: &Plan, step: Step, detail: usize) {
    // SAFETY: see above.
    unsafe {
        (&raw mut (*plan.report).step).write_volatile(step);
        (&raw mut (*plan.report).detail).write_volatile(detail);
    }
}

/// Puts the streams in place and lets go of everything else of ours, before anything that can take
/// long: a newborn that outlives us must not keep our locks, sockets and pipes.
///
/// # Safety
///
/// Only for a child with descriptors of its own. The streams are above 2.
unsafe fn stdio(plan: &Plan) -> Result<(), i32> {
    let mut target = 0;
    // SAFETY: only numbers go in.
    unsafe {
        while target < 3 {
            let source = *plan.stdio.as_ptr().add(target);
            call(libc::SYS_dup3, [source as usize, target, 0])?;
            target += 1;
        }
        let (one, other) = (plan.answer as usize, plan.cgroup.max(2) as usize);
        let (low, high) = if one < other {
            (one, other)
        } else {
            (other, one)
        };
        // ENOSYS before Linux 5.9: then all goes with the execution, being close-on-exec.
        close(3, low.wrapping_sub(1));
        close(low + 1, high.wrapping_sub(1));
        close(high + 1, u32::MAX as usize);
    }
    Ok(())
}

/// # Safety
///
/// Only for a child with descriptors of its own.
unsafe fn close(first: usize, last: usize) {
    if first > 2 && first <= last {
        // SAFETY: only numbers go in.
        let _ = unsafe { call(libc::SYS_close_range, [first, last, 0]) };
    }
}

/// A kernel `sigaction` of all zeroes: SIG_DFL, on every architecture.
static DEFAULT_ACTION: [u64; 8] = [0; 8];

/// # Safety
///
/// Only for a child: gives up every handler.
unsafe fn default_signals() {
    let mut signal = 1;
    while signal <= SIGNALS {
        let default = DEFAULT_ACTION.as_ptr() as usize;
        // SAFETY: larger than the kernel's struct; SIGKILL and SIGSTOP fail, and are default.
        let _ = unsafe { call(libc::SYS_rt_sigaction, [signal, default, 0, MASK_SIZE]) };
        signal += 1;
    }
}

/// # Safety
///
/// Only for a child without handlers.
unsafe fn no_mask() {
    let none = 0_u64;
    let (how, none) = (libc::SIG_SETMASK as usize, &raw const none as usize);
    // SAFETY: points to a mask of the size that is given.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, [how, none, 0, MASK_SIZE]) };
}

/// # Safety
///
/// Only for a child.
unsafe fn set_nice(nice: i32) -> Result<(), i32> {
    let (itself, nice) = (libc::PRIO_PROCESS as usize, nice as usize);
    // SAFETY: only numbers go in.
    unsafe { call(libc::SYS_setpriority, [itself, 0, nice]) }.map(drop)
}

/// # Safety
///
/// `plan.oom` points to `plan.oom_length` bytes.
unsafe fn write_oom_score(plan: &Plan) -> Result<(), i32> {
    let path = c"/proc/self/oom_score_adj".as_ptr() as usize;
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: the path is a C string, and the caller vouches for the text.
    unsafe {
        let fd = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags])?;
        // The descriptor is close-on-exec.
        call(libc::SYS_write, [fd, plan.oom as usize, plan.oom_length]).map(drop)
    }
}

/// Tries every candidate as a shell would; returns which one to blame, and why.
///
/// # Safety
///
/// The arrays of `plan` are null-terminated.
unsafe fn execute(plan: &Plan) -> Failure {
    let (mut index, mut denied, mut last) = (0, usize::MAX, libc::ENOENT);
    let (argv, environment) = (plan.argv as usize, plan.environment as usize);
    // SAFETY: reads up to the null; `execve` takes what `exec` takes.
    unsafe {
        loop {
            let candidate: *const c_char = *plan.candidates.add(index);
            if ptr::eq(candidate, ptr::null()) {
                break;
            }
            arrive(plan, Step::Execute, index);
            let Err(errno) = call(libc::SYS_execve, [candidate as usize, argv, environment]) else {
                continue;
            };
            last = errno;
            match errno {
                libc::EACCES => denied = if denied == usize::MAX { index } else { denied },
                libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
                _ => return (Step::Execute, index, errno),
            }
            index += 1;
        }
    }
    if denied != usize::MAX {
        return (Step::Execute, denied, libc::EACCES);
    }
    let errno = if index > 1 { libc::ENOENT } else { last };
    (Step::Execute, 0, errno)
}
