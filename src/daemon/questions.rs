//! Questions about a daemon that does not run, answered from what it left.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::last_status;
use super::web::to_api;
use crate::config::{self, Config, LogFormat};
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
/// when there is no such file.
#[must_use]
pub fn lines(config: &Config, program: Option<&str>, count: usize) -> Option<Vec<LogLine>> {
    let files = files_of(config, program);
    if files.is_empty() {
        return None;
    }
    let query = Query {
        program: program.map(str::to_owned),
        lines: count,
    };
    let answer = logs::past(files, query);
    // Not on the thread that asks: it may be one of a runtime, where nothing may block.
    let waiting = std::thread::spawn(move || answer.blocking_recv().unwrap_or_default());
    let lines = waiting.join().unwrap_or_default();
    Some(lines.into_iter().map(to_api).collect())
}

/// Finds the files that may have lines of a program, or of any.
fn files_of(config: &Config, program: Option<&str>) -> Vec<PastFile> {
    let name = program.and_then(|name| name.split('/').next());
    let daemon_log = config.daemon.log_file.as_ref();
    let mut files: Vec<PastFile> = Vec::new();
    let mut in_daemon_log = name.is_none();
    let meant = |program: &&config::Program| name.is_none_or(|name| program.name == name);
    for program in config.programs.iter().filter(meant) {
        match program
            .log_file
            .as_ref()
            .filter(|path| Some(*path) != daemon_log)
        {
            Some(path) => files.push(PastFile::Own {
                path: path.clone(),
                program: program.name.clone(),
            }),
            None => in_daemon_log = true,
        }
    }
    if in_daemon_log && let Some(path) = daemon_log {
        files.push(PastFile::Daemon {
            path: path.clone(),
            json: config.daemon.log_format == LogFormat::Json,
        });
    }
    files.retain(|file| {
        let (PastFile::Own { path, .. } | PastFile::Daemon { path, .. }) = file;
        path.exists()
    });
    files
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
