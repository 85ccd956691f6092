//! Lines from log files and their rotated ones.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::chain::{self, Inode};
use super::super::daemon_log::DaemonLog;
use super::super::format::{self, Look};
use super::super::ring::TEXT_MAX;
use super::super::split::{Piece, Splitter};
use super::super::{Line, Query, Stream, follow};
use super::identity;
use crate::os::places::Directory;

/// How often files that are rotated or compressed meanwhile are read again. Under a flood of lines
/// the last reading has to do.
const READINGS: usize = 8;
/// After so many numbers without a file there are no more.
const GAP: u32 = 100;
/// Files that are read for lines of everybody: a program that says little must not have the whole
/// history read.
const FILES_FOR_ALL: usize = 2;

/// The files that hold older lines.
#[derive(Debug)]
pub(in crate::os::logs) enum Files {
    /// Memory is all there is.
    None,
    /// The daemon log; lines of programs with their own file are not in it.
    Daemon(PathBuf, Look),
    /// The file of one program, or of all its replicas. It holds neither times nor streams nor
    /// names: lines have no time and are called stdout.
    Own {
        /// Where.
        path: PathBuf,
        /// Whose.
        label: String,
    },
}

/// A line from a file.
#[derive(Debug)]
pub(in crate::os::logs) struct Older {
    /// The line.
    pub line: Line,
    /// Orders lines over all files: a smaller one is older.
    pub position: i64,
}

/// What a reading has found of each, oldest first.
type Found = HashMap<String, VecDeque<Older>>;

impl Files {
    /// The daemon log, if there is one.
    pub fn of_daemon(log: &DaemonLog) -> Self {
        match (&log.path, &log.file) {
            (Some(path), Some(place)) => Self::Daemon(path.clone(), place.look),
            _ => Self::None,
        }
    }

    /// Reads the newest files until there are enough lines besides those that memory holds.
    pub(super) fn read(&self, query: &Query, remembered: &HashMap<String, usize>) -> Vec<Older> {
        let (Self::Daemon(path, _) | Self::Own { path, .. }) = self else {
            return Vec::new();
        };
        // A place that cannot be read has no lines to show.
        let Ok((directory, name)) = Directory::of(path) else {
            return Vec::new();
        };
        let reading = Reading {
            files: self,
            query,
            remembered,
            directory,
        };
        let mut files = reading.all_of(&name);
        for _ in 1..READINGS {
            let lines = reading.newest(&files);
            let now = reading.all_of(&name);
            if now == files {
                return lines;
            }
            files = now;
        }
        reading.newest(&files)
    }

    fn parse(&self, text: &[u8]) -> Option<Line> {
        match self {
            Self::None => None,
            Self::Own { label, .. } => Some(Line {
                at: None,
                program: label.clone(),
                stream: Stream::Stdout,
                line: String::from_utf8_lossy(text).into_owned(),
            }),
            Self::Daemon(_, Look::Json) => parse_json(text),
            Self::Daemon(..) => parse_text(std::str::from_utf8(text).ok()?),
        }
    }

    /// Tells whether a line of the file is one that memory holds too, or the beginning of.
    pub fn same(&self, kept: &str, remembered: &str) -> bool {
        /// What memory has cut may end in the middle of a letter.
        const LETTER: usize = 4;
        let mut wanted = remembered.as_bytes().to_vec();
        if let Self::Daemon(_, Look::Text) = self {
            wanted.clear();
            format::escape(&mut wanted, remembered.as_bytes());
        }
        let cut = remembered.len() + LETTER >= TEXT_MAX;
        let beginning = &wanted[..wanted.len().min(TEXT_MAX - 2 * LETTER)];
        kept.as_bytes() == wanted || (cut && kept.as_bytes().starts_with(beginning))
    }
}

struct Reading<'a> {
    files: &'a Files,
    query: &'a Query,
    remembered: &'a HashMap<String, usize>,
    directory: Directory,
}

impl Reading<'_> {
    /// Returns the file and its rotated ones that exist, newest first, each with its inode. One that
    /// is both plain and compressed, as for a moment each is, counts once.
    fn all_of(&self, name: &OsStr) -> Vec<(OsString, Inode)> {
        let look = |name: OsString| {
            let found = self.directory.look(&name).ok()??;
            Some((name, chain::inode(&found)))
        };
        let mut all: Vec<_> = look(name.to_owned()).into_iter().collect();
        let mut missing = 0;
        for number in 1..=chain::MOST {
            let rotated = |compressed| chain::rotated_name(name, number, compressed);
            match look(rotated(false)).or_else(|| look(rotated(true))) {
                Some(found) => (missing, _) = (0, all.push(found)),
                None => missing += 1,
            }
            if missing > GAP {
                break;
            }
        }
        all
    }

    fn newest(&self, files: &[(OsString, Inode)]) -> Vec<Older> {
        let mut found = Found::new();
        let most = match self.query.program {
            Some(_) => files.len(),
            None => files.len().min(FILES_FOR_ALL),
        };
        for (age, (file, _)) in files[..most].iter().enumerate() {
            if age > 0 && self.is_enough(&found) {
                break;
            }
            // One that cannot be read is passed over.
            let _ = self.read(file, age, &mut found);
        }
        found.into_values().flatten().collect()
    }

    /// How many lines of one are wanted, those that memory holds too included.
    fn wanted(&self, key: &str) -> usize {
        let held = match self.files {
            Files::Own { .. } => self.remembered.values().sum(),
            Files::None | Files::Daemon(..) => self.remembered.get(key).copied().unwrap_or(0),
        };
        self.query.lines.saturating_add(held)
    }

    fn is_enough(&self, found: &Found) -> bool {
        let has = |key: &String| found.get(key).map_or(0, VecDeque::len) >= self.wanted(key);
        !found.is_empty()
            && found.keys().chain(self.remembered.keys()).all(|key| {
                matches!(self.files, Files::Own { .. }) && !found.contains_key(key) || has(key)
            })
    }

    /// Reads a file: of each the last lines that are still missing come before those found.
    fn read(&self, name: &OsStr, age: usize, found: &mut Found) -> io::Result<()> {
        let file = self.directory.file(name)?;
        let packed = Path::new(name).extension().is_some_and(|end| end == "gz");
        let mut source: Box<dyn Read> = if packed {
            Box::new(flate2::read::GzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut position = -(i64::try_from(age).unwrap_or(0) << 40);
        let mut here = Found::new();
        let mut tell = |piece: Piece<'_>| {
            position += 1;
            let line = self.files.parse(piece.bytes);
            let meant = |line: &Line| follow::means(self.query.program.as_deref(), &line.program);
            let Some(line) = line.filter(meant) else {
                return;
            };
            let key = identity(&line.program).to_owned();
            let before = found.get(&key).map_or(0, VecDeque::len);
            let missing = self.wanted(&key).saturating_sub(before);
            let lines = here.entry(key).or_default();
            lines.push_back(Older { line, position });
            if lines.len() > missing {
                lines.pop_front();
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
        for (key, mut lines) in here {
            let newer = found.entry(key).or_default();
            lines.append(newer);
            *newer = lines;
        }
        Ok(())
    }
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
        at: Some(format::parse_rfc3339(at)?),
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
        at: Some(format::parse_rfc3339(field("timestamp")?)?),
        program: field("program")?.to_owned(),
        stream,
        line: field("message")?.to_owned(),
    })
}
