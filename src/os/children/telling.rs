//! Signals to runs: to the group, and to whoever left it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal as group_signal;
use nix::unistd::Pid;

use super::Children;
use crate::os::family::Process;
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

    /// Signals an orphan that came after its run was asked to end. One that is known from before
    /// was told then; only SIGKILL is worth repeating.
    pub(super) fn tell_newcomer(&mut self, run: Run, process: &Process, signal: i32) {
        let known = self.relatives.contains_key(&(process.pid, process.started));
        let in_group = self.mains.get(&process.group) == Some(&run);
        if signal == libc::SIGKILL {
            kill_group_of(process);
        }
        if signal == libc::SIGKILL || !(known || in_group) {
            tell(process, signal);
        }
    }
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
pub(super) fn tell(process: &Process, signal: i32) {
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
