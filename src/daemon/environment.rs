//! What programs find of the daemon's own environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::config::Program;
use crate::os::launch::MARKER;
use crate::os::notify::STRIPPED;

/// What a program with a `user` of its own inherits: what says how to find and show things, and
/// nothing that belongs to the session of whoever started the daemon (`XDG_*`, `SSH_*`, `SUDO_*`,
/// `DBUS_*`, MAIL, PWD, …), whose directories and sockets are not its user's.
const HARMLESS: &[&str] = &["LANG", "LANGUAGE", "LC_*", "PATH", "TERM", "TZ"];
/// Who a program is: the user database says it.
const OF_THE_USER: &[&str] = &["HOME", "LOGNAME", "SHELL", "USER"];
/// Where the command line looks for the daemon: the one setting of ours that others may know.
const SOCKET: &str = "ETERNAL__DAEMON__SOCKET";

/// The daemon's own environment, without what is nobody else's.
#[derive(Clone, Debug)]
pub(super) struct Inherited(Vec<(OsString, OsString)>);

impl Inherited {
    /// Takes what the daemon was started with.
    pub fn from_env() -> Self {
        Self::from(std::env::vars_os())
    }

    fn from(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.filter(|(name, _)| !is_ours(name)).collect())
    }

    /// Returns what this program finds of it: all, or, where it has a `user`, a few variables and
    /// those that it asks for.
    pub fn of(&self, program: &Program) -> impl Iterator<Item = (OsString, OsString)> {
        let asked = program.pass_environment.iter().map(String::as_str);
        let passed: Vec<&str> = HARMLESS.iter().copied().chain(asked).collect();
        let switches = program.user.is_some();
        let goes = move |name: &OsStr| {
            let is = |pattern: &&str| fits(name, pattern);
            !switches || (passed.iter().any(is) && !OF_THE_USER.iter().any(is))
        };
        self.0.iter().filter(move |(name, _)| goes(name)).cloned()
    }
}

/// Tells what is for the daemon alone: what systemd lends to it, its settings, the mark of its own
/// run, and what it shows to a collector as a password.
fn is_ours(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let is_password = bytes.starts_with(b"OTEL_EXPORTER_") && bytes.ends_with(b"HEADERS");
    let is_setting = bytes.starts_with(b"ETERNAL__") && name != SOCKET;
    is_password || is_setting || name == MARKER || STRIPPED.iter().any(|ours| name == *ours)
}

/// Tells whether a name is the pattern, or begins with what stands before its final `*`.
fn fits(name: &OsStr, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |begin| {
        name.as_bytes().starts_with(begin.as_bytes())
    })
}
