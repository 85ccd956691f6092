//! What programs use: asked of the system when somebody looks, never in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::published::{Program, Published};
use crate::supervision::{Id, Run};

/// Two looks closer together than this see the same sample, so that they agree.
const FRESH: Duration = Duration::from_millis(500);

/// What the process tree of one program (or the daemon itself) uses. The CPU times and the bytes of
/// storage are of all its runs together and never go back; everything else is of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode, in seconds.
    pub cpu_user_seconds: f64,
    /// CPU time in the kernel, in seconds.
    pub cpu_system_seconds: f64,
    /// CPU time of the present run alone, in seconds.
    pub run_cpu_seconds: f64,
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
    /// Processes; 0 when the program has gone meanwhile.
    pub processes: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
    /// Out-of-memory kills in its cgroup; `None` where it has no cgroup of its own.
    pub oom_kills: Option<u64>,
}

/// Samples the trees of all programs, given as `(key, main process)`: one answer for each, in
/// their order, also for those without a process, whose sums stay.
pub type Sampler = Arc<dyn Fn(&[(u32, Option<i32>)]) -> Vec<Usage> + Send + Sync>;

/// Samples the daemon's own process; `None` when it cannot be read.
pub type OwnSampler = Arc<dyn Fn() -> Option<Usage> + Send + Sync>;

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Of each run that could be read.
    pub runs: HashMap<(Id, Run), Usage>,
    /// Of each program, whose sums count.
    pub totals: HashMap<Id, Usage>,
    /// Something runs, and nothing of it could be read.
    pub blind: bool,
}

/// The latest sample, of which programs and runs, and when.
struct Latest {
    at: Instant,
    of: Vec<(Id, Option<Run>)>,
    sample: Arc<Sample>,
}

/// Keeps the latest look.
pub struct Resources {
    sampler: Sampler,
    /// Held for a whole look: of two scrapes at once the second waits and gets the first's answer.
    latest: Mutex<Option<Latest>>,
}

impl Resources {
    /// Makes one that asks `sampler`.
    #[must_use]
    pub fn new(sampler: Sampler) -> Self {
        Self {
            sampler,
            latest: Mutex::default(),
        }
    }

    /// Returns what every program uses, at most half a second old.
    #[must_use]
    pub fn look(&self, published: &Published) -> Arc<Sample> {
        let run = |program: &Program| program.view.run.map(|(run, ..)| run);
        let of: Vec<(Id, Option<Run>)> = published.programs().map(|p| (p.id, run(p))).collect();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = &*latest
            && Instant::now().duration_since(latest.at) < FRESH
            && latest.of == of
        {
            return Arc::clone(&latest.sample);
        }
        let wanted: Vec<(u32, Option<i32>)> = published
            .programs()
            .map(|p| (p.id.0, p.view.run.map(|(_, pid, _)| pid)))
            .collect();
        let mut sample = Sample::default();
        for ((id, run), usage) in of.iter().zip((self.sampler)(&wanted)) {
            sample.totals.insert(*id, usage);
            // One that has ended since the snapshot has nothing to show.
            if let Some(run) = run.filter(|_| usage.processes > 0) {
                sample.runs.insert((*id, run), usage);
            }
        }
        sample.blind = sample.runs.is_empty() && of.iter().any(|(_, run)| run.is_some());
        let sample = Arc::new(sample);
        *latest = Some(Latest {
            at: Instant::now(),
            of,
            sample: Arc::clone(&sample),
        });
        sample
    }
}
