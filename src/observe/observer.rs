//! The observer: the one place that says what an event means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{broadcast, watch};
use tracing::Level;

use super::ledger::Ledger;
use super::published::Published;
use super::record::{Record, started_sentence, unknown};
use super::resources::{OwnSampler, Resources, Sampler};
use super::spans::Spans;
use super::telling::{Facts, Telling, tell};
use super::{About, Identity, ProcessMetrics, Reader, text, why};
use crate::control::api;
use crate::supervision::{Cause, Event, FailureKind, Id, View};

/// Followers of `/v1/events` that are this many events behind lose the oldest.
const EVENTS_KEPT: usize = 256;

/// What an observer is made of.
pub struct Setup {
    /// What does not change while the daemon lives.
    pub identity: Identity,
    /// Reads what programs use.
    pub usage: Sampler,
    /// Reads what the daemon itself uses.
    pub own_usage: OwnSampler,
}

/// Turns events into counters, log lines, crash records and the published snapshot. Owned by the
/// loop; log lines go through the `tracing` dispatcher of the calling thread ([`super::log`]).
pub struct Observer {
    pub(super) records: BTreeMap<Id, Record>,
    changed: BTreeSet<Id>,
    pub(super) draft: Published,
    published: watch::Sender<Arc<Published>>,
    pub(super) events: broadcast::Sender<api::EventRecord>,
    pub(super) metrics: ProcessMetrics,
    pub(super) reader: Reader,
    spans: Option<Spans>,
    /// Open from the first word of the end to the last; what ends in between belongs to it.
    shutdown: tracing::Span,
}

impl Observer {
    /// Makes one that knows no program.
    ///
    /// # Errors
    ///
    /// When the exporter of the process-wide metrics refuses its settings.
    pub fn new(setup: Setup) -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let metrics = ProcessMetrics::new(&setup.identity)?;
        let draft = Published::new(Arc::new(setup.identity));
        let (published, receiver) = watch::channel(Arc::new(draft.clone()));
        let resources = Arc::new(Resources::new(setup.usage));
        Ok(Self {
            records: BTreeMap::new(),
            changed: BTreeSet::new(),
            reader: Reader::new(receiver, resources, setup.own_usage, metrics.clone()),
            draft,
            published,
            events: broadcast::channel(EVENTS_KEPT).0,
            metrics,
            spans: None,
            shutdown: tracing::Span::none(),
        })
    }

    /// Records spans from here on.
    pub fn trace(&mut self, spans: Spans) {
        self.spans = Some(spans);
    }

    /// Begins the span of a start that is about to be tried; returns what the program finds in
    /// `TRACEPARENT`, or nothing without tracing.
    pub fn try_start(&mut self, id: Id) -> Option<String> {
        let about = &self.records.get(&id)?.about;
        Some(
            self.spans
                .as_mut()?
                .try_start((id, about), SystemTime::now()),
        )
    }

    /// Notes which limits a replica should have and has not; published with its next change.
    pub fn lacks(&mut self, id: Id, limits: Option<&str>) {
        if let Some(record) = self.records.get_mut(&id) {
            record.lacking = limits.map(Into::into);
        }
    }

    /// Opens the span of the daemon's end.
    pub(super) fn shutting_down(&mut self, reason: &str) {
        if self.spans.is_some() {
            self.shutdown = tracing::info_span!(target: "eternal", "shutdown", reason);
        }
    }

    /// Closes it.
    pub(super) fn shut_down(&mut self) {
        self.shutdown = tracing::Span::none();
    }

    /// Returns the span of the daemon's end; a disabled one before it.
    pub(super) fn shutdown(&self) -> tracing::Span {
        self.shutdown.clone()
    }

    /// Returns the snapshot that [`Self::publish`] updates.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Returns what makes a status, a page or a scrape of the snapshot, on any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Returns the process-wide metrics.
    #[must_use]
    pub fn metrics(&self) -> ProcessMetrics {
        self.metrics.clone()
    }

    /// Why a program is in its state, in a sentence, as published; empty for an unknown one.
    #[must_use]
    pub fn why(&self, id: Id) -> String {
        self.draft
            .program(id)
            .map(|program| why::why(program, &self.draft))
            .unwrap_or_default()
    }

    /// Returns where every event is told, with the sentence of the log.
    #[must_use]
    pub fn events(&self) -> broadcast::Sender<api::EventRecord> {
        self.events.clone()
    }

    /// Begins to observe a replica, or learns that its configuration changed: counters stay.
    pub fn add(&mut self, id: Id, about: About) {
        let about = Arc::new(about);
        self.changed.insert(id);
        if let Some(record) = self.records.get_mut(&id) {
            record.about = about;
            return;
        }
        let record = Record {
            about,
            ledger: Ledger::default(),
            view: unknown(),
            shown: Arc::default(),
            crash: None,
            pause: None,
            failing: None,
            lacking: None,
            stopping: None,
        };
        self.records.insert(id, record);
    }

    /// Learns what the start of a replica hangs in, before that it does is recorded.
    pub fn start_hangs(&mut self, id: Id, place: &str) {
        if let Some(record) = self.records.get_mut(&id) {
            record.ledger.start_hangs = Some(place.into());
        }
    }

    /// Forgets a replica: its series are gone at once.
    pub fn remove(&mut self, id: Id) {
        self.records.remove(&id);
        self.changed.remove(&id);
        self.draft.set(id, None);
        self.publish_draft();
    }

    /// Publishes how the programs that changed stand, with everything recorded since.
    pub fn publish(&mut self, changed: impl IntoIterator<Item = (Id, View)>) {
        for (id, view) in changed {
            if let Some(record) = self.records.get_mut(&id) {
                record.view = view;
                self.changed.insert(id);
            }
        }
        let now = (Instant::now(), SystemTime::now());
        for id in std::mem::take(&mut self.changed) {
            let program = self
                .records
                .get(&id)
                .map(|record| Arc::new(record.program(id, now)));
            self.draft.set(id, program);
        }
        self.publish_draft();
    }

    /// Publishes without the programs that changed: in the middle of a burst their counters are
    /// ahead of their views, and a scrape would see both.
    pub(super) fn publish_draft(&self) {
        self.published.send_replace(Arc::new(self.draft.clone()));
    }

    /// Records something that happens to a program at this moment: see [`Self::record_at`].
    pub fn record(&mut self, id: Id, event: &Event) -> Option<api::Crash> {
        self.record_at((Instant::now(), SystemTime::now()), id, event)
    }

    /// Records something that happened to a program, by both clocks. Returns a finished crash
    /// record (without its last output) as soon as what follows from the crash is known.
    ///
    /// Long on purpose: one match, so that what an event means is read in one place.
    pub fn record_at(
        &mut self,
        (now, at): (Instant, SystemTime),
        id: Id,
        event: &Event,
    ) -> Option<api::Crash> {
        let other = if let Event::Waiting { dependency } = event {
            self.display_name(*dependency)
        } else {
            String::new()
        };
        let shutdown = self.shutdown();
        let _inside = shutdown.enter();
        let record = self.records.get_mut(&id)?;
        self.changed.insert(id);
        let about = Arc::clone(&record.about);
        let mut finished = None;
        let mut verdict = |record: &mut Record, text: String| {
            if let Some(mut crash) = record.crash.take() {
                crash.verdict = text;
                finished = Some(crash);
            }
        };
        let (level, kind, message, facts) = match event {
            Event::Waiting { dependency: _ } => {
                record.pause = None;
                (
                    Level::INFO,
                    "waiting",
                    format!("waiting for {other} to be ready"),
                    Facts::default(),
                )
            }
            Event::Started { run, pid, cause } => {
                verdict(record, "started again".to_owned());
                record.started(*cause, now);
                record.ledger.started_at = Some(at);
                let facts = Facts {
                    pid: Some(*pid),
                    run: Some(run.number()),
                    cause: cause.map(Cause::label),
                    ..Facts::default()
                };
                (Level::INFO, "started", started_sentence(*cause), facts)
            }
            Event::StartFailed {
                run,
                cause,
                failure,
            } => {
                verdict(record, "started again".to_owned());
                record.started(*cause, now);
                record.start_failed(failure, now, at);
                let facts = Facts {
                    run: Some(run.number()),
                    reason: Some("spawn_error"),
                    cause: cause.map(Cause::label),
                    ..Facts::default()
                };
                (
                    Level::WARN,
                    "start_failed",
                    format!("cannot be started: {failure}"),
                    facts,
                )
            }
            Event::StartDeferred { failure, delay } => {
                record.ledger.start_hangs = None;
                record.delayed(*delay);
                let message = format!(
                    "start deferred: {failure}; next try in {}",
                    text::duration(*delay)
                );
                (
                    Level::WARN,
                    "start_deferred",
                    message,
                    Facts {
                        delay: Some(*delay),
                        ..Facts::default()
                    },
                )
            }
            Event::StartHangs { run } => (
                Level::WARN,
                "start_hangs",
                record.start_hangs(),
                Facts {
                    run: Some(run.number()),
                    ..Facts::default()
                },
            ),
            Event::Ready { run, took } => {
                record.ledger.startup.observe(*took);
                let facts = Facts {
                    run: Some(run.number()),
                    took: Some(*took),
                    ..Facts::default()
                };
                (
                    Level::INFO,
                    "ready",
                    format!("ready after {}", text::duration(*took)),
                    facts,
                )
            }
            Event::StartTimedOut { run, after } => {
                record.ledger.start_failures[FailureKind::Timeout as usize] += 1;
                let facts = Facts {
                    run: Some(run.number()),
                    took: Some(*after),
                    ..Facts::default()
                };
                (
                    Level::WARN,
                    "start_timed_out",
                    format!("not ready within {}", text::duration(*after)),
                    facts,
                )
            }
            Event::Exited(exit) => {
                record.exited(exit, now, at);
                record.exit_line(exit)
            }
            Event::FamilyLeft { run } => (
                Level::INFO,
                "family_left",
                "left processes behind, which are ended".to_owned(),
                Facts {
                    run: Some(run.number()),
                    ..Facts::default()
                },
            ),
            Event::Stopping { run, reason } => {
                record.stopping = Some(now);
                let facts = Facts {
                    run: Some(run.number()),
                    reason: Some(reason),
                    ..Facts::default()
                };
                (
                    Level::INFO,
                    "stopping",
                    format!("stopping: {reason}"),
                    facts,
                )
            }
            Event::StopEscalated { run, after } => {
                record.ledger.escalations += 1;
                let message = format!("still there after {}: SIGKILL", text::duration(*after));
                (
                    Level::WARN,
                    "stop_escalated",
                    message,
                    Facts {
                        run: Some(run.number()),
                        took: Some(*after),
                        ..Facts::default()
                    },
                )
            }
            Event::Unkillable { run, after } => {
                let message = format!(
                    "still there {} after SIGKILL: in uninterruptible sleep, or not to be signalled",
                    text::duration(*after)
                );
                (
                    Level::ERROR,
                    "unkillable",
                    message,
                    Facts {
                        run: Some(run.number()),
                        took: Some(*after),
                        ..Facts::default()
                    },
                )
            }
            Event::Stopped { run, took } => {
                verdict(record, "stopped".to_owned());
                record.pause = None;
                // Whoever fell to it while it waited or backed off had nothing to stop.
                record.gone(now);
                let facts = Facts {
                    run: run.map(crate::supervision::Run::number),
                    took: Some(*took),
                    ..Facts::default()
                };
                (
                    Level::INFO,
                    "stopped",
                    format!("stopped after {}", text::duration(*took)),
                    facts,
                )
            }
            Event::BackingOff {
                delay,
                cause,
                crashes_left,
            } => {
                record.delayed(*delay);
                let sentence = format!("restart in {}", text::duration(*delay));
                verdict(record, sentence.clone());
                let message = format!(
                    "{sentence} ({}), crashes left: {crashes_left}",
                    cause.label()
                );
                let facts = Facts {
                    cause: Some(cause.label()),
                    delay: Some(*delay),
                    ..Facts::default()
                };
                (Level::INFO, "backing_off", message, facts)
            }
            Event::GaveUp { rule, limit, retry } => {
                record.ledger.gave_up += 1;
                let why = why::given_up(&about, *rule, *limit);
                record.ledger.given_up = Some(why.as_str().into());
                let mut message = format!("gave up: {why}");
                verdict(record, message.clone());
                if let Some(retry) = retry {
                    record.delayed(*retry);
                    message = format!("{message}; next try in {}", text::duration(*retry));
                } else {
                    record.pause = None;
                }
                (
                    Level::ERROR,
                    "gave_up",
                    message,
                    Facts {
                        reason: Some(rule.label()),
                        delay: *retry,
                        ..Facts::default()
                    },
                )
            }
            Event::Failed { reason } => {
                // After a give-up with a retry the pause goes on.
                if record.ledger.given_up.is_none() {
                    record.pause = None;
                }
                verdict(record, format!("not started again: {reason}"));
                (
                    Level::ERROR,
                    "failed",
                    format!("failed: {reason}"),
                    Facts {
                        reason: Some(reason),
                        ..Facts::default()
                    },
                )
            }
            Event::Completed { reason } => {
                verdict(record, format!("not started again: {reason}"));
                record.pause = None;
                (
                    Level::INFO,
                    "completed",
                    format!("completed: {reason}"),
                    Facts {
                        reason: Some(reason),
                        ..Facts::default()
                    },
                )
            }
            Event::Removed => {
                verdict(record, "removed from the config".to_owned());
                (
                    Level::INFO,
                    "removed",
                    "removed from the config".to_owned(),
                    Facts::default(),
                )
            }
        };
        let telling = Telling {
            level,
            program: &about.display_name,
            kind,
            message,
            facts,
        };
        let span = match &mut self.spans {
            Some(spans) => spans.record((id, &about), event, at),
            None => None,
        };
        // The log line carries the ids of the span it belongs to.
        let _within = span.map(opentelemetry::Context::attach);
        tell(telling, at, &self.events);
        finished
    }

    fn display_name(&self, id: Id) -> String {
        self.records.get(&id).map_or_else(
            || "another program".to_owned(),
            |record| record.about.display_name.clone(),
        )
    }
}
