//! What happens to programs, as spans.
//!
//! ```text
//! start, restart   spawn ─▶ ready          a restart links to the exit that caused it,
//!                                          and begins when it was due; the program finds it
//!                                          in TRACEPARENT, as the parent of its own spans
//! exit             at reap, no length      links to the start of its run
//! stop             signal ─▶ gone          children: wait, escalate, exit
//! shutdown         parent of what ends in it; reload the same (both through `tracing`)
//! ```
//!
//! A span is exported when it ends, so each is one short operation. Names, numbers and reasons
//! only: command lines, environments and messages that may quote them stay here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use super::About;
use crate::supervision::{Cause, Event, Exit, Id};

/// Turns events into spans.
pub struct Spans {
    tracer: SdkTracer,
    trails: BTreeMap<Id, Trail>,
}

/// What is open, and what came last, of one replica.
#[derive(Default)]
struct Trail {
    /// A start that is being tried, and is not told yet.
    tried: Option<Context>,
    /// A start that is not ready yet.
    start: Option<Context>,
    stop: Option<Stop>,
    /// How the present run began.
    began: Option<SpanContext>,
    /// How the last one ended, or could not begin.
    ended: Option<Context>,
    /// When the next one is to begin.
    due: Option<SystemTime>,
}

struct Stop {
    span: Context,
    phase: Context,
    exited: Option<SystemTime>,
}

impl Spans {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self {
            tracer,
            trails: BTreeMap::new(),
        }
    }

    /// Begins the span of a start that is about to be tried; returns it as the value of
    /// `TRACEPARENT` (W3C Trace Context, level 1).
    pub(super) fn try_start(&mut self, (id, about): (Id, &About), at: SystemTime) -> String {
        let trail = self.trails.entry(id).or_default();
        let scribe = Scribe {
            tracer: &self.tracer,
            about,
            at,
        };
        let span = scribe.try_start(trail);
        let context = context_of(&span);
        trail.tried = Some(span);
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags()
        )
    }

    /// Begins and ends spans; returns the one that the event belongs to, for its log line.
    pub(super) fn record(
        &mut self,
        (id, about): (Id, &About),
        event: &Event,
        at: SystemTime,
    ) -> Option<Context> {
        let trail = self.trails.entry(id).or_default();
        let scribe = Scribe {
            tracer: &self.tracer,
            about,
            at,
        };
        match event {
            Event::Waiting { .. } => None,
            Event::StartDeferred { failure, .. } => {
                let span = trail.tried.take()?;
                fail(&span, failure.kind.label());
                span.span().end_with_timestamp(at);
                Some(span)
            }
            Event::Started { run, pid, cause } => {
                let span = scribe.start(trail, *cause);
                span.span()
                    .set_attributes([number("eternal.run", run.0), number("process.pid", *pid)]);
                trail.start = Some(span.clone());
                Some(span)
            }
            Event::StartFailed {
                run,
                cause,
                failure,
            } => {
                let span = scribe.start(trail, *cause);
                span.span().set_attribute(number("eternal.run", run.0));
                fail(&span, failure.kind.label());
                span.span().end_with_timestamp(at);
                trail.ended = Some(span.clone());
                Some(span)
            }
            Event::StartHangs { .. } => trail.start.clone(),
            Event::Ready { .. } => {
                let span = trail.start.take()?;
                span.span().end_with_timestamp(at);
                Some(span)
            }
            Event::StartTimedOut { .. } => {
                let span = trail.start.clone()?;
                fail(&span, "timeout");
                Some(span)
            }
            Event::Exited(exit) => Some(scribe.exit(trail, exit)),
            Event::Stopping { reason, .. } => Some(scribe.stop(trail, reason)),
            Event::StopEscalated { .. } => {
                let stop = trail.stop.as_mut()?;
                stop.phase.span().end_with_timestamp(at);
                stop.phase = scribe.begin("escalate", &stop.span);
                let escalated = KeyValue::new("eternal.stop.escalated", true);
                stop.span.span().set_attribute(escalated);
                Some(stop.span.clone())
            }
            Event::Unkillable { .. } => {
                let stop = trail.stop.as_ref()?;
                fail(&stop.span, "unkillable");
                Some(stop.span.clone())
            }
            Event::FamilyLeft { .. } => trail.ended.clone(),
            Event::Stopped { .. } => {
                let span = trail.stop.as_ref().map(|stop| stop.span.clone());
                end_stop(trail, at);
                span
            }
            Event::BackingOff { delay, .. } => {
                end_stop(trail, at);
                trail.due = at.checked_add(*delay);
                trail.ended.clone()
            }
            Event::GaveUp { .. } | Event::Failed { .. } | Event::Completed { .. } => {
                end_stop(trail, at);
                trail.ended.clone()
            }
            Event::Removed => {
                end_stop(trail, at);
                self.trails.remove(&id);
                None
            }
        }
    }
}

/// Writes the spans of one event.
struct Scribe<'a> {
    tracer: &'a SdkTracer,
    about: &'a About,
    at: SystemTime,
}

impl Scribe<'_> {
    fn builder(&self, name: &'static str) -> SpanBuilder {
        SpanBuilder::from_name(name)
            .with_start_time(self.at)
            .with_attributes([
                KeyValue::new("eternal.program", self.about.name.clone()),
                number("eternal.replica", self.about.replica),
            ])
    }

    fn begin(&self, name: &'static str, parent: &Context) -> Context {
        self.build(self.builder(name), parent)
    }

    fn build(&self, builder: SpanBuilder, parent: &Context) -> Context {
        let span = self.tracer.build_with_context(builder, parent);
        Context::new().with_span(span)
    }

    fn try_start(&self, trail: &mut Trail) -> Context {
        let due = trail.due.take().filter(|due| *due <= self.at);
        let builder = self.builder("start");
        let builder = builder.with_start_time(due.unwrap_or(self.at));
        self.build(builder, &Context::current())
    }

    fn start(&self, trail: &mut Trail, cause: Option<Cause>) -> Context {
        end_stop(trail, self.at);
        let tried = trail.tried.take();
        let span = tried.unwrap_or_else(|| self.try_start(trail));
        trail.due = None;
        if let Some(cause) = cause {
            let cause = KeyValue::new("eternal.restart.cause", cause.label());
            span.span().update_name("restart");
            span.span().set_attribute(cause);
            if let Some(exit) = &trail.ended {
                span.span().add_link(context_of(exit), Vec::new());
            }
        }
        trail.began = Some(context_of(&span));
        span
    }

    fn exit(&self, trail: &mut Trail, exit: &Exit) -> Context {
        if let Some(start) = trail.start.take() {
            fail(&start, "exited before it was ready");
            start.span().end_with_timestamp(self.at);
        }
        let parent = match &mut trail.stop {
            Some(stop) => {
                stop.phase.span().end_with_timestamp(self.at);
                stop.exited = Some(self.at);
                stop.span.clone()
            }
            None => Context::current(),
        };
        let start = trail
            .began
            .take()
            .map(|start| Link::new(start, Vec::new(), 0));
        let builder = self.builder("exit").with_links(start.into_iter().collect());
        let span = self.build(builder, &parent);
        span.span().set_attributes([
            number("eternal.run", exit.run.0),
            number("process.pid", exit.pid),
            KeyValue::new("eternal.exit.reason", exit.reason.label()),
            KeyValue::new("eternal.run.duration", exit.ran.as_secs_f64()),
        ]);
        if let Some(code) = exit.status.code() {
            span.span().set_attribute(number("process.exit.code", code));
        }
        if let Some(signal) = exit.status.signal() {
            span.span()
                .set_attribute(number("eternal.exit.signal", signal));
        }
        if exit.reason.is_crash() {
            fail(&span, exit.reason.label());
        }
        span.span().end_with_timestamp(self.at);
        trail.ended = Some(span.clone());
        span
    }

    fn stop(&self, trail: &mut Trail, reason: &'static str) -> Context {
        end_stop(trail, self.at);
        let span = self.begin("stop", &Context::current());
        span.span()
            .set_attribute(KeyValue::new("eternal.stop.reason", reason));
        span.span()
            .add_event_with_timestamp("signal", self.at, Vec::new());
        let phase = self.begin("wait", &span);
        trail.stop = Some(Stop {
            span: span.clone(),
            phase,
            exited: None,
        });
        span
    }
}

/// Ends an open stop: when its process ended, if nothing said that more had to go.
fn end_stop(trail: &mut Trail, at: SystemTime) {
    if let Some(Stop {
        span,
        phase,
        exited,
    }) = trail.stop.take()
    {
        // The phase may have ended with the process; ending it again is nothing.
        phase.span().end_with_timestamp(exited.unwrap_or(at));
        span.span().end_with_timestamp(at);
    }
}

fn context_of(span: &Context) -> SpanContext {
    span.span().span_context().clone()
}

fn fail(span: &Context, reason: &'static str) {
    span.span().set_status(Status::error(reason));
}

fn number(name: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(name, value.try_into().unwrap_or(i64::MAX))
}
