//! Where programs find the socket: a file that its users can reach, or an abstract address.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{S_IFMT, S_IFSOCK};
use nix::sys::stat::FileStat;

use crate::os::places::{Directory, Standing};

/// The longest path that fits a socket address, its final NUL included.
const PATH_LIMIT: usize = 108;
/// The file in its directory.
const NAME: &str = "socket";

/// Who programs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Who the daemon is: nobody else can reach the file.
    Own,
    /// Others, too: the file can be reached by all, since no mode says "this and that user".
    Everybody,
}

/// A file that is removed with its socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    directory: Directory,
    /// Its device and inode.
    file: (u64, u64),
}

/// Binds a socket in this directory, made for it with modes of its own, whatever the umask: nobody
/// can list it or write to it.
///
/// # Errors
///
/// When the path is too long, leads through a directory that is somebody else's or, with
/// [`Reach::Everybody`], that not everybody may enter, or when the file system refuses.
pub(super) fn bind(place: &Path, reach: Reach) -> io::Result<(UnixDatagram, String, SocketFile)> {
    let place = std::path::absolute(place)?;
    let path = place.join(NAME);
    let Some(address) = path.to_str().filter(|path| path.len() < PATH_LIMIT) else {
        return Err(Errno::ENAMETOOLONG.into());
    };
    let directory = Directory::create(&place)?;
    if let Standing::Foreign(user) = directory.standing() {
        let what = format!("it is in a directory of user {user}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let (of_directory, of_file) = match reach {
        Reach::Own => (0o700, 0o600),
        Reach::Everybody => (0o711, 0o666),
    };
    let mode = fs::Permissions::from_mode(of_directory);
    fs::set_permissions(through_proc(&directory), mode)?;
    if reach == Reach::Everybody && !everybody_may_enter(&place)? {
        let what = "a directory on the way is closed to others";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let socket = directory.bind(OsStr::new(NAME), of_file, |path| UnixDatagram::bind(path))?;
    let found = directory
        .look(OsStr::new(NAME))?
        .ok_or(io::ErrorKind::NotFound)?;
    let file = SocketFile {
        directory,
        file: (found.st_dev, found.st_ino),
    };
    Ok((socket, address.to_owned(), file))
}

/// Binds a socket at an abstract address, which `sd_notify` clients know as `@NAME`. Everybody in
/// this network namespace can reach it.
///
/// # Errors
///
/// When there is no socket to be had.
pub(super) fn bind_abstract() -> io::Result<(UnixDatagram, String)> {
    let name = format!("eternal/{}/{:016x}", std::process::id(), fastrand::u64(..));
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    Ok((socket, format!("@{name}")))
}

fn everybody_may_enter(directory: &Path) -> io::Result<bool> {
    for above in directory.ancestors() {
        if fs::metadata(above)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a directory that is open for its names alone can be changed by.
fn through_proc(directory: &Directory) -> OsString {
    format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()).into()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |found: FileStat| {
            found.st_mode & S_IFMT == S_IFSOCK && (found.st_dev, found.st_ino) == self.file
        };
        let name = OsStr::new(NAME);
        if self
            .directory
            .look(name)
            .ok()
            .flatten()
            .is_some_and(is_ours)
        {
            // Nothing can be done about a failure, and the next daemon replaces it.
            let _ = self.directory.remove(name);
        }
    }
}
