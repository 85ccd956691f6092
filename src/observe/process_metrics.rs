//! Metrics of the daemon as a whole: through the `metrics` facade, with handles made once.
//!
//! Nothing with a program label may live here: the facade cannot delete a series.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{Identity, Turns};

const HTTP_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];
/// The exporter keeps every observation until it is rendered or told to tidy up.
const TIDY_AFTER: u64 = 4096;

/// The pages of the HTTP server, as they are called in labels.
pub(super) const HANDLERS: [&str; 6] = ["metrics", "healthy", "ready", "sd", "status", "other"];

/// The process-wide metrics. A handle; clones share them.
#[derive(Clone)]
pub struct ProcessMetrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    reload_successful: Gauge,
    reload_stamp: Gauge,
    reloads: [Counter; 2],
    orphans: Counter,
    turns: Turns,
    spans_dropped: Counter,
    observations: Arc<AtomicU64>,
}

impl ProcessMetrics {
    /// Registers every series, so that each is there, at zero, in the first scrape.
    ///
    /// # Errors
    ///
    /// When the exporter refuses the buckets.
    pub fn new(identity: &Identity) -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(HTTP_BOUNDS)?
            .build_recorder();
        let recorder = Arc::new(recorder);
        let metrics = with_local_recorder(&*recorder, || {
            describe();
            gauge!(
                "eternal_build_info",
                "version" => identity.version.clone(),
                "revision" => identity.revision.clone(),
                "rustc" => identity.rustc.clone()
            )
            .set(1.0);
            Self {
                handle: recorder.handle(),
                reload_successful: gauge!("eternal_config_last_reload_successful"),
                reload_stamp: gauge!("eternal_config_last_reload_success_timestamp_seconds"),
                reloads: ["success", "failure"]
                    .map(|result| counter!("eternal_config_reloads_total", "result" => result)),
                orphans: counter!("eternal_orphans_reaped_total"),
                turns: Turns::default(),
                spans_dropped: counter!("eternal_otlp_spans_dropped_total"),
                observations: Arc::default(),
                recorder: Arc::clone(&recorder),
            }
        });
        metrics.reload_successful.set(1.0);
        metrics
            .reload_stamp
            .set(super::text::unix_seconds(identity.started_at));
        for handler in HANDLERS {
            let code = if handler == "other" { 404 } else { 200 };
            metrics.http_series(handler, code, "GET").increment(0);
        }
        Ok(metrics)
    }

    /// Counts a reload; `at` is seconds since 1970.
    pub fn reload(&self, successful: bool, at: f64) {
        self.reloads[usize::from(!successful)].increment(1);
        self.reload_successful.set(f64::from(u8::from(successful)));
        if successful {
            self.reload_stamp.set(at);
        }
    }

    /// Shows, at zero, the signals that the daemon listens to.
    pub fn listens_to(&self, names: &[&'static str]) {
        for name in names {
            self.signal_series(name).increment(0);
        }
    }

    /// Counts a signal.
    pub(super) fn signal(&self, name: &'static str) {
        self.signal_series(name).increment(1);
    }

    fn signal_series(&self, name: &'static str) -> Counter {
        with_local_recorder(
            &*self.recorder,
            || counter!("eternal_signals_received_total", "signal" => name),
        )
    }

    /// Counts a reaped orphan.
    pub fn orphan(&self) {
        self.orphans.increment(1);
    }

    /// Returns where the loop's turns are timed.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Counts spans that could not be exported.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.increment(count);
    }

    /// Counts an answered HTTP request. `handler` and `method` come from bounded sets.
    pub(super) fn http(
        &self,
        handler: &'static str,
        code: u16,
        method: &'static str,
        took: Duration,
    ) {
        self.http_series(handler, code, method).increment(1);
        with_local_recorder(&*self.recorder, || {
            histogram!("eternal_http_request_duration_seconds", "handler" => handler)
                .record(took.as_secs_f64());
        });
        self.tidy();
    }

    fn http_series(&self, handler: &'static str, code: u16, method: &'static str) -> Counter {
        with_local_recorder(&*self.recorder, || {
            counter!(
                "eternal_http_requests_total",
                "handler" => handler, "code" => code.to_string(), "method" => method
            )
        })
    }

    fn tidy(&self) {
        if self.observations.fetch_add(1, Ordering::Relaxed) % TIDY_AFTER == TIDY_AFTER - 1 {
            self.handle.run_upkeep();
        }
    }

    /// Returns the exposition of these metrics, in no particular order.
    pub(super) fn render(&self) -> String {
        let mut text = self.handle.render();
        self.turns.render(&mut text);
        text
    }
}

fn describe() {
    use metrics::{describe_counter as c, describe_gauge as g, describe_histogram as h};
    g!(
        "eternal_build_info",
        "What the daemon was built from; always 1."
    );
    g!(
        "eternal_config_last_reload_successful",
        "Whether the last reload put a new configuration in force; 1 before the first."
    );
    g!(
        "eternal_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded, in seconds since 1970."
    );
    c!(
        "eternal_config_reloads_total",
        "Reloads of the configuration, by result."
    );
    c!(
        "eternal_signals_received_total",
        "Signals the daemon got, by name."
    );
    c!(
        "eternal_orphans_reaped_total",
        "Ended processes that belonged to no program and were reaped."
    );
    c!(
        "eternal_http_requests_total",
        "HTTP requests answered, by page, status code and method."
    );
    h!(
        "eternal_http_request_duration_seconds",
        "Time to make an answer, in seconds, by page."
    );
    c!(
        "eternal_otlp_spans_dropped_total",
        "Spans that could not be exported."
    );
}
