//! A process that begins its life in a cgroup: `clone3` with CLONE_INTO_CGROUP.
//!
//! The C library has no function for it, and none could be built on `syscall`: parent and child
//! return from the same call, and only one of them has the stack that the call was made on.
//! Elsewhere than on x86-64 the child moves itself, which the kernel makes slower.
#![expect(unsafe_code, reason = "a system call that returns on another stack")]

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;

/// Whether [`into_cgroup`] is there for this processor.
pub(super) const IS_HERE: bool = cfg!(target_arch = "x86_64");

/// What a child is made with.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "nobody reads it where nothing is made")
)]
pub(super) struct Newborn<'fd> {
    /// Its lowest byte, and its size.
    pub(super) stack: (*mut c_void, usize),
    /// Where its descriptor goes.
    pub(super) pidfd: *mut RawFd,
    /// The directory of the cgroup.
    pub(super) cgroup: BorrowedFd<'fd>,
    /// A [`super::newborn::Plan`].
    pub(super) plan: *mut c_void,
}

/// Makes a child that shares our memory and runs [`super::newborn::child`] in the cgroup, while we
/// go on.
///
/// # Safety
///
/// The stack is unused and ends on a multiple of 16; it and the plan are left alone until the child
/// has executed a program or ended.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn into_cgroup(newborn: Newborn<'_>) -> Result<i32, Errno> {
    use std::arch::asm;
    use std::mem;
    use std::os::fd::AsRawFd;

    use super::newborn::child;

    // `libc` has it as a C `int`, in which it is lost.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let shared = (libc::CLONE_VM | libc::CLONE_PIDFD) as u64;
    // SAFETY: all zeroes is a valid value of this plain C struct.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = shared | CLONE_INTO_CGROUP;
    arguments.pidfd = newborn.pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.stack = newborn.stack.0 as u64;
    arguments.stack_size = newborn.stack.1 as u64;
    arguments.cgroup = newborn.cgroup.as_raw_fd() as u64;
    let result: i64;
    // SAFETY: the kernel reads `arguments`. The child comes out of the call on the new stack, whose
    // end is 16-aligned as a call wants it, and goes into `child`, which never returns; the
    // registers that are lost there are its own.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const arguments,
            in("rsi") mem::size_of::<libc::clone_args>(),
            in("r12") newborn.plan,
            in("r13") child as *const (),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(Errno::from_raw(-errno)),
        Err(_) => Err(Errno::EINVAL),
    }
}

/// As on x86-64, but nothing is made.
///
/// # Safety
///
/// Always safe: nothing is touched.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn into_cgroup(_: Newborn<'_>) -> Result<i32, Errno> {
    Err(Errno::ENOSYS)
}
