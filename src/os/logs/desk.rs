//! Between those who have lines and the threads that write them.
//!
//! A [`Desk`] is one writer thread and the [`Sink`]s that wait for it. A writer that makes no
//! progress for a second while others wait is left to its sink, and a fresh one takes its place: a
//! file system that does not answer stops only its own lines. There are as many threads as sinks
//! that hang, and one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::daemon_log::DaemonLog;
use super::sink::{QUEUE, Sink};
use super::{clock, lock};
use crate::os::threads;

/// Without progress for this long, lines are dropped.
pub(super) const STALL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Queue {
    ready: VecDeque<Arc<Sink>>,
    /// Which thread is the writer; an earlier one has been left to its sink.
    writer: u64,
    /// The writer is with a sink.
    busy: bool,
    /// Threads that were left to their sinks.
    apart: usize,
    /// The pump looks whether the writer hangs.
    watched: bool,
    stop: bool,
    progress: Instant,
    spare: Vec<u8>,
}

/// The sinks that wait to be written, and the thread that does it.
#[derive(Debug)]
pub(super) struct Desk {
    name: &'static str,
    queue: Mutex<Queue>,
    work: Condvar,
    idle: Condvar,
    pump: Arc<EventFd>,
    /// Where the writer says what went wrong.
    log: OnceLock<Weak<DaemonLog>>,
}

impl Desk {
    /// Creates a desk that wakes the pump through `pump`. The name is its threads'.
    pub fn new(name: &'static str, pump: &Arc<EventFd>) -> Arc<Self> {
        let queue = Queue {
            ready: VecDeque::new(),
            writer: 0,
            busy: false,
            apart: 0,
            watched: false,
            stop: false,
            progress: clock::ticks(),
            spare: Vec::new(),
        };
        Arc::new(Self {
            name,
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

    /// Interrupts the pump's wait.
    pub fn wake_pump(&self) {
        let _ = self.pump.write(1);
    }

    /// Notes that bytes were written.
    pub fn progress(&self, now: Instant) {
        lock(&self.queue).progress = now;
    }

    /// Tells whether the writer has work and has got nowhere for so long.
    pub fn stalled(&self, now: Instant, limit: Duration) -> bool {
        let queue = lock(&self.queue);
        (queue.busy || !queue.ready.is_empty())
            && now.saturating_duration_since(queue.progress) >= limit
    }

    /// Starts the first writer.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        self.hire(0)
    }

    fn hire(self: &Arc<Self>, writer: u64) -> std::io::Result<()> {
        let desk = Arc::clone(self);
        threads::spawn(self.name, move || {
            super::make_way();
            desk.run(writer);
        })?;
        Ok(())
    }

    /// Has a fresh writer take the place of one that hangs while others wait. Returns when to look
    /// again, as the fresh one may hang, too; `None` when nobody waits.
    pub fn relieve(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let mut queue = lock(&self.queue);
        if !queue.watched {
            return None;
        }
        if queue.ready.is_empty() {
            queue.watched = false;
            return None;
        }
        if queue.busy && now.saturating_duration_since(queue.progress) >= STALL {
            // Without a thread it is tried again in a second.
            queue.progress = now;
            if self.hire(queue.writer + 1).is_ok() {
                queue.writer += 1;
                queue.apart += 1;
                queue.busy = false;
            }
        }
        Some(queue.progress + STALL)
    }

    /// Writes until it is told to stop, or until another thread is the writer.
    fn run(&self, writer: u64) {
        let mut queue = lock(&self.queue);
        loop {
            if queue.writer != writer {
                queue.apart -= 1;
                self.idle.notify_all();
                return;
            }
            queue.busy = false;
            if let Some(sink) = queue.ready.pop_front() {
                queue.busy = true;
                queue.progress = clock::ticks();
                drop(queue);
                sink.serve();
                drop(sink);
                queue = lock(&self.queue);
                continue;
            }
            self.idle.notify_all();
            if queue.stop {
                return;
            }
            queue = self.rest(queue);
        }
    }

    fn rest<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        if queue.spare.capacity() == 0 {
            return self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Memory goes back a second after the last line; then nothing wakes this thread.
        let waited = self.work.wait_timeout(queue, STALL);
        let (mut queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            queue.spare = Vec::new();
        }
        queue
    }

    /// Waits until everything queued is written, at most until the deadline.
    pub fn flush(&self, deadline: Instant) {
        let mut queue = lock(&self.queue);
        while queue.busy || queue.apart > 0 || !queue.ready.is_empty() {
            let left = deadline.saturating_duration_since(clock::ticks());
            if left.is_zero() {
                return;
            }
            let waited = self.idle.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the thread end when it has nothing to write.
    pub fn stop(&self) {
        lock(&self.queue).stop = true;
        self.work.notify_all();
    }

    /// Puts a sink in line.
    pub fn queue(&self, sink: Arc<Sink>) {
        let mut queue = lock(&self.queue);
        if !queue.busy && queue.ready.is_empty() {
            queue.progress = clock::ticks();
        }
        queue.ready.push_back(sink);
        // Somebody waits for somebody else; once for as long as it lasts.
        let watch = (queue.busy || queue.ready.len() > 1) && !queue.watched;
        queue.watched |= watch;
        drop(queue);
        self.work.notify_one();
        if watch {
            self.wake_pump();
        }
    }

    /// Lends the buffer of an earlier batch.
    pub fn spare(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.queue).spare)
    }

    /// Takes a buffer back.
    pub fn give_back(&self, buffer: Vec<u8>) {
        let mut queue = lock(&self.queue);
        // Pages that are already mapped save a fault each; small buffers are not worth keeping.
        if queue.spare.capacity() < buffer.capacity()
            && (64 * 1024..=2 * QUEUE).contains(&buffer.capacity())
        {
            queue.spare = buffer;
        }
    }
}
