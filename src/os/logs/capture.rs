//! What becomes of the bytes a child wrote: counted, remembered, shown to followers, queued for
//! their file or for the daemon log.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::daemon_log::DaemonLog;
use super::follow::Followers;
use super::format::{self, Origin, Stamp};
use super::ring::{RING_TEXT, Ring};
use super::sink::{Room, Sink, count_lines};
use super::split::{LINE_MAX, Piece, Splitter};
use super::{Counters, Line, Stream, clock};
use crate::supervision::{Id, Run};

/// A program as the handle registered it.
#[derive(Debug)]
pub(super) struct Registered {
    /// Which slot.
    pub id: Id,
    /// How people call it.
    pub name: String,
    /// Its own file; without one its output goes to the daemon log.
    pub file: Option<Arc<Sink>>,
    /// What was captured.
    pub counters: Arc<Counters>,
    /// Its pipes are read as long as somebody has the other end.
    pub lasting: bool,
}

/// A program as the pump knows it.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name and file.
    pub registered: Arc<Registered>,
    /// Its last lines.
    pub ring: Ring,
}

/// One stream of one run.
#[derive(Debug)]
pub(super) struct Capture {
    /// Which life.
    pub run: Run,
    /// Which stream.
    pub stream: Stream,
    splitter: Splitter,
    /// The unfinished line on its way to the program's own file, so that lines of several streams
    /// stay whole.
    held: Vec<u8>,
    /// The beginning of an overlong line is in the file already.
    begun: bool,
}

impl Capture {
    /// Begins with nothing read.
    pub fn new(run: Run, stream: Stream) -> Self {
        Self {
            run,
            stream,
            splitter: Splitter::default(),
            held: Vec::new(),
            begun: false,
        }
    }
}

/// Everything that all captures share.
#[derive(Debug)]
pub(super) struct Capturing {
    /// Where output without a file of its own goes.
    pub log: Arc<DaemonLog>,
    /// Who watches.
    pub followers: Followers,
    stamp: Stamp,
    sequence: u64,
    /// Rendered lines, one buffer for each place of the daemon log.
    rendered: Vec<Vec<u8>>,
}

impl Capturing {
    /// Captures into this log.
    pub fn new(log: Arc<DaemonLog>) -> Self {
        let rendered = log.places().map(|_| Vec::new()).collect();
        Self {
            log,
            followers: Followers::default(),
            stamp: Stamp::default(),
            sequence: 0,
            rendered,
        }
    }

    /// Tells whether all places where the program's output goes take more.
    pub fn room(&self, program: &Program, now: Instant) -> Room {
        match &program.registered.file {
            Some(sink) => sink.room(now),
            None => self
                .log
                .places()
                .map(|place| place.sink.room(now))
                .max()
                .unwrap_or(Room::Free),
        }
    }

    /// Deals with bytes just read.
    pub fn take(
        &mut self,
        program: &mut Program,
        capture: &mut Capture,
        chunk: &[u8],
        now: Instant,
    ) {
        let counters = program.registered.counters.of(capture.stream);
        counters.add(count_lines(chunk), chunk.len() as u64);
        let registered = Arc::clone(&program.registered);
        let followed = self.followers.any(&registered.name);
        if let Some(sink) = &registered.file {
            keep_raw(sink, &registered.counters, capture, chunk, now);
            if !followed {
                self.remember_end(program, capture, chunk);
                return;
            }
        }
        self.lines(program, capture, now, |splitter, tell| {
            splitter.feed(chunk, &mut |piece| tell(piece))
        });
    }

    /// Ends an unfinished line: nothing follows it, or not from this run's main process.
    pub fn finish(&mut self, program: &mut Program, capture: &mut Capture, now: Instant) {
        let registered = Arc::clone(&program.registered);
        if let Some(sink) = &registered.file {
            finish_raw(sink, &registered.counters, capture, now);
        }
        let stream = capture.stream;
        self.lines(program, capture, now, |splitter, tell| {
            splitter.finish(&mut |piece| {
                registered.counters.of(stream).add(1, 0);
                tell(piece);
            });
        });
    }

    /// Remembers only what the ring can hold of a chunk whose lines nobody needs one by one.
    fn remember_end(&mut self, program: &mut Program, capture: &mut Capture, chunk: &[u8]) {
        let mut rest = chunk;
        if chunk.len() > RING_TEXT {
            let window = chunk.len() - RING_TEXT;
            if let Some(end) = memchr::memchr(b'\n', &chunk[window..]) {
                capture.splitter.reset();
                rest = &chunk[window + end + 1..];
            }
        }
        let (at, origin) = (clock::millis(clock::wall()), (capture.run, capture.stream));
        let (ring, sequence) = (&mut program.ring, &mut self.sequence);
        let mut gap = rest.len() < chunk.len();
        capture.splitter.feed(rest, &mut |piece| {
            *sequence += 1;
            ring.push(at, *sequence, origin, piece.bytes);
            if std::mem::take(&mut gap) {
                ring.keep_newest();
            }
        });
    }

    /// Tells every line to the ring, the followers and, without a file, the daemon log.
    fn lines(
        &mut self,
        program: &mut Program,
        capture: &mut Capture,
        now: Instant,
        split: impl FnOnce(&mut Splitter, &mut dyn FnMut(Piece<'_>)),
    ) {
        let at = clock::wall();
        let Program { registered, ring } = program;
        let Self {
            log,
            followers,
            stamp,
            sequence,
            rendered,
        } = self;
        let stamp = stamp.text(at);
        let followed = followers.any(&registered.name);
        let logged = registered.file.is_none();
        let origin = Origin {
            program: &registered.name,
            stream: capture.stream,
        };
        let life = (capture.run, capture.stream);
        split(&mut capture.splitter, &mut |piece| {
            *sequence += 1;
            ring.push(clock::millis(at), *sequence, life, piece.bytes);
            if logged {
                for (place, lines) in log.places().zip(&mut *rendered) {
                    format::output(lines, place.look, stamp, origin, piece);
                }
            }
            if followed {
                followers.tell(&line(at, origin, piece));
            }
        });
        for (index, (place, lines)) in log.places().zip(rendered).enumerate() {
            // A line is lost when its main place loses it; stderr beside a file is a copy.
            let owner = (index == 0).then_some((&registered.counters, capture.stream));
            if !lines.is_empty() {
                queue(&place.sink, &[lines], owner, now);
                lines.clear();
            }
        }
    }
}

fn line(at: SystemTime, origin: Origin<'_>, piece: Piece<'_>) -> Line {
    let line = String::from_utf8_lossy(piece.bytes).into_owned();
    Line {
        at: Some(at),
        program: origin.program.to_owned(),
        stream: origin.stream,
        line,
    }
}

fn queue(
    sink: &Arc<Sink>,
    pieces: &[&[u8]],
    owner: Option<(&Arc<Counters>, Stream)>,
    now: Instant,
) {
    if sink.room(now) == Room::Stalled {
        sink.lose(pieces.iter().map(|piece| count_lines(piece)).sum(), owner);
    } else {
        sink.append(pieces, owner);
    }
}

/// Queues raw bytes up to the last line end and holds the rest back, as long as it is not overlong.
fn keep_raw(
    sink: &Arc<Sink>,
    counters: &Arc<Counters>,
    capture: &mut Capture,
    chunk: &[u8],
    now: Instant,
) {
    let owner = Some((counters, capture.stream));
    let (lines, tail) = chunk.split_at(memchr::memrchr(b'\n', chunk).map_or(0, |end| end + 1));
    if !lines.is_empty() {
        queue(sink, &[&capture.held, lines], owner, now);
        capture.held = Vec::new();
        capture.begun = false;
    }
    if capture.held.len() + tail.len() > LINE_MAX {
        queue(sink, &[&capture.held, tail], owner, now);
        capture.held = Vec::new();
        capture.begun = true;
    } else {
        capture.held.extend_from_slice(tail);
    }
}

/// Gives an unfinished line its end.
pub(super) fn finish_raw(
    sink: &Arc<Sink>,
    counters: &Arc<Counters>,
    capture: &mut Capture,
    now: Instant,
) {
    if !capture.held.is_empty() || capture.begun {
        let held = std::mem::take(&mut capture.held);
        queue(sink, &[&held, b"\n"], Some((counters, capture.stream)), now);
        capture.begun = false;
    }
}
