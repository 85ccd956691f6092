//! One file or stderr, with its bounded queue.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::desk::{Desk, STALL};
use super::file::FileOutput;
use super::terminal::Terminal;
use super::{Counters, LogError, Stream, clock, lock};

/// Bytes that may wait for one sink before its sources are held back.
pub(super) const QUEUE: usize = 1024 * 1024;
/// The daemon's own lines still fit when children fill the queue.
const RESERVE: usize = 256 * 1024;

/// Where bytes end up. Only a writer thread touches it, and whoever opens a file.
#[derive(Debug)]
pub(super) enum Output {
    /// A log file.
    File(FileOutput),
    /// One of the daemon's own streams.
    Terminal(Terminal),
}

/// Whose bytes a stretch of a batch is, so that a loss can be counted.
#[derive(Debug)]
pub(super) struct Part {
    owner: Option<(Arc<Counters>, Stream)>,
    length: usize,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The bytes, in order.
    pub bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl Batch {
    /// Counts every line that ends after the first `written` bytes as dropped, for those whose it
    /// is; returns how many.
    pub fn lose_after(&self, written: usize) -> u64 {
        let (mut start, mut lost) = (0, 0);
        for part in &self.parts {
            let end = start + part.length;
            if end > written {
                let lines = count_lines(&self.bytes[start.max(written)..end]);
                lost += lines;
                if let Some((counters, stream)) = &part.owner {
                    counters.of(*stream).drop_lines(lines);
                }
            }
            start = end;
        }
        lost
    }

    fn add(&mut self, pieces: &[&[u8]], owner: Option<(&Arc<Counters>, Stream)>) {
        let mut length = 0;
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
            length += piece.len();
        }
        match (self.parts.last_mut(), owner) {
            (
                Some(Part {
                    owner: Some((last, stream)),
                    length: so_far,
                }),
                Some((counters, of)),
            ) if Arc::ptr_eq(last, counters) && *stream == of => {
                *so_far += length;
            }
            _ => self.parts.push(Part {
                owner: owner.map(|(counters, stream)| (Arc::clone(counters), stream)),
                length,
            }),
        }
    }
}

/// Counts line ends.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[derive(Debug, Default)]
struct Pending {
    batch: Batch,
    /// There is something to do.
    queued: bool,
    /// A writer is at it; when it last got on.
    serving: Option<Instant>,
    reopen: bool,
    /// The pump holds sources back until there is room.
    awaited: bool,
    /// Lines dropped here since that was last said.
    lost: u64,
}

/// Whether a sink takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    /// It does.
    Free,
    /// Its writer makes no progress: what comes is dropped.
    Stalled,
    /// Its writer is busy: wait.
    Full,
}

/// One file or stderr, with its queue.
#[derive(Debug)]
pub(super) struct Sink {
    /// Its path, or `stderr`.
    path: PathBuf,
    desk: Arc<Desk>,
    pending: Mutex<Pending>,
    output: Mutex<Output>,
    /// Its file was opened once: what becomes of it later is told as a loss of lines.
    opened: AtomicBool,
}

impl Sink {
    /// Puts an output under the care of a writer thread. The path is its name in messages, too.
    pub fn new(path: PathBuf, desk: &Arc<Desk>, output: Output) -> Arc<Self> {
        let desk = Arc::clone(desk);
        Arc::new(Self {
            path,
            desk,
            pending: Mutex::default(),
            output: Mutex::new(output),
            opened: AtomicBool::new(false),
        })
    }

    /// Returns its path; `stderr` has none but its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens its file now, unless it was opened before. May wait for a disk.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; the first line will try again.
    pub fn open(&self) -> Result<(), LogError> {
        // Without the lock, which a writer may hold that hangs.
        if self.is_opened() {
            return Ok(());
        }
        let deleted = match &mut *lock(&self.output) {
            Output::File(file) => file.open()?,
            Output::Terminal(_) => Vec::new(),
        };
        self.opened.store(true, Ordering::Release);
        self.say_deleted(&deleted);
        Ok(())
    }

    /// Tells whether its file was opened before.
    pub fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Tells whether captured output fits; when it does not, the pump is woken once it does.
    pub fn room(&self, now: Instant) -> Room {
        let mut pending = lock(&self.pending);
        if pending.batch.bytes.len() < QUEUE {
            return Room::Free;
        }
        let stalled = match pending.serving {
            Some(progress) => now.saturating_duration_since(progress) >= STALL,
            // Its writer is with another; when that hangs, there is soon a fresh one.
            None => self.desk.stalled(now, 2 * STALL),
        };
        if stalled {
            return Room::Stalled;
        }
        pending.awaited = true;
        Room::Full
    }

    /// Queues captured bytes: whole lines, as far as their length allows.
    pub fn append(self: &Arc<Self>, pieces: &[&[u8]], owner: Option<(&Arc<Counters>, Stream)>) {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return;
        }
        let mut pending = lock(&self.pending);
        if pending.batch.bytes.capacity() == 0 {
            pending.batch.bytes = self.desk.spare();
        }
        pending.batch.add(pieces, owner);
        self.queue(&mut pending);
    }

    /// Queues one of the daemon's own lines, or drops and counts it.
    pub fn append_own(self: &Arc<Self>, line: &[u8]) {
        let full = {
            let mut pending = lock(&self.pending);
            let full = pending.batch.bytes.len() + line.len() > QUEUE + RESERVE;
            pending.lost += u64::from(full);
            full
        };
        if !full {
            self.append(&[line], None);
        }
    }

    /// Counts captured lines that were not queued because the writer is stalled.
    pub fn lose(&self, lines: u64, owner: Option<(&Arc<Counters>, Stream)>) {
        lock(&self.pending).lost += lines;
        if let Some((counters, stream)) = owner {
            counters.of(stream).drop_lines(lines);
        }
    }

    /// Has the file closed and opened by name, before anything else is written.
    pub fn reopen(self: &Arc<Self>) {
        let mut pending = lock(&self.pending);
        pending.reopen = true;
        self.queue(&mut pending);
    }

    /// While a writer is at it, it is that writer who queues it again: another one would only wait
    /// for the first.
    fn queue(self: &Arc<Self>, pending: &mut Pending) {
        if !pending.queued {
            pending.queued = true;
            if pending.serving.is_none() {
                self.desk.queue(Arc::clone(self));
            }
        }
    }

    /// The writer's turn with this sink.
    pub fn serve(self: &Arc<Self>) {
        let (mut batch, reopen, awaited, lost) = {
            let mut pending = lock(&self.pending);
            pending.queued = false;
            pending.serving = Some(clock::ticks());
            let reopen = std::mem::take(&mut pending.reopen);
            let awaited = std::mem::take(&mut pending.awaited);
            let batch = std::mem::take(&mut pending.batch);
            (batch, reopen, awaited, std::mem::take(&mut pending.lost))
        };
        if awaited {
            self.desk.wake_pump();
        }
        match &mut *lock(&self.output) {
            Output::File(file) => {
                if reopen {
                    file.reopen(self);
                }
                file.write(&batch, self);
            }
            Output::Terminal(terminal) => terminal.write(&batch, self),
        }
        self.say_lost(lost);
        batch.bytes.clear();
        self.desk.give_back(batch.bytes);
        let mut pending = lock(&self.pending);
        pending.serving = None;
        if pending.queued {
            self.desk.queue(Arc::clone(self));
        }
    }

    /// Notes that bytes were written.
    pub fn progress(&self) {
        let now = clock::ticks();
        if let Some(progress) = &mut lock(&self.pending).serving {
            *progress = now;
        }
        self.desk.progress(now);
    }

    /// Says what has not been said of losses, because nothing more will be written. Not while a
    /// writer hangs: it would hang, too.
    pub fn last_words(&self) {
        let unsaid = match self.output.try_lock().as_deref_mut() {
            Ok(Output::File(file)) => file.unsaid(),
            Ok(Output::Terminal(_)) | Err(_) => 0,
        };
        let lost = std::mem::take(&mut lock(&self.pending).lost);
        self.say_lost(unsaid + lost);
    }

    /// Says how many lines were lost, if any were.
    pub fn say_lost(&self, lines: u64) {
        if lines > 0
            && let Some(log) = self.desk.log()
        {
            let name = self.path.display();
            log.warn(
                format!("{lines} lines lost: {name} did not take them"),
                None,
            );
        }
    }

    /// Says which rotated files were deleted, if any were.
    pub fn say_deleted(&self, names: &[String]) {
        if let (Some(first), Some(last)) = (names.first(), names.last())
            && let Some(log) = self.desk.log()
        {
            let count = names.len();
            let range = if count == 1 {
                first.clone()
            } else {
                format!("{first} to {last}")
            };
            let what = format!("deleted {count} rotated files that log_keep leaves no place for");
            log.warn(
                format!("{what}: {range}, beside {}", self.path.display()),
                None,
            );
        }
    }

    /// Says that something failed, everywhere but in `except`.
    pub fn complain(&self, except: Option<&Arc<Self>>, message: String) {
        if let Some(log) = self.desk.log() {
            log.error(message, except);
        }
    }
}
