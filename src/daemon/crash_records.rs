//! Crash records: the verdict from supervision, the last output from the log room, together to the
//! history. The loop waits for neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::control::api::Crash;
use crate::observe::CrashHistory;
use crate::os::journal::Journal;
use crate::supervision::Id;

/// Crashes whose last output is waited for at the same time. Where there are more, the log room cannot
/// keep up: those that come then go without, so that a storm of crashes fills no memory.
const WAITING: usize = 256;

/// Joins the two halves of each crash record.
pub(super) struct CrashRecords {
    history: CrashHistory,
    journal: Journal,
    /// The last output of the latest run of each program, while it is still being read.
    last_output: HashMap<Id, oneshot::Receiver<Vec<String>>>,
    seats: Arc<Semaphore>,
}

impl CrashRecords {
    pub fn new(history: CrashHistory, journal: Journal) -> Self {
        Self {
            history,
            journal,
            last_output: HashMap::new(),
            seats: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// A run ended; its last lines will arrive.
    pub fn ended(&mut self, id: Id, last_output: oneshot::Receiver<Vec<String>>) {
        self.last_output.insert(id, last_output);
    }

    /// A crash has its verdict.
    pub fn judged(&mut self, id: Id, mut crash: Crash) {
        let last_output = self.last_output.remove(&id);
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let (Some(lines), Ok(seat)) = (last_output, seat) else {
            return keep(&self.history, &self.journal, crash);
        };
        let (history, journal) = (self.history.clone(), self.journal.clone());
        tokio::spawn(async move {
            // The log room answers once it has read what is there, or is gone.
            crash.last_output = lines.await.unwrap_or_default();
            keep(&history, &journal, crash);
            drop(seat);
        });
    }

    /// Waits until every crash so far is on its way to the disk, at most this long: the one that ends
    /// the daemon is the one that people ask for.
    pub async fn are_noted(&self, limit: Duration) {
        let every = u32::try_from(WAITING).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(limit, self.seats.acquire_many(every)).await;
    }
}

fn keep(history: &CrashHistory, journal: &Journal, crash: Crash) {
    if let Ok(line) = serde_json::to_string(&crash) {
        journal.crash(line);
    }
    history.push(crash);
}
