//! What a program needs to be started, and its translation into what the kernel takes.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown};

use super::cgroups::Wanted;
use super::limits::{self, Resource, Setting};
use super::users::{self, Credentials, Identity};
use crate::supervision::{FailureKind, SpawnFailure};

/// The variable that marks every process we start, and with it the descendants that inherit it.
pub const MARKER: &str = "ETERNAL_RUN";

/// Everything about how a program is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The command and its arguments. A command with a slash is relative to the working
    /// directory; one without is searched for in the PATH of `environment`.
    pub argv: Vec<String>,
    /// Entered as the user.
    pub working_directory: PathBuf,
    /// The complete environment of the process, except [`MARKER`], which is added.
    pub environment: Vec<(OsString, OsString)>,
    /// A name or a number; `None`: the daemon's own.
    pub user: Option<String>,
    /// A name or a number; `None`: the user's primary group.
    pub group: Option<String>,
    /// Bits that new files do not get.
    pub umask: u32,
    /// -20 to 19; `None`: the daemon's own.
    pub nice: Option<i32>,
    /// -1000 to 1000; `None`: the daemon's own.
    pub oom_score_adj: Option<i32>,
    /// Soft and hard limits; `None`: unlimited.
    pub limits: Vec<(Resource, Option<u64>, Option<u64>)>,
    /// Descendants belong to the run, and go with it (`kill_mode = "family"`).
    pub family: bool,
    /// The cgroup it belongs in, where cgroups are ours; `None`: that of the daemon.
    pub cgroup: Option<Wanted>,
}

/// Where the output of a process goes; its input is /dev/null.
#[derive(Debug)]
pub struct Stdio {
    /// The write end of standard output.
    pub stdout: OwnedFd,
    /// The write end of standard error.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Hands the pipes over to the user of the program, who could write to them but not open them
    /// (`/dev/stdout`, `/dev/stderr`) otherwise. What is no pipe is not ours to give away.
    pub(super) fn belong_to(&self, user: &Credentials) {
        const OPEN_FOR_WRITING: Mode = Mode::from_bits_truncate(0o622);
        let Some(uid) = user.uid.map(Uid::from_raw) else {
            return;
        };
        for stream in [&self.stdout, &self.stderr] {
            let is_pipe = fstat(stream).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFIFO);
            if is_pipe && fchown(stream, Some(uid), Some(Gid::from_raw(user.gid))).is_err() {
                // Without CAP_CHOWN. Only who may look into the program finds the pipe; where even
                // this is refused, its descriptors are as good as ever.
                let _ = fchmod(stream, OPEN_FOR_WRITING);
            }
        }
    }
}

/// A launch with every look-up done and every byte in its place.
#[derive(Debug)]
pub struct Prepared {
    /// What it was made of.
    pub(super) launch: Launch,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// The paths to try, in order.
    pub(super) candidates: Vec<CString>,
    pub(super) directory: CString,
    pub(super) identity: Identity,
    pub(super) limits: Vec<Setting>,
    /// As text, for /proc.
    pub(super) oom_score_adj: Option<CString>,
}

/// Where the shell looks when nobody says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Prepared {
    /// Looks everything up. May take as long as the user database does where a user or a group is
    /// configured. `marker` is that of the run: see [`super::children::Children::mark`].
    ///
    /// # Errors
    ///
    /// What cannot be found, or cannot be told to the kernel.
    pub fn new(launch: Launch, marker: &str) -> Result<Self, SpawnFailure> {
        let identity = users::look_up(launch.user.as_deref(), launch.group.as_deref())?;
        Self::with(launch, identity, marker)
    }

    /// Prepares a launch of another command as the same user: nothing has to be looked up.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn sibling(&self, launch: Launch, marker: &str) -> Result<Self, SpawnFailure> {
        Self::with(launch, self.identity.clone(), marker)
    }

    /// Returns what it was made of.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    fn with(launch: Launch, identity: Identity, marker: &str) -> Result<Self, SpawnFailure> {
        let command = launch
            .argv
            .first()
            .filter(|word| !word.is_empty())
            .ok_or_else(|| refuse("cannot execute an empty command".to_owned()))?;
        Ok(Self {
            argv: launch
                .argv
                .iter()
                .map(|word| text(word.as_bytes(), "an argument"))
                .collect::<Result<_, _>>()?,
            environment: environment(&launch, &identity, marker)?,
            candidates: candidates(command, path(&launch))?,
            directory: text(
                launch.working_directory.as_os_str().as_bytes(),
                "the directory",
            )?,
            identity,
            limits: limits::settings(&launch.limits),
            oom_score_adj: launch
                .oom_score_adj
                .map(|value| text(value.to_string().as_bytes(), "oom_score_adj"))
                .transpose()?,
            launch,
        })
    }
}

/// Returns the PATH that the command is searched in.
pub(super) fn path(launch: &Launch) -> &OsStr {
    let of_child = launch
        .environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH");
    of_child.map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value)
}

/// The marker comes first, so that it is found without reading a huge environment.
fn environment(
    launch: &Launch,
    identity: &Identity,
    marker: &str,
) -> Result<Vec<CString>, SpawnFailure> {
    let given = || launch.environment.iter().filter(|(name, _)| name != MARKER);
    let added = identity
        .variables
        .iter()
        .filter(|(name, _)| given().all(|(present, _)| present != name))
        .map(|(name, value)| pair(OsStr::new(name), value));
    std::iter::once(pair(OsStr::new(MARKER), OsStr::new(marker)))
        .chain(given().map(|(name, value)| pair(name, value)))
        .chain(added)
        .collect()
}

fn pair(name: &OsStr, value: &OsStr) -> Result<CString, SpawnFailure> {
    let mut entry = name.to_owned();
    entry.push("=");
    entry.push(value);
    CString::new(entry.into_vec()).map_err(|_| {
        refuse(format!(
            "environment variable {} has a NUL byte",
            name.display()
        ))
    })
}

/// An empty entry of PATH means the current directory, as in a shell.
fn candidates(command: &str, path: &OsStr) -> Result<Vec<CString>, SpawnFailure> {
    if command.contains('/') {
        return Ok(vec![text(command.as_bytes(), "the command")?]);
    }
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|directory| {
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            text(
                &[directory, b"/", command.as_bytes()].concat(),
                "the command",
            )
        })
        .collect()
}

fn text(bytes: &[u8], what: &str) -> Result<CString, SpawnFailure> {
    CString::new(bytes).map_err(|_| refuse(format!("cannot execute: {what} has a NUL byte")))
}

fn refuse(message: String) -> SpawnFailure {
    SpawnFailure {
        kind: FailureKind::Exec,
        transient: false,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_command_is_tried_in_every_directory_of_the_path() {
        let tried = candidates("sh", OsStr::new("/bin::/opt/x")).expect("no NUL");
        assert_eq!(
            tried,
            [
                c"/bin/sh".to_owned(),
                c"./sh".to_owned(),
                c"/opt/x/sh".to_owned()
            ]
        );
        let tried = candidates("./sh", OsStr::new("/bin")).expect("no NUL");
        assert_eq!(tried, [c"./sh".to_owned()]);
    }
}
