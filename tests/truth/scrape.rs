//! Scrapes: what each must hold by itself, and beside the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use eternal::supervision::{Cause, ExitReason, FailureKind, State};

/// The series of one program: by the family's name without prefix, with further labels as in the
/// text.
pub type Series = BTreeMap<String, f64>;

/// Everything in one answer.
#[derive(Default)]
pub struct Scrape {
    /// By program and replica.
    pub programs: BTreeMap<(String, String), Series>,
    counters: BTreeSet<String>,
}

impl Scrape {
    /// Asks for one; `None` while nobody listens.
    pub fn of(socket: &Path) -> Option<Self> {
        Self::text(socket).map(|text| Self::parse(&text))
    }

    /// Asks for the text of one; `None` while nobody listens.
    pub fn text(socket: &Path) -> Option<String> {
        let mut stream = UnixStream::connect(socket).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, text) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Some(text.to_owned())
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                if let Some((name, "counter" | "histogram")) = kind.split_once(' ') {
                    scrape.counters.insert(short(name).to_owned());
                }
                continue;
            }
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Some((family, labels)) = series.split_once("{program=\"") else {
                continue;
            };
            let (program, rest) = labels.split_once("\",replica=\"").expect("a replica");
            let (replica, labels) = rest.split_once('"').expect("a quote");
            let labels = labels.trim_start_matches(',').trim_end_matches('}');
            let name = if labels.is_empty() {
                short(family).to_owned()
            } else {
                format!("{}{{{labels}}}", short(family))
            };
            let key = (program.to_owned(), replica.to_owned());
            let old = scrape
                .programs
                .entry(key)
                .or_default()
                .insert(name, value.parse().expect("a number"));
            assert_eq!(old, None, "{series} is there once");
        }
        scrape
    }

    /// Checks what holds in every scrape.
    pub fn check(&self) {
        let expected = complete();
        for ((name, replica), series) in &self.programs {
            let who = format!("{name}/{replica}");
            let missing: Vec<_> = expected
                .iter()
                .filter(|s| !series.contains_key(*s))
                .collect();
            assert!(missing.is_empty(), "{who} lacks {missing:?}");
            let states = sum(series, "state{");
            assert!((states - 1.0).abs() < 1e-9, "{who} is in {states} states");
            let (starts, exits, up) = (
                series["starts_total"],
                sum(series, "exits_total{"),
                series["up"],
            );
            assert!(
                (starts - exits - up).abs() < 1e-9,
                "{who}: starts {starts}, exits {exits}, up {up}"
            );
        }
    }

    /// Checks that no counter of a program that was there before has gone back.
    pub fn check_after(&self, before: &Self) {
        for (program, series) in &self.programs {
            let Some(old) = before.programs.get(program) else {
                continue;
            };
            for (name, value) in series.iter().filter(|(name, _)| self.is_counter(name)) {
                let old = old.get(name).copied().unwrap_or(0.0);
                assert!(
                    *value >= old,
                    "{program:?} {name} went from {old} back to {value}"
                );
            }
        }
    }

    fn is_counter(&self, series: &str) -> bool {
        let family = series.split('{').next().unwrap_or(series);
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| family.strip_suffix(suffix));
        self.counters.contains(family) || base.is_some_and(|base| self.counters.contains(base))
    }
}

/// Sums the series that begin so.
pub fn sum(series: &Series, prefix: &str) -> f64 {
    series
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(_, value)| value)
        .sum()
}

fn short(family: &str) -> &str {
    family.strip_prefix("eternal_program_").unwrap_or(family)
}

/// The series that every program has from its first scrape to its last.
fn complete() -> BTreeSet<String> {
    let mut all: BTreeSet<String> = [
        "backoff_seconds",
        "crash_budget",
        "crash_budget_remaining",
        "crashes_total",
        "desired_running",
        "gave_up_total",
        "read_bytes_total",
        "ready",
        "restart_latency_seconds_count",
        "run_duration_seconds_count",
        "starts_total",
        "startup_duration_seconds_count",
        "stop_duration_seconds_count",
        "stop_escalations_total",
        "up",
        "uptime_seconds_total",
        "written_bytes_total",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    let mut each = |family: &str, label: &str, values: Vec<&str>| {
        all.extend(
            values
                .iter()
                .map(|value| format!("{family}{{{label}=\"{value}\"}}")),
        );
    };
    let reasons = || ExitReason::ALL.map(ExitReason::label).to_vec();
    each("exits_total", "reason", reasons());
    each("last_exit_reason", "reason", reasons());
    each(
        "restarts_total",
        "cause",
        Cause::ALL.map(Cause::label).to_vec(),
    );
    each("state", "state", State::ALL.map(State::label).to_vec());
    let kinds = FailureKind::ALL.map(FailureKind::label).to_vec();
    each("start_failures_total", "reason", kinds);
    each("cpu_seconds_total", "mode", vec!["user", "system"]);
    for family in [
        "log_bytes_total",
        "log_lines_total",
        "log_dropped_lines_total",
    ] {
        each(family, "stream", vec!["stdout", "stderr"]);
    }
    all
}

/// Scrapes until it is told to end; returns how often it did, and the programs it ever saw.
pub fn keep_scraping(
    socket: PathBuf,
    pause: Duration,
    stop: Receiver<()>,
) -> (usize, BTreeSet<String>) {
    let (mut count, mut seen) = (0, BTreeSet::new());
    let mut before = Scrape::default();
    while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let scrape = Scrape::of(&socket).expect("the daemon answers");
        scrape.check();
        scrape.check_after(&before);
        seen.extend(scrape.programs.keys().map(|(name, _)| name.clone()));
        count += 1;
        before = scrape;
    }
    (count, seen)
}
