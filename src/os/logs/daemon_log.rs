//! The daemon log: the daemon's own lines, and captured output of programs without a file.

use std::path::PathBuf;
use std::sync::Arc;

use super::format::{self, Look};
use super::sink::Sink;
use super::{Level, Record, clock};

/// A place and how lines look there.
#[derive(Debug)]
pub(super) struct Place {
    /// Where.
    pub sink: Arc<Sink>,
    /// How.
    pub look: Look,
}

/// Where the daemon's lines go.
#[derive(Debug, Default)]
pub(super) struct DaemonLog {
    /// The file's name.
    pub path: Option<PathBuf>,
    /// The file.
    pub file: Option<Place>,
    /// Standard error.
    pub stderr: Option<Place>,
}

impl DaemonLog {
    /// Returns every place, the one whose losses count first.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.file.iter().chain(&self.stderr)
    }

    /// Writes one of the daemon's own lines everywhere but in `except`.
    pub fn write(&self, record: &Record, except: Option<&Arc<Sink>>) {
        for place in self
            .places()
            .filter(|place| !except.is_some_and(|sink| Arc::ptr_eq(sink, &place.sink)))
        {
            let mut line = Vec::with_capacity(160);
            format::record(&mut line, place.look, record);
            place.sink.append_own(&line);
        }
    }

    /// Says that something is wrong.
    pub fn warn(&self, message: String, except: Option<&Arc<Sink>>) {
        self.say(Level::Warn, message, except);
    }

    /// Says that something failed.
    pub fn error(&self, message: String, except: Option<&Arc<Sink>>) {
        self.say(Level::Error, message, except);
    }

    fn say(&self, level: Level, message: String, except: Option<&Arc<Sink>>) {
        let record = Record {
            level,
            at: clock::wall(),
            program: None,
            message,
            fields: Vec::new(),
        };
        self.write(&record, except);
    }
}
