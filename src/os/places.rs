//! Files whose directories somebody else may own: opened, made, moved and removed so that no link,
//! pipe, hard link or swapped directory leads root astray or makes it wait.
//!
//! A path is walked one directory at a time, by descriptors. What is on the way is judged:
//!
//! | [`Standing`] | who can change what is in there | links in it |
//! |---|---|---|
//! | `Ours` | root and we, and so it is all the way up | followed |
//! | `Shared` | it is root's or ours, but a group or everybody may write to it | followed where root or we made them |
//! | `Foreign` | another user, here or further up | never followed; [`read`] only to a file of that user's |
//!
//! A directory of root's in a sticky one (`/tmp`) counts as if it were elsewhere: nobody can move it.
//!
//! A file is used when it is a regular one (or `/dev/null`). Outside of `Ours` it must have no
//! second name, and in a directory of another user, or one that everybody may write to, it must be
//! root's, ours, or that user's. So `/var/log/APP`, which usually belongs to APP's user, works: root
//! writes there through the directory's descriptor and touches nothing but files in it.
//!
//! `openat2(RESOLVE_NO_SYMLINKS)` would be one call instead of a few, but cannot tell whose the
//! directories are: `/var/log` is a link to `/data/log` on many machines.
//!
//! All of it may wait for a disk, never for another process.

mod judge;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, RenameFlags, fcntl, openat, renameat, renameat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

pub use judge::Standing;
use walk::Links;

/// An open directory in which files are named.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    standing: Standing,
    /// As it is called in messages.
    path: PathBuf,
}

/// Reads a file that somebody configured (`env_file`, a certificate, passwords): whole, at most so
/// many bytes. In a directory of another user a link may lead only to a file of that user's.
///
/// # Errors
///
/// When it cannot be read, is longer, or is none that may be read: a pipe, say, or a link in
/// somebody's directory to what only root may read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open_to_read(path)?.take(limit.saturating_add(1));
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let what = format!("it is longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// Opens a file as [`read`] does.
///
/// # Errors
///
/// As those of [`read`].
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let (directory, name, owner) = walk::to_file(path, Links::OfTheirOwn, false)?;
    directory.open_file(&name, OFlag::O_RDONLY, owner)
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// When it is not there, or is behind a link that is not followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        walk::to_directory(path, false)
    }

    /// Opens a directory and makes those that are missing, with mode 0755 within the umask.
    ///
    /// # Errors
    ///
    /// When one cannot be made, or is behind a link that is not followed.
    pub fn create(path: &Path) -> io::Result<Self> {
        walk::to_directory(path, true)
    }

    /// Opens the directory of a file and returns the file's name there. A file that is a link which
    /// may be followed is the one that the link means. Nothing says that the file exists.
    ///
    /// # Errors
    ///
    /// As those of [`Directory::open`].
    pub fn of(file: &Path) -> io::Result<(Self, OsString)> {
        walk::to_file(file, Links::OfOurs, false).map(|(directory, name, _)| (directory, name))
    }

    /// Does the same and makes the directories that are missing.
    ///
    /// # Errors
    ///
    /// As those of [`Directory::create`].
    pub fn create_for(file: &Path) -> io::Result<(Self, OsString)> {
        walk::to_file(file, Links::OfOurs, true).map(|(directory, name, _)| (directory, name))
    }

    /// Returns who may change what is in it.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file for appending, making it with this mode within the umask.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or is none that may be written.
    pub fn append(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let file = self.open_at(name, flags, mode)?;
        self.accept(file, name, None)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or is none that may be read.
    pub fn file(&self, name: &OsStr) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDONLY, None)
    }

    /// Makes a file that is not there yet and opens it for appending. Until this returns, nobody
    /// else can open it; then it has this mode, whatever the umask.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when something has that name, or what the file system says.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = self.open_at(name, flags, 0o600)?;
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        Ok(file)
    }

    /// Writes a file whole or not at all, by way of `.NAME.new`, and returns it open for appending.
    /// Whatever had the name before is gone, a link itself and not what it leads to.
    ///
    /// # Errors
    ///
    /// What the file system says; the file is as it was.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<File> {
        let mut new = OsString::from(".");
        new.push(name);
        new.push(".new");
        self.remove(&new)?;
        let replaced = self.create_file(&new, mode).and_then(|mut file| {
            file.write_all(bytes)?;
            self.rename(&new, name)?;
            Ok(file)
        });
        if replaced.is_err() {
            // It may be what fills the disk.
            let _ = self.remove(&new);
        }
        replaced
    }

    /// Returns what has a name, without following it; `None`: nothing.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn look(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a file another name, in the place of what has that.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Gives a file a name that nothing has.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, or what the file system says.
    pub fn rename_to_free(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let only = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&self.fd, from, &self.fd, to, only) {
            // Not every file system knows the flag: the look leaves a gap that the flag does not.
            Err(Errno::EINVAL | Errno::ENOSYS) if self.look(to)?.is_none() => self.rename(from, to),
            Err(Errno::EINVAL | Errno::ENOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
            result => Ok(result?),
        }
    }

    /// Removes a file, or a link, if it is there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Binds a socket with a mode, in the place of a socket that has its name. At no moment is it
    /// there with another mode, and no other file's mode can be changed by a swap. `bind` is given
    /// a path that leads here whatever becomes of the directory's names.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when something that is no socket has the name; what `bind` or the file system
    /// says.
    pub fn bind<T>(
        &self,
        name: &OsStr,
        mode: u32,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        self.bind_with(name, Some(mode), bind)
    }

    /// Does the same with the mode that the umask gives.
    ///
    /// # Errors
    ///
    /// As those of [`Directory::bind`].
    pub fn bind_plainly<T>(
        &self,
        name: &OsStr,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        self.bind_with(name, None, bind)
    }

    fn bind_with<T>(
        &self,
        name: &OsStr,
        mode: Option<u32>,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        if self
            .look(name)?
            .is_some_and(|found| !is(&found, SFlag::S_IFSOCK))
        {
            let what = "a file that is not a socket is in the way";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        let staged = OsString::from(format!(".{}.socket", std::process::id()));
        self.remove(&staged)?;
        let bound = bind(&through_proc(&self.fd).join(&staged)).and_then(|socket| {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let place = openat(&self.fd, staged.as_os_str(), flags, Mode::empty())?;
            let found = fstat(&place)?;
            if !is(&found, SFlag::S_IFSOCK) || found.st_uid != geteuid().as_raw() {
                let what = "somebody has replaced the socket while it was made";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
            }
            // By descriptor: the name may mean something else by now.
            if let Some(mode) = mode {
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(through_proc(&place), mode)?;
            }
            self.rename(&staged, name)?;
            Ok(socket)
        });
        if bound.is_err() {
            let _ = self.remove(&staged);
        }
        bound
    }

    fn open_file(&self, name: &OsStr, flags: OFlag, owner: Option<u32>) -> io::Result<File> {
        let file = self.open_at(name, flags, 0)?;
        self.accept(file, name, owner)
    }

    /// O_NONBLOCK: a pipe without another end is an error or is seen afterwards, and a lease that
    /// the file's owner holds is no reason to wait for them.
    fn open_at(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        let safe = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match openat(&self.fd, name, flags | safe, Mode::from_bits_truncate(mode)) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::ELOOP) => Err(judge::refuse("it is a symbolic link".to_owned())),
            Err(Errno::EISDIR) => Err(judge::refuse("it is a directory".to_owned())),
            Err(Errno::ENXIO) => Err(judge::refuse("it is a pipe, socket or device".to_owned())),
            Err(Errno::EWOULDBLOCK) => {
                Err(judge::refuse("somebody holds a lease on it".to_owned()))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn accept(&self, file: File, name: &OsStr, owner: Option<u32>) -> io::Result<File> {
        let found = fstat(&file)?;
        judge::file(&found, self.standing, owner)?;
        let regular = is(&found, SFlag::S_IFREG);
        if regular && self.standing != Standing::Ours && !self.still_has(&file, name)? {
            return Err(judge::refuse(
                "it was removed while it was opened".to_owned(),
            ));
        }
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(file)
    }

    /// Tells whether the name that a file was opened by is still there, so that its one name, if it
    /// had one before this call, is this one. Otherwise somebody may have made a second name of one
    /// of root's files, and removed it between our opening and our counting.
    fn still_has(&self, file: &File, name: &OsStr) -> io::Result<bool> {
        // To itself, so that nothing happens: it waits for a removal under way in this directory,
        // which lowers the count of names a moment before the name is gone.
        let only = RenameFlags::RENAME_NOREPLACE;
        let _ = renameat2(&self.fd, name, &self.fd, name, only);
        let here = std::fs::read_link(through_proc(&self.fd))?.join(name);
        Ok(std::fs::read_link(through_proc(file))? == here)
    }
}

impl AsFd for Directory {
    /// Only good as a place for names: it is opened with `O_PATH`.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path to what a descriptor means, whatever becomes of names.
fn through_proc(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & libc::S_IFMT == kind.bits()
}

#[cfg(test)]
mod tests;
