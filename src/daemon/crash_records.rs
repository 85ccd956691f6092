//! Crash records: the verdict from supervision, the last output from the log room, together to the
//! history. The loop waits for neither.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::control::api::Crash;
use crate::observe::CrashHistory;
use crate::os::journal::Journal;
use crate::supervision::Id;

/// Joins the two halves of each crash record.
pub(super) struct CrashRecords {
    history: CrashHistory,
    journal: Journal,
    /// The last output of the latest run of each program, while it is still being read.
    last_output: HashMap<Id, oneshot::Receiver<Vec<String>>>,
}

impl CrashRecords {
    pub fn new(history: CrashHistory, journal: Journal) -> Self {
        Self {
            history,
            journal,
            last_output: HashMap::new(),
        }
    }

    /// A run ended; its last lines will arrive.
    pub fn ended(&mut self, id: Id, last_output: oneshot::Receiver<Vec<String>>) {
        self.last_output.insert(id, last_output);
    }

    /// A crash has its verdict.
    pub fn judged(&mut self, id: Id, mut crash: Crash) {
        let last_output = self.last_output.remove(&id);
        let (history, journal) = (self.history.clone(), self.journal.clone());
        tokio::spawn(async move {
            if let Some(lines) = last_output {
                // The log room answers once it has read what is there, or is gone.
                crash.last_output = lines.await.unwrap_or_default();
            }
            if let Ok(line) = serde_json::to_string(&crash) {
                journal.crash(line);
            }
            history.push(crash);
        });
    }
}
