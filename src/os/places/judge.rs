//! What may be trusted: directories, links and files by owner, mode and number of names.

use std::io;

use nix::libc;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;

use super::is;

/// Who, beside root and us, can change what is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody, here and all the way up.
    Ours,
    /// It belongs to root or to us, and others may write to it or to one above.
    Shared {
        /// Everybody, not just a group.
        everybody: bool,
        /// Nobody can move or remove what is another's.
        sticky: bool,
    },
    /// This user: it, or one above, is theirs.
    Foreign(u32),
}

impl Standing {
    /// Returns the standing of a directory in one of this standing.
    pub(super) fn below(self, directory: &FileStat) -> Self {
        let owner = directory.st_uid;
        match self {
            Self::Foreign(user) => Self::Foreign(user),
            _ if !trusted(owner) => Self::Foreign(owner),
            // Whoever can write up there can put another of root's directories in its place.
            Self::Shared {
                sticky: false,
                everybody,
            } => Self::Shared {
                sticky: false,
                everybody: everybody || directory.st_mode & libc::S_IWOTH != 0,
            },
            Self::Ours | Self::Shared { sticky: true, .. } => Self::alone(directory),
        }
    }

    /// Returns the standing of a directory of root's or ours whose place nobody can change.
    fn alone(directory: &FileStat) -> Self {
        if directory.st_mode & (libc::S_IWGRP | libc::S_IWOTH) == 0 {
            return Self::Ours;
        }
        Self::Shared {
            everybody: directory.st_mode & libc::S_IWOTH != 0,
            sticky: directory.st_mode & libc::S_ISVTX != 0,
        }
    }

    /// Tells whether a link of this owner in such a directory leads where root or we want.
    pub(super) fn follows(self, owner: u32) -> bool {
        match self {
            Self::Ours => true,
            Self::Shared { .. } => trusted(owner),
            Self::Foreign(_) => false,
        }
    }

    /// Names who can change what is in the directory.
    pub(super) fn whose(self) -> String {
        match self {
            Self::Ours => "a directory of ours".to_owned(),
            Self::Shared {
                everybody: false, ..
            } => "a directory that a group may write to".to_owned(),
            Self::Shared {
                everybody: true, ..
            } => "a directory that everybody may write to".to_owned(),
            Self::Foreign(user) => format!("a directory of user {user}"),
        }
    }
}

/// Refuses a file that is none, or that somebody may have put there for us. `owner`: a link of this
/// user's has led to it.
pub(super) fn file(found: &FileStat, standing: Standing, owner: Option<u32>) -> io::Result<()> {
    if !is(found, SFlag::S_IFREG) {
        let null = is(found, SFlag::S_IFCHR) && found.st_rdev == libc::makedev(1, 3);
        let kind = kind(found);
        return null
            .then_some(())
            .ok_or_else(|| refuse(format!("it is {kind}, not a regular file")));
    }
    if let Some(user) = owner
        && found.st_uid != user
    {
        let what = format!("a link of user {user} leads to it, and it is not theirs");
        return Err(refuse(what));
    }
    let theirs = match standing {
        Standing::Ours => return Ok(()),
        Standing::Shared { everybody, .. } => !everybody,
        Standing::Foreign(user) => found.st_uid == user,
    };
    let whose = standing.whose();
    if !theirs && !trusted(found.st_uid) {
        let what = format!("it belongs to user {} and lies in {whose}", found.st_uid);
        return Err(refuse(what));
    }
    if found.st_nlink > 1 {
        let what = format!("it has {} names and lies in {whose}", found.st_nlink);
        return Err(refuse(what));
    }
    Ok(())
}

/// Tells whether a user is root or us.
fn trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

fn kind(found: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT) {
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link",
        _ => "a device",
    }
}

/// What is there may not be used, for this reason.
pub(super) fn refuse(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
