//! What the command line borrows of the rooms that it may not enter: `main` lends it.
//!
//! Questions have answers when no daemon runs, too: they lie in files, in the formats of the rooms that
//! wrote them, and whether a start would work is known to the rooms that start. Those rooms are below
//! the daemon; the command line speaks to them through these functions alone.

use std::path::Path;

use crate::config::{Config, Finding};
use crate::control::api::{Crash, Last, LogLine};

/// The functions.
#[derive(Clone, Copy)]
pub struct Machine {
    /// Columns and rows of the terminal on standard output; `None` when it is no terminal.
    pub terminal: fn() -> Option<(usize, usize)>,
    /// Who holds a pid file, by its lock.
    pub holder: fn(&Path) -> Holder,
    /// What the daemon of a config left when it ended, or shortly before it was killed.
    pub last: fn(&Config) -> Option<Last>,
    /// The crash history of a config's daemon, oldest first; `None` when there is none.
    pub crashes: fn(&Config) -> Option<Vec<Crash>>,
    /// The last lines in the log files of a config: of one program or of all, at most so many, oldest
    /// first; `None` when there is no file.
    pub lines: fn(&Config, Option<&str>, usize) -> Option<Vec<LogLine>>,
    /// What a start of this config would meet here and now.
    pub inspect: fn(&Config) -> Vec<Finding>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

/// Who holds a pid file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There is no pid file.
    Nobody,
    /// Its daemon is gone; its pid, where the file has one.
    Gone(Option<i32>),
    /// Its daemon lives; its pid, where the file has one.
    Lives(Option<i32>),
    /// It cannot be told, for this reason.
    Unknown(String),
}
