//! The pump: the one thread that reads every child's pipes.
//!
//! Level-triggered epoll, because an edge-triggered one wakes its waiter at every write of a chatty
//! child. A stream that keeps writing gets a 1 MiB pipe, and then the pump naps for a millisecond
//! after a short read, which turns a wake-up per line into one per hundreds. No timer runs while
//! nothing is written.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use tokio::sync::{mpsc, oneshot};

use super::capture::{Capture, Capturing, Program, Registered, finish_raw};
use super::daemon_log::DaemonLog;
use super::desk::{Desk, STALL};
use super::ring::Ring;
use super::sink::Room;
use super::{Line, Query, Stream, clock, tail};
use crate::supervision::{Id, Run};

const READ: usize = 256 * 1024;
/// A read of less than this has emptied the pipe.
const SHORT: usize = 64 * 1024;
const PIPE: i32 = 1024 * 1024;
/// Reads in a row, each within this time of the one before, that make a stream busy.
const BUSY_GAP: Duration = Duration::from_millis(3);
const BUSY_AFTER: u32 = 4;
const NAP_MILLIS: u16 = 1;
/// A grandchild may keep the pipe this long after the main process is gone, where it is not to be
/// left alone: whoever writes to a closed pipe dies of that.
const LINGER: Duration = Duration::from_secs(1);
const WAKE: u64 = 0;

/// What the handle asks of the pump.
#[derive(Debug)]
pub(super) enum Command {
    /// A program is new, or is called or kept otherwise.
    Register(Arc<Registered>),
    /// A program is gone.
    Forget(Id),
    /// A run begins: the read ends of its stdout and stderr.
    Open(Id, Run, [OwnedFd; 2]),
    /// A run's main process is gone.
    Ended(Id, Run, oneshot::Sender<Vec<String>>),
    /// Somebody wants earlier lines.
    Tail(Query, oneshot::Sender<Vec<Line>>),
    /// Somebody wants lines as they come.
    Follow(Option<String>, mpsc::Sender<Line>),
    /// Read what is there, answer, and end.
    Stop(SyncSender<()>),
}

#[derive(Debug)]
struct Reader {
    fd: OwnedFd,
    program: Id,
    capture: Capture,
    last_read: Option<Instant>,
    streak: u32,
    grown: bool,
    parked: bool,
}

/// How a turn with a pipe ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It was emptied.
    Empty,
    /// There may be more.
    More,
    /// Nobody has its other end any more.
    Closed,
}

/// The state of the pump thread.
#[derive(Debug)]
pub(super) struct Pump {
    epoll: Epoll,
    wake: Arc<EventFd>,
    inbox: Receiver<Command>,
    capturing: Capturing,
    /// Whose writer may hang, and when to look whether it does.
    files: Arc<Desk>,
    look_at: Option<Instant>,
    programs: HashMap<Id, Program>,
    readers: HashMap<u64, Reader>,
    next_key: u64,
    /// Readers that wait for room in a sink.
    parked: Vec<u64>,
    /// Readers whose main process is gone, by the moment they are closed.
    closing: Vec<(Instant, u64)>,
    buffer: Vec<u8>,
    now: Instant,
}

impl Pump {
    /// Creates the pump; `wake` interrupts its wait.
    pub fn new(
        wake: Arc<EventFd>,
        inbox: Receiver<Command>,
        log: Arc<DaemonLog>,
        files: Arc<Desk>,
    ) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake,
            inbox,
            capturing: Capturing::new(log),
            files,
            look_at: None,
            programs: HashMap::new(),
            readers: HashMap::new(),
            next_key: WAKE + 1,
            parked: Vec::new(),
            closing: Vec::new(),
            buffer: vec![0; READ],
            now: clock::ticks(),
        })
    }

    /// Pumps until it is told to stop.
    pub fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(_) => return,
            };
            self.now = clock::ticks();
            let mut nap = false;
            for event in &events[..ready] {
                match event.data() {
                    WAKE => {
                        let _ = self.wake.read();
                    }
                    key => nap |= self.serve(key),
                }
            }
            while let Ok(command) = self.inbox.try_recv() {
                if let Command::Stop(done) = command {
                    self.stop(&done);
                    return;
                }
                self.obey(command);
            }
            if self.look_at.is_none_or(|at| at <= self.now) {
                self.look_at = self.files.relieve(self.now);
            }
            self.unpark();
            self.close_overdue();
            if nap {
                let wake = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
                let _ = poll(&mut [wake], NAP_MILLIS);
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let close = self.closing.iter().map(|(at, _)| *at).min();
        let stall = (!self.parked.is_empty()).then(|| clock::ticks() + STALL / 4);
        let Some(next) = [close, stall, self.look_at].into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        let left = next.saturating_duration_since(clock::ticks()).as_millis() + 1;
        EpollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX))
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Register(registered) => self.register(registered),
            Command::Forget(id) => {
                let lasts = self.lasts(id);
                for key in self.keys(|reader| reader.program == id) {
                    self.drain(key);
                    // What comes after this is read, too, and goes nowhere.
                    if !lasts {
                        self.close(key);
                    }
                }
                self.programs.remove(&id);
            }
            Command::Open(id, run, [stdout, stderr]) => {
                self.watch(id, Capture::new(run, Stream::Stdout), stdout);
                self.watch(id, Capture::new(run, Stream::Stderr), stderr);
            }
            Command::Ended(id, run, reply) => self.ended(id, run, reply),
            Command::Tail(query, reply) => self.tail(query, reply),
            Command::Follow(program, to) => self.capturing.followers.add(program, to),
            Command::Stop(_) => {}
        }
    }

    fn register(&mut self, registered: Arc<Registered>) {
        let id = registered.id;
        match self.programs.get_mut(&id) {
            Some(program) => {
                let before = std::mem::replace(&mut program.registered, registered);
                if let Some(sink) = &before.file {
                    for reader in self
                        .readers
                        .values_mut()
                        .filter(|reader| reader.program == id)
                    {
                        finish_raw(sink, &before.counters, &mut reader.capture, self.now);
                    }
                }
            }
            None => {
                self.programs.insert(
                    id,
                    Program {
                        registered,
                        ring: Ring::default(),
                    },
                );
            }
        }
    }

    fn watch(&mut self, program: Id, capture: Capture, fd: OwnedFd) {
        let key = self.next_key;
        self.next_key += 1;
        if self
            .epoll
            .add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, key))
            .is_ok()
        {
            let reader = Reader {
                fd,
                program,
                capture,
                last_read: None,
                streak: 0,
                grown: false,
                parked: false,
            };
            self.readers.insert(key, reader);
        }
    }

    fn keys(&self, which: impl Fn(&Reader) -> bool) -> Vec<u64> {
        let mut keys: Vec<u64> = self
            .readers
            .iter()
            .filter(|(_, reader)| which(reader))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }

    fn ended(&mut self, id: Id, run: Run, reply: oneshot::Sender<Vec<String>>) {
        for key in self.keys(|reader| reader.program == id && reader.capture.run == run) {
            if self.drain(key) == Turn::Closed {
                self.close(key);
                continue;
            }
            self.finish(key);
            if !self.lasts(id) {
                self.closing.push((self.now + LINGER, key));
            }
        }
        let lines = self
            .programs
            .get(&id)
            .map(|program| program.ring.last_lines(run));
        let _ = reply.send(lines.unwrap_or_default());
    }

    fn lasts(&self, id: Id) -> bool {
        let program = self.programs.get(&id);
        program.is_some_and(|program| program.registered.lasting)
    }

    /// A turn with a readable pipe; tells whether a nap is due.
    fn serve(&mut self, key: u64) -> bool {
        let mut nap = false;
        for _ in 0..4 {
            let Some(reader) = self.readers.get_mut(&key) else {
                return false;
            };
            let room = self
                .programs
                .get(&reader.program)
                .map(|program| self.capturing.room(program, self.now));
            if room == Some(Room::Full) {
                // Not just silent: a closed pipe would be reported for ever.
                let _ = self.epoll.delete(&reader.fd);
                reader.parked = true;
                self.parked.push(key);
                return false;
            }
            match self.read(key).0 {
                Turn::Closed => {
                    self.close(key);
                    return false;
                }
                Turn::Empty => {
                    nap = self.busy(key);
                    break;
                }
                Turn::More => {}
            }
        }
        nap
    }

    /// Notes a read and tells whether the stream is busy and has a pipe large enough for a nap.
    fn busy(&mut self, key: u64) -> bool {
        let Some(reader) = self.readers.get_mut(&key) else {
            return false;
        };
        let soon = reader
            .last_read
            .is_some_and(|last| self.now.saturating_duration_since(last) < BUSY_GAP);
        reader.streak = if soon {
            reader.streak.saturating_add(1)
        } else {
            0
        };
        reader.last_read = Some(self.now);
        if reader.streak == BUSY_AFTER && !reader.grown {
            // Refused above the user's share of pipe memory: then it goes on without naps.
            reader.grown = fcntl(&reader.fd, FcntlArg::F_SETPIPE_SZ(PIPE)).is_ok();
        }
        reader.grown && reader.streak >= BUSY_AFTER
    }

    fn read(&mut self, key: u64) -> (Turn, usize) {
        let Some(reader) = self.readers.get_mut(&key) else {
            return (Turn::Closed, 0);
        };
        match nix::unistd::read(&reader.fd, &mut self.buffer) {
            Ok(0) => (Turn::Closed, 0),
            Ok(length) => {
                if let Some(program) = self.programs.get_mut(&reader.program) {
                    self.capturing.take(
                        program,
                        &mut reader.capture,
                        &self.buffer[..length],
                        self.now,
                    );
                }
                (
                    if length < SHORT {
                        Turn::Empty
                    } else {
                        Turn::More
                    },
                    length,
                )
            }
            Err(Errno::EINTR) => (Turn::More, 0),
            Err(Errno::EAGAIN) => (Turn::Empty, 0),
            Err(_) => (Turn::Closed, 0),
        }
    }

    /// Reads all that can have been written before now, room or not: at most what a pipe holds.
    fn drain(&mut self, key: u64) -> Turn {
        let mut total = 0;
        loop {
            let (turn, length) = self.read(key);
            total += length;
            let empty = turn == Turn::Empty && length == 0;
            if turn == Turn::Closed || empty || total > PIPE as usize {
                return turn;
            }
        }
    }

    fn finish(&mut self, key: u64) {
        let Some(reader) = self.readers.get_mut(&key) else {
            return;
        };
        if let Some(program) = self.programs.get_mut(&reader.program) {
            self.capturing
                .finish(program, &mut reader.capture, self.now);
        }
    }

    fn close(&mut self, key: u64) {
        self.finish(key);
        if let Some(reader) = self.readers.remove(&key)
            && !reader.parked
        {
            let _ = self.epoll.delete(&reader.fd);
        }
        self.closing.retain(|(_, closing)| *closing != key);
    }

    fn close_overdue(&mut self) {
        while let Some((_, key)) = self.closing.iter().find(|(at, _)| *at <= self.now).copied() {
            self.drain(key);
            self.close(key);
        }
    }

    fn unpark(&mut self) {
        for key in std::mem::take(&mut self.parked) {
            let Some(reader) = self.readers.get_mut(&key) else {
                continue;
            };
            let room = self
                .programs
                .get(&reader.program)
                .map(|program| self.capturing.room(program, self.now));
            if room == Some(Room::Full) {
                self.parked.push(key);
            } else if self
                .epoll
                .add(&reader.fd, EpollEvent::new(EpollFlags::EPOLLIN, key))
                .is_ok()
            {
                reader.parked = false;
            }
        }
    }

    fn tail(&self, query: Query, reply: oneshot::Sender<Vec<Line>>) {
        tail::Job::new(query, &self.capturing.log, self.programs.values()).answer(reply);
    }

    fn stop(&mut self, done: &SyncSender<()>) {
        for key in self.keys(|_| true) {
            self.drain(key);
            self.close(key);
        }
        let _ = done.send(());
    }
}
