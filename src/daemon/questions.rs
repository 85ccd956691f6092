//! Questions about a daemon that does not run, answered from what it left.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::last_status;
use super::web::to_api;
use crate::config::{Config, LogFormat};
use crate::control::api::{Crash, Last, LogLine};
use crate::observe::CrashHistory;
use crate::os::logs::{self, PastFile, Query};

/// The crash history in `state_dir`; the journal writes it.
const CRASHES: &str = "crashes.jsonl";
/// As much of a file is read; bytes.
const MOST: u64 = 64 * 1024 * 1024;

/// Returns what the last daemon of a config left when it ended, or shortly before it was killed.
#[must_use]
pub fn last(config: &Config) -> Option<Last> {
    let mut text = Vec::new();
    let file = open(&config.daemon.state_dir.join(last_status::FILE))?;
    file.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Returns the crash history that the last daemon of a config left, oldest first; `None` when there is
/// none.
#[must_use]
pub fn crashes(config: &Config) -> Option<Vec<Crash>> {
    let file = open(&config.daemon.state_dir.join(CRASHES));
    if file.is_none() && last(config).is_none() {
        return None;
    }
    let lines = file.map(|file| CrashHistory::load(BufReader::new(file.take(MOST))));
    Some(lines.unwrap_or_default().query(None))
}

/// Returns the last lines in the log files of a config, of one program or of all, oldest first; `None`
/// when there is no such file. Without a name those of programs with a file of their own are left out,
/// as they are while it runs.
#[must_use]
pub fn lines(config: &Config, program: Option<&str>, count: usize) -> Option<Vec<LogLine>> {
    let file = file_of(config, program)?;
    let query = Query {
        program: program.map(str::to_owned),
        lines: count,
    };
    let answer = logs::past(file, query);
    // Not on the thread that asks: it may be one of a runtime, where nothing may block.
    let waiting = std::thread::spawn(move || answer.blocking_recv().unwrap_or_default());
    let lines = waiting.join().unwrap_or_default();
    Some(lines.into_iter().map(to_api).collect())
}

fn file_of(config: &Config, program: Option<&str>) -> Option<PastFile> {
    let named = program.and_then(|name| {
        let name = name.split('/').next()?;
        config.programs.iter().find(|program| program.name == name)
    });
    let daemon_log = config.daemon.log_file.clone();
    let file = match named.and_then(|named| Some((named, named.log_file.clone()?))) {
        Some((named, path)) if Some(&path) != daemon_log.as_ref() => Some(PastFile::Own {
            path,
            program: named.name.clone(),
        }),
        Some(_) | None => Some(PastFile::Daemon {
            path: daemon_log?,
            json: config.daemon.log_format == LogFormat::Json,
        }),
    };
    file.filter(|file| {
        let (PastFile::Own { path, .. } | PastFile::Daemon { path, .. }) = file;
        path.exists()
    })
}

/// Opens a plain file; a link or a pipe that somebody put in its place is none.
fn open(path: &Path) -> Option<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}
