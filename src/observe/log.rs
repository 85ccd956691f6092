//! From `tracing` to log records: the one layer on the global registry.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::Context as SpanContext;
use opentelemetry::trace::TraceContextExt;
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::Tracing;
use crate::text::Fact;

/// The trace that a line belongs to: 32 hexadecimal digits.
pub const TRACE_ID: &str = "trace_id";
/// The span within it: 16 hexadecimal digits.
pub const SPAN_ID: &str = "span_id";

/// A line of the daemon's own log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// The wall clock when it was said.
    pub at: SystemTime,
    /// How important it is.
    pub level: Level,
    /// How people call the replica it is about; `None` for the daemon's own.
    pub program: Option<String>,
    /// The sentence.
    pub message: String,
    /// What is in the sentence, for machines, in the order it was said.
    pub fields: Vec<(&'static str, Fact)>,
}

/// Takes log records from any thread. It must never block.
pub type Sink = Arc<dyn Fn(LogRecord) + Send + Sync>;

/// Makes a dispatcher that hands what is at least as important as `level` to `sink`.
#[must_use]
pub fn dispatch(sink: Sink, level: Level) -> Dispatch {
    Dispatch::new(tracing_subscriber::registry().with(Lines { sink, level }))
}

/// Makes [`dispatch`] the process's own: for every thread, once. With tracing, our own `tracing`
/// spans are exported; what is said within them is not, it may quote what is secret.
///
/// # Errors
///
/// When the process has one already.
pub fn install(
    sink: Sink,
    level: Level,
    tracing: Option<&Tracing>,
) -> Result<(), tracing::dispatcher::SetGlobalDefaultError> {
    let Some(tracing) = tracing else {
        return tracing::dispatcher::set_global_default(dispatch(sink, level));
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracing.tracer())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|of| of.is_span() && of.target() == "eternal"));
    let registry = tracing_subscriber::registry().with(spans);
    tracing::dispatcher::set_global_default(Dispatch::new(registry.with(Lines { sink, level })))
}

struct Lines {
    sink: Sink,
    level: Level,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_span() || *metadata.level() <= self.level
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = LogRecord {
            at: SystemTime::now(),
            level: *event.metadata().level(),
            program: None,
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut Reading(&mut record));
        SpanContext::map_current(|within| {
            let span = within.span();
            let ids = span.span_context();
            if ids.is_valid() {
                record
                    .fields
                    .push((TRACE_ID, ids.trace_id().to_string().into()));
                record
                    .fields
                    .push((SPAN_ID, ids.span_id().to_string().into()));
            }
        });
        (self.sink)(record);
    }
}

struct Reading<'a>(&'a mut LogRecord);

impl Visit for Reading<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.0.message),
            "program" => self.0.program = Some(value.to_owned()),
            name => self.0.fields.push((name, value.into())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.fields.push((field.name(), Fact::number(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.fields.push((field.name(), Fact::number(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Written so that it is seen to be no whole number, as in JSON.
        self.0
            .fields
            .push((field.name(), Fact::number(format!("{value:?}"))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[test]
    fn an_event_becomes_a_record_and_what_is_below_the_level_does_not() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let sink: Sink = Arc::new(move |record| {
            ear.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(record);
        });
        tracing::dispatcher::with_default(&dispatch(sink, Level::INFO), || {
            let (pid, none) = (7, None::<i32>);
            tracing::warn!(program = "web/1", pid, code = none, "exited: {}", "SIGKILL");
            tracing::debug!("not wanted");
        });
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].level, Level::WARN);
        assert_eq!(heard[0].program.as_deref(), Some("web/1"));
        assert_eq!(heard[0].message, "exited: SIGKILL");
        assert_eq!(heard[0].fields, [("pid", Fact::number(7))]);
    }
}
