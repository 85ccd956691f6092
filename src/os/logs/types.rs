//! The words the log room is spoken to with.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::text::Fact;

/// How the daemon's log is kept.
#[derive(Debug)]
pub struct Options {
    /// The daemon log; `None`: only stderr. Directories are created.
    pub file: Option<PathBuf>,
    /// Bytes at which a log file is rotated, at a line end; 0: never.
    pub max_size: u64,
    /// Rotated files kept beside each current one; 0: a full file is emptied.
    pub keep: u32,
    /// The daemon log is JSON, one object a line.
    pub json: bool,
    /// What stderr shows.
    pub stderr: Stderr,
    /// Where that goes; `None`: the process's own stderr.
    pub stderr_to: Option<OwnedFd>,
}

/// What stderr shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// Nothing.
    None,
    /// The lines of the log.
    Text,
    /// The same with colours, for a terminal.
    TextColour,
    /// Lines with `<N>` priorities and without timestamps, for the journal.
    Journal,
    /// JSON, one object a line.
    Json,
}

/// Where a program's lines come from and go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// How people call it: `web`, `web/1`.
    pub name: String,
    /// Its own file, which gets the raw bytes; `None`: the daemon log, prefixed. Absolute.
    pub file: Option<PathBuf>,
    /// Its descendants are left alone when a main process ends: they keep their output.
    pub lasting: bool,
}

/// The importance of one of the daemon's own lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is wrong and the daemon goes on.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Returns the name, padded to five letters.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN ",
            Self::Info => "INFO ",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// One of the daemon's own lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How important.
    pub level: Level,
    /// When.
    pub at: SystemTime,
    /// Whom it is about.
    pub program: Option<String>,
    /// A sentence.
    pub message: String,
    /// What belongs to it.
    pub fields: Vec<(&'static str, Fact)>,
}

/// Which captured lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// A replica (`web/1`) or all of a program (`web`); `None`: everything.
    pub program: Option<String>,
    /// How many of each replica, or of each file that replicas share, at most.
    pub lines: usize,
}

/// Which of a child's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Returns `stdout` or `stderr`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A captured line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read; `None` for a line from a program's own file, which has no times.
    pub at: Option<SystemTime>,
    /// How people call the replica that wrote it.
    pub program: String,
    /// Where.
    pub stream: Stream,
    /// The line, without its end; what is not UTF-8 is replaced.
    pub line: String,
}

/// What was captured of a program. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Of its standard output.
    pub stdout: StreamCounters,
    /// Of its standard error.
    pub stderr: StreamCounters,
}

/// What was captured of one stream.
#[derive(Debug, Default)]
pub struct StreamCounters {
    lines: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    /// Returns those of one stream.
    #[must_use]
    pub const fn of(&self, stream: Stream) -> &StreamCounters {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

impl StreamCounters {
    /// Returns the lines read, written or not.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns the bytes read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the lines that were read and could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, lines: u64, bytes: u64) {
        self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A directory of a log file cannot be created.
    #[error("cannot create the log directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A log file cannot be opened.
    #[error("cannot open the log file {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk of the daemon log does not answer.
    #[error("cannot open the log file {}: its file system does not answer", path.display())]
    Silent {
        /// Which.
        path: PathBuf,
    },
    /// A thread, a descriptor or stderr is not to be had.
    #[error("cannot start logging")]
    Start {
        /// Why.
        source: io::Error,
    },
}

impl LogError {
    /// Returns the message with its cause.
    #[must_use]
    pub fn with_cause(&self) -> String {
        match self {
            Self::Directory { source, .. } | Self::Open { source, .. } | Self::Start { source } => {
                format!("{self}: {source}")
            }
            Self::Silent { .. } => self.to_string(),
        }
    }

    /// Tells whether it is for want of permission.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Directory { source, .. } | Self::Open { source, .. } | Self::Start { source } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Silent { .. } => false,
        }
    }
}
