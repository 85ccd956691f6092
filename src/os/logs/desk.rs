//! Between those who have lines and the thread that writes them.
//!
//! A [`Sink`] is one file or stderr with its bounded queue; a [`Desk`] is one writer thread and the
//! sinks that wait for it. While the writer makes progress a full queue holds its sources back;
//! without progress for a second their lines are dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::daemon_log::DaemonLog;
use super::file::FileOutput;
use super::terminal::Terminal;
use super::{Counters, Stream, clock, lock};

/// Bytes that may wait for one sink before its sources are held back.
const QUEUE: usize = 1024 * 1024;
/// The daemon's own lines still fit when children fill the queue.
const RESERVE: usize = 256 * 1024;
/// Without progress for this long, lines are dropped.
pub(super) const STALL: Duration = Duration::from_secs(1);

/// Where bytes end up. Only its writer thread touches it.
#[derive(Debug)]
pub(super) enum Output {
    /// A log file.
    File(FileOutput),
    /// The daemon's stderr.
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
}

/// Counts line ends.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[derive(Debug, Default)]
struct Pending {
    batch: Batch,
    queued: bool,
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
    name: String,
    desk: Arc<Desk>,
    pending: Mutex<Pending>,
    output: Mutex<Output>,
}

impl Sink {
    /// Puts an output under the care of a writer thread. The name is for messages.
    pub fn new(name: String, desk: &Arc<Desk>, output: Output) -> Arc<Self> {
        let desk = Arc::clone(desk);
        Arc::new(Self {
            name,
            desk,
            pending: Mutex::default(),
            output: Mutex::new(output),
        })
    }

    /// Tells whether captured output fits; when it does not, the pump is woken once it does.
    pub fn room(&self, now: Instant) -> Room {
        let mut pending = lock(&self.pending);
        if pending.batch.bytes.len() < QUEUE {
            return Room::Free;
        }
        if self.desk.stalled(now) {
            return Room::Stalled;
        }
        pending.awaited = true;
        Room::Full
    }

    /// Queues captured bytes: whole lines, as far as their length allows.
    pub fn append(self: &Arc<Self>, pieces: &[&[u8]], owner: Option<(&Arc<Counters>, Stream)>) {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if length == 0 {
            return;
        }
        let mut pending = lock(&self.pending);
        if pending.batch.bytes.capacity() == 0 {
            pending.batch.bytes = self.desk.spare();
        }
        for piece in pieces {
            pending.batch.bytes.extend_from_slice(piece);
        }
        let parts = &mut pending.batch.parts;
        match (parts.last_mut(), owner) {
            (
                Some(Part {
                    owner: Some((last, stream)),
                    length: so_far,
                }),
                Some((counters, of)),
            ) if Arc::ptr_eq(last, counters) && *stream == of => {
                *so_far += length;
            }
            _ => parts.push(Part {
                owner: owner.map(|(counters, stream)| (Arc::clone(counters), stream)),
                length,
            }),
        }
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

    fn queue(self: &Arc<Self>, pending: &mut Pending) {
        if !pending.queued {
            pending.queued = true;
            self.desk.queue(Arc::clone(self));
        }
    }

    /// The writer's turn with this sink.
    fn serve(self: &Arc<Self>) {
        let (mut batch, reopen, awaited, lost) = {
            let mut pending = lock(&self.pending);
            pending.queued = false;
            let reopen = std::mem::take(&mut pending.reopen);
            let awaited = std::mem::take(&mut pending.awaited);
            (
                std::mem::take(&mut pending.batch),
                reopen,
                awaited,
                std::mem::take(&mut pending.lost),
            )
        };
        if awaited {
            let _ = self.desk.pump.write(1);
        }
        match &mut *lock(&self.output) {
            Output::File(file) => {
                if reopen {
                    file.reopen(&self.desk);
                }
                file.write(&batch, &self.desk, self);
            }
            Output::Terminal(terminal) => terminal.write(&batch, &self.desk),
        }
        if lost > 0 {
            self.desk.say_lost(lost, &self.name);
        }
        batch.bytes.clear();
        self.desk.give_back(batch.bytes);
    }
}

#[derive(Debug)]
struct Queue {
    ready: VecDeque<Arc<Sink>>,
    busy: bool,
    stop: bool,
    progress: Instant,
    spare: Vec<u8>,
}

/// One writer thread and the sinks that wait for it.
#[derive(Debug)]
pub(super) struct Desk {
    queue: Mutex<Queue>,
    work: Condvar,
    idle: Condvar,
    pump: Arc<EventFd>,
    /// Where the writer says what went wrong.
    log: OnceLock<Weak<DaemonLog>>,
}

impl Desk {
    /// Creates a desk that wakes the pump through `pump`.
    pub fn new(pump: &Arc<EventFd>) -> Arc<Self> {
        let queue = Queue {
            ready: VecDeque::new(),
            busy: false,
            stop: false,
            progress: clock::ticks(),
            spare: Vec::new(),
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            idle: Condvar::new(),
            pump: Arc::clone(pump),
            log: OnceLock::new(),
        })
    }

    /// Says where to complain.
    pub fn complain_to(&self, log: &Arc<DaemonLog>) {
        let _ = self.log.set(Arc::downgrade(log));
    }

    /// Returns the daemon log, while there is one.
    pub fn log(&self) -> Option<Arc<DaemonLog>> {
        self.log.get()?.upgrade()
    }

    /// Notes that bytes were written.
    pub fn progress(&self) {
        lock(&self.queue).progress = clock::ticks();
    }

    /// Tells whether the writer has work and gets nowhere.
    pub fn stalled(&self, now: Instant) -> bool {
        let queue = lock(&self.queue);
        (queue.busy || !queue.ready.is_empty())
            && now.saturating_duration_since(queue.progress) >= STALL
    }

    /// Says once how many lines were lost, when it is over.
    pub fn say_lost(&self, lines: u64, name: &str) {
        if let Some(log) = self.log() {
            log.warn(
                format!("{lines} lines lost: {name} did not take them"),
                None,
            );
        }
    }

    /// Writes until it is told to stop.
    pub fn run(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(sink) = queue.ready.pop_front() {
                queue.busy = true;
                drop(queue);
                sink.serve();
                queue = lock(&self.queue);
                queue.busy = false;
                queue.progress = clock::ticks();
                continue;
            }
            self.idle.notify_all();
            if queue.stop {
                return;
            }
            queue = if queue.spare.capacity() == 0 {
                self.work
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
            } else {
                // Memory goes back a second after the last line; then nothing wakes this thread.
                let waited = self.work.wait_timeout(queue, STALL);
                let (mut queue, timeout) =
                    waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                if timeout.timed_out() {
                    queue.spare = Vec::new();
                }
                queue
            };
        }
    }

    /// Waits until everything queued is written, at most until the deadline.
    pub fn flush(&self, deadline: Instant) {
        let mut queue = lock(&self.queue);
        while queue.busy || !queue.ready.is_empty() {
            let left = deadline.saturating_duration_since(clock::ticks());
            if left.is_zero() {
                return;
            }
            let waited = self.idle.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Lets the thread end when it has nothing to write.
    pub fn stop(&self) {
        lock(&self.queue).stop = true;
        self.work.notify_all();
    }

    fn queue(&self, sink: Arc<Sink>) {
        let mut queue = lock(&self.queue);
        if !queue.busy && queue.ready.is_empty() {
            queue.progress = clock::ticks();
        }
        queue.ready.push_back(sink);
        drop(queue);
        self.work.notify_one();
    }

    fn spare(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.queue).spare)
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut queue = lock(&self.queue);
        // Pages that are already mapped save a fault each; small buffers are not worth keeping.
        if queue.spare.capacity() < buffer.capacity()
            && (64 * 1024..=2 * QUEUE).contains(&buffer.capacity())
        {
            queue.spare = buffer;
        }
    }
}
