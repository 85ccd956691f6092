//! A log file by name: opened, and moved up among its rotated ones, `log.1` the newest, `log.N.gz`
//! the oldest.
//!
//! Every step works in one open directory, see [`places`](crate::os::places). A rotation first makes
//! the successor, then renames, and moves only as far as the first free number: one that fails half
//! way and is tried again moves nothing twice and deletes nothing more.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::sys::stat::FileStat;

use super::{LogError, lock};
use crate::os::places::Directory;

/// Within the umask.
const MODE: u32 = 0o640;
/// More than `log_keep` may be: what is beyond is no number of ours but a date, say.
pub(super) const MOST: u32 = 10_000;

/// Device and inode: a name may come to mean another file.
pub(super) type Inode = (u64, u64);

/// A log file and its rotated ones.
#[derive(Debug)]
pub(super) struct Chain {
    path: PathBuf,
    keep: u32,
    /// The file that is being written. Held for renames only, never while data is read or written.
    live: Mutex<Option<Inode>>,
}

/// A file to write to.
#[derive(Debug)]
pub(super) struct Live {
    /// Opened for appending.
    pub file: File,
    /// Bytes in it.
    pub size: u64,
    /// Which it is.
    pub inode: Inode,
}

impl Live {
    fn new(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.len(),
            inode: (meta.dev(), meta.ino()),
            file,
        })
    }
}

impl Chain {
    /// Means the file at this path, with so many rotated ones.
    pub fn new(path: &Path, keep: u32) -> Self {
        Self {
            path: path.to_owned(),
            keep,
            live: Mutex::new(None),
        }
    }

    /// Opens the file for appending, making it and its directories.
    pub fn open(&self) -> Result<Live, LogError> {
        let (directory, name) = Directory::create_for(&self.path).map_err(|source| {
            match (source.kind(), self.path.parent()) {
                // What is refused says itself what it is.
                (io::ErrorKind::InvalidInput, _) | (_, None) => self.not_opened(source),
                (_, Some(parent)) => LogError::Directory {
                    path: parent.to_owned(),
                    source,
                },
            }
        })?;
        let opened = directory.append(&name, MODE).and_then(Live::new);
        let opened = opened.map_err(|source| self.not_opened(source))?;
        *lock(&self.live) = Some(opened.inode);
        Ok(opened)
    }

    fn not_opened(&self, source: io::Error) -> LogError {
        LogError::Open {
            path: self.path.clone(),
            source,
        }
    }

    /// Takes over what an earlier daemon left: with a smaller `log_keep` than it had, what it kept
    /// beyond that is deleted, and returned by name. Only an unbroken row of numbers is of our own
    /// making; whatever else looks alike is somebody's.
    pub fn tidy(&self) -> Vec<String> {
        let _renames = lock(&self.live);
        let Ok((directory, name)) = Directory::of(&self.path) else {
            return Vec::new();
        };
        let _ = directory.remove(&temporary(&name));
        let _ = directory.remove(&successor(&name));
        let there = |number: u32| {
            let is = |compressed| exists(&directory, &rotated_name(&name, number, compressed));
            is(false) || is(true)
        };
        let mut deleted = Vec::new();
        if !(1..=self.keep).all(there) {
            return deleted;
        }
        for number in (self.keep + 1..=MOST).take_while(|number| there(*number)) {
            for compressed in [false, true] {
                let old = rotated_name(&name, number, compressed);
                if exists(&directory, &old) && directory.remove(&old).is_ok() {
                    deleted.push(old.display().to_string());
                }
            }
        }
        deleted
    }

    /// Puts a fresh file in the place of `current`, which becomes number 1. Somebody else who has
    /// put another file there has rotated already: then that one is opened.
    ///
    /// # Errors
    ///
    /// What the file system says. `current` is still to be written to, and no file is lost.
    pub fn rotate(&self, current: Inode) -> io::Result<Live> {
        let mut live = lock(&self.live);
        let (directory, name) = Directory::of(&self.path)?;
        let fresh = match directory.look(&name)? {
            Some(there) if inode(&there) == current => {
                let fresh = make_successor(&directory, &name, &there)?;
                let moved = self.exchange(&directory, &name, current);
                if moved.is_err() {
                    let _ = directory.remove(&successor(&name));
                }
                moved.map(|()| fresh)?
            }
            Some(_) | None => directory.append(&name, MODE)?,
        };
        let fresh = Live::new(fresh)?;
        *live = Some(fresh.inode);
        Ok(fresh)
    }

    fn exchange(&self, directory: &Directory, name: &OsStr, current: Inode) -> io::Result<()> {
        self.shift(directory, name)?;
        let moved = directory.rename_to_free(&successor(name), name);
        if moved.is_err() {
            // Who looks for the log finds it where it was.
            let first = rotated_name(name, 1, false);
            let is_it = directory
                .look(&first)?
                .is_some_and(|it| inode(&it) == current);
            if is_it {
                directory.rename_to_free(&first, name)?;
            }
        }
        moved
    }

    /// Moves the current file to number 1, and those before the first free number up by one. The
    /// oldest goes when there is none.
    fn shift(&self, directory: &Directory, name: &OsStr) -> io::Result<()> {
        let look = |number, compressed| {
            let name = rotated_name(name, number, compressed);
            Ok::<_, io::Error>(directory.look(&name)?.is_some())
        };
        let mut free = self.keep;
        for number in 1..=self.keep {
            if !look(number, false)? && !look(number, true)? {
                free = number;
                break;
            }
        }
        for compressed in [false, true] {
            directory.remove(&rotated_name(name, free, compressed))?;
        }
        for number in (1..free).rev() {
            if look(number, false)? && look(number, true)? {
                // A crash between the two steps of settle.
                directory.remove(&rotated_name(name, number, false))?;
            }
            for compressed in [false, true] {
                if look(number, compressed)? {
                    directory.rename(
                        &rotated_name(name, number, compressed),
                        &rotated_name(name, number + 1, compressed),
                    )?;
                }
            }
        }
        directory.rename(name, &rotated_name(name, 1, false))
    }

    /// Opens the newest rotated file that is not compressed.
    pub fn newest_plain(&self) -> Option<(Directory, OsString, File)> {
        let live = lock(&self.live);
        let (directory, name) = Directory::of(&self.path).ok()?;
        let plain = (1..=self.keep).find_map(|number| {
            let plain = rotated_name(&name, number, false);
            let there = directory.look(&plain).ok()??;
            // After half a rotation the live file is number 1.
            (Some(inode(&there)) != *live).then(|| directory.file(&plain).ok())?
        })?;
        Some((directory, name, plain))
    }

    /// Returns the number that a file has got to by now.
    pub fn number_of(&self, directory: &Directory, name: &OsStr, wanted: Inode) -> Option<u32> {
        (1..=self.keep).find(|number| {
            let there = directory.look(&rotated_name(name, *number, false));
            there.is_ok_and(|there| there.is_some_and(|there| inode(&there) == wanted))
        })
    }

    /// Puts the compressed file where the plain one has got to by now.
    pub fn settle(&self, directory: &Directory, name: &OsStr, plain: Inode) -> io::Result<()> {
        let _renames = lock(&self.live);
        let number = self
            .number_of(directory, name, plain)
            .ok_or(io::ErrorKind::NotFound)?;
        directory.rename(&temporary(name), &rotated_name(name, number, true))?;
        directory.remove(&rotated_name(name, number, false))
    }
}

/// The next live file, with the mode and, as far as we may, the owner of the one before.
fn make_successor(directory: &Directory, name: &OsStr, before: &FileStat) -> io::Result<File> {
    let new = successor(name);
    directory.remove(&new)?;
    let fresh = directory.create_file(&new, before.st_mode & 0o777)?;
    let _ = fchown(&fresh, Some(before.st_uid), Some(before.st_gid));
    Ok(fresh)
}

fn exists(directory: &Directory, name: &OsStr) -> bool {
    directory.look(name).is_ok_and(|found| found.is_some())
}

/// Returns which file a look has found.
pub(super) fn inode(stat: &FileStat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// Names a rotated file.
pub(super) fn rotated_name(name: &OsStr, number: u32, compressed: bool) -> OsString {
    let mut rotated = name.to_owned();
    rotated.push(format!(".{number}{}", if compressed { ".gz" } else { "" }));
    rotated
}

/// Names the file that a compressed one is written to.
pub(super) fn temporary(name: &OsStr) -> OsString {
    hidden(name, ".gz.tmp")
}

fn successor(name: &OsStr) -> OsString {
    hidden(name, ".new")
}

fn hidden(name: &OsStr, ending: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(ending);
    hidden
}
