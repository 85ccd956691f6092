//! The journal: what one daemon leaves for the next.
//!
//! In the state directory, `marker` is the token of this installation, `running` the log of who runs,
//! and `crashes.jsonl` the crash history. All of it is help, never a condition: whatever is torn,
//! missing or unwritable, the daemon starts and supervises. One thread writes, so that a stalled disk
//! delays nobody. What waits for it is bounded: of each program only how it stands last, of crashes no
//! more than are kept.

mod records;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::identity::Identity;
use super::procfs::Stat;
use super::state_dir::StateDirError;
use super::threads;
use records::Entry;
use store::{Store, StoreError};

/// The files that a start reads.
pub const FILES: [&str; 3] = [store::MARKER, store::RUNNING, store::CRASH_HISTORY];

/// How long after a failure crashes that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The writing end of the state directory. A handle; clones share it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Desk>);

#[derive(Debug, Default)]
struct Desk {
    pending: Mutex<Pending>,
    wake: Condvar,
    errors: AtomicU64,
}

/// What is noted and not written.
#[derive(Debug, Default)]
struct Pending {
    /// The pid and the name of who runs under a key; `None` for nobody.
    runs: BTreeMap<u32, Option<(i32, String)>>,
    crashes: VecDeque<String>,
    /// Those who wait until all that was noted before is written.
    waiting: Vec<SyncSender<()>>,
    closing: bool,
}

/// What an earlier daemon left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The token that its programs carry.
    pub earlier_token: Option<String>,
    /// Who ran when it ended, as far as they were on record, with the programs' display names. Not
    /// to be believed without another proof.
    pub running: Vec<(Identity, String)>,
    /// There was such a record.
    pub has_record: bool,
    /// What is wrong with it.
    pub damage: Option<String>,
    /// The last crashes, oldest first, one JSON text each.
    pub crashes: Vec<String>,
    /// What could not be opened or read.
    pub problems: Vec<String>,
}

impl Journal {
    /// Reads what is there, making the directory as needed, and starts the writing thread. `token` is
    /// this installation's.
    ///
    /// `say` is called on that thread: once when writing a file begins to fail, with the reason, and
    /// once when it works again. The identities of an earlier daemon stay on record as long as they
    /// live.
    ///
    /// # Errors
    ///
    /// When the directory is another daemon's, or it or a file in it is not ours.
    pub fn open(
        dir: &Path,
        token: &str,
        say: impl FnMut(&str) + Send + 'static,
    ) -> Result<(Self, Loaded), StateDirError> {
        let (store, loaded) = Store::open(dir, token)?;
        let desk = Arc::new(Desk::default());
        let mut writer = Writer {
            store,
            desk: Arc::clone(&desk),
            failing: [false; 2],
            say,
        };
        let started = threads::spawn_helper("journal", move || writer.run());
        // Without its thread nothing is written, and nothing is waited for.
        desk.errors
            .fetch_add(u64::from(started.is_err()), Ordering::Relaxed);
        desk.pending().closing = started.is_err();
        Ok((Self(desk), loaded))
    }

    /// Notes that this child of ours, just spawned, runs. Never waits for the disk.
    ///
    /// Its identity is read by the writing thread; a process that is gone by then, or whose number
    /// went to one that is not our child, is not noted.
    pub fn running(&self, key: u32, pid: i32, name: &str) {
        let name = name.replace(['\n', '\r'], " ");
        self.0.note(|pending| {
            pending.runs.insert(key, Some((pid, name)));
        });
    }

    /// Notes that the key's process, and its family, are gone. Never waits for the disk.
    pub fn ended(&self, key: u32) {
        self.0.note(|pending| {
            pending.runs.insert(key, None);
        });
    }

    /// Adds a crash, one line of JSON, to the history; the oldest go. Never waits for the disk.
    pub fn crash(&self, json_line: String) {
        let errors = &self.0.errors;
        self.0.note(|pending| {
            pending.crashes.push_back(json_line);
            if pending.crashes.len() > records::CRASHES {
                pending.crashes.pop_front();
                errors.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Waits until all that was noted is written, or has failed to be; false after `deadline`.
    /// Blocks.
    pub fn flush(&self, deadline: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.0.note(|pending| pending.waiting.push(done));
        wait.recv_timeout(deadline).is_ok()
    }

    /// Writes all that was noted and lets go of the directory, so that another daemon can have it;
    /// false when that was not done in time. Blocks.
    pub fn close(&self, deadline: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.0.note(|pending| {
            pending.waiting.push(done);
            pending.closing = true;
        });
        wait.recv_timeout(deadline).is_ok()
    }

    /// Returns how many records were dropped or could not be written.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }
}

impl Desk {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending();
        if !pending.closing {
            note(&mut pending);
            self.wake.notify_one();
        }
    }

    /// Waits for something to write, or for the time to try again.
    fn take(&self, retry: bool) -> Pending {
        let mut pending = self.pending();
        let is_idle = |pending: &mut Pending| {
            pending.runs.is_empty()
                && pending.crashes.is_empty()
                && pending.waiting.is_empty()
                && !pending.closing
        };
        pending = if retry {
            let waited = self.wake.wait_timeout_while(pending, RETRY, is_idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let waited = self.wake.wait_while(pending, is_idle);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
        let closing = pending.closing;
        let taken = std::mem::take(&mut *pending);
        pending.closing = closing;
        Pending { closing, ..taken }
    }
}

struct Writer<Say> {
    store: Store,
    desk: Arc<Desk>,
    /// The log of who runs, and the crash history.
    failing: [bool; 2],
    say: Say,
}

const RUNS: usize = 0;
const CRASH_HISTORY: usize = 1;

impl<Say: FnMut(&str)> Writer<Say> {
    fn run(&mut self) {
        // What was torn or is past goes at once.
        let tidied = self.store.check().and_then(|_| self.store.rewrite());
        self.judge(RUNS, tidied);
        loop {
            let pending = self.desk.take(self.store.is_behind());
            self.write(pending.runs, pending.crashes);
            if pending.closing {
                self.store.close();
            }
            for done in pending.waiting {
                // Whoever asked may have given up waiting.
                let _ = done.try_send(());
            }
            if pending.closing {
                return;
            }
        }
    }

    fn write(&mut self, runs: BTreeMap<u32, Option<(i32, String)>>, crashes: VecDeque<String>) {
        let noted = self.store.check().and_then(|removed| {
            if removed {
                (self.say)("the state directory or a file in it was removed: it is written anew");
            }
            self.store.note(runs.into_iter().map(identified).collect())
        });
        self.judge(RUNS, noted);
        let given_up = self.store.add_crashes(crashes);
        self.desk
            .errors
            .fetch_add(given_up as u64, Ordering::Relaxed);
        if self.store.is_behind() {
            let written = self.store.write_crashes();
            self.judge(CRASH_HISTORY, written);
        }
    }

    fn judge(&mut self, file: usize, result: Result<(), StoreError>) {
        match result {
            Ok(()) if self.failing[file] => {
                self.failing[file] = false;
                let what = ["the record of running programs", "the crash history"][file];
                (self.say)(&format!("{what} can be written again, and is complete"));
            }
            Ok(()) => {}
            Err(error) => {
                self.desk.errors.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing[file], true) {
                    (self.say)(&error.to_string());
                }
            }
        }
    }
}

/// Finds out who runs: nobody, if that child of ours is gone by now.
fn identified((key, run): (u32, Option<(i32, String)>)) -> (u32, Option<Entry>) {
    let ours = std::process::id() as i32;
    let entry = run.and_then(|(pid, name)| {
        let stat = Stat::read(pid).ok().filter(|stat| stat.parent == ours)?;
        Some((Identity::from_stat(&stat), name))
    });
    (key, entry)
}

fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
