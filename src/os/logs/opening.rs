//! Programs and their files: opened where one may wait, adopted where nothing may fail.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::capture::Registered;
use super::file::FileOutput;
use super::pump::Command;
use super::sink::{Output, Sink};
use super::terminal::Terminal;
use super::{LogError, Logs, Room, Source, lock};
use crate::supervision::Id;

/// How long the disk of the daemon log may take at the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program's name and its place for lines, ready to be adopted.
#[derive(Debug)]
pub struct OpenLog {
    name: String,
    file: Option<Arc<Sink>>,
    lasting: bool,
}

impl Logs {
    /// Prepares a place for a program's lines without touching the disk: its file is opened by
    /// [`Logs::prepare`], or by its first line.
    #[must_use]
    pub fn later(&self, source: Source) -> OpenLog {
        let room = &self.0;
        // Its own file being the daemon log means the same as having none.
        let path = source
            .file
            .filter(|path| Some(path) != room.log.path.as_ref());
        OpenLog {
            name: source.name,
            file: path.map(|path| room.sink(&path)),
            lasting: source.lasting,
        }
    }

    /// Opens a program's file, creating its directories. Waits for the disk.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened. No program has changed, either way.
    pub fn open_file(&self, source: Source) -> Result<OpenLog, LogError> {
        let log = self.later(source);
        if let Some(sink) = &log.file {
            sink.open()?;
        }
        Ok(log)
    }

    /// Registers a program, or changes its name and place. Cannot fail, and does not wait.
    pub fn adopt(&self, id: Id, log: OpenLog) {
        let mut registry = lock(&self.0.registry);
        let before = registry.programs.get(&id);
        let counters = before.map_or_else(Arc::default, |before| Arc::clone(&before.counters));
        let registered = Arc::new(Registered {
            lasting: log.lasting,
            id,
            name: log.name,
            file: log.file,
            counters,
        });
        registry.programs.insert(id, Arc::clone(&registered));
        drop(registry);
        self.0.send(Command::Register(registered));
    }

    /// Opens a file for a program and adopts it. Waits for the disk.
    ///
    /// # Errors
    ///
    /// When its file cannot be opened; nothing has changed then.
    pub fn program(&self, id: Id, source: Source) -> Result<(), LogError> {
        self.adopt(id, self.open_file(source)?);
        Ok(())
    }

    /// Tells whether [`Logs::prepare`] has nothing to do for a program. Does not wait.
    #[must_use]
    pub fn is_ready(&self, id: Id) -> bool {
        let registry = lock(&self.0.registry);
        let file = registry
            .programs
            .get(&id)
            .and_then(|program| program.file.as_ref());
        file.is_none_or(|sink| sink.is_opened())
    }

    /// Opens the file of a program that is about to be started, unless it is open: a program whose
    /// lines have no place is not started. May wait for the disk, but only until the file is open.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn prepare(&self, id: Id) -> Result<(), LogError> {
        let registered = lock(&self.0.registry).programs.get(&id).cloned();
        match registered
            .as_ref()
            .and_then(|program| program.file.as_ref())
        {
            Some(sink) => sink.open(),
            None => Ok(()),
        }
    }
}

impl Room {
    /// Programs that name the same file share it.
    fn sink(&self, path: &Path) -> Arc<Sink> {
        let sinks = &mut lock(&self.registry).sinks;
        if let Some(sink) = sinks.get(path).and_then(Weak::upgrade) {
            return sink;
        }
        forget_closed(sinks);
        let own_stream = own_stream(path).and_then(|stream| stream.ok());
        let output = match own_stream {
            Some(stream) => Output::Terminal(Terminal::new(stream)),
            None => Output::File(FileOutput::new(path, self.rotation.clone())),
        };
        let sink = Sink::new(path.to_owned(), &self.files, output);
        sinks.insert(path.to_owned(), Arc::downgrade(&sink));
        sink
    }
}

/// Opens one of the daemon's own streams, where a path means that: whatever it is, it was given to
/// us and is not looked for by name.
pub(super) fn own_stream(path: &Path) -> Option<io::Result<OwnedFd>> {
    match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => {
            Some(io::stdout().as_fd().try_clone_to_owned())
        }
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => {
            Some(io::stderr().as_fd().try_clone_to_owned())
        }
        _ => None,
    }
}

fn forget_closed(sinks: &mut HashMap<PathBuf, Weak<Sink>>) {
    sinks.retain(|_, sink| sink.strong_count() > 0);
}

/// Opens a file that the daemon cannot do without, and does not wait for ever.
pub(super) fn within_patience(sink: &Arc<Sink>) -> Result<(), LogError> {
    let (done, opened) = sync_channel(1);
    let opening = Arc::clone(sink);
    thread::Builder::new()
        .name("log-open".to_owned())
        .spawn(move || drop(done.send(opening.open())))
        .map_err(|source| LogError::Start { source })?;
    opened.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        Err(LogError::Silent {
            path: sink.path().to_owned(),
        })
    })
}
