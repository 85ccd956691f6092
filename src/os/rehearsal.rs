//! A start without the start: what would stop a program here and now, in the words of a failed start.
//!
//! Who it would be and which paths it would try come from the code that starts it. Whether the user may
//! enter and execute is read off the modes, as the kernel does for a user without privileges; access
//! lists and security modules are left to the kernel.

use std::ffi::{CString, OsStr};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid, getgroups};

use super::failure::explain;
use super::launch::{Launch, Prepared};
use super::spawn::{Obstacle, Step};
use crate::supervision::SpawnFailure;

/// What a rehearsal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsed {
    /// Nothing stands in the way.
    Fine,
    /// A start would fail like this.
    Fails(SpawnFailure),
    /// It cannot be told from here, for this reason.
    Untold(String),
}

/// Looks at everything between the launch and the execution of the program, and changes nothing.
#[must_use]
pub fn rehearse(launch: &Launch) -> Rehearsed {
    let prepared = match Prepared::new(launch.clone(), "") {
        Ok(prepared) => prepared,
        Err(failure) => return Rehearsed::Fails(failure),
    };
    let who = match Who::of(&prepared) {
        Some(who) => who,
        None => {
            let user = launch.user.as_deref().or(launch.group.as_deref());
            let user = user.unwrap_or_default();
            let we = geteuid();
            return Rehearsed::Untold(format!(
                "whether it can be started as {user}: uid {we} cannot become that user, and may not see \
                 what that user sees"
            ));
        }
    };
    match obstacle(launch, &prepared, &who) {
        None => Rehearsed::Fine,
        Some(obstacle) => Rehearsed::Fails(explain(&obstacle, &prepared)),
    }
}

fn obstacle(launch: &Launch, prepared: &Prepared, who: &Who) -> Option<Obstacle> {
    let stopped = |step, detail, errno| Obstacle {
        step,
        detail,
        errno,
    };
    let directory = &launch.working_directory;
    if let Err(errno) = who.may_enter(directory) {
        return Some(stopped(Step::Directory, 0, errno));
    }
    let mut denied = None;
    for (index, candidate) in prepared.candidates.iter().enumerate() {
        let path = directory.join(Path::new(OsStr::from_bytes(candidate.to_bytes())));
        match who.may_execute(&path) {
            Ok(()) => return None,
            Err(Errno::EACCES) => {
                denied.get_or_insert(stopped(Step::Execute, index, Errno::EACCES));
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Some(stopped(Step::Execute, index, errno)),
        }
    }
    denied.or_else(|| Some(stopped(Step::Execute, 0, Errno::ENOENT)))
}

/// Who would look at a file.
struct Who {
    uid: u32,
    groups: Vec<u32>,
}

impl Who {
    /// `None`: somebody whom we cannot become.
    fn of(prepared: &Prepared) -> Option<Self> {
        let we = geteuid();
        match &prepared.identity.credentials {
            None => {
                let mut groups: Vec<u32> = getgroups()
                    .unwrap_or_default()
                    .iter()
                    .map(|group| group.as_raw())
                    .collect();
                groups.push(getegid().as_raw());
                Some(Self {
                    uid: we.as_raw(),
                    groups,
                })
            }
            Some(credentials) if we.is_root() => {
                let mut groups = credentials.groups.clone();
                groups.push(credentials.gid);
                Some(Self {
                    uid: credentials.uid.unwrap_or(0),
                    groups,
                })
            }
            Some(_) => None,
        }
    }

    fn may_enter(&self, directory: &Path) -> Result<(), Errno> {
        let found = self.find(directory)?;
        if !found.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.may(&found)
    }

    fn may_execute(&self, path: &Path) -> Result<(), Errno> {
        let found = self.find(path)?;
        // The kernel says that of a directory, too.
        if !found.is_file() {
            return Err(Errno::EACCES);
        }
        self.may(&found)?;
        match interpreter(path) {
            Some(interpreter) if !Path::new(OsStr::from_bytes(interpreter.to_bytes())).exists() => {
                Err(Errno::ENOENT)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks a path up, every directory of which has to let this user pass.
    fn find(&self, path: &Path) -> Result<Metadata, Errno> {
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let real = std::fs::canonicalize(path).map_err(errno)?;
        for directory in real.ancestors().skip(1) {
            self.may(&directory.metadata().map_err(errno)?)?;
        }
        real.metadata().map_err(errno)
    }

    /// Whether the mode lets this user search a directory, or execute a file.
    fn may(&self, found: &Metadata) -> Result<(), Errno> {
        let mode = found.mode();
        let allowed = if self.uid == 0 {
            found.is_dir() || mode & 0o111 != 0
        } else if self.uid == found.uid() {
            mode & 0o100 != 0
        } else if self.groups.contains(&found.gid()) {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        };
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// Returns the interpreter that a script names.
fn interpreter(path: &Path) -> Option<CString> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(256).read_to_end(&mut head).ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let word = line
        .trim_ascii_start()
        .split(u8::is_ascii_whitespace)
        .next()?;
    CString::new(word)
        .ok()
        .filter(|word| word.to_bytes().starts_with(b"/"))
}
