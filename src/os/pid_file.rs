//! The pid file: its lock, not its content, says that a daemon lives.
//!
//! The lock belongs to the open file, so it goes with its holder however that dies, and a recycled
//! pid can never pass for a daemon.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::holders;
use super::procfs::Stat;

/// How often a file that is replaced under our hands, or that a reader inspects, is tried again.
const ATTEMPTS: u32 = 50;
/// The same where its daemon is dead, and only a process that it was just making still holds a copy
/// of the lock: until that executes its program. Five seconds.
const ATTEMPTS_AFTER_DEATH: u32 = 2500;
/// Between two attempts; a reader holds its lock for microseconds.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);

/// The locked pid file of this process; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
    found: Found,
}

/// What a start found in place of its pid file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file, or an empty one.
    None,
    /// The file of a daemon that is gone.
    Stale(i32),
    /// The number of a process that lives but does not hold the lock, so it is not a daemon.
    Unrelated(i32),
    /// Something that is not a pid.
    Garbage,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no pid file"),
            Self::Stale(pid) => write!(f, "stale pid file of process {pid}, which is gone"),
            Self::Unrelated(pid) => {
                write!(
                    f,
                    "stale pid file: process {pid} is alive but is not a daemon of this file"
                )
            }
            Self::Garbage => f.write_str("pid file without a pid in it"),
        }
    }
}

/// Why the pid file cannot be ours.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A daemon lives.
    #[error("another eternal{} holds {}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display())]
    Held {
        /// Who, as far as the file says.
        pid: Option<i32>,
        /// The file.
        path: PathBuf,
    },
    /// The daemon is dead, but a process that it was making holds on to its lock.
    #[error(
        "{} is still locked by {holders}, which the daemon that is gone (pid {pid}) was starting: it has to go on or to end first",
        path.display()
    )]
    HeldByNewborn {
        /// The daemon, as the file says.
        pid: i32,
        /// Who holds the lock.
        holders: String,
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a symbolic link, a socket, …
    #[error("pid file {} is {what}, not a regular file", path.display())]
    NotAFile {
        /// What it is instead.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Somebody keeps replacing it.
    #[error("pid file {} is replaced again and again by another process", path.display())]
    Contested {
        /// The file.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("cannot {operation} {}", path.display())]
    System {
        /// "create the directory", "open the pid file", …
        operation: &'static str,
        /// The object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PidFile {
    /// Locks the file and writes our pid into it, creating it and its directories as needed.
    ///
    /// # Errors
    ///
    /// [`PidFileError::Held`] when a daemon lives; the others when the file cannot be used.
    pub fn acquire(path: &Path) -> Result<Self, PidFileError> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed("create the directory", parent))?;
        }
        let mut attempts = 0..ATTEMPTS;
        let mut held = None;
        while attempts.next().is_some() {
            let file = open_regular(
                path,
                OpenOptions::new().write(true).create(true).mode(0o644),
            )?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Self::take(file, path),
                // It was replaced or removed between open and lock: this lock guards nothing.
                Ok(()) => held = None,
                Err(TryLockError::WouldBlock) => held = Some(file),
                Err(TryLockError::Error(error)) => {
                    return Err(failed("lock the pid file", path)(error));
                }
            }
            if attempts.start == ATTEMPTS && held.as_ref().is_some_and(is_of_the_dead) {
                attempts.end = ATTEMPTS_AFTER_DEATH;
            }
            thread::sleep(ATTEMPT_PAUSE);
        }
        let path = path.to_owned();
        Err(match held {
            Some(file) => held_by(&file, path),
            None => PidFileError::Contested { path },
        })
    }

    fn take(mut file: File, path: &Path) -> Result<Self, PidFileError> {
        let found = match content(&file) {
            Content::Empty => Found::None,
            Content::Garbage => Found::Garbage,
            Content::Pid(pid) if is_another_process(pid) => Found::Unrelated(pid),
            Content::Pid(pid) => Found::Stale(pid),
        };
        let line = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(line.as_bytes()))
            .map_err(failed("write the pid file", path))?;
        // A later change of directory must not make the removal miss.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { file, path, found })
    }

    /// Returns what was there before.
    #[must_use]
    pub const fn found(&self) -> Found {
        self.found
    }

    /// Removes the file, if it is still ours, and gives the lock up. So does dropping it.
    pub fn release(self) {}
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            // Nothing can be done about a failure: the file is stale then, and known to be.
            let _ = fs::remove_file(&self.path);
        }
        // Not by closing it alone: a newborn may have a copy of the descriptor. Where it cannot be
        // unlocked, the lock ends with that copy.
        let _ = self.file.unlock();
    }
}

/// Whether the lock is held, but not by the daemon that the file names.
fn is_of_the_dead(file: &File) -> bool {
    let holders = holders::holders(file);
    let pid = content(file).pid();
    !holders.is_empty() && pid.is_some_and(|pid| !holders.contains(&pid) && pid != our_pid())
}

fn held_by(file: &File, path: PathBuf) -> PidFileError {
    let pid = content(file).pid();
    let others = is_of_the_dead(file).then(|| holders::named(&holders::holders(file)));
    match (pid, others.flatten()) {
        (Some(pid), Some(holders)) => PidFileError::HeldByNewborn { pid, holders, path },
        (pid, _) => PidFileError::Held { pid, path },
    }
}

fn our_pid() -> i32 {
    std::process::id() as i32
}

/// What a pid file says to those who do not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// Its daemon is gone; its pid, where the file has one.
    Stale(Option<i32>),
    /// Its daemon lives; its pid, except in the instant before it is written.
    Held(Option<i32>),
}

/// Reads a pid file without disturbing its holder.
///
/// # Errors
///
/// When it is not a regular file or cannot be read.
pub fn inspect(path: &Path) -> Result<Standing, PidFileError> {
    let file = match open_regular(path, &mut OpenOptions::new()) {
        Ok(file) => file,
        Err(PidFileError::System { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Standing::Absent);
        }
        Err(error) => return Err(error),
    };
    let pid = content(&file).pid();
    // A shared lock: readers do not stand in each other's way, and `acquire` outwaits them.
    match file.try_lock_shared() {
        Ok(()) => Ok(Standing::Stale(pid)),
        Err(TryLockError::WouldBlock) => Ok(Standing::Held(pid)),
        Err(TryLockError::Error(error)) => Err(failed("lock the pid file", path)(error)),
    }
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> PidFileError + 'a {
    move |source| PidFileError::System {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> Result<File, PidFileError> {
    let not_a_file = |what| PidFileError::NotAFile {
        what,
        path: path.to_owned(),
    };
    // O_NONBLOCK: a FIFO in its place must not hang the start. std adds O_CLOEXEC.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => not_a_file("a symbolic link"),
            Some(Errno::EISDIR) => not_a_file("a directory"),
            Some(Errno::ENXIO) => not_a_file("a socket or device"),
            _ => failed("open the pid file", path)(source),
        })?;
    let metadata = file
        .metadata()
        .map_err(failed("examine the pid file", path))?;
    if metadata.is_dir() {
        return Err(not_a_file("a directory"));
    }
    if !metadata.is_file() {
        return Err(not_a_file("a pipe or device"));
    }
    Ok(file)
}

/// Tells whether the path still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

enum Content {
    Empty,
    Garbage,
    Pid(i32),
}

impl Content {
    const fn pid(&self) -> Option<i32> {
        match self {
            Self::Pid(pid) => Some(*pid),
            Self::Empty | Self::Garbage => None,
        }
    }
}

fn content(mut file: &File) -> Content {
    let mut bytes = Vec::new();
    if file
        .rewind()
        .and_then(|()| file.take(64).read_to_end(&mut bytes))
        .is_err()
    {
        return Content::Garbage;
    }
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok("") => Content::Empty,
        Ok(text) => match text.parse() {
            Ok(pid) if pid > 0 => Content::Pid(pid),
            Ok(_) | Err(_) => Content::Garbage,
        },
        Err(_) => Content::Garbage,
    }
}

/// In a container every daemon is pid 1, so our own number is a predecessor's.
fn is_another_process(pid: i32) -> bool {
    pid != our_pid() && Stat::read(pid).is_ok_and(|stat| stat.is_running())
}

#[cfg(test)]
mod tests;
