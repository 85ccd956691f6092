//! The log room: captures what children write and writes it, and the daemon's own lines.
//!
//! ```text
//! children ─pipes─▶ pump thread ─queues─▶ writer thread ─▶ log files ─▶ compressor thread (nice 19)
//! daemon's lines ───────────────▶        stderr thread ─▶ stderr
//! ```
//!
//! Nothing here runs on the supervision thread, and no call of [`Logs`] waits for a disk, but for
//! [`Logs::start`], [`Logs::open_file`], [`Logs::program`] and [`Logs::prepare`], which open files so
//! that their errors are known, and [`Logs::shutdown`].
//!
//! A program with its own file has its bytes there unchanged, whole lines at a time. In the daemon
//! log every line is prefixed and made harmless, and lines over 64 KiB come in pieces.
//! Loss: while a writer makes progress, full queues hold children back; when it has made none for a
//! second, lines are dropped, counted, and the number is said once it recovers. A writer that hangs
//! is left to its file, and another one writes the rest.

mod capture;
mod chain;
mod clock;
mod daemon_log;
mod desk;
mod file;
mod follow;
mod format;
mod opening;
mod past;
mod pump;
mod ring;
mod rotate;
mod sink;
mod split;
mod tail;
mod terminal;
mod types;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{mpsc, oneshot};

use crate::os::threads;
use crate::supervision::{Id, Run};
use capture::Registered;
use daemon_log::{DaemonLog, Place};
use desk::Desk;
use file::{FileOutput, Rotation};
use format::Look;
pub use opening::OpenLog;
pub use past::{PastFile, past};
use pump::{Command, Pump};
use sink::{Output, Sink};
use terminal::Terminal;
pub use types::{
    Counters, Level, Line, LogError, Options, Query, Record, Source, Stderr, Stream, StreamCounters,
};

/// The handle of the log room. Cheap to clone; the room closes with the last one.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Room>);

#[derive(Debug)]
struct Room {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    log: Arc<DaemonLog>,
    files: Arc<Desk>,
    stderr: Arc<Desk>,
    rotation: Rotation,
    stop_compressing: Arc<AtomicBool>,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    programs: HashMap<Id, Arc<Registered>>,
    sinks: HashMap<PathBuf, Weak<Sink>>,
}

impl Logs {
    /// Opens the log file, creating its directories, and starts the room's threads.
    ///
    /// # Errors
    /// When the file cannot be opened or a thread cannot be started; names which.
    pub fn start(options: Options) -> Result<Self, LogError> {
        let started = |source: io::Error| LogError::Start { source };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(|errno| started(errno.into()))?);
        let files = Desk::new("log-files", &wake);
        let stderr = Desk::new("log-stderr", &wake);
        let (compressor, rotated) = channel();
        let rotation = Rotation {
            max_size: options.max_size,
            keep: options.keep,
            compressor,
        };
        let log = Arc::new(daemon_log(options, &rotation, [&files, &stderr])?);
        files.complain_to(&log);
        stderr.complain_to(&log);
        if let Some(place) = &log.file {
            opening::within_patience(&place.sink)?;
        }

        let (commands, inbox) = channel();
        let pump = Pump::new(
            Arc::clone(&wake),
            inbox,
            Arc::clone(&log),
            Arc::clone(&files),
        )
        .map_err(|errno| started(errno.into()))?;
        let stop_compressing = Arc::new(AtomicBool::new(false));
        let mut registry = Registry::default();
        if let (Some(path), Some(place)) = (&log.path, &log.file) {
            registry
                .sinks
                .insert(path.clone(), Arc::downgrade(&place.sink));
        }
        let registry = Mutex::new(registry);
        let room = Room {
            commands,
            wake,
            log,
            files,
            stderr,
            rotation,
            stop_compressing,
            registry,
        };
        room.start_threads(pump, rotated).map_err(started)?;
        Ok(Self(Arc::new(room)))
    }

    /// Forgets a program; what its pipes hold is still read.
    pub fn forget(&self, id: Id) {
        lock(&self.0.registry).programs.remove(&id);
        self.0.send(Command::Forget(id));
    }

    /// Creates the pipes of one run and returns the write ends for its stdout and stderr, both
    /// closed on exec. Nobody reads them before [`Logs::attend`]: a thread that wakes up now would
    /// only be in the way of the spawn.
    ///
    /// # Errors
    /// When the program is not registered or there are no descriptors left.
    pub fn open(&self, id: Id, run: Run) -> io::Result<(OwnedFd, OwnedFd)> {
        if !lock(&self.0.registry).programs.contains_key(&id) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no such program is registered for logging",
            ));
        }
        let ((from_out, out), (from_err, err)) = (pipe()?, pipe()?);
        self.0.queue(Command::Open(id, run, [from_out, from_err]));
        Ok((out, err))
    }

    /// Begins to read the pipes opened since.
    pub fn attend(&self) {
        let _ = self.0.wake.write(1);
    }

    /// Says that a run's main process is gone: what it wrote is read, an unfinished last line is
    /// ended, and the pipes are closed when nobody else has them, at the latest after a second.
    ///
    /// The answer, as soon as the pipes were read once, is that run's last lines, oldest first: at
    /// most 20 and 4 KiB.
    #[must_use]
    pub fn ended(&self, id: Id, run: Run) -> oneshot::Receiver<Vec<String>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Command::Ended(id, run, reply));
        answer
    }

    /// Writes one of the daemon's own lines to the daemon log and to stderr. Never waits: what does
    /// not fit is dropped, counted and said.
    pub fn line(&self, record: &Record) {
        self.0.log.write(record, None);
    }

    /// Closes every file and opens it by name, as after a rotation by someone else.
    pub fn reopen(&self) {
        for sink in self.0.sinks() {
            sink.reopen();
        }
    }

    /// Answers with captured lines, oldest first: from memory, and from the files when more are
    /// asked for.
    #[must_use]
    pub fn tail(&self, query: Query) -> oneshot::Receiver<Vec<Line>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Command::Tail(query, reply));
        answer
    }

    /// Gives captured lines as they come, of one program (or all its replicas) or of all. A slow
    /// reader loses lines and is told how many.
    #[must_use]
    pub fn follow(&self, program: Option<String>) -> mpsc::Receiver<Line> {
        let (to, lines) = follow::queue();
        self.0.send(Command::Follow(program, to));
        lines
    }

    /// Returns what was captured of a program so far; zeros for one that is not registered.
    #[must_use]
    pub fn counters(&self, id: Id) -> Arc<Counters> {
        let registry = lock(&self.0.registry);
        registry
            .programs
            .get(&id)
            .map_or_else(Arc::default, |program| Arc::clone(&program.counters))
    }

    /// Reads what the pipes hold, writes everything that is queued, and stops capturing. Waits at
    /// most this long. The daemon's own lines can still be written, as long as the handle lives.
    pub fn shutdown(&self, deadline: Duration) {
        let until = clock::ticks() + deadline;
        let (done, stopped) = sync_channel(1);
        self.0.send(Command::Stop(done));
        let _ = stopped.recv_timeout(deadline);
        self.0.files.flush(until);
        for sink in self.0.sinks() {
            sink.last_words();
        }
        self.0.files.flush(until);
        self.0.stderr.flush(until);
        self.0.stop_compressing.store(true, Ordering::Relaxed);
    }
}

impl Room {
    fn start_threads(&self, pump: Pump, rotated: Receiver<Arc<chain::Chain>>) -> io::Result<()> {
        let stop = Arc::clone(&self.stop_compressing);
        threads::spawn("log-pump", move || {
            make_way();
            pump.run();
        })?;
        self.files.start()?;
        if self.log.stderr.is_some() {
            self.stderr.start()?;
        }
        threads::spawn_helper("log-gzip", move || rotate::compress_all(&rotated, &stop))?;
        Ok(())
    }

    fn sinks(&self) -> Vec<Arc<Sink>> {
        let registry = lock(&self.registry);
        registry.sinks.values().filter_map(Weak::upgrade).collect()
    }

    fn send(&self, command: Command) {
        if self.queue(command) {
            let _ = self.wake.write(1);
        }
    }

    /// Leaves a command for when the pump wakes up next. A pump that is gone has stopped capturing:
    /// the answer's other end is dropped.
    fn queue(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop_compressing.store(true, Ordering::Relaxed);
        self.send(Command::Stop(sync_channel(1).0));
        self.files.stop();
        self.stderr.stop();
    }
}

fn daemon_log(
    options: Options,
    rotation: &Rotation,
    desks: [&Arc<Desk>; 2],
) -> Result<DaemonLog, LogError> {
    let mut log = DaemonLog::default();
    if let Some(path) = options.file {
        let output = Output::File(FileOutput::new(&path, rotation.clone()));
        let look = if options.json { Look::Json } else { Look::Text };
        log.file = Some(Place {
            sink: Sink::new(path.clone(), desks[0], output),
            look,
        });
        log.path = Some(path);
    }
    let look = match options.stderr {
        Stderr::None => return Ok(log),
        Stderr::Text => Look::Text,
        Stderr::TextColour => Look::Colour,
        Stderr::Journal => Look::Journal,
        Stderr::Json => Look::Json,
    };
    let to = match options.stderr_to {
        Some(to) => to,
        None => io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| LogError::Start { source })?,
    };
    log.stderr = Some(Place {
        sink: Sink::new(
            "stderr".into(),
            desks[1],
            Output::Terminal(Terminal::new(to)),
        ),
        look,
    });
    Ok(log)
}

/// Lets the supervision thread go first: a flood of lines may cost lines' time, not a restart's.
#[expect(unsafe_code, reason = "nix has no nice")]
fn make_way() {
    const BEHIND: i32 = 5;
    // SAFETY: plain system call without pointers; on Linux it is about the calling thread.
    let _ = unsafe { nix::libc::nice(BEHIND) };
}

/// A pipe whose read end never waits.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Locks; a thread that panicked leaves counts and queues that are still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
