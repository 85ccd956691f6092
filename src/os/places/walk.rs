//! From the root to a directory, one name at a time: no name is looked up twice, so nothing can be
//! swapped between a look and the step.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::judge::{self, Standing};
use super::{Directory, is};

/// As many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Which links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// Those that lead where root or we want.
    OfOurs,
    /// Others, too, to a file of the same user's: who could read it without us.
    OfTheirOwn,
}

struct Walk {
    at: Directory,
    /// What is left, the last first.
    rest: Vec<OsString>,
    links: Links,
    followed: u32,
    /// A link that this user may have made, or put there, was followed.
    owner: Option<u32>,
    make: bool,
}

/// A link, and who made it.
struct Link {
    target: PathBuf,
    owner: u32,
}

/// Walks to a directory; `make`s those that are missing.
pub(super) fn to_directory(path: &Path, make: bool) -> io::Result<Directory> {
    let mut walk = Walk::begin(path, Links::OfOurs, make)?;
    while let Some(name) = walk.rest.pop() {
        walk.enter(&name)?;
    }
    Ok(walk.at)
}

/// Walks to the directory of a file. Returns the file's name in it, and the user whose link has led
/// there, if one has.
pub(super) fn to_file(
    path: &Path,
    links: Links,
    make: bool,
) -> io::Result<(Directory, OsString, Option<u32>)> {
    let mut walk = Walk::begin(path, links, make)?;
    while let Some(name) = walk.rest.pop() {
        if !walk.rest.is_empty() {
            walk.enter(&name)?;
        } else if name == ".." {
            break;
        } else if let Some(link) = walk.link(&name)? {
            walk.follow(&name, &link)?;
        } else {
            return Ok((walk.at, name, walk.owner));
        }
    }
    Err(judge::refuse("it is a directory".to_owned()))
}

impl Walk {
    fn begin(path: &Path, links: Links, make: bool) -> io::Result<Self> {
        let mut walk = Self {
            at: base(path)?,
            rest: Vec::new(),
            links,
            followed: 0,
            owner: None,
            make,
        };
        walk.push(path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.rest.extend(names);
    }

    /// Steps into a directory, or to where a link leads.
    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let opened = match step(&self.at.fd, name) {
            Err(Errno::ENOENT) if self.make => {
                match mkdirat(&self.at.fd, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => step(&self.at.fd, name),
                    Err(errno) => Err(errno),
                }
            }
            opened => opened,
        };
        match opened {
            Ok(fd) => {
                self.at.standing = self.at.standing.below(&fstat(&fd)?);
                self.at.fd = fd;
                self.at.path.push(name);
                Ok(())
            }
            // With O_NOFOLLOW and O_DIRECTORY a link is "not a directory".
            Err(Errno::ENOTDIR | Errno::ELOOP) => match self.link(name)? {
                Some(link) => self.follow(name, &link),
                None => Err(Errno::ENOTDIR.into()),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads a link; `None` for anything else and for nothing.
    fn link(&self, name: &OsStr) -> io::Result<Option<Link>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(&self.at.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let found = fstat(&fd)?;
        if !is(&found, SFlag::S_IFLNK) {
            return Ok(None);
        }
        Ok(Some(Link {
            target: PathBuf::from(readlinkat(&fd, "")?),
            owner: found.st_uid,
        }))
    }

    fn follow(&mut self, name: &OsStr, link: &Link) -> io::Result<()> {
        self.followed += 1;
        if self.followed > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if !self.at.standing.follows(link.owner) {
            let user = match self.at.standing {
                Standing::Foreign(user) => user,
                Standing::Ours | Standing::Shared { .. } => link.owner,
            };
            if self.links == Links::OfOurs || self.owner.is_some_and(|before| before != user) {
                return Err(judge::refuse(format!(
                    "{} is a symbolic link in {}",
                    self.at.path.join(name).display(),
                    self.at.standing.whose()
                )));
            }
            self.owner = Some(user);
        }
        if link.target.is_absolute() {
            self.at = base(&link.target)?;
        }
        self.push(&link.target);
        Ok(())
    }
}

/// Opens where a path begins.
fn base(path: &Path) -> io::Result<Directory> {
    let start = if path.is_absolute() { "/" } else { "." };
    let fd = step(AT_FDCWD, OsStr::new(start))?;
    // Where we stand was chosen by whoever started us.
    let standing = Standing::Ours.below(&fstat(&fd)?);
    let path = PathBuf::from(start);
    Ok(Directory { fd, standing, path })
}

fn step(at: impl std::os::fd::AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}
