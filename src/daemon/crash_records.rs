//! Crash records: the verdict from supervision, the last output from the log room, together to the
//! history. The loop waits for neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::readiness::Found;
use crate::control::api::Crash;
use crate::observe::CrashHistory;
use crate::os::journal::Journal;
use crate::supervision::Id;

/// Crashes whose last output is waited for at the same time. Where there are more, the log room cannot
/// keep up: those that come then go without, so that a storm of crashes fills no memory.
const WAITING: usize = 256;

/// Whoever waits for a start hears of its end without the last words if they take longer than this:
/// a disk may hold the log room up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Joins the two halves of each crash record.
pub(super) struct CrashRecords {
    history: CrashHistory,
    journal: Journal,
    /// Tells the loop that last words which somebody waits for have arrived.
    found: mpsc::Sender<Found>,
    /// The last output of the latest run of each program that is not up.
    last_output: HashMap<Id, LastOutput>,
    seats: Arc<Semaphore>,
}

struct LastOutput {
    /// While it is still being read and nobody has asked for it.
    coming: Option<oneshot::Receiver<Vec<String>>>,
    /// Once somebody has.
    known: Option<watch::Receiver<Option<Vec<String>>>>,
    /// The loop is told when it is there.
    awaited: bool,
}

impl CrashRecords {
    pub fn new(history: CrashHistory, journal: Journal, found: mpsc::Sender<Found>) -> Self {
        Self {
            history,
            journal,
            found,
            last_output: HashMap::new(),
            seats: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// A run ended; its last lines will arrive.
    pub fn ended(&mut self, id: Id, last_output: oneshot::Receiver<Vec<String>>) {
        let of = LastOutput {
            coming: Some(last_output),
            known: None,
            awaited: false,
        };
        self.last_output.insert(id, of);
    }

    /// What the latest run said is of no interest any more: another is up, or could not be started
    /// and had nothing to say.
    pub fn forget(&mut self, id: Id) {
        self.last_output.remove(&id);
    }

    /// A crash has its verdict.
    pub fn judged(&mut self, id: Id, mut crash: Crash) {
        let last_output = self.last_output.get_mut(&id);
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let coming = last_output.and_then(|of| Some((of.coming.take()?, of)));
        let (Some((lines, of)), Ok(seat)) = (coming, seat) else {
            return keep(&self.history, &self.journal, crash);
        };
        let (arrived, known) = watch::channel(None);
        of.known = Some(known);
        let (history, journal) = (self.history.clone(), self.journal.clone());
        tokio::spawn(async move {
            // The log room answers once it has read what is there, or is gone.
            crash.last_output = lines.await.unwrap_or_default();
            arrived.send_replace(Some(crash.last_output.clone()));
            keep(&history, &journal, crash);
            drop(seat);
        });
    }

    /// Returns the last lines of a run that did not come up; `None` while they are on their way:
    /// the loop hears when they are there.
    pub fn last_words(&mut self, id: Id) -> Option<Vec<String>> {
        let Some(of) = self.last_output.get_mut(&id) else {
            return Some(Vec::new());
        };
        if let Some(lines) = of.coming.take() {
            let (arrived, known) = watch::channel(None);
            of.known = Some(known);
            tokio::spawn(
                async move { arrived.send_replace(Some(lines.await.unwrap_or_default())) },
            );
        }
        let Some(known) = &of.known else {
            return Some(Vec::new());
        };
        let lines = known.borrow().clone();
        if lines.is_none() && !std::mem::replace(&mut of.awaited, true) {
            let (known, found) = (known.clone(), self.found.clone());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, arrival(known)).await;
                let _ = found.send(Found::LastWords(id)).await;
            });
        }
        lines
    }

    /// The log room is held up: whoever waits for these last words is answered without them.
    pub fn give_up_on(&mut self, id: Id) {
        let of = self.last_output.get_mut(&id);
        if let Some(of) = of.filter(|of| of.known.as_ref().is_some_and(|k| k.borrow().is_none())) {
            of.known = None;
        }
    }

    /// Waits until every crash so far is on its way to the disk, at most this long: the one that ends
    /// the daemon is the one that people ask for.
    pub async fn are_noted(&self, limit: Duration) {
        let every = u32::try_from(WAITING).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(limit, self.seats.acquire_many(every)).await;
    }
}

async fn arrival(mut lines: watch::Receiver<Option<Vec<String>>>) {
    // The sender is gone: nothing more will arrive.
    let _ = lines.wait_for(Option::is_some).await;
}

fn keep(history: &CrashHistory, journal: &Journal, crash: Crash) {
    if let Ok(line) = serde_json::to_string(&crash) {
        journal.crash(line);
    }
    history.push(crash);
}
