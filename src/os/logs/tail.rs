//! Earlier lines: from memory, and from the files what memory no longer holds.

mod files;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::capture::Program;
use super::daemon_log::DaemonLog;
use super::opening::own_stream;
use super::sink::Sink;
use super::{Line, Query, follow};
pub(super) use files::Files;
use files::Older;

/// Readers at the same time; whoever asks then gets what memory holds. One whose disk does not
/// answer stays.
const READERS: usize = 8;
static READING: AtomicUsize = AtomicUsize::new(0);

/// A line from memory.
#[derive(Debug)]
struct Remembered {
    line: Line,
    /// Orders lines over all programs.
    sequence: u64,
}

/// One place where lines are kept, and what memory holds of it, oldest first.
#[derive(Debug)]
struct Section {
    files: Files,
    remembered: Vec<Remembered>,
}

/// A query on its way to an answer.
#[derive(Debug)]
pub(super) struct Job {
    query: Query,
    sections: Vec<Section>,
}

/// Tells a replica whatever it is called: the first one of several was `web` while it was alone.
fn identity(name: &str) -> &str {
    name.strip_suffix("/0").unwrap_or(name)
}

/// Returns the name of the program that a replica is of.
fn base(name: &str) -> &str {
    name.split_once('/').map_or(name, |(base, _)| base)
}

impl Job {
    /// Finds what memory holds and where the rest is.
    pub fn new<'a>(
        query: Query,
        log: &DaemonLog,
        programs: impl Iterator<Item = &'a Program> + Clone,
    ) -> Self {
        let means =
            |program: &&Program| follow::means(query.program.as_deref(), &program.registered.name);
        let mut in_daemon_log = Vec::new();
        let mut own: Vec<(&Arc<Sink>, Vec<&Program>)> = Vec::new();
        for program in programs.clone().filter(means) {
            let Some(sink) = &program.registered.file else {
                in_daemon_log.push(program);
                continue;
            };
            match own.iter_mut().find(|(one, _)| Arc::ptr_eq(one, sink)) {
                Some((_, sharers)) => sharers.push(program),
                None => own.push((sink, vec![program])),
            }
        }
        let daemon = Section {
            remembered: remembered(&in_daemon_log, false),
            files: Files::of_daemon(log),
        };
        let own = own.into_iter().map(|(sink, sharers)| {
            let of_sink = |program: &&Program| {
                let file = program.registered.file.as_ref();
                file.is_some_and(|one| Arc::ptr_eq(one, sink))
            };
            own_section(&sharers, programs.clone().filter(of_sink).count())
        });
        Self {
            sections: std::iter::once(daemon).chain(own).collect(),
            query,
        }
    }

    /// Asks files alone.
    pub fn of_files(query: Query, files: impl Iterator<Item = Files>) -> Self {
        let section = |files| Section {
            remembered: Vec::new(),
            files,
        };
        Self {
            sections: files.map(section).collect(),
            query,
        }
    }

    /// Answers from memory, or from a thread of its own when files have to be read.
    pub fn answer(self, reply: oneshot::Sender<Vec<Line>>) {
        if self.sections.iter().all(|section| self.is_enough(section)) {
            let _ = reply.send(self.lines(false));
            return;
        }
        if READING.fetch_add(1, Ordering::Relaxed) >= READERS {
            READING.fetch_sub(1, Ordering::Relaxed);
            let _ = reply.send(self.lines(false));
            return;
        }
        let read = move || {
            let _ = reply.send(self.lines(true));
            READING.fetch_sub(1, Ordering::Relaxed);
        };
        let thread = std::thread::Builder::new().name("log-tail".into());
        // Without a thread the reply is dropped, which the asker sees.
        if thread.spawn(read).is_err() {
            READING.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Tells whether memory answers for a section alone.
    fn is_enough(&self, section: &Section) -> bool {
        match &section.files {
            Files::None => true,
            Files::Own { .. } => section.remembered.len() >= self.query.lines,
            Files::Daemon(..) => {
                let counts = count(&section.remembered);
                // Of all there may be some that are not there any more.
                self.query.program.is_some()
                    && !counts.is_empty()
                    && counts.values().all(|count| *count >= self.query.lines)
            }
        }
    }

    fn lines(&self, from_files: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for section in &self.sections {
            let older = if from_files && !self.is_enough(section) {
                section.files.read(&self.query, &count(&section.remembered))
            } else {
                Vec::new()
            };
            // A line without a time came after those before it in its file.
            let mut after = None;
            for line in section.merge(older, self.query.lines) {
                after = line.at.or(after);
                lines.push((after, line));
            }
        }
        lines.sort_by_key(|(after, _)| *after);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

/// What memory holds of programs, oldest first. `whole`: only as far as it holds every line that any
/// of them wrote.
fn remembered(programs: &[&Program], whole: bool) -> Vec<Remembered> {
    let mut lines = Vec::new();
    let mut begins = 0;
    for program in programs {
        let before = lines.len();
        let name = &program.registered.name;
        lines.extend(program.ring.newest().map(|(entry, line)| Remembered {
            sequence: entry.sequence,
            line: Line {
                at: Some(UNIX_EPOCH + Duration::from_millis(entry.at)),
                program: name.clone(),
                stream: entry.stream,
                line,
            },
        }));
        if program.ring.is_forgetful() && lines.len() > before {
            begins = begins.max(lines[lines.len() - 1].sequence);
        }
    }
    lines.sort_by_key(|line| line.sequence);
    if whole {
        lines.retain(|line| line.sequence >= begins);
    }
    lines
}

/// A file that several programs share cannot say whose a line is: it is asked only for replicas of
/// one program, all of which are meant.
fn own_section(sharers: &[&Program], all: usize) -> Section {
    let name = &sharers[0].registered.name;
    let one = |program: &&Program| base(&program.registered.name) == base(name);
    let files = match &sharers[0].registered.file {
        // What went to a stream of ours cannot be read again.
        Some(sink) if own_stream(sink.path()).is_some() => Files::None,
        Some(sink) if sharers.len() == all && sharers.iter().all(one) => Files::Own {
            path: sink.path().to_owned(),
            label: if all == 1 { name.as_str() } else { base(name) }.to_owned(),
        },
        _ => Files::None,
    };
    let whole = matches!(files, Files::Own { .. });
    Section {
        remembered: remembered(sharers, whole),
        files,
    }
}

/// Counts what memory holds of each.
fn count(remembered: &[Remembered]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for one in remembered {
        *counts
            .entry(identity(&one.line.program).to_owned())
            .or_default() += 1;
    }
    counts
}

impl Section {
    /// Puts older lines before the remembered ones, each line once, the last ones of each.
    fn merge(&self, older: Vec<Older>, most: usize) -> Vec<Line> {
        // Where replicas share a file it is one row of lines.
        let shared = matches!(self.files, Files::Own { .. });
        let key = |line: &Line| match shared {
            true => String::new(),
            false => identity(&line.program).to_owned(),
        };
        let mut kept: HashMap<String, Vec<Older>> = HashMap::new();
        for one in older {
            kept.entry(key(&one.line)).or_default().push(one);
        }
        let mut newer: HashMap<String, Vec<&Remembered>> = HashMap::new();
        for one in &self.remembered {
            newer.entry(key(&one.line)).or_default().push(one);
        }
        for (key, newer) in &mut newer {
            if let Some(kept) = kept.get_mut(key) {
                self.join(kept, newer);
            }
        }
        let mut lines = Vec::new();
        for (key, kept) in &mut kept {
            let newer = newer.get(key).map_or(0, Vec::len);
            let room = most.saturating_sub(newer).min(kept.len());
            lines.extend(kept.drain(kept.len() - room..));
        }
        lines.sort_by_key(|one| one.position);
        let older = lines.into_iter().map(|one| one.line);
        let mut newest: Vec<&Remembered> = newer
            .into_values()
            .flat_map(|mut lines| lines.split_off(lines.len().saturating_sub(most)))
            .collect();
        newest.sort_by_key(|one| one.sequence);
        older
            .chain(newest.into_iter().map(|one| one.line.clone()))
            .collect()
    }

    /// Leaves each line in one of the two.
    fn join(&self, kept: &mut Vec<Older>, newer: &mut Vec<&Remembered>) {
        let same =
            |one: &Older, line: &Remembered| self.files.same(&one.line.line, &line.line.line);
        // The file ends with what memory begins with; lines still on their way to it are only there.
        let both = (1..=kept.len().min(newer.len())).rev().find(|both| {
            let end = &kept[kept.len() - both..];
            end.iter().zip(&*newer).all(|(one, line)| same(one, line))
        });
        if let Some(both) = both {
            kept.truncate(kept.len() - both);
            return;
        }
        // Others, whom memory has forgotten, have written to the file, too.
        let mut end = kept.len();
        let mut only = Vec::new();
        for line in newer.drain(..).rev() {
            match kept[..end].iter().rposition(|one| same(one, line)) {
                Some(at) => {
                    kept[at].line = line.line.clone();
                    end = at;
                }
                None => only.push(line),
            }
        }
        only.reverse();
        *newer = only;
    }
}
