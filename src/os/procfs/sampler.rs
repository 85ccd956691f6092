//! What whole families of processes use, in one pass over `/proc`.
//!
//! CPU time and disk bytes have to be monotone although processes end. `/proc` shows for each
//! process its own use, and what it inherited from children it waited for. So when a child is
//! reaped its use moves from the child's own account to its parent's inherited one: a plain sum over
//! the living is conserved then, but drops when the daemon itself reaps (a root, an orphan) or when
//! SIGCHLD is ignored. Each pass therefore adds, to a total per key, what every living process has
//! gained since the last pass: all of its own gain, and of its inherited gain what exceeds the last
//! known use of those descendants that have gone meanwhile, as that is counted already. What a
//! process uses between the last pass and its end is seen only if somebody of the family waits for it.

use std::collections::HashMap;
use std::io;

use super::{Stat, disk_bytes, marked_run, max_fds, open_fds, pids, seconds};

/// What one program's whole family uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Never goes back while the sampler lives, over all runs of the program.
    pub cpu_user_seconds: f64,
    /// As `cpu_user_seconds`.
    pub cpu_system_seconds: f64,
    /// In memory, shared pages counted in every process.
    pub resident_bytes: u64,
    /// Of address space.
    pub virtual_bytes: u64,
    /// Of all processes together.
    pub open_fds: u64,
    /// The limit of the main process alone, as it was when first seen (it is dear to read); `u64::MAX` is unlimited, 0 unknown.
    pub max_fds: u64,
    /// Of all processes together.
    pub threads: u64,
    /// Zombies included.
    pub processes: u64,
    /// From disks; never goes back. 0 where the kernel does not let us see it.
    pub read_bytes: u64,
    /// To disks; never goes back.
    pub written_bytes: u64,
}

/// Remembers what the last pass saw.
#[derive(Debug, Default)]
pub struct Sampler {
    known: HashMap<Process, Known>,
    totals: HashMap<u32, Account>,
    /// Limits of main processes.
    limits: HashMap<Process, u64>,
    skipped: u64,
}

/// A process of this boot: pid and start time, so that a recycled pid is another process.
type Process = (i32, u64);

/// User ticks, system ticks, bytes read, bytes written.
type Account = [u64; 4];

#[derive(Clone, Copy, Debug)]
struct Known {
    key: u32,
    parent: Option<Process>,
    own: Account,
    inherited: Account,
}

/// One pass: everything alive at that moment.
struct Pass<'a> {
    stats: HashMap<i32, Stat>,
    roots: HashMap<i32, u32>,
    owners: HashMap<i32, Option<u32>>,
    marker: &'a str,
    daemon: i32,
}

impl Sampler {
    /// Measures the families of these main processes, given as `(key, pid)`.
    ///
    /// Answers for every key it was ever given, in order, also when nothing of it runs: the totals
    /// stay. Processes that lost their parents and were adopted by us belong to the key that their
    /// session, their process group, an earlier pass or their environment
    /// (`ETERNAL_RUN=<marker>:<key>:…`) says.
    pub fn sample(&mut self, roots: &[(u32, i32)], marker: &str) -> Vec<(u32, Usage)> {
        let mut pass = self.pass(roots, marker);
        let mut usages: HashMap<u32, Usage> = HashMap::new();
        let mut seen = HashMap::with_capacity(self.known.len());
        let pids: Vec<i32> = pass.stats.keys().copied().collect();
        for pid in pids {
            let Some(key) = pass.owner(pid, &self.known) else {
                continue;
            };
            let Some(stat) = pass.stats.get(&pid) else {
                continue;
            };
            let usage = usages.entry(key).or_default();
            let disk = self.add_gauges(usage, stat);
            if pass.roots.contains_key(&pid) {
                let read = || max_fds(pid).unwrap_or(0);
                usage.max_fds = *self.limits.entry(identity(stat)).or_insert_with(read);
            }
            let parent = pass.stats.get(&stat.parent).map(identity);
            seen.insert(identity(stat), known(key, parent, stat, disk));
        }
        for (key, _) in roots {
            self.totals.entry(*key).or_default();
        }
        self.limits.retain(|process, _| seen.contains_key(process));
        self.settle(seen);
        let mut answer: Vec<(u32, Usage)> = self
            .totals
            .iter()
            .map(|(key, total)| (*key, with_totals(usages.get(key).copied(), total)))
            .collect();
        answer.sort_unstable_by_key(|(key, _)| *key);
        answer
    }

    /// Forgets a key: its program was removed.
    pub fn forget(&mut self, key: u32) {
        self.totals.remove(&key);
        self.known.retain(|_, known| known.key != key);
    }

    /// Returns how many processes went away, or hid something, while they were read.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    fn pass<'a>(&mut self, roots: &[(u32, i32)], marker: &'a str) -> Pass<'a> {
        let mut stats = HashMap::with_capacity(self.known.len() + 256);
        for pid in pids() {
            match Stat::read(pid) {
                Ok(stat) => drop(stats.insert(pid, stat)),
                Err(_) => self.skipped += 1,
            }
        }
        Pass {
            stats,
            roots: roots.iter().map(|(key, pid)| (*pid, *key)).collect(),
            owners: HashMap::new(),
            marker,
            daemon: std::process::id() as i32,
        }
    }

    /// Adds one process to the gauges of its family, and returns its disk bytes.
    fn add_gauges(&mut self, usage: &mut Usage, stat: &Stat) -> [u64; 2] {
        usage.processes += 1;
        usage.threads += stat.threads;
        usage.resident_bytes += stat.resident_bytes;
        usage.virtual_bytes += stat.virtual_bytes;
        usage.open_fds += self.or_skip(open_fds(stat.pid));
        if stat.is_running() {
            self.or_skip(disk_bytes(stat.pid))
        } else {
            [0; 2]
        }
    }

    fn or_skip<T: Default>(&mut self, read: io::Result<T>) -> T {
        match read {
            Ok(value) => value,
            Err(error) => {
                // No permission is a state of affairs, not a race.
                self.skipped += u64::from(error.kind() == io::ErrorKind::NotFound);
                T::default()
            }
        }
    }

    /// Adds what the living gained to the totals, and remembers them for the next pass.
    fn settle(&mut self, mut seen: HashMap<Process, Known>) {
        let mut counted = self.use_of_the_gone(&seen);
        for (process, now) in &mut seen {
            let before = self.known.get(process);
            let zero = [0; 4];
            let (own, inherited) = before.map_or((zero, zero), |b| (b.own, b.inherited));
            let gone = counted.remove(process).unwrap_or(zero);
            let total = self.totals.entry(now.key).or_default();
            for i in 0..4 {
                // A value that could not be read this time is no loss.
                now.own[i] = now.own[i].max(own[i]);
                now.inherited[i] = now.inherited[i].max(inherited[i]);
                let own_gain = now.own[i] - own[i];
                let inherited_gain = now.inherited[i] - inherited[i];
                // Disk bytes come as one account, own and inherited together.
                total[i] += if i < 2 {
                    own_gain + inherited_gain.saturating_sub(gone[i])
                } else {
                    own_gain.saturating_sub(gone[i])
                };
            }
        }
        self.known = seen;
    }

    /// Returns, for each living process, the last known use of descendants that have gone since.
    fn use_of_the_gone(&self, seen: &HashMap<Process, Known>) -> HashMap<Process, Account> {
        let mut counted: HashMap<Process, Account> = HashMap::new();
        for (process, gone) in self
            .known
            .iter()
            .filter(|(process, _)| !seen.contains_key(process))
        {
            let mut heir = gone.parent;
            // Parents are older than their children, so this ends; the bound is for a damaged map.
            for _ in 0..self.known.len() {
                match heir {
                    Some(parent) if !seen.contains_key(&parent) && parent != *process => {
                        heir = self.known.get(&parent).and_then(|known| known.parent);
                    }
                    Some(_) | None => break,
                }
            }
            if let Some(heir) = heir {
                let account = counted.entry(heir).or_default();
                for (i, sum) in account.iter_mut().enumerate() {
                    *sum += gone.own[i] + gone.inherited[i];
                }
            }
        }
        counted
    }
}

impl Pass<'_> {
    /// Returns whose a process is, asking its ancestors up to a main process or to us.
    fn owner(&mut self, pid: i32, known: &HashMap<Process, Known>) -> Option<u32> {
        let mut line = Vec::new();
        let mut at = pid;
        let owner = loop {
            if let Some(owner) = self.owners.get(&at) {
                break *owner;
            }
            if let Some(key) = self.roots.get(&at) {
                line.push(at);
                break Some(*key);
            }
            // The daemon's own ancestors are nobody's; a line that comes back to itself is torn.
            let Some(stat) = self.stats.get(&at).filter(|_| at != self.daemon) else {
                break None;
            };
            if line.contains(&at) {
                break None;
            }
            line.push(at);
            if stat.parent == self.daemon {
                break self.adopted(stat, known);
            }
            at = stat.parent;
        };
        for pid in line {
            self.owners.insert(pid, owner);
        }
        owner
    }

    fn adopted(&self, orphan: &Stat, known: &HashMap<Process, Known>) -> Option<u32> {
        let by_leader = [orphan.session, orphan.group]
            .iter()
            .find_map(|id| self.roots.get(id));
        let by_memory = || known.get(&identity(orphan)).map(|known| known.key);
        let by_marker = || {
            marked_run(orphan.pid, self.marker)?
                .split(':')
                .next()?
                .parse()
                .ok()
        };
        by_leader.copied().or_else(by_memory).or_else(by_marker)
    }
}

const fn identity(stat: &Stat) -> Process {
    (stat.pid, stat.start)
}

const fn known(key: u32, parent: Option<Process>, stat: &Stat, disk: [u64; 2]) -> Known {
    let ([user, system], [inherited_user, inherited_system]) = (stat.own_time, stat.reaped_time);
    Known {
        key,
        parent,
        own: [user, system, disk[0], disk[1]],
        inherited: [inherited_user, inherited_system, 0, 0],
    }
}

fn with_totals(usage: Option<Usage>, total: &Account) -> Usage {
    Usage {
        cpu_user_seconds: seconds(total[0]),
        cpu_system_seconds: seconds(total[1]),
        read_bytes: total[2],
        written_bytes: total[3],
        ..usage.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
