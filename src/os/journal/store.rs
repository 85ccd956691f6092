//! The files of the state directory, each judged by itself: a full disk may take one and not the
//! other.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Loaded;
use super::records::{self, CRASHES, Entry, HEADER};
use crate::os::state_dir::{StateDir, StateDirError};

/// The log of who runs is rewritten when it is this much longer than twice what it says: then each
/// record costs the same, however many programs there are.
const SLACK: u64 = 64 * 1024;
/// Crashes on top of those that are kept before the file is rewritten.
const CRASH_SLACK: usize = 250;
/// As much of a file is read; a longer one is cut at its beginning.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

pub(super) const MARKER: &str = "marker";
pub(super) const RUNNING: &str = "running";
pub(super) const CRASH_HISTORY: &str = "crashes.jsonl";

/// A file of the state directory could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

pub(super) struct Store {
    path: PathBuf,
    /// `None` where it cannot be had, or was removed.
    dir: Option<StateDir>,
    token: String,
    marker: Option<File>,
    /// What the log of who runs has to say, and how many bytes that takes.
    live: BTreeMap<String, Entry>,
    live_bytes: u64,
    /// The log and its length; `None` when it has to be written anew.
    log: Option<(File, u64)>,
    crashes: Option<File>,
    crash_count: usize,
    /// Crashes that are not on the disk yet.
    unwritten: VecDeque<String>,
}

impl Store {
    /// Reads what is there. `token` is this installation's.
    ///
    /// # Errors
    ///
    /// When the directory is another daemon's, or it or a file in it is not ours.
    pub fn open(path: &Path, token: &str) -> Result<(Self, Loaded), StateDirError> {
        let mut loaded = Loaded::default();
        let dir = match StateDir::open(path) {
            Ok(dir) => Some(dir),
            Err(error @ StateDirError::System { .. }) => {
                loaded.problems.push(super::with_cause(&error));
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(dir) = &dir {
            load(dir, &mut loaded)?;
        }
        let mut store = Self {
            path: path.to_owned(),
            dir,
            token: token.to_owned(),
            marker: None,
            live: BTreeMap::new(),
            live_bytes: 0,
            log: None,
            crashes: None,
            crash_count: loaded.crashes.len(),
            unwritten: VecDeque::new(),
        };
        for (number, entry) in loaded.running.iter().enumerate() {
            store.remember(format!("p{number}"), entry.clone());
        }
        Ok((store, loaded))
    }

    // ---- who runs ---------------------------------------------------------------------------

    /// Notes who runs under these keys, or that nobody does.
    pub fn note(&mut self, changes: Vec<(u32, Option<Entry>)>) -> Result<(), StoreError> {
        let mut lines = String::new();
        for (key, change) in changes {
            let key = key.to_string();
            match change {
                Some(entry) => {
                    lines.push_str(&records::added(&key, &entry));
                    self.remember(key, entry);
                }
                None if self.forget(&key) => lines.push_str(&records::removed(&key)),
                None => {}
            }
        }
        self.append(&lines)
    }

    fn remember(&mut self, key: String, entry: Entry) {
        self.forget(&key);
        self.live_bytes += records::added(&key, &entry).len() as u64;
        self.live.insert(key, entry);
    }

    fn forget(&mut self, key: &str) -> bool {
        let gone = self.live.remove(key);
        if let Some(entry) = &gone {
            self.live_bytes -= records::added(key, entry).len() as u64;
        }
        gone.is_some()
    }

    fn append(&mut self, lines: &str) -> Result<(), StoreError> {
        // What is lost here is in `live` and comes back with the next rewriting.
        let Some((mut file, length)) = self.log.take().filter(|(file, _)| is_linked(file)) else {
            return self.rewrite();
        };
        if lines.is_empty() {
            self.log = Some((file, length));
            return Ok(());
        }
        file.write_all(lines.as_bytes())
            .map_err(|source| self.error(RUNNING, source))?;
        let length = length + lines.len() as u64;
        if length > SLACK + 2 * self.live_bytes {
            return self.rewrite();
        }
        self.log = Some((file, length));
        Ok(())
    }

    /// Writes the log anew: only who runs. Those of earlier daemons stay only while they live.
    pub fn rewrite(&mut self) -> Result<(), StoreError> {
        let is_gone = |(key, (who, _)): (&String, &Entry)| key.starts_with('p') && !who.is_alive();
        let gone = self.live.iter().filter(|entry| is_gone(*entry));
        let gone: Vec<String> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.forget(&key);
        }
        let lines = self
            .live
            .iter()
            .map(|(key, entry)| records::added(key, entry));
        let text: String = std::iter::once(HEADER.to_owned()).chain(lines).collect();
        // Not synced: after a power cut nobody on record is alive.
        let file = self.replace(RUNNING, text.as_bytes(), false)?;
        self.log = Some((file, text.len() as u64));
        Ok(())
    }

    // ---- the crash history ------------------------------------------------------------------

    /// Adds crashes to the history, after those that could not be written before. Returns how many of
    /// the oldest unwritten ones were given up.
    pub fn add_crashes(&mut self, lines: impl IntoIterator<Item = String>) -> usize {
        let one_line = |line: String| line.replace(['\n', '\r'], " ") + "\n";
        self.unwritten.extend(lines.into_iter().map(one_line));
        let given_up = self.unwritten.len().saturating_sub(CRASHES);
        self.unwritten.drain(..given_up);
        given_up
    }

    /// Tells whether there are crashes to be written.
    pub fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes the crashes that are not written yet.
    pub fn write_crashes(&mut self) -> Result<(), StoreError> {
        let linked = self.crashes.take().filter(is_linked);
        let file = match linked {
            Some(file) => Ok(file),
            None => self.open_crashes(),
        };
        let written = file.and_then(|mut file| {
            while let Some(line) = self.unwritten.front() {
                add_line(&mut file, line)?;
                self.unwritten.pop_front();
                self.crash_count += 1;
            }
            Ok(file)
        });
        match written {
            Ok(file) => self.crashes = Some(file),
            Err(source) => return Err(self.error(CRASH_HISTORY, source)),
        }
        self.shorten_crashes()
    }

    fn open_crashes(&mut self) -> io::Result<File> {
        let mut file = self.directory()?.append(CRASH_HISTORY)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            add_line(&mut file, "\n")?;
        }
        Ok(file)
    }

    fn shorten_crashes(&mut self) -> Result<(), StoreError> {
        let length = self.crashes.as_ref().and_then(|file| file.metadata().ok());
        let is_long = length.is_some_and(|metadata| metadata.len() > MOST_BYTES);
        if self.crash_count < CRASHES + CRASH_SLACK && !is_long {
            return Ok(());
        }
        let error = |error| self.error(CRASH_HISTORY, io::Error::other(super::with_cause(&error)));
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        let text = dir.read(CRASH_HISTORY, MOST_BYTES).map_err(error)?;
        let mut kept = records::last_crashes(&text.unwrap_or_default());
        if is_long {
            kept.drain(..kept.len() / 2);
        }
        let text: String = kept.iter().map(|crash| format!("{crash}\n")).collect();
        self.crashes = Some(self.replace(CRASH_HISTORY, text.as_bytes(), true)?);
        self.crash_count = kept.len();
        Ok(())
    }

    // ---- the directory ----------------------------------------------------------------------

    /// Sees to it that the directory is where its path leads and has everything in it. Returns whether
    /// something had been removed that was there before.
    pub fn check(&mut self) -> Result<bool, StoreError> {
        let was_there = self.dir.is_some();
        if self.dir.as_ref().is_some_and(|dir| !dir.is_in_place()) {
            self.close();
        }
        let was_marked = self.marker.is_some();
        let mut removed = was_there && self.dir.is_none();
        if !self.marker.as_ref().is_some_and(is_linked) {
            let text = format!("{}\n", self.token);
            self.marker = Some(self.replace(MARKER, text.as_bytes(), true)?);
            removed |= was_marked;
        }
        if self.log.as_ref().is_some_and(|(file, _)| !is_linked(file)) {
            self.log = None;
            removed = true;
        }
        Ok(removed)
    }

    /// Lets go of the directory.
    pub fn close(&mut self) {
        (self.dir, self.log, self.crashes, self.marker) = (None, None, None, None);
    }

    fn directory(&mut self) -> io::Result<&StateDir> {
        if self.dir.is_none() {
            self.dir = Some(StateDir::open(&self.path).map_err(StateDirError::into_io)?);
        }
        self.dir
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&mut self, name: &str, text: &[u8], durable: bool) -> Result<File, StoreError> {
        let written = self
            .directory()
            .and_then(|dir| dir.replace(name, text, durable));
        written.map_err(|source| self.error(name, source))
    }

    fn error(&self, name: &str, source: io::Error) -> StoreError {
        StoreError {
            path: self.path.join(name),
            source,
        }
    }
}

fn load(dir: &StateDir, loaded: &mut Loaded) -> Result<(), StateDirError> {
    let mut read = |name: &str| match dir.read(name, MOST_BYTES) {
        Ok(text) => Ok(text),
        Err(error @ StateDirError::System { .. }) => {
            loaded.problems.push(super::with_cause(&error));
            Ok(Some(Vec::new()))
        }
        Err(error) => Err(error),
    };
    let (marker, running, crashes) = (read(MARKER)?, read(RUNNING)?, read(CRASH_HISTORY)?);
    loaded.earlier_token = marker.as_deref().and_then(token);
    loaded.crashes = records::last_crashes(&crashes.unwrap_or_default());
    match running.as_deref() {
        None => {}
        // An earlier version leaves an empty file when nothing runs; we leave a first line.
        Some([]) => loaded.damage = Some("it is empty".to_owned()),
        Some(text) => {
            let log = records::parse_running(text);
            if log.damaged > 0 {
                let (damaged, lines) = (log.damaged, log.lines);
                loaded.damage = Some(format!("{damaged} of {lines} lines make no sense"));
            }
            loaded.running = log.running;
        }
    }
    loaded.has_record = running.is_some();
    Ok(())
}

/// Returns the token that an earlier daemon has left, if it makes sense.
fn token(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let makes_sense = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    makes_sense.then(|| text.to_owned())
}

/// Adds a line, or, on a full disk, nothing.
fn add_line(file: &mut File, line: &str) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line.as_bytes()).inspect_err(|_| {
        // Half a line is passed over by whoever reads it; but it takes room.
        let _ = file.set_len(before);
    })
}

fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}
