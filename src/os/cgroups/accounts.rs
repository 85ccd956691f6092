//! What whole cgroups have used: exact, those that ended included, whoever reaped them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::{self, number};
use super::place::of_version_2;
use crate::os::procfs::Usage;

/// The cgroups of all replicas, for whoever measures. A handle; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Accounts(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// What the names in `/proc/PID/cgroup` begin with.
    base: Option<PathBuf>,
    /// Out-of-memory kills are counted.
    memory: bool,
    keys: HashMap<String, u32>,
    accounts: HashMap<u32, Account>,
}

/// Microseconds in user mode and in the kernel, bytes read and written, out-of-memory kills.
type Sums = [u64; 5];

/// One replica's cgroup. It may be removed from outside and made again, and may have been there
/// before us: our sums start at 0 and never go back.
#[derive(Clone, Debug, Default)]
struct Account {
    directory: PathBuf,
    /// Sums of cgroups that stood here before this one.
    earlier: Sums,
    /// What this one showed when we came.
    at_first: Sums,
    last: Sums,
}

impl Accounts {
    pub(super) fn new(base: PathBuf, memory: bool) -> Self {
        Self(Arc::new(Mutex::new(Table {
            base: Some(base),
            memory,
            ..Table::default()
        })))
    }

    /// Opens the account of a replica whose cgroup has been made, or was found.
    pub(super) fn open(&self, key: u32, name: &str, directory: &Path) {
        let at_first = sums(directory);
        let mut table = self.lock();
        table.keys.insert(name.to_owned(), key);
        let account = table.accounts.entry(key).or_default();
        account.directory = directory.to_owned();
        for (sum, (last, first)) in account
            .earlier
            .iter_mut()
            .zip(account.last.iter().zip(account.at_first))
        {
            *sum += last.saturating_sub(first);
        }
        (account.at_first, account.last) = (at_first, at_first);
    }

    pub(super) fn close(&self, key: u32) {
        let mut table = self.lock();
        table.accounts.remove(&key);
        table.keys.retain(|_, other| *other != key);
    }

    /// Returns whose cgroup a process is in.
    #[must_use]
    pub(in crate::os) fn key_of(&self, pid: i32) -> Option<u32> {
        let base = self.lock().base.clone()?;
        let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let within = of_version_2(&memberships)?.strip_prefix(base).ok()?;
        let name = within.components().next()?.as_os_str().to_str()?;
        self.lock().keys.get(name).copied()
    }

    /// Puts what the cgroup of a replica shows in the place of what its processes show, where it
    /// shows more: processor time, memory, storage, out-of-memory kills.
    #[must_use]
    pub fn overlay(&self, key: u32, usage: Usage) -> Usage {
        let (memory, account) = {
            let table = self.lock();
            (table.memory, table.accounts.get(&key).cloned())
        };
        let oom_kills = memory.then_some(0);
        let Some(account) = account else {
            return Usage { oom_kills, ..usage };
        };
        let now = sums(&account.directory);
        let last = std::array::from_fn(|i| account.last[i].max(now[i]));
        if let Some(account) = self.lock().accounts.get_mut(&key) {
            account.last = last;
        }
        let sum = |i: usize| account.earlier[i] + last[i].saturating_sub(account.at_first[i]);
        let mut usage = Usage {
            cpu_user_seconds: micros(sum(0)),
            cpu_system_seconds: micros(sum(1)),
            oom_kills: memory.then(|| sum(4)),
            ..usage
        };
        if account.directory.join("io.stat").exists() {
            (usage.read_bytes, usage.written_bytes) = (sum(2), sum(3));
        }
        if let Some(resident) = resident(&account.directory).filter(|_| usage.processes > 0) {
            usage.resident_bytes = resident;
        }
        usage
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Reads what a cgroup has used since it was made; 0 for what its controllers do not tell.
fn sums(directory: &Path) -> Sums {
    let read = |file| files::read(directory, file).unwrap_or_default();
    let cpu = read("cpu.stat");
    let [bytes_read, written] = transfers(&read("io.stat"));
    [
        number(&cpu, "user_usec").unwrap_or(0),
        number(&cpu, "system_usec").unwrap_or(0),
        bytes_read,
        written,
        oom_kills(directory).unwrap_or(0),
    ]
}

/// Adds up what is told of each device.
fn transfers(stat: &str) -> [u64; 2] {
    ["rbytes=", "wbytes="].map(|name| {
        stat.split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
            .sum()
    })
}

/// Returns how often a process of a cgroup was killed for want of memory; `None` where that is not
/// counted.
pub(super) fn oom_kills(directory: &Path) -> Option<u64> {
    number(&files::read(directory, "memory.events").ok()?, "oom_kill")
}

/// Returns what a cgroup holds of memory, without what the kernel can take back at once: unlike the
/// plain sum it does not grow with every file that is read.
fn resident(directory: &Path) -> Option<u64> {
    let current: u64 = files::read(directory, "memory.current")
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let stat = files::read(directory, "memory.stat").ok()?;
    Some(current.saturating_sub(number(&stat, "inactive_file").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a cgroup.
    fn show(directory: &Path, user: u64, oom: u64) {
        let write = |file: &str, text: String| {
            std::fs::write(directory.join(file), text).expect("written");
        };
        write(
            "cpu.stat",
            format!("usage_usec {user}\nuser_usec {user}\nsystem_usec 5\n"),
        );
        write("memory.events", format!("oom 1\noom_kill {oom}\n"));
    }

    #[test]
    fn sums_start_at_zero_and_never_go_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let accounts = Accounts::new(PathBuf::from("/"), true);
        let shown = || {
            let usage = accounts.overlay(3, Usage::default());
            (usage.cpu_user_seconds, usage.oom_kills)
        };
        assert_eq!(shown(), (0.0, Some(0)), "before the first start");
        show(directory.path(), 7_000_000, 4);
        accounts.open(3, "program-a-0", directory.path());
        assert_eq!(shown(), (0.0, Some(0)), "what was there before is not ours");
        show(directory.path(), 9_000_000, 5);
        assert_eq!(shown(), (2.0, Some(1)));
        show(directory.path(), 0, 0);
        accounts.open(3, "program-a-0", directory.path());
        assert_eq!(shown(), (2.0, Some(1)), "made again");
        show(directory.path(), 1_500_000, 2);
        assert_eq!(shown(), (3.5, Some(3)));
    }

    #[test]
    fn transfers_of_all_devices_are_added() {
        let stat = "8:0 rbytes=100 wbytes=7 rios=1 wios=1\n8:16 rbytes=11 wbytes=0\n";
        assert_eq!(transfers(stat), [111, 7]);
        assert_eq!(transfers(""), [0, 0]);
    }
}
