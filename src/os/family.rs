//! Who descends from whom, as /proc tells it.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::environ::{self, Environment};
use super::launch::MARKER;

/// What is needed to know a process again and to know whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// In clock ticks since boot: with the number, its identity.
    pub(super) started: u64,
    pub(super) zombie: bool,
}

impl Process {
    /// Reads a process; `None` when there is none of this number.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, so count from the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Its number and when it started: no other process has both.
    pub(super) fn identity(&self) -> (i32, u64) {
        (self.pid, self.started)
    }

    /// Reads the process again; `None` when it is gone, even if another has its number.
    pub(super) fn again(&self) -> Option<Self> {
        Self::read(self.pid).filter(|process| process.started == self.started)
    }
}

/// Returns the children that this process has by adoption, and those that its first thread made.
///
/// The kernel gives orphans to the first thread. Children never leave this list until they are
/// reaped, so reading it piece by piece loses none.
pub(super) fn own_children() -> Vec<i32> {
    let pid = std::process::id();
    match fs::read_to_string(format!("/proc/self/task/{pid}/children")) {
        Ok(list) => numbers(&list),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => scan().remove(&pid.cast_signed()).unwrap_or_default(),
    }
}

/// Returns all living descendants of these processes, parents before children.
pub(super) fn descendants(roots: impl IntoIterator<Item = i32>) -> Vec<Process> {
    let mut everyone = None;
    let mut met = HashSet::new();
    let mut found: Vec<Process> = Vec::new();
    let mut open: Vec<i32> = roots.into_iter().collect();
    while let Some(parent) = open.pop() {
        for pid in children(parent, &mut everyone) {
            if let (true, Some(process)) = (met.insert(pid), Process::read(pid)) {
                found.push(process);
                open.push(pid);
            }
        }
    }
    found.retain(|process| !process.zombie);
    found
}

type Tree = HashMap<i32, Vec<i32>>;

/// Reads one process's children, those of all its threads.
fn children(parent: i32, everyone: &mut Option<Tree>) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => all.extend(numbers(&list)),
            // The thread has ended, or the kernel has no such files.
            Err(_) if thread.path().exists() => {
                return everyone
                    .get_or_insert_with(scan)
                    .get(&parent)
                    .cloned()
                    .unwrap_or_default();
            }
            Err(_) => {}
        }
    }
    all
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_ascii_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Reads every process of the machine: the slow way, for kernels without the fast one.
fn scan() -> Tree {
    let mut tree = Tree::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(process) = pid.and_then(Process::read) {
            tree.entry(process.parent).or_default().push(process.pid);
        }
    }
    tree
}

/// What the environment of a process tells about whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// The value of our marker.
    Of(String),
    /// It has none, hides it, or may not be asked.
    None,
    /// It is just executing a program, and will have one afterwards.
    NotYet,
}

/// Looks for our marker in a process's environment, for a bounded time.
pub(super) fn marker(pid: i32) -> Marker {
    match environ::read_in_time(pid, &[MARKER]) {
        Environment::Says(mut found) => found.pop().flatten().map_or(Marker::None, Marker::Of),
        Environment::Silent => Marker::None,
        Environment::NotYet => Marker::NotYet,
    }
}

/// Tells whether a process, a zombie perhaps, has never executed a program since it was forked.
pub(super) fn has_only_forked(pid: i32) -> bool {
    /// `flags` of proc_pid_stat(5), counted from the state.
    const FLAGS: usize = 6;
    /// See `PF_FORKNOEXEC` in the kernel's `sched.h`.
    const NEVER_EXECUTED: u64 = 0x40;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(FLAGS)?.parse().ok());
    flags.is_some_and(|flags: u64| flags & NEVER_EXECUTED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_read_itself() {
        let pid = std::process::id().cast_signed();
        let own = Process::read(pid).expect("this process exists");
        assert_eq!(own.parent, nix::unistd::getppid().as_raw());
        assert_eq!(own.group, nix::unistd::getpgrp().as_raw());
        assert!(own.started > 0 && !own.zombie);
        assert_eq!(Process::read(i32::MAX), None);
    }
}
