//! The state directory: locked, checked, and reached through one descriptor, whatever its path comes
//! to lead to.
//!
//! What is in it decides which processes are ended. So it has to belong to us or to root, nobody else
//! may write to it, links are not followed, and one daemon at a time has it.

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::holders;

/// How often a lock is asked for again: its holder may be just ending.
const ATTEMPTS: u32 = 50;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);

/// An open, locked state directory. The lock lasts as long as the value.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    directory: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another daemon has it.
    #[error(
        "{} uses the state directory {}: each daemon needs a state_dir of its own",
        holder.as_deref().unwrap_or("another daemon, which cannot be seen from here,"), path.display()
    )]
    Held {
        /// The processes that hold the lock.
        holder: Option<String>,
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could have written what is there.
    #[error(
        "{} {}: what is there decides which processes are ended, so it has to belong to us (user {us}) or to root, and nobody else may write to it",
        path.display(), standing
    )]
    NotOurs {
        /// The directory or the file in it.
        path: PathBuf,
        /// Whose it is, and what others may do.
        standing: Standing,
        /// Our user id.
        us: u32,
    },
    /// The system refused something.
    #[error("cannot {operation} {}", path.display())]
    System {
        /// "open the state directory", …
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StateDirError {
    /// Makes it the cause of a failed write.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::System { source, .. } => source,
            Self::Held { .. } | Self::NotOurs { .. } => io::Error::other(self),
        }
    }
}

/// Whose a file is, and who may write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    owner: u32,
    mode: u32,
}

impl Standing {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            owner: metadata.uid(),
            mode: metadata.mode() & 0o7777,
        }
    }

    fn is_safe(self) -> bool {
        let ours = self.owner == geteuid().as_raw() || self.owner == 0;
        ours && self.mode & 0o022 == 0
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "belongs to user {} and has mode {:04o}",
            self.owner, self.mode
        )
    }
}

impl StateDir {
    /// Makes the directory as needed, checks whose it is, and locks it.
    ///
    /// # Errors
    ///
    /// [`StateDirError::Held`] and [`StateDirError::NotOurs`] are reasons not to start; a daemon can do
    /// without a directory that the system refuses.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let failed = |operation| {
            move |source| StateDirError::System {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        make(path).map_err(failed("make the state directory"))?;
        let directory = open_directory(path).map_err(failed("open the state directory"))?;
        let metadata = directory
            .metadata()
            .map_err(failed("examine the state directory"))?;
        // Whoever is the first process here has no survivors to be wrong about, and a volume of a
        // container is often everybody's.
        let standing = Standing::of(&metadata);
        if !standing.is_safe() && !super::is_pid_1() {
            return Err(not_ours(path, standing));
        }
        for _ in 0..ATTEMPTS {
            match directory.try_lock() {
                Ok(()) => {
                    let path = path.to_owned();
                    return Ok(Self { path, directory });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(ATTEMPT_PAUSE),
                Err(TryLockError::Error(error)) => {
                    return Err(failed("lock the state directory")(error));
                }
            }
        }
        Err(StateDirError::Held {
            holder: holders::named(&holders::holders(&directory)),
            path: path.to_owned(),
        })
    }

    /// Tells whether the path still leads here: it does not when the directory was removed or moved.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match (self.directory.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => {
                ours.nlink() > 0 && (ours.dev(), ours.ino()) == (there.dev(), there.ino())
            }
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Reads the end of a file, at most so many bytes; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`StateDirError::NotOurs`] when others could have written it; `System` when it is no regular
    /// file or cannot be read.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StateDirError> {
        let failed = |source| StateDirError::System {
            operation: "read",
            path: self.path.join(name),
            source,
        };
        let mut file = match self.open_file(name, OFlag::O_RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        let standing = Standing::of(&metadata);
        if !standing.is_safe() && !super::is_pid_1() {
            return Err(not_ours(&self.path.join(name), standing));
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(limit)))
            .and_then(|_| file.take(limit).read_to_end(&mut bytes))
            .map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Opens a file for reading and appending, making it if there is none.
    ///
    /// # Errors
    ///
    /// Those of the system; a link, a pipe and whatever else is no regular file is refused.
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Writes a file whole or not at all, and returns it open for appending. `durable`: it is on the
    /// disk before it takes the place of the old one, so that no power cut leaves neither.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn replace(&self, name: &str, text: &[u8], durable: bool) -> io::Result<File> {
        let new = format!("{name}.new");
        let _ = unlinkat(&self.directory, new.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let written = self.open_file(&new, flags).and_then(|mut file| {
            file.write_all(text)?;
            if durable {
                file.sync_all()?;
            }
            renameat(&self.directory, new.as_str(), &self.directory, name)?;
            if durable {
                self.directory.sync_all()?;
            }
            Ok(file)
        });
        if written.is_err() {
            // It may be what fills the disk.
            let _ = unlinkat(&self.directory, new.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        // O_NONBLOCK: a pipe in its place must not hang us.
        let safe = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let file: OwnedFd = openat(&self.directory, name, flags | safe, private)?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(file)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A newborn may still have a copy of the descriptor, which would keep the lock. A failure
        // leaves it to the end of that copy.
        let _ = self.directory.unlock();
    }
}

fn not_ours(path: &Path, standing: Standing) -> StateDirError {
    StateDirError::NotOurs {
        path: path.to_owned(),
        standing,
        us: geteuid().as_raw(),
    }
}

/// Tells what a start would say of who may write to the directory and its files, making and locking
/// nothing.
///
/// # Errors
///
/// [`StateDirError::NotOurs`].
pub fn examine(path: &Path, files: &[&str]) -> Result<(), StateDirError> {
    let inside = files.iter().map(|file| path.join(file));
    for path in std::iter::once(path.to_owned()).chain(inside) {
        // What is not there, or cannot be seen, is told otherwise.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let standing = Standing::of(&metadata);
        if !standing.is_safe() && !super::is_pid_1() {
            return Err(not_ours(&path, standing));
        }
    }
    Ok(())
}

/// Makes the directory for us alone to write to, whatever the umask.
fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Opens the directory. A link in its place is followed only if root or we have made it: somebody
/// else's would choose where we write.
fn open_directory(path: &Path) -> io::Result<File> {
    let there = fs::symlink_metadata(path)?;
    if there.is_symlink() && there.uid() != 0 && there.uid() != geteuid().as_raw() {
        let what = format!("it is a link of user {}", there.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(nix::fcntl::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests;
