//! Earlier lines: from memory first, then from the files.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::capture::Program;
use super::daemon_log::DaemonLog;
use super::format::{self, Look};
use super::split::Splitter;
use super::{Line, Query, Stream, follow, rotate};

/// A line from memory.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The line.
    pub line: Line,
    /// Orders lines over all programs.
    pub sequence: u64,
}

/// The files that hold the older lines of a query.
#[derive(Debug)]
pub(super) enum Files {
    /// Memory is all there is.
    None,
    /// The daemon log; lines of programs with their own file are not in it.
    Daemon(PathBuf, Look),
    /// The file of one program. It holds neither times nor streams: lines are stamped with the
    /// file's last change and called stdout.
    Own(PathBuf, String),
}

/// A query on its way to an answer.
#[derive(Debug)]
pub(super) struct Job {
    /// What is asked.
    pub query: Query,
    /// What memory holds of it, oldest first.
    pub remembered: Vec<Remembered>,
    /// Where the rest is.
    pub files: Files,
}

/// Returns what memory holds of a program.
pub(super) fn remembered(program: &Program) -> Vec<Remembered> {
    let name = &program.registered.name;
    let line = |(entry, line): (super::ring::Entry, String)| Remembered {
        sequence: entry.sequence,
        line: Line {
            at: UNIX_EPOCH + Duration::from_millis(entry.at),
            program: name.clone(),
            stream: entry.stream,
            line,
        },
    };
    program.ring.newest().map(line).collect()
}

impl Files {
    /// Chooses where older lines of these programs are. A file that several programs share cannot
    /// say whose a line is, so it is not asked.
    pub fn choose<'a>(
        log: &DaemonLog,
        meant: &[&Program],
        all: impl Iterator<Item = &'a Program>,
    ) -> Self {
        if let [only] = meant
            && let Some((path, sink)) = &only.registered.file
        {
            let shares = |other: &&Program| {
                other
                    .registered
                    .file
                    .as_ref()
                    .is_some_and(|(_, one)| Arc::ptr_eq(one, sink))
            };
            return match all.filter(shares).count() {
                1 => Self::Own(path.clone(), only.registered.name.clone()),
                _ => Self::None,
            };
        }
        match (&log.path, &log.file) {
            (Some(path), Some(place)) => Self::Daemon(path.clone(), place.look),
            _ => Self::None,
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Daemon(path, _) | Self::Own(path, _) => Some(path),
        }
    }

    fn parse(&self, text: &[u8], changed: SystemTime) -> Option<Line> {
        match self {
            Self::None => None,
            Self::Own(_, program) => {
                let line = String::from_utf8_lossy(text).into_owned();
                Some(Line {
                    at: changed,
                    program: program.clone(),
                    stream: Stream::Stdout,
                    line,
                })
            }
            Self::Daemon(_, Look::Json) => parse_json(text),
            Self::Daemon(..) => parse_text(std::str::from_utf8(text).ok()?),
        }
    }

    /// Tells whether a line of the file is one that memory holds too.
    fn same(&self, kept: &str, remembered: &str) -> bool {
        let mut wanted = remembered.as_bytes().to_vec();
        if let Self::Daemon(_, Look::Text) = self {
            wanted.clear();
            format::escape(&mut wanted, remembered.as_bytes());
        }
        kept.as_bytes() == wanted
            || (remembered.len() >= 4000 && kept.as_bytes().starts_with(&wanted[..4000]))
    }
}

/// Answers from memory, or from a thread of its own when files have to be read.
pub(super) fn answer(job: Job, reply: oneshot::Sender<Vec<Line>>) {
    if job.remembered.len() >= job.query.lines || job.files.path().is_none() {
        let _ = reply.send(last(
            job.remembered.into_iter().map(|one| one.line).collect(),
            job.query.lines,
        ));
        return;
    }
    let read = move || {
        let older = older(&job);
        let _ = reply.send(merge(&job, older));
    };
    // Without a thread the reply is dropped, which the asker sees.
    let _ = std::thread::Builder::new()
        .name("log-tail".into())
        .spawn(read);
}

fn last(mut lines: Vec<Line>, count: usize) -> Vec<Line> {
    lines.drain(..lines.len().saturating_sub(count));
    lines
}

/// How often files that are rotated or compressed meanwhile are read again. Under a flood of lines
/// the last reading has to do.
const READINGS: usize = 8;

/// Reads the newest files until there are enough lines, oldest first.
fn older(job: &Job) -> VecDeque<Line> {
    let Some(path) = job.files.path() else {
        return VecDeque::new();
    };
    let mut files = all_of(path);
    for _ in 1..READINGS {
        let lines = newest(job, &files);
        let now = all_of(path);
        if now == files {
            return lines;
        }
        files = now;
    }
    newest(job, &files)
}

/// Returns the file and its rotated ones that exist, newest first, each with its inode: a name may
/// come to mean another file.
fn all_of(path: &Path) -> Vec<(PathBuf, u64)> {
    /// More than any daemon keeps: what is not there is not found.
    const ALL: u32 = 1000;
    std::iter::once(path.to_owned())
        .chain(rotate::rotated(path, ALL))
        .filter_map(|file| Some((file.clone(), file.metadata().ok()?.ino())))
        .collect()
}

fn newest(job: &Job, files: &[(PathBuf, u64)]) -> VecDeque<Line> {
    let wanted = job.query.lines.saturating_add(job.remembered.len());
    let mut lines = VecDeque::new();
    for (file, _) in files {
        let missing = wanted - lines.len();
        if missing == 0 {
            break;
        }
        if let Ok(found) = last_of(file, job, missing) {
            found
                .into_iter()
                .rev()
                .for_each(|line| lines.push_front(line));
        }
    }
    lines
}

fn last_of(path: &Path, job: &Job, count: usize) -> io::Result<VecDeque<Line>> {
    let file = File::open(path)?;
    let changed = file.metadata()?.modified()?;
    let first = job.remembered.first().map_or(changed, |one| one.line.at);
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let mut source: Box<dyn Read> = if packed {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut found = VecDeque::new();
    let mut tell = |piece: super::split::Piece<'_>| {
        let line = job.files.parse(piece.bytes, changed.min(first));
        if let Some(line) =
            line.filter(|line| follow::means(job.query.program.as_deref(), &line.program))
        {
            if found.len() == count {
                found.pop_front();
            }
            found.push_back(line);
        }
    };
    let mut splitter = Splitter::default();
    let mut block = vec![0; 64 * 1024];
    loop {
        match source.read(&mut block)? {
            0 => break,
            length => splitter.feed(&block[..length], &mut tell),
        }
    }
    splitter.finish(&mut tell);
    Ok(found)
}

/// Puts older lines before the remembered ones, each line once.
fn merge(job: &Job, older: VecDeque<Line>) -> Vec<Line> {
    let mut older: Vec<Option<Line>> = older.into_iter().map(Some).collect();
    let mut programs: HashMap<&str, Vec<&str>> = HashMap::new();
    for one in &job.remembered {
        programs
            .entry(&one.line.program)
            .or_default()
            .push(&one.line.line);
    }
    for (program, remembered) in programs {
        let kept: Vec<usize> = (0..older.len())
            .filter(|index| {
                older[*index]
                    .as_ref()
                    .is_some_and(|line| line.program == program)
            })
            .collect();
        let text = |index: usize| older[index].as_ref().map_or("", |line| line.line.as_str());
        // The file ends with what memory begins with; lines still on their way to it are only there.
        let both = (1..=kept.len().min(remembered.len())).rev().find(|both| {
            let end = &kept[kept.len() - both..];
            end.iter()
                .zip(&remembered)
                .all(|(index, line)| job.files.same(text(*index), line))
        });
        for index in &kept[kept.len() - both.unwrap_or(0)..] {
            older[*index] = None;
        }
    }
    let newer = job.remembered.iter().map(|one| one.line.clone());
    let mut lines: Vec<Line> = older.into_iter().flatten().chain(newer).collect();
    lines.sort_by_key(|line| line.at);
    last(lines, job.query.lines)
}

fn parse_text(text: &str) -> Option<Line> {
    let (at, rest) = text.split_once(' ')?;
    let (stream, rest) = rest.split_at_checked(6)?;
    let stream = match stream {
        "OUT   " => Stream::Stdout,
        "ERR   " => Stream::Stderr,
        _ => return None,
    };
    let (program, line) = rest.split_once(": ")?;
    Some(Line {
        at: format::parse_rfc3339(at)?,
        program: program.to_owned(),
        stream,
        line: line.to_owned(),
    })
}

fn parse_json(text: &[u8]) -> Option<Line> {
    let object: serde_json::Value = serde_json::from_slice(text).ok()?;
    let field = |name: &str| object.get(name)?.as_str();
    let stream = match field("stream")? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Some(Line {
        at: format::parse_rfc3339(field("timestamp")?)?,
        program: field("program")?.to_owned(),
        stream,
        line: field("message")?.to_owned(),
    })
}
