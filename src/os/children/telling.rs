//! Signals to runs: to the group, and to whoever left it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::Children;
use crate::os::family::{self, Process};
use crate::os::pidfd;
use crate::supervision::Run;

impl Children {
    pub(super) fn ask(&mut self, run: Run, signal: i32) {
        let Some(child) = self.runs.get_mut(&run) else {
            return;
        };
        if child.asked != Some(libc::SIGKILL) {
            child.asked = Some(signal);
        }
        // One that is being born has nobody yet, and no group of its own perhaps.
        if !child.family || self.births.contains_key(&run) {
            if child.in_cgroup && signal == libc::SIGKILL {
                self.cgroups.excuse(child.id);
            }
            let sent = send(Some(child.pidfd.as_fd()), child.pid, signal);
            let pid = child.pid;
            return self.note_refusal(run, pid, signal, sent);
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
        let sent = signal_group(pid, signal);
        self.note_refusal(run, pid, signal, sent);
        // Read again: one that was in the group when it was met may have left it before the signal.
        let elsewhere = |process: &Process| process.again().is_some_and(|now| now.group != pid);
        for process in relatives.iter().filter(|process| elsewhere(process)) {
            let sent = tell(process, signal);
            self.note_refusal(run, process.pid, signal, sent);
        }
    }

    /// Says once of a run that a process of it cannot be signalled: whatever waits for its end
    /// waits in vain.
    pub(super) fn note_refusal(
        &mut self,
        run: Run,
        pid: i32,
        signal: i32,
        sent: Result<(), Errno>,
    ) {
        let (Err(errno), Some(child)) = (sent, self.runs.get_mut(&run)) else {
            return;
        };
        if child.refused.replace(errno).is_none() {
            let cause = errno.desc();
            tracing::error!(
                pid,
                "cannot send signal {signal} to process {pid}: {cause} ({errno:?})"
            );
        }
    }

    /// Signals one that no run answers for, and whoever descends from it.
    pub(super) fn tell_stray(&mut self, process: &Process, signal: i32) {
        for descendant in family::descendants([process.pid]) {
            // Whether it worked shows when it is counted again.
            let _ = tell(&descendant, signal);
        }
        if signal == libc::SIGKILL {
            kill_group_of(process);
        }
        if let Err(errno) = tell(process, signal) {
            let (pid, cause) = (process.pid, errno.desc());
            tracing::error!(
                pid,
                "cannot send signal {signal} to orphan {pid}: {cause} ({errno:?})"
            );
        }
    }

    /// Signals an orphan that came after its run was asked to end. One that is known from before
    /// was told then; only SIGKILL is worth repeating.
    pub(super) fn tell_newcomer(&mut self, run: Run, process: &Process, signal: i32) {
        let known = self.kin.relatives.contains_key(&process.identity());
        let in_group = self.mains.get(&process.group) == Some(&run);
        if signal == libc::SIGKILL {
            kill_group_of(process);
        }
        if signal == libc::SIGKILL || !(known || in_group) {
            let sent = tell(process, signal);
            self.note_refusal(run, process.pid, signal, sent);
        }
    }
}

/// Signals the group of an unreaped main process; those who are stopped are continued, so that they
/// can act on it.
fn signal_group(leader: i32, signal: i32) -> Result<(), Errno> {
    let sent = pidfd::send_to_number(-leader, signal);
    if signal != libc::SIGKILL {
        let _ = pidfd::send_to_number(-leader, libc::SIGCONT);
    }
    unless_gone(sent)
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
        // Whether it worked shows below: the orphan itself is signalled as well.
        let _ = signal_group(process.group, libc::SIGKILL);
    }
}

/// Signals a process if it is still the one that was met.
pub(super) fn tell(process: &Process, signal: i32) -> Result<(), Errno> {
    let pidfd = pidfd::open(process.pid);
    // Looked at after opening: the descriptor is for the process that was met.
    if process.again().is_none() {
        return Ok(());
    }
    send(pidfd.as_ref().ok().map(AsFd::as_fd), process.pid, signal)
}

/// Signals a process; a stopped one is continued, so that it can act on it.
///
/// Where a filter of system calls is older than pidfds (it refuses them with EPERM or ENOSYS), the
/// number has to do: the caller knows that it is not free.
pub(super) fn send(pidfd: Option<BorrowedFd<'_>>, pid: i32, signal: i32) -> Result<(), Errno> {
    let deliver = |signal| match pidfd.map(|pidfd| pidfd::send(pidfd, signal)) {
        Some(Err(Errno::EPERM | Errno::ENOSYS)) | None => pidfd::send_to_number(pid, signal),
        Some(sent) => sent,
    };
    let sent = deliver(signal);
    if signal != libc::SIGKILL {
        let _ = deliver(libc::SIGCONT);
    }
    unless_gone(sent)
}

/// One that has ended needs no signal: the news of it is on its way.
fn unless_gone(sent: Result<(), Errno>) -> Result<(), Errno> {
    match sent {
        Err(Errno::ESRCH) => Ok(()),
        sent => sent,
    }
}
