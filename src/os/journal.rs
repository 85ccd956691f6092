//! The state directory: what one daemon leaves for the next.
//!
//! `marker` is the random token of this installation, `running` the log of who runs, and
//! `crashes.jsonl` the crash history. All of it is help, never a condition: whatever is torn, missing
//! or unwritable, the daemon starts and supervises. One thread writes, fed by a bounded channel, so
//! that a stalled disk delays nobody. Nothing is synced to the disk (but the marker): the files have to
//! outlive the daemon, and after a reboot nobody on record is alive anyway.

mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::identity::Identity;
use super::procfs::Stat;
use store::Store;

/// Records that may wait for the disk; what comes on top is dropped and counted.
const QUEUE: usize = 16_384;

/// The writing end of the state directory.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: SyncSender<Record>,
    errors: Arc<AtomicU64>,
}

/// What an earlier daemon left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// This installation's token: 16 hexadecimal digits.
    pub marker: String,
    /// Who ran when it ended, as far as they were on record, with the programs' display names.
    pub running: Vec<(Identity, String)>,
    /// The last crashes, oldest first, one JSON text each.
    pub crashes: Vec<String>,
}

#[derive(Debug)]
enum Record {
    Running { key: u32, pid: i32, name: String },
    Ended { key: u32 },
    Crash(String),
    Flush(SyncSender<()>),
}

impl Journal {
    /// Reads what is there, making the directory as needed, and starts the writing thread.
    ///
    /// `say` is called on that thread: once when writing begins to fail, with the reason, and once
    /// when it works again. The identities of an earlier daemon stay on record as long as they live.
    pub fn open(dir: &Path, say: impl FnMut(&str) + Send + 'static) -> (Self, Loaded) {
        let (store, loaded) = Store::open(dir);
        let (queue, records) = sync_channel(QUEUE);
        let errors = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            store,
            errors: Arc::clone(&errors),
            failing: false,
            say,
        };
        let started = thread::Builder::new()
            .name(String::from("journal"))
            .spawn(move || writer.run(&records));
        // Without its thread the queue has no other end: each record is counted as an error.
        errors.fetch_add(u64::from(started.is_err()), Ordering::Relaxed);
        (Self { queue, errors }, loaded)
    }

    /// Notes that this child of ours, just spawned, runs. Never blocks.
    ///
    /// Its identity is read by the writing thread; a process that is gone by then, or whose number
    /// went to one that is not our child, is not noted.
    pub fn running(&self, key: u32, pid: i32, name: &str) {
        self.send(Record::Running {
            key,
            pid,
            name: name.replace(['\n', '\r'], " "),
        });
    }

    /// Notes that the key's process, and its family, are gone. Never blocks.
    pub fn ended(&self, key: u32) {
        self.send(Record::Ended { key });
    }

    /// Adds a crash, one line of JSON, to the history; the oldest go. Never blocks.
    pub fn crash(&self, json_line: String) {
        self.send(Record::Crash(json_line));
    }

    /// Waits until all that was noted is written, or has failed to be; false after `deadline`.
    /// Blocks.
    pub fn flush(&self, deadline: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        // A full queue is a stalled disk: there is nothing to wait for.
        self.queue.try_send(Record::Flush(done)).is_ok() && wait.recv_timeout(deadline).is_ok()
    }

    /// Returns how many records were dropped or could not be written.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn send(&self, record: Record) {
        match self.queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

struct Writer<Say> {
    store: Store,
    errors: Arc<AtomicU64>,
    failing: bool,
    say: Say,
}

impl<Say: FnMut(&str)> Writer<Say> {
    fn run(&mut self, records: &Receiver<Record>) {
        // What was torn or is past goes at once.
        let tidied = self.store.compact_running();
        self.judge(tidied);
        while let Ok(record) = records.recv() {
            let result = match record {
                Record::Running { key, pid, name } => match child(pid) {
                    Some(identity) => self.store.running(key.to_string(), identity, name),
                    None => continue,
                },
                Record::Ended { key } => self.store.ended(&key.to_string()),
                Record::Crash(line) => self.store.crash(&line),
                Record::Flush(done) => {
                    // Whoever asked may have given up waiting.
                    let _ = done.try_send(());
                    continue;
                }
            };
            self.judge(result);
        }
    }

    fn judge(&mut self, result: Result<(), store::StoreError>) {
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                (self.say)("the state directory can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    (self.say)(&format!("{error}: {}", error.cause()));
                }
            }
        }
    }
}

/// Returns who this child of ours is, unless it is gone.
fn child(pid: i32) -> Option<Identity> {
    let stat = Stat::read(pid).ok()?;
    (stat.parent == std::process::id() as i32).then(|| Identity::from_stat(&stat))
}

#[cfg(test)]
mod tests;
