//! What programs use: asked of the system when somebody looks, never in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::published::Published;
use crate::supervision::{Id, Run};

/// Two looks closer together than this see the same sample, so that they agree.
const FRESH: Duration = Duration::from_millis(500);

/// What one process tree (or the daemon itself) uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode, in seconds.
    pub cpu_user_seconds: f64,
    /// CPU time in the kernel, in seconds.
    pub cpu_system_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Virtual memory, in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The lowest soft limit of descriptors in the tree; 0 when unknown.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Processes.
    pub processes: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
    /// Out-of-memory kills in its cgroup; `None` where it has no cgroup of its own.
    pub oom_kills: Option<u64>,
}

/// Samples the trees of `(key, main process)` pairs: one answer for each, in their order; `None`
/// for one that cannot be read, such as a process that has just ended.
pub type Sampler = Arc<dyn Fn(&[(u32, i32)]) -> Vec<Option<Usage>> + Send + Sync>;

/// Samples the daemon's own process; `None` when it cannot be read.
pub type OwnSampler = Arc<dyn Fn() -> Option<Usage> + Send + Sync>;

/// The sums of a program's counters over all its runs. They never go back, although the sum over
/// a tree does whenever a grandchild exits, and starts at zero with every run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// CPU time in user mode, in seconds.
    pub cpu_user_seconds: f64,
    /// CPU time in the kernel, in seconds.
    pub cpu_system_seconds: f64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
    /// Out-of-memory kills; `None` where that is unknown.
    pub oom_kills: Option<u64>,
}

impl Totals {
    fn add(&mut self, before: &Usage, after: &Usage) {
        self.cpu_user_seconds += (after.cpu_user_seconds - before.cpu_user_seconds).max(0.0);
        self.cpu_system_seconds += (after.cpu_system_seconds - before.cpu_system_seconds).max(0.0);
        self.read_bytes += after.read_bytes.saturating_sub(before.read_bytes);
        self.written_bytes += after.written_bytes.saturating_sub(before.written_bytes);
        if let Some(kills) = after.oom_kills {
            let new = kills.saturating_sub(before.oom_kills.unwrap_or(0));
            self.oom_kills = Some(self.oom_kills.unwrap_or(0) + new);
        }
    }
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Of each run that could be read.
    pub runs: HashMap<(Id, Run), Usage>,
    /// Of each program that was ever read.
    pub totals: HashMap<Id, Totals>,
    /// Every run could be read.
    pub complete: bool,
    /// How long the look took.
    pub took: Duration,
}

#[derive(Default)]
struct Account {
    run: Option<Run>,
    last: Usage,
    totals: Totals,
}

/// The latest sample, of which runs, and when.
struct Latest {
    at: Instant,
    of: Vec<(Id, Run)>,
    sample: Arc<Sample>,
}

#[derive(Default)]
struct Book {
    accounts: HashMap<Id, Account>,
    latest: Option<Latest>,
}

/// Keeps the accounts between looks.
pub struct Resources {
    sampler: Sampler,
    /// Held for a whole look: of two scrapes at once the second waits and gets the first's answer.
    book: Mutex<Book>,
}

impl Resources {
    /// Makes one that asks `sampler`.
    #[must_use]
    pub fn new(sampler: Sampler) -> Self {
        Self {
            sampler,
            book: Mutex::default(),
        }
    }

    /// Returns what every running program uses, at most half a second old.
    #[must_use]
    pub fn look(&self, published: &Published) -> Arc<Sample> {
        let wanted: Vec<(Id, Run, i32)> = published
            .programs()
            .filter_map(|p| p.view.run.map(|(run, pid, _)| (p.id, run, pid)))
            .collect();
        let keys: Vec<(Id, Run)> = wanted.iter().map(|(id, run, _)| (*id, *run)).collect();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(latest) = &book.latest
            && now.duration_since(latest.at) < FRESH
            && latest.of == keys
        {
            return Arc::clone(&latest.sample);
        }
        book.accounts
            .retain(|id, _| published.program(*id).is_some());
        let pairs: Vec<(u32, i32)> = wanted.iter().map(|(id, _, pid)| (id.0, *pid)).collect();
        let answers = (self.sampler)(&pairs);
        let sample = Arc::new(book.enter(&wanted, &answers, now));
        book.latest = Some(Latest {
            at: Instant::now(),
            of: keys,
            sample: Arc::clone(&sample),
        });
        sample
    }
}

impl Book {
    fn enter(&mut self, of: &[(Id, Run, i32)], found: &[Option<Usage>], began: Instant) -> Sample {
        let mut sample = Sample {
            complete: true,
            ..Sample::default()
        };
        for (index, (id, run, _)) in of.iter().enumerate() {
            let Some(usage) = found.get(index).copied().flatten() else {
                sample.complete = false;
                continue;
            };
            let account = self.accounts.entry(*id).or_default();
            let before = if account.run == Some(*run) {
                account.last
            } else {
                Usage::default()
            };
            account.totals.add(&before, &usage);
            (account.run, account.last) = (Some(*run), usage);
            sample.runs.insert((*id, *run), usage);
        }
        sample.totals = self
            .accounts
            .iter()
            .map(|(id, account)| (*id, account.totals))
            .collect();
        sample.took = began.elapsed();
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: f64) -> Option<Usage> {
        Some(Usage {
            cpu_user_seconds: cpu,
            ..Usage::default()
        })
    }

    #[test]
    fn a_counter_survives_the_exit_of_a_grandchild_and_a_new_run() {
        let mut book = Book::default();
        let mut total = 0.0;
        for (run, cpu, expected) in [(1, 5.0, 5.0), (1, 2.0, 5.0), (1, 3.0, 6.0), (2, 1.0, 7.0)] {
            let of = [(Id(0), Run(run), 1)];
            total = book.enter(&of, &[usage(cpu)], Instant::now()).totals[&Id(0)].cpu_user_seconds;
            assert!(
                (total - expected).abs() < 1e-9,
                "{total} after {cpu} in run {run}"
            );
        }
        let missed = book.enter(&[(Id(0), Run(2), 1)], &[None], Instant::now());
        assert!(!missed.complete && missed.runs.is_empty());
        assert!((missed.totals[&Id(0)].cpu_user_seconds - total).abs() < 1e-9);
    }
}
