//! Spans out of the daemon: a bounded queue, one thread that empties it, and a count of losses.
//!
//! Nothing here can hold supervision up: a span that ends is pushed or dropped, and whatever the
//! collector does (refuse, hang, fail) happens to the exporting thread alone.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Uri;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::ProcessMetrics;
use super::otlp_client::Client;
use super::spans::Spans;

/// Spans that may wait.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Before a batch that was refused is tried again; after the last one it is lost.
const RETRIES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// For one request, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const REQUEST: Duration = Duration::from_secs(10);

/// Why tracing cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot export spans to {endpoint}: {reason}")]
pub struct TracingError {
    endpoint: String,
    reason: String,
}

/// The exporting thread and how to end it.
pub struct Tracing {
    provider: SdkTracerProvider,
    losses: Arc<Losses>,
    closing: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
}

impl Tracing {
    /// Begins to export, if an endpoint is configured here or in the `OTEL_*` environment.
    /// `endpoint` is the base URL (`/v1/traces` is appended) and comes before the environment;
    /// `OTEL_SDK_DISABLED=true` comes before both.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be used, or there is no thread to be had.
    pub fn start(endpoint: Option<&str>, version: &str) -> Result<Option<Self>, TracingError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match resolve(endpoint, &variable) {
            None => Ok(None),
            Some(endpoint) => match Self::export_to(&endpoint, version, &variable) {
                Ok(tracing) => Ok(Some(tracing)),
                Err(reason) => Err(TracingError { endpoint, reason }),
            },
        }
    }

    fn export_to(endpoint: &str, version: &str, variable: &Variable) -> Result<Self, String> {
        let url: Uri = endpoint.parse().map_err(|error| format!("{error}"))?;
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err("it must be a URL, as in http://127.0.0.1:4318".to_owned());
        }
        let limit = signal_variable(variable, "TIMEOUT")
            .and_then(|text| text.parse().ok())
            .map_or(REQUEST, Duration::from_millis);
        let authorities = signal_variable(variable, "CERTIFICATE").map(PathBuf::from);
        let resource = resource(version, variable);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(&url, authorities, limit)?)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            // Its own retries block the thread; ours end when the daemon does.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| error.to_string())?;
        exporter.set_resource(&resource);
        let (to, queue) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(None);
        let losses = Arc::new(Losses::default());
        let exporting = Exporting {
            exporter,
            queue,
            closing: closed,
            batch: Vec::new(),
            losses: Arc::clone(&losses),
            endpoint: endpoint.to_owned(),
            failing: false,
        };
        let thread = spawn(exporting).map_err(|error| error.to_string())?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(Queue {
                to,
                losses: Arc::clone(&losses),
            })
            .build();
        Ok(Self {
            provider,
            losses,
            closing,
            thread,
        })
    }

    /// Counts every lost span there.
    pub fn count_losses(&self, metrics: ProcessMetrics) {
        let early = self.losses.early.swap(0, Ordering::Relaxed);
        metrics.spans_dropped(early);
        // Set once: there is one daemon, with one set of metrics.
        let _ = self.losses.metrics.set(metrics);
    }

    /// Makes what turns events into spans.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans::new(self.tracer())
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("eternal")
    }

    /// Sends what is left, for at most `within`, and ends the thread. Blocks.
    pub fn close(self, within: Duration) {
        self.closing.send_replace(Some(Instant::now() + within));
        // It has no way to stay: everything it waits for ends at that moment.
        let _ = self.thread.join();
    }
}

type Variable = dyn Fn(&str) -> Option<String>;

fn signal_variable(variable: &Variable, name: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
        .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Returns the URL that spans go to; `None`: nowhere.
fn resolve(configured: Option<&str>, variable: &Variable) -> Option<String> {
    const PATH: &str = "/v1/traces";
    let is = |name: &str, word: &str| variable(name).is_some_and(|v| v.eq_ignore_ascii_case(word));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    let below = |base: String| format!("{}{PATH}", base.trim_end_matches('/'));
    match configured.filter(|endpoint| !endpoint.is_empty()) {
        // A whole URL is what people copy out of a collector's documentation.
        Some(whole) if whole.ends_with(PATH) => Some(whole.to_owned()),
        Some(base) => Some(below(base.to_owned())),
        None => variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(below)),
    }
}

fn resource(version: &str, variable: &Variable) -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let instance = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    // The detectors read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", version.to_owned()),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("host.name", host.trim().to_owned()),
    ]);
    match variable("OTEL_SERVICE_NAME") {
        Some(_) => builder.build(),
        None => builder.with_service_name("eternal").build(),
    }
}

fn spawn(exporting: Exporting) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("spans".into())
        .spawn(move || {
            runtime.block_on(exporting.run());
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })
}

/// Spans that did not get to the collector.
#[derive(Default)]
struct Losses {
    metrics: OnceLock<ProcessMetrics>,
    /// Before there were metrics.
    early: AtomicU64,
}

impl Losses {
    fn add(&self, spans: usize) {
        let spans = spans as u64;
        match self.metrics.get() {
            Some(metrics) => metrics.spans_dropped(spans),
            None => {
                self.early.fetch_add(spans, Ordering::Relaxed);
            }
        }
    }
}

/// Where a span goes when it ends.
struct Queue {
    to: mpsc::Sender<SpanData>,
    losses: Arc<Losses>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.to.try_send(span).is_err() {
            self.losses.add(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What the thread does.
struct Exporting {
    exporter: SpanExporter,
    queue: mpsc::Receiver<SpanData>,
    /// When everything has to be over.
    closing: watch::Receiver<Option<Instant>>,
    batch: Vec<SpanData>,
    losses: Arc<Losses>,
    endpoint: String,
    failing: bool,
}

impl Exporting {
    async fn run(mut self) {
        let mut closing = self.closing.clone();
        // What is under way when the end comes is given up, and tried once more below.
        tokio::select! {
            () = self.export_for_ever() => {}
            _ = closing.wait_for(Option::is_some) => {}
        }
        let end = *self.closing.borrow();
        self.queue.close();
        while self.fill() {
            let sent = match end {
                Some(end) => timeout_at(end, self.attempt()).await.unwrap_or(false),
                None => self.attempt().await,
            };
            if !sent {
                break;
            }
            self.batch.clear();
        }
        let lost = self.batch.len() + self.queue.len();
        if lost > 0 {
            self.losses.add(lost);
            tracing::warn!("spans lost at the end: {lost}");
        }
    }

    async fn export_for_ever(&mut self) {
        loop {
            let Some(first) = self.queue.recv().await else {
                return;
            };
            self.batch.push(first);
            let until = Instant::now() + GATHER;
            while self.batch.len() < BATCH {
                tokio::select! {
                    Some(span) = self.queue.recv() => self.batch.push(span),
                    () = sleep_until(until) => break,
                }
            }
            if !self.deliver().await {
                self.losses.add(self.batch.len());
            }
            self.batch.clear();
        }
    }

    async fn deliver(&mut self) -> bool {
        for pause in RETRIES {
            if self.attempt().await {
                return true;
            }
            sleep(pause).await;
        }
        self.attempt().await
    }

    /// Sends the batch once. Says so when that begins to fail, and when it works again.
    async fn attempt(&mut self) -> bool {
        let endpoint = &self.endpoint;
        match self.exporter.export(self.batch.clone()).await {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("spans are exported to {endpoint} again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("cannot export spans to {endpoint}: {error}");
                }
                false
            }
        }
    }

    /// Takes what waits into the batch; returns whether there is anything in it.
    fn fill(&mut self) -> bool {
        while self.batch.len() < BATCH {
            match self.queue.try_recv() {
                Ok(span) => self.batch.push(span),
                Err(_) => break,
            }
        }
        !self.batch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_comes_before_the_environment_and_off_before_both() {
        let resolve = |configured, variables: &[(&'static str, &'static str)]| {
            let variables = variables.to_vec();
            let variable = move |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            resolve(configured, &variable)
        };
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/exact");
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(resolve(None, &[]), None);
        assert_eq!(resolve(Some(""), &[]), None);
        assert_eq!(resolve(None, &[general]), url("http://e:4318/v1/traces"));
        assert_eq!(resolve(None, &[general, traces]), url("http://t/exact"));
        assert_eq!(
            resolve(Some("http://c"), &[general, traces]),
            url("http://c/v1/traces")
        );
        assert_eq!(
            resolve(Some("http://c/v1/traces"), &[]),
            url("http://c/v1/traces")
        );
        assert_eq!(
            resolve(Some("http://c"), &[("OTEL_SDK_DISABLED", "True")]),
            None
        );
        let none = ("OTEL_TRACES_EXPORTER", "none");
        assert_eq!(resolve(Some("http://c"), &[none]), None);
    }
}
