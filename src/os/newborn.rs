//! The first moments of a process, between `clone` and `execve`.
//!
//! Raw system calls only: the child shares the daemon's memory, its thread's `errno` included, and
//! must not allocate, lock, panic, or call the C library's process-wide `setuid`.
#![expect(unsafe_code, reason = "raw system calls on plain memory")]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::{mem, ptr};

use super::become_user::become_user;
use super::limits::Setting;
use super::spawn::Step;
use super::users::Credentials;

/// The size of a kernel signal mask, in bytes.
pub(super) const MASK_SIZE: usize = mem::size_of::<u64>();

/// All that a child needs, as plain memory.
pub(super) struct Plan {
    pub(super) argv: *const *const c_char,
    pub(super) environment: *const *const c_char,
    pub(super) candidates: *const *const c_char,
    pub(super) directory: *const c_char,
    pub(super) stdio: [RawFd; 3],
    pub(super) limits: *const Setting,
    pub(super) limit_count: usize,
    pub(super) nice: *const i32,
    pub(super) oom: *const c_char,
    pub(super) oom_length: usize,
    pub(super) umask: u32,
    pub(super) credentials: *const Credentials,
    /// An open `cgroup.procs` to move to; -1: it is where it belongs.
    pub(super) cgroup: RawFd,
    pub(super) report: *mut Report,
}

/// What a child leaves for us.
#[repr(C)]
pub(super) struct Report {
    /// It has executed an instruction.
    pub(super) began: i32,
    pub(super) failed: i32,
    pub(super) step: Step,
    pub(super) detail: usize,
    pub(super) errno: i32,
}

/// Runs in the child. Raw system calls only: it shares our memory, our thread's `errno` included,
/// and must not allocate, lock, panic, or call the C library's process-wide `setuid`.
pub(super) extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `Spawner::clone` passes a plan that lives until the program is executed, and its
    // pointers are to live memory, null-terminated or with their lengths beside them.
    unsafe {
        let plan = &*plan.cast::<Plan>();
        (&raw mut (*plan.report).began).write_volatile(1);
        let (step, detail) = become_program(plan);
        let errno = *libc::__errno_location();
        plan.report.write_volatile(Report {
            began: 1,
            failed: 1,
            step,
            detail,
            errno,
        });
        libc::_exit(127)
    }
}

/// Becomes the program, or returns where it failed; `errno` says why.
///
/// # Safety
///
/// As for [`child`]: `plan` and all it points to are valid.
unsafe fn become_program(plan: &Plan) -> (Step, usize) {
    // SAFETY: see above; every call is async-signal-safe.
    unsafe {
        default_signals();
        // "0" is whoever writes it.
        if plan.cgroup >= 0 && libc::syscall(libc::SYS_write, plan.cgroup, c"0".as_ptr(), 1) < 0 {
            return (Step::Cgroup, 0);
        }
        if libc::syscall(libc::SYS_setsid) < 0 {
            return (Step::Session, 0);
        }
        let mut target = 0;
        while target < 3 {
            let source = *plan.stdio.as_ptr().add(target);
            if libc::syscall(libc::SYS_dup3, source, target, 0) < 0 {
                return (Step::Stdio, 0);
            }
            target += 1;
        }
        let mut index = 0;
        while index < plan.limit_count {
            let limit = plan.limits.add(index);
            let old = ptr::null_mut::<libc::rlimit64>();
            let new = &raw const (*limit).value;
            if libc::syscall(libc::SYS_prlimit64, 0, (*limit).number, new, old) < 0 {
                return (Step::Limit, index);
            }
            index += 1;
        }
        if !plan.nice.is_null()
            && libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, *plan.nice) < 0
        {
            return (Step::Nice, 0);
        }
        if !plan.oom.is_null() && !write_oom_score(plan) {
            return (Step::OomScore, 0);
        }
        libc::syscall(libc::SYS_umask, plan.umask);
        if !plan.credentials.is_null()
            && let Err(step) = become_user(&*plan.credentials)
        {
            return (step, 0);
        }
        if libc::syscall(libc::SYS_chdir, plan.directory) < 0 {
            return (Step::Directory, 0);
        }
        // Belt and braces: everything of ours is close-on-exec, but libraries are not ours.
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        no_mask();
        (Step::Execute, execute(plan))
    }
}

/// A kernel `sigaction` of all zeroes: SIG_DFL, on every architecture.
static DEFAULT_ACTION: [u64; 8] = [0; 8];

/// # Safety
///
/// Only for a child: gives up every handler.
unsafe fn default_signals() {
    let mut signal = 1;
    while signal <= 64 {
        let old = ptr::null_mut::<u64>();
        // SAFETY: larger than the kernel's struct; SIGKILL and SIGSTOP fail, and are default.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT_ACTION.as_ptr(),
                old,
                MASK_SIZE,
            )
        };
        signal += 1;
    }
}

/// # Safety
///
/// Only for a child without handlers.
unsafe fn no_mask() {
    let (none, nowhere) = (0_u64, ptr::null_mut::<u64>());
    // SAFETY: points to a mask of the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            nowhere,
            MASK_SIZE,
        )
    };
}

/// # Safety
///
/// `plan.oom` points to `plan.oom_length` bytes.
unsafe fn write_oom_score(plan: &Plan) -> bool {
    let path = c"/proc/self/oom_score_adj".as_ptr();
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string, and the caller vouches for the text.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags);
        fd >= 0 && libc::syscall(libc::SYS_write, fd, plan.oom, plan.oom_length) >= 0
        // The descriptor is close-on-exec.
    }
}

/// Tries every candidate as a shell would; returns which one to blame.
///
/// # Safety
///
/// The arrays of `plan` are null-terminated.
unsafe fn execute(plan: &Plan) -> usize {
    let (mut index, mut denied) = (0, usize::MAX);
    // SAFETY: reads up to the null; `execve` takes what `exec` takes.
    unsafe {
        loop {
            let candidate = *plan.candidates.add(index);
            if candidate.is_null() {
                break;
            }
            libc::syscall(libc::SYS_execve, candidate, plan.argv, plan.environment);
            match *libc::__errno_location() {
                libc::EACCES => denied = if denied == usize::MAX { index } else { denied },
                libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
                _ => return index,
            }
            index += 1;
        }
        if denied != usize::MAX {
            *libc::__errno_location() = libc::EACCES;
            return denied;
        }
        if index > 1 {
            *libc::__errno_location() = libc::ENOENT;
        }
        0
    }
}
