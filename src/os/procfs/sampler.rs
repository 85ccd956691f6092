//! What whole families of processes use, in one pass over `/proc`.
//!
//! CPU time and disk bytes have to be monotone although processes end. `/proc` shows for each
//! process its own use, and what it inherited from children it waited for. So when a child is
//! reaped its use moves from the child's own account to its parent's inherited one: a plain sum over
//! the living is conserved then, but drops when the daemon itself reaps (a root, an orphan) or when
//! SIGCHLD is ignored. Each pass therefore adds, to a total per key, what every living process has
//! gained since the last pass: all of its own gain, and of its inherited gain what exceeds the last
//! known use of those descendants that have gone meanwhile, as that is counted already. What a
//! process uses between the last pass and its end is seen if somebody of the family waits for it;
//! of a main process the kernel says it when it ends ([`Endings`]).

use std::collections::HashMap;
use std::io;

use super::endings::{Ended, Endings};
use super::{Account, Stat, disk_bytes, marked_run, max_fds, micros, open_fds, pids};
use crate::os::cgroups::Accounts;

/// What one program's whole family uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Never goes back while the sampler lives, over all runs of the program.
    pub cpu_user_seconds: f64,
    /// As `cpu_user_seconds`.
    pub cpu_system_seconds: f64,
    /// CPU time of those who are alive, and of the children they have waited for: this run's.
    pub run_cpu_seconds: f64,
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
    /// Processes killed for want of memory; `None` where nobody counts them.
    pub oom_kills: Option<u64>,
}

/// Remembers what the last pass saw.
#[derive(Debug, Default)]
pub struct Sampler {
    known: HashMap<Process, Known>,
    totals: HashMap<u32, Account>,
    /// Those who had gone by the last pass: the last word of one may still be on its way.
    departed: HashMap<Process, Known>,
    endings: Endings,
    cgroups: Accounts,
    /// Limits of main processes.
    limits: HashMap<Process, u64>,
    skipped: u64,
}

/// A process of this boot: pid and start time, so that a recycled pid is another process.
type Process = (i32, u64);

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
    cgroups: Accounts,
    daemon: i32,
}

impl Sampler {
    /// Makes one that hears the last words of main processes and knows the cgroups of replicas.
    #[must_use]
    pub fn new(endings: Endings, cgroups: Accounts) -> Self {
        Self {
            endings,
            cgroups,
            ..Self::default()
        }
    }

    /// Measures the families of these main processes, given as `(key, pid)`.
    ///
    /// Answers for every key it was ever given, in order, also when nothing of it runs: the totals
    /// stay. Processes that lost their parents and were adopted by us belong to the key that their
    /// session, their process group, an earlier pass, their cgroup or their environment
    /// (`ETERNAL_RUN=<marker>:<key>:…`) says.
    pub fn sample(&mut self, roots: &[(u32, i32)], marker: &str) -> Vec<(u32, Usage)> {
        // Taken first: one that ends during the pass is heard in the next.
        let endings = self.endings.take();
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
        let ghosts = self.hear(endings, &mut seen);
        self.settle(seen, &ghosts);
        let mut answer: Vec<(u32, Usage)> = self
            .totals
            .iter()
            .map(|(key, total)| (*key, with_totals(usages.get(key).copied(), total)))
            .collect();
        answer.sort_unstable_by_key(|(key, _)| *key);
        answer
    }

    /// Forgets every key but these: the programs of the others were removed.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.totals.retain(|key, _| keep(*key));
        self.known.retain(|_, known| keep(known.key));
        self.departed.retain(|_, known| keep(known.key));
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
            cgroups: self.cgroups.clone(),
            daemon: std::process::id() as i32,
        }
    }

    /// Adds one process to the gauges of its family, and returns its disk bytes.
    fn add_gauges(&mut self, usage: &mut Usage, stat: &Stat) -> [u64; 2] {
        usage.processes += 1;
        let run = stat.own_time.iter().chain(&stat.reaped_time);
        usage.run_cpu_seconds += micros(run.sum()) as f64 / 1e6;
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

    /// Puts main processes that have ended among those seen, with all that they used, and returns
    /// them. What no pass has seen alive is added to the totals at once.
    fn hear(
        &mut self,
        endings: HashMap<u32, Ended>,
        seen: &mut HashMap<Process, Known>,
    ) -> Vec<Process> {
        if endings.is_empty() {
            return Vec::new();
        }
        let mut before: HashMap<(u32, i32), (Process, Known)> = HashMap::new();
        for (process, known) in self.departed.iter().chain(&self.known) {
            before.insert((known.key, process.0), (*process, *known));
        }
        let mut ghosts = Vec::new();
        for (key, ended) in endings {
            let Some(total) = self.totals.get_mut(&key) else {
                continue;
            };
            add(total, &ended.rest);
            match before.get(&(key, ended.pid)) {
                None => add(total, &ended.first),
                // A zombie that this pass has seen shows everything itself.
                Some((process, _)) if seen.contains_key(process) => {}
                Some((process, known)) => {
                    seen.insert(*process, known.at_its_end(&ended.first));
                    self.known.entry(*process).or_insert(*known);
                    ghosts.push(*process);
                }
            }
        }
        ghosts
    }

    /// Adds what those seen gained to the totals, and remembers the living for the next pass.
    fn settle(&mut self, mut seen: HashMap<Process, Known>, ghosts: &[Process]) {
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
        let mut departed = std::mem::replace(&mut self.known, seen);
        departed.retain(|process, _| !self.known.contains_key(process));
        self.departed = departed;
        for ghost in ghosts {
            self.known.remove(ghost);
        }
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

impl Known {
    /// Returns it as it ended, by the kernel's sum of own and inherited use. What it gained since
    /// counts as inherited, as its descendants that have gone may be in it.
    fn at_its_end(mut self, used: &Account) -> Self {
        for (i, used) in used.iter().enumerate() {
            if i < 2 {
                self.inherited[i] = self.inherited[i].max(used.saturating_sub(self.own[i]));
            } else {
                self.own[i] = self.own[i].max(*used);
            }
        }
        self
    }
}

fn add(total: &mut Account, more: &Account) {
    for (sum, more) in total.iter_mut().zip(more) {
        *sum += more;
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
        let by_cgroup = || self.cgroups.key_of(orphan.pid);
        by_leader
            .copied()
            .or_else(by_memory)
            .or_else(by_cgroup)
            .or_else(by_marker)
    }
}

const fn identity(stat: &Stat) -> Process {
    (stat.pid, stat.start)
}

fn known(key: u32, parent: Option<Process>, stat: &Stat, disk: [u64; 2]) -> Known {
    let [user, system] = [micros(stat.own_time[0]), micros(stat.own_time[1])];
    let [inherited_user, inherited_system] =
        [micros(stat.reaped_time[0]), micros(stat.reaped_time[1])];
    Known {
        key,
        parent,
        own: [user, system, disk[0], disk[1]],
        inherited: [inherited_user, inherited_system, 0, 0],
    }
}

fn with_totals(usage: Option<Usage>, total: &Account) -> Usage {
    Usage {
        cpu_user_seconds: total[0] as f64 / 1e6,
        cpu_system_seconds: total[1] as f64 / 1e6,
        read_bytes: total[2],
        written_bytes: total[3],
        ..usage.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
