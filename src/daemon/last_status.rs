//! What is left for questions that are asked when the daemon is gone: `last.json` in `state_dir`.
//!
//! While it lives it is written by the thread that serves HTTP, after a change and at most once a
//! second; the disk is waited for on a thread of its own, which is there only then. A daemon that is
//! killed leaves what is at most that old; one that ends says how.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::control::api::{Ended, Last, Status};
use crate::observe::{Reader, rfc3339};
use crate::os::places::Directory;
use crate::os::threads;

/// The file in `state_dir`.
pub(super) const FILE: &str = "last.json";
/// What its thread is called.
const THREAD: &str = "last-status";
/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, and whether its last version is written.
#[derive(Clone)]
pub(super) struct LastStatus {
    directory: PathBuf,
    over: Arc<Mutex<bool>>,
}

impl LastStatus {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.to_owned(),
            over: Arc::default(),
        }
    }

    /// Writes how everything stands whenever that has changed, until nobody publishes any more. What
    /// cannot be written is not told: the journal, which writes beside it, tells.
    pub async fn keep(self, reader: Reader) {
        let mut published = reader.changes();
        loop {
            published.mark_unchanged();
            let (file, status) = (self.clone(), reader.outline());
            // Dropped unseen when the runtime ends: a disk that stands still holds up nobody. Not on
            // tokio's own threads: where none is to be had those panic, and HTTP with them.
            let _ = threads::aside(THREAD, move || file.write(status, None)).await;
            if published.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes how it ended; nothing is written after that. Waits for the disk for at most `limit`.
    pub fn end(&self, status: Status, (code, reason): (u8, String), limit: Duration) {
        let ended = Ended {
            at: rfc3339(SystemTime::now()),
            code,
            reason,
        };
        let file = self.clone();
        let (done, written) = std::sync::mpsc::sync_channel(1);
        let spawned = threads::spawn_helper(THREAD, move || {
            let _ = done.send(file.write(status, Some(ended)));
        });
        if spawned.is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }

    fn write(&self, status: Status, ended: Option<Ended>) -> io::Result<()> {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return Ok(());
        }
        *over = ended.is_some();
        let last = Last {
            written_at: rfc3339(SystemTime::now()),
            ended,
            status,
        };
        // Whoever reads sees the one or the other; nobody else may: command lines are in it.
        let text = serde_json::to_vec(&last)?;
        let directory = Directory::open(&self.directory)?;
        directory.replace(OsStr::new(FILE), &text, 0o600).map(drop)
    }
}
