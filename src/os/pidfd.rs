//! Processes by descriptor: a pidfd can never mean another process than the one it was made for.
#![expect(unsafe_code, reason = "pidfd system calls are in neither std nor nix")]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::procfs::Account;
use crate::supervision::WaitStatus;

/// What the kernel counts disk transfers of `rusage` in; bytes.
const BLOCK: u64 = 512;

/// Opens a descriptor for whichever process has this number at this moment.
pub(super) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: two integers go in, a descriptor (close-on-exec) or an error comes out.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Tells whether the kernel can wait for a pidfd, as Linux does since 5.4; it makes them since 5.2.
pub(super) fn are_known() -> bool {
    // SAFETY: all zeroes is a valid value of this plain C struct.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG;
    let nobodys = libc::id_t::from(i32::MAX.cast_unsigned());
    // SAFETY: `info` is ours. No descriptor has that number: EBADF, where descriptors are known.
    let result = unsafe { libc::waitid(libc::P_PIDFD, nobodys, &raw mut info, options) };
    // A kernel that does not know the kind says EINVAL; whatever else goes wrong is no sign of that.
    Errno::result(result) != Err(Errno::EINVAL)
}

/// Sends a signal to the process behind the descriptor.
pub(super) fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the time of the call, and a null `info` is allowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sends a signal to a number: to a process that is our unreaped child, or was just looked at, or,
/// if it is negative, to a group whose leader is such a one. Unlike `nix` it knows all signals.
pub(super) fn send_to_number(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: two integers go in, and no memory is touched.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Looks how a child ended and what it and the children it waited for have used, leaving it a
/// zombie; `None` while it lives.
pub(super) fn peek(pidfd: BorrowedFd<'_>) -> Option<(WaitStatus, Account)> {
    wait(
        libc::P_PIDFD,
        pidfd.as_raw_fd(),
        libc::WNOWAIT | libc::WNOHANG,
    )
}

/// Reaps a child that has ended: its number is free afterwards.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Option<WaitStatus> {
    wait(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG).map(|(status, _)| status)
}

/// Tells, once each time, whether a child was stopped by a signal.
pub(super) fn was_stopped(pidfd: BorrowedFd<'_>) -> bool {
    // SAFETY: all zeroes is a valid value of this plain C struct.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let id = pidfd.as_raw_fd().cast_unsigned();
    let options = libc::WSTOPPED | libc::WNOHANG;
    // SAFETY: `info` is ours; where nothing has happened it keeps its zeroes.
    unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, options) == 0 && info.si_pid() != 0 }
}

/// Reaps this child of ours if it has ended; `None` while it lives.
pub(super) fn reap_number(pid: i32) -> Option<WaitStatus> {
    wait(libc::P_PID, pid, libc::WNOHANG).map(|(status, _)| status)
}

fn wait(kind: libc::idtype_t, id: i32, options: i32) -> Option<(WaitStatus, Account)> {
    // SAFETY: all zeroes is a valid value of these plain C structs.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    loop {
        // The C library's function leaves out the last argument, which says what the child used.
        // SAFETY: `info` and `usage` are ours and as large as the kernel expects.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                kind,
                id,
                &raw mut info,
                libc::WEXITED | options,
                &raw mut usage,
            )
        };
        match Errno::result(result) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return Some((WaitStatus::Lost, [0; 4])),
        }
    }
    // SAFETY: `waitid` filled in a SIGCHLD siginfo, or left the zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = match (pid, info.si_code) {
        (0, _) => return None,
        (_, libc::CLD_EXITED) => WaitStatus::Exited { code: status },
        (_, code) => WaitStatus::Signaled {
            signal: status,
            core_dumped: code == libc::CLD_DUMPED,
            oom: false,
        },
    };
    Some((status, account(&usage)))
}

fn account(usage: &libc::rusage) -> Account {
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let micros = |time: libc::timeval| count(time.tv_sec) * 1_000_000 + count(time.tv_usec);
    [
        micros(usage.ru_utime),
        micros(usage.ru_stime),
        count(usage.ru_inblock) * BLOCK,
        count(usage.ru_oublock) * BLOCK,
    ]
}
