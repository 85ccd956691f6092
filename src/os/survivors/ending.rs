//! The end of survivors: asked first, then killed, always through a pidfd whose owner was checked.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::{Sessions, Survivor, search};
use crate::os::identity::Identity;
use crate::os::procfs::Stat;

/// How long the killed may take to go; longer means uninterruptible sleep.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How often a family that goes on forking is searched and killed.
const KILL_ROUNDS: usize = 50;

/// How the end of survivors went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many went by themselves, or when asked.
    pub terminated: usize,
    /// How many had to be killed.
    pub killed: usize,
    /// Those that even SIGKILL did not end, or that we may not signal.
    pub left: Vec<Survivor>,
}

/// Ends survivors: `signal` (a number) and SIGCONT, `grace`, SIGKILL, and again for what they have
/// forked meanwhile, until a search with the same `marker` finds none or five seconds have passed.
///
/// Needs a tokio runtime with I/O and time.
pub async fn end(marker: &str, list: Vec<Survivor>, signal: i32, grace: Duration) -> Ended {
    let sessions = sessions_of(&list);
    for survivor in &list {
        // Whether it worked shows below: whoever is not asked or does not listen is killed.
        if let Some(process) = open(&survivor.identity) {
            let _ = send(&process, signal).and_then(|()| send(&process, libc::SIGCONT));
        }
    }
    let _ = timeout(grace, gone(&list)).await;
    let terminated = list
        .iter()
        .filter(|survivor| !survivor.identity.is_alive())
        .count();
    let mut killed = HashMap::new();
    let _ = timeout(KILL_LIMIT, kill(marker, &list, &sessions, &mut killed)).await;
    let left = remaining(marker, &list, &sessions);
    killed.retain(|identity: &Identity, ()| !identity.is_alive());
    Ended {
        terminated,
        killed: killed.len(),
        left,
    }
}

async fn kill(
    marker: &str,
    list: &[Survivor],
    sessions: &Sessions,
    killed: &mut HashMap<Identity, ()>,
) {
    for _ in 0..KILL_ROUNDS {
        let remaining = remaining(marker, list, sessions);
        if remaining.is_empty() {
            return;
        }
        let mut hit = false;
        for survivor in &remaining {
            if open(&survivor.identity).is_some_and(|process| send(&process, libc::SIGKILL).is_ok())
            {
                killed.insert(survivor.identity, ());
                hit = true;
            }
        }
        // Nothing to wait for where no signal was allowed.
        if !hit {
            return;
        }
        gone(&remaining).await;
    }
}

/// Returns who of the list lives, with whatever family they have by this time.
fn remaining(marker: &str, list: &[Survivor], sessions: &Sessions) -> Vec<Survivor> {
    let recorded: Vec<_> = list.iter().map(|s| (s.identity, s.name.clone())).collect();
    search(marker, &recorded, sessions)
}

/// Returns the sessions that survivors lead: when the leader is gone, its members are still known.
fn sessions_of(list: &[Survivor]) -> Sessions {
    let leads = |survivor: &&Survivor| {
        let pid = survivor.identity.pid();
        Stat::read(pid).is_ok_and(|stat| stat.session == pid) && survivor.identity.is_alive()
    };
    list.iter()
        .filter(leads)
        .map(|s| (s.identity.pid(), s.name.clone()))
        .collect()
}

/// Waits until all of them are gone, one after the other, so that one descriptor does for thousands.
async fn gone(list: &[Survivor]) {
    for survivor in list {
        let Some(process) = open(&survivor.identity) else {
            continue;
        };
        if let Ok(process) = watch(process) {
            let _ = process.readable().await;
        }
    }
}

/// Watches a pidfd, which becomes readable when its process ends.
#[expect(
    unsafe_code,
    reason = "tokio wants a promise that the descriptor stays open"
)]
fn watch(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and the same for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?)
}

/// Opens the process itself, so that its number can be used again without harm; `None` when it is
/// gone. The identity is checked after the opening: from there on the descriptor cannot change hands.
fn open(identity: &Identity) -> Option<OwnedFd> {
    let process = pidfd_open(identity.pid()).ok()?;
    identity.is_alive().then_some(process)
}

#[expect(unsafe_code, reason = "pidfd_open is in no safe crate")]
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor (close-on-exec); nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[expect(unsafe_code, reason = "pidfd_send_signal is in no safe crate")]
fn send(process: &OwnedFd, signal: i32) -> io::Result<()> {
    let (fd, no_info) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open while borrowed; a null siginfo is allowed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
