//! Saying something once: as a log line and as an event for whoever follows `/v1/events`.

use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;
use tracing::Level;

use super::text;
use crate::control::api::EventRecord;

/// Something to say, and what of it machines want.
pub(super) struct Telling<'a> {
    pub level: Level,
    /// The display name; empty for the daemon's own.
    pub program: &'a str,
    pub kind: &'static str,
    pub message: String,
    pub facts: Facts<'a>,
}

/// What machines want of a sentence.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub pid: Option<i32>,
    pub run: Option<u32>,
    pub reason: Option<&'a str>,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub cause: Option<&'static str>,
    /// Whatever the sentence measures.
    pub took: Option<Duration>,
    /// Until what comes next.
    pub delay: Option<Duration>,
}

impl Telling<'_> {
    /// Says it in the log alone.
    pub(super) fn log(&self) {
        emit(self);
    }
}

/// Says it.
pub(super) fn tell(what: Telling<'_>, at: SystemTime, events: &broadcast::Sender<EventRecord>) {
    emit(&what);
    if events.receiver_count() > 0 {
        let record = EventRecord {
            at: text::rfc3339(at),
            program: what.program.to_owned(),
            kind: what.kind.to_owned(),
            message: what.message,
        };
        // Nobody listening any more is no failure.
        let _ = events.send(record);
    }
}

fn emit(what: &Telling<'_>) {
    let Facts {
        pid,
        run,
        reason,
        code,
        signal,
        cause,
        took,
        delay,
    } = &what.facts;
    let program = Some(what.program).filter(|name| !name.is_empty());
    // Microseconds are enough, and read better than a binary fraction does.
    let seconds = |d: std::time::Duration| d.as_micros() as f64 / 1e6;
    let took = took.map(seconds);
    let delay = delay.map(seconds);
    let message = &what.message;
    // A call site of `tracing` has one level, so there is one for each.
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: "eternal", $level, program, pid, run, reason, code, signal, cause,
                seconds = took, delay, "{message}"
            )
        };
    }
    match what.level {
        Level::ERROR => at!(Level::ERROR),
        Level::WARN => at!(Level::WARN),
        Level::INFO => at!(Level::INFO),
        Level::DEBUG => at!(Level::DEBUG),
        Level::TRACE => at!(Level::TRACE),
    }
}
