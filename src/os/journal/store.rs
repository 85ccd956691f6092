//! The files of the state directory and their formats.
//!
//! `running` is a log of lines `+ KEY IDENTITY NAME` and `- KEY`; later lines win. Keys of earlier
//! daemons begin with `p`. `crashes.jsonl` has one JSON text a line.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::os::identity::Identity;
use crate::os::journal::Loaded;

/// The log of who runs is rewritten when it is this much longer than what it says.
const SLACK: u64 = 64 * 1024;
/// Crashes kept.
pub(super) const CRASHES: usize = 1000;
/// Crashes on top of those before the file is rewritten.
const CRASH_SLACK: usize = 250;
/// As much of a crash history is read; a longer one is cut at its beginning.
const CRASH_BYTES: u64 = 16 * 1024 * 1024;

/// A file of the state directory could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

impl StoreError {
    /// Returns the cause, which the message leaves out.
    pub fn cause(&self) -> &io::Error {
        &self.source
    }
}

pub(super) struct Store {
    dir: PathBuf,
    /// What the log of who runs has to say, and how long it is; `None` when it has to be rewritten.
    live: BTreeMap<String, (Identity, String)>,
    log: Option<(File, u64)>,
    crashes: Option<File>,
    crash_count: usize,
}

impl Store {
    pub fn open(dir: &Path) -> (Self, Loaded) {
        // A failure shows, and is told, at the first write.
        let _ = fs::create_dir_all(dir);
        let running = parse_running(&read_tail(&dir.join("running"), CRASH_BYTES));
        let crashes = last_crashes(&dir.join("crashes.jsonl"));
        let live = running.iter().filter(|(identity, _)| identity.is_alive());
        let live = live
            .enumerate()
            .map(|(n, entry)| (format!("p{n}"), entry.clone()))
            .collect();
        let store = Self {
            dir: dir.to_owned(),
            live,
            log: None,
            crashes: None,
            crash_count: crashes.len(),
        };
        (
            store,
            Loaded {
                marker: marker(dir),
                running,
                crashes,
            },
        )
    }

    pub fn running(&mut self, key: String, who: Identity, name: String) -> Result<(), StoreError> {
        let line = added(&key, &who, &name);
        self.live.insert(key, (who, name));
        self.log(&line)
    }

    pub fn ended(&mut self, key: &str) -> Result<(), StoreError> {
        match self.live.remove(key) {
            Some(_) => self.log(&format!("- {key}\n")),
            None => Ok(()),
        }
    }

    fn log(&mut self, line: &str) -> Result<(), StoreError> {
        // What is lost here is in `live` and comes back with the next rewriting.
        let Some((mut file, length)) = self.log.take() else {
            return self.compact_running();
        };
        let path = self.dir.join("running");
        file.write_all(line.as_bytes())
            .map_err(|source| StoreError { path, source })?;
        let length = length + line.len() as u64;
        if length > SLACK + self.text().len() as u64 {
            return self.compact_running();
        }
        self.log = Some((file, length));
        Ok(())
    }

    fn text(&self) -> String {
        self.live
            .iter()
            .map(|(key, (who, name))| added(key, who, name))
            .collect()
    }

    /// Writes the log anew: only who runs. Those of earlier daemons stay only while they live.
    pub fn compact_running(&mut self) -> Result<(), StoreError> {
        self.live
            .retain(|key, (identity, _)| !key.starts_with('p') || identity.is_alive());
        let text = self.text();
        let path = self.dir.join("running");
        match replace(&path, text.as_bytes()) {
            Ok(file) => self.log = Some((file, text.len() as u64)),
            Err(source) => return Err(StoreError { path, source }),
        }
        Ok(())
    }

    pub fn crash(&mut self, line: &str) -> Result<(), StoreError> {
        let path = self.dir.join("crashes.jsonl");
        self.add_crash(&path, line).map_err(|source| {
            // The next one opens the file again, and finds a torn line if there is one.
            self.crashes = None;
            StoreError { path, source }
        })
    }

    fn add_crash(&mut self, path: &Path, line: &str) -> io::Result<()> {
        let mut file = match self.crashes.take() {
            Some(file) => file,
            None => open_at_line_start(path)?,
        };
        let line = format!("{}\n", line.replace(['\n', '\r'], " "));
        file.write_all(line.as_bytes())?;
        self.crash_count += 1;
        if self.crash_count >= CRASHES + CRASH_SLACK {
            let kept = last_crashes(path);
            let text: String = kept.iter().map(|crash| format!("{crash}\n")).collect();
            file = replace(path, text.as_bytes())?;
            self.crash_count = kept.len();
        }
        self.crashes = Some(file);
        Ok(())
    }
}

fn added(key: &str, identity: &Identity, name: &str) -> String {
    format!("+ {key} {identity} {name}\n")
}

/// Reads a log of who runs; lines that make no sense are passed over, and so is a torn last one.
fn parse_running(text: &[u8]) -> Vec<(Identity, String)> {
    let text = String::from_utf8_lossy(text);
    let mut live = BTreeMap::new();
    for line in text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
    {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("+"), Some(key), Some(identity), Some(name)) => {
                if let Ok(identity) = identity.parse() {
                    live.insert(key, (identity, name.to_owned()));
                }
            }
            (Some("-"), Some(key), None, None) => drop(live.remove(key)),
            _ => {}
        }
    }
    live.into_values().collect()
}

fn last_crashes(path: &Path) -> Vec<String> {
    let text = read_tail(path, CRASH_BYTES);
    let text = String::from_utf8_lossy(&text);
    let json = |line: &&str| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let mut crashes: Vec<String> = text.lines().filter(json).map(str::to_owned).collect();
    crashes.drain(..crashes.len().saturating_sub(CRASHES));
    crashes
}

/// Reads the end of a file, as far as possible.
fn read_tail(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // O_NONBLOCK: a pipe in its place must not hang the start.
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    if let Ok(mut file) = options {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file
            .seek(SeekFrom::Start(length.saturating_sub(limit)))
            .and_then(|_| file.take(limit).read_to_end(&mut bytes));
    }
    bytes
}

/// Writes a file whole or not at all, and returns it open for appending.
fn replace(path: &Path, text: &[u8]) -> io::Result<File> {
    let new = path.with_extension("new");
    let written = private(
        &new,
        OpenOptions::new().write(true).create(true).truncate(true),
    )
    .and_then(|mut file| file.write_all(text))
    .and_then(|()| private(&new, OpenOptions::new().append(true)))
    .and_then(|file| fs::rename(&new, path).map(|()| file));
    if written.is_err() {
        // It may be what fills the disk.
        let _ = fs::remove_file(&new);
    }
    written
}

fn open_at_line_start(path: &Path) -> io::Result<File> {
    let mut file = private(
        path,
        OpenOptions::new().read(true).append(true).create(true),
    )?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    options.mode(0o600).custom_flags(flags).open(path)
}

/// Returns the installation's token, making one where there is none that makes sense.
fn marker(dir: &Path) -> String {
    let path = dir.join("marker");
    let text = read_tail(&path, 64);
    let found = std::str::from_utf8(&text)
        .map(str::trim)
        .unwrap_or_default();
    if found.len() == 16 && found.bytes().all(|b| b.is_ascii_hexdigit()) {
        return found.to_owned();
    }
    let mut random = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    if read.is_err() {
        random = fastrand::u64(..).to_ne_bytes();
    }
    let marker = format!("{:016x}", u64::from_ne_bytes(random));
    // Without a file the token lives as long as the daemon; that writing fails is told soon enough.
    let _ = replace(&path, format!("{marker}\n").as_bytes()).and_then(|file| file.sync_all());
    marker
}
