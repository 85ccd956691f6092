//! How it went: every request counted once, for `/metrics`, `/health` and the last log line.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Label value of every path that is no route.
pub(super) const OTHER: &str = "other";

const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
const BYTES: [f64; 7] = [64.0, 256.0, 1024.0, 4096.0, 16384.0, 262_144.0, 1_048_576.0];

/// The counters of the server, by the labels of a bounded set.
pub(super) struct Statistics {
    started: Instant,
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sizes: HistogramVec,
    in_progress: IntGauge,
    errors: IntCounter,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    by_status: BTreeMap<u16, u64>,
    last_minute: Window,
    last_hour: Window,
}

/// A request that was answered.
pub(super) struct Answered<'a> {
    pub(super) method: &'a Method,
    /// The pattern of the route, never the path that was asked for.
    pub(super) path: &'static str,
    pub(super) status: StatusCode,
    pub(super) took: Duration,
    /// Size of the body in bytes.
    pub(super) size: u64,
}

/// The numbers at one moment.
pub(super) struct Snapshot {
    pub(super) uptime: Duration,
    pub(super) errors: u64,
    pub(super) errors_last_hour: u64,
    pub(super) errors_last_minute: u64,
    pub(super) in_progress: i64,
    pub(super) by_status: BTreeMap<u16, u64>,
}

impl Snapshot {
    /// Returns how many requests were answered.
    pub(super) fn requests(&self) -> u64 {
        self.by_status.values().sum()
    }
}

impl Statistics {
    /// Registers every family; `routes` get their first series at 0, so that no increase is lost.
    pub(super) fn new<'a>(
        routes: impl Iterator<Item = (&'a Method, &'static str)>,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Requests answered."),
            &["method", "path", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("http_request_duration_seconds", "Time from head to answer.")
                .buckets(SECONDS.to_vec()),
            &["method", "path"],
        )?;
        let sizes = HistogramVec::new(
            HistogramOpts::new("http_response_size_bytes", "Size of answered bodies.")
                .buckets(BYTES.to_vec()),
            &["method", "path"],
        )?;
        let in_progress = IntGauge::new("http_requests_in_progress", "Requests being answered.")?;
        let errors = IntCounter::new("http_errors_total", "Answers with a status of 500 or more.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(sizes.clone()))?;
        registry.register(Box::new(in_progress.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        for (method, path) in routes {
            let method = method_label(method);
            requests.with_label_values(&[method, path, "200"]);
            durations.with_label_values(&[method, path]);
            sizes.with_label_values(&[method, path]);
        }
        let tally = Mutex::default();
        let started = Instant::now();
        Ok(Self {
            started,
            registry,
            requests,
            durations,
            sizes,
            in_progress,
            errors,
            tally,
        })
    }

    /// Counts a request as in progress until the guard is dropped, however it ends.
    pub(super) fn begin(&self) -> InProgress {
        self.in_progress.inc();
        InProgress(self.in_progress.clone())
    }

    /// Counts one answer.
    pub(super) fn record(&self, answered: &Answered<'_>) {
        let method = method_label(answered.method);
        let labels = [method, answered.path];
        self.requests
            .with_label_values(&[method, answered.path, answered.status.as_str()])
            .inc();
        self.durations
            .with_label_values(&labels)
            .observe(answered.took.as_secs_f64());
        self.sizes
            .with_label_values(&labels)
            .observe(answered.size as f64);
        self.tally_status(answered.status);
    }

    /// Counts a refusal of bytes that never became a request.
    pub(super) fn record_refusal(&self, status: StatusCode) {
        self.requests
            .with_label_values(&[OTHER, OTHER, status.as_str()])
            .inc();
        self.tally_status(status);
    }

    fn tally_status(&self, status: StatusCode) {
        let now = self.started.elapsed();
        let mut tally = self.tally();
        *tally.by_status.entry(status.as_u16()).or_default() += 1;
        if status.is_server_error() {
            self.errors.inc();
            tally.last_minute.add(now.as_secs());
            tally.last_hour.add(now.as_secs() / 60);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let uptime = self.started.elapsed();
        let tally = self.tally();
        Snapshot {
            uptime,
            errors: self.errors.get(),
            errors_last_hour: tally.last_hour.sum(uptime.as_secs() / 60),
            errors_last_minute: tally.last_minute.sum(uptime.as_secs()),
            in_progress: self.in_progress.get(),
            by_status: tally.by_status.clone(),
        }
    }

    /// Renders the exposition, Prometheus text 0.0.4.
    pub(super) fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in progress.
pub(super) struct InProgress(IntGauge);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Methods are the client's to invent; labels are not.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => OTHER,
    }
}

/// Counts over the last 60 ticks, whatever a tick is.
struct Window {
    slots: [(u64, u64); 60],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            slots: [(0, 0); 60],
        }
    }
}

impl Window {
    fn add(&mut self, tick: u64) {
        let slot = &mut self.slots[(tick % 60) as usize];
        if slot.0 != tick {
            *slot = (tick, 0);
        }
        slot.1 += 1;
    }

    fn sum(&self, now: u64) -> u64 {
        self.slots
            .iter()
            .filter(|(tick, _)| now - tick.min(&now) < 60)
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_sixty_ticks_old() {
        let mut window = Window::default();
        window.add(0);
        window.add(5);
        window.add(5);
        assert_eq!([window.sum(5), window.sum(59)], [3, 3]);
        assert_eq!([window.sum(60), window.sum(64), window.sum(65)], [2, 2, 0]);
        window.add(65);
        assert_eq!(window.sum(65), 1, "the slot of tick 5 is taken over");
        assert_eq!(window.sum(10_000), 0);
    }

    #[test]
    fn invented_methods_share_one_series() {
        let statistics = Statistics::new([].into_iter()).expect("statistics");
        for name in ["BREW", "WHEN", "PROPFIND"] {
            let method = Method::from_bytes(name.as_bytes()).expect("method");
            statistics.record(&Answered {
                method: &method,
                path: OTHER,
                status: StatusCode::NOT_FOUND,
                took: Duration::ZERO,
                size: 2,
            });
        }
        let text = statistics.render().expect("exposition");
        let series = r#"http_requests_total{method="other",path="other",status="404"} 3"#;
        assert!(text.contains(series), "{text}");
        assert!(!text.contains("BREW"), "{text}");
    }
}
