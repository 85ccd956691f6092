//! The program families as text, written directly: with thousands of programs the model of the
//! `prometheus` crate costs ten times the text itself. A test holds one against the other.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::ledger::Histogram;
use super::program_families::{Family, Kind};
use super::program_metrics::{Row, Series};

/// Text is compressed by blocks of this many bytes, while it is in the cache.
const BLOCK: usize = 64 * 1024;

/// A page under way: text, and what of it is compressed already.
pub(super) struct Page {
    pub text: Vec<u8>,
    packed: Option<GzEncoder<Vec<u8>>>,
}

impl Page {
    /// Makes an empty one that is expected to take so many bytes in the end.
    pub fn new(gzip: bool, expected: usize) -> Self {
        let out = Vec::with_capacity(expected);
        if gzip {
            Self {
                text: Vec::with_capacity(2 * BLOCK),
                packed: Some(GzEncoder::new(out, Compression::fast())),
            }
        } else {
            Self {
                text: out,
                packed: None,
            }
        }
    }

    /// Compresses what there is, if that is asked for and worth it.
    pub fn pack(&mut self) -> io::Result<()> {
        if let Some(packed) = &mut self.packed
            && self.text.len() >= BLOCK
        {
            packed.write_all(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    /// Returns the whole page.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        let Some(mut packed) = self.packed else {
            return Ok(self.text);
        };
        packed.write_all(&self.text)?;
        packed.finish()
    }
}

/// Writes one family of all programs; nothing at all when it has no series.
pub(super) fn write_family(spec: &Family, rows: &[Row<'_>], page: &mut Page) -> io::Result<()> {
    let start = page.text.len();
    let kind = match spec.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    push(
        &mut page.text,
        &["# HELP ", spec.name, " ", &escaped_help(spec.help), "\n"],
    );
    push(&mut page.text, &["# TYPE ", spec.name, " ", kind, "\n"]);
    let mut any = false;
    let mut bounds = Bounds::default();
    for row in rows {
        let mut lines = Lines {
            name: spec.name,
            labels: &row.labels,
            bounds: &mut bounds,
            any: &mut any,
            out: &mut page.text,
        };
        (spec.fill)(row, &mut lines);
        // The head may still have to go while there is no series.
        if any {
            page.pack()?;
        }
    }
    if !any {
        page.text.truncate(start);
    }
    Ok(())
}

/// Returns the labels that every series of a program begins with.
pub(super) fn row_labels(program: &str, replica: u32) -> String {
    let mut labels = Vec::with_capacity(program.len() + 32);
    labels.extend_from_slice(b"program=\"");
    push_escaped(&mut labels, program);
    labels.extend_from_slice(b"\",replica=\"");
    push_count(&mut labels, u64::from(replica));
    labels.push(b'"');
    // Only ASCII was put between the parts of a string.
    String::from_utf8(labels).unwrap_or_default()
}

/// The upper bounds of the last histogram as they are written: those of a family are all the same.
#[derive(Default)]
struct Bounds {
    of: &'static [f64],
    written: Vec<String>,
}

impl Bounds {
    fn written(&mut self, of: &'static [f64]) -> &[String] {
        if !std::ptr::eq(self.of, of) {
            self.written = of.iter().map(f64::to_string).collect();
            self.of = of;
        }
        &self.written
    }
}

/// The lines of one program in one family.
struct Lines<'a> {
    name: &'static str,
    labels: &'a str,
    bounds: &'a mut Bounds,
    any: &'a mut bool,
    out: &'a mut Vec<u8>,
}

impl Series for Lines<'_> {
    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        push(self.out, &[self.name, "{", self.labels]);
        for (name, value) in labels {
            push(self.out, &[",", name, "=\""]);
            push_escaped(self.out, value);
            self.out.push(b'"');
        }
        self.out.extend_from_slice(b"} ");
        push_number(self.out, value);
        self.out.push(b'\n');
        *self.any = true;
    }

    fn histogram(&mut self, histogram: &Histogram) {
        let bounds = self.bounds.written(histogram.bounds());
        let (out, name, labels) = (&mut *self.out, self.name, self.labels);
        let mut bucket = |bound: &str, count| {
            push(out, &[name, "_bucket{", labels, ",le=\"", bound, "\"} "]);
            push_count(out, count);
            out.push(b'\n');
        };
        for (bound, (_, count)) in bounds.iter().zip(histogram.cumulative()) {
            bucket(bound, count);
        }
        bucket("+Inf", histogram.count());
        push(out, &[name, "_sum{", labels, "} "]);
        push_number(out, histogram.sum());
        push(out, &["\n", name, "_count{", labels, "} "]);
        push_count(out, histogram.count());
        out.push(b'\n');
        *self.any = true;
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends a label value with backslash, quote and line feed escaped.
fn push_escaped(out: &mut Vec<u8>, value: &str) {
    if memchr::memchr3(b'\\', b'"', b'\n', value.as_bytes()).is_none() {
        return out.extend_from_slice(value.as_bytes());
    }
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

fn escaped_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

fn push_number(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Most values are whole; 0 with a minus sign is not written as 0.
    if (0.0..EXACT).contains(&value) && value.fract() == 0.0 && value.is_sign_positive() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: whole and below 2⁵³"
        )]
        push_count(out, value as u64);
    } else {
        // A vector takes everything.
        let _ = write!(out, "{value}");
    }
}

fn push_count(out: &mut Vec<u8>, mut count: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (count % 10) as u8;
        count /= 10;
        if count == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use prometheus::TextEncoder;

    use super::super::program_families::FAMILIES;
    use super::super::program_metrics::{families, rows};
    use super::super::resources::Usage;
    use super::super::{About, HealthTally, Identity, Observer, Setup, StreamCounts};
    use super::*;
    use crate::supervision::{Cause, Event, Exit, ExitReason, Id, Run, State, View, WaitStatus};

    fn observer() -> Observer {
        let usage = Usage {
            cpu_user_seconds: 0.123_456,
            max_fds: u64::MAX,
            processes: 1,
            resident_bytes: 1 << 60,
            oom_kills: Some(2),
            ..Usage::default()
        };
        let identity = Identity {
            version: String::new(),
            revision: String::new(),
            rustc: String::new(),
            arguments: Vec::new(),
            directory: String::new(),
            config_file: None,
            metrics_address: None,
            service: false,
            unit: None,
            since: Instant::now(),
            started_at: SystemTime::now(),
        };
        Observer::new(Setup {
            identity,
            usage: Arc::new(move |wanted| wanted.iter().map(|_| usage).collect()),
            own_usage: Arc::new(|| None),
        })
        .expect("the exporter takes its buckets")
    }

    fn about(name: &str, replica: u32) -> About {
        About {
            name: name.to_owned(),
            replica,
            display_name: name.to_owned(),
            command: vec![format!("/srv/{name}")],
            restart_policy: "always",
            user: "a\"b".to_owned(),
            config_hash: "c0ffee".to_owned(),
            autostart: true,
            crash_budget: 5,
            crash_window: Duration::from_secs(60),
            metrics_address: None,
            log_counters: Arc::new(|| [StreamCounts::default(); 2]),
            health: (name == "plain").then(|| Arc::new(HealthTally::new("http"))),
        }
    }

    fn view(state: State) -> View {
        View {
            state,
            desired: true,
            ready: false,
            run: (state == State::Running).then(|| (Run(1), 1, Instant::now())),
            ran: Duration::from_micros(1_234_567),
            crashes: vec![Duration::from_secs(1)],
            deadline: Some(Instant::now() + Duration::from_millis(1500)),
            ready_at: None,
            failed_starts: 0,
            backoff: Some(Duration::from_millis(300)),
            why: "",
            waits_for: None,
        }
    }

    fn fill(observer: &mut Observer) {
        for (n, name) in ["we\"b\\\n{}é", "plain", "plain"].into_iter().enumerate() {
            let id = Id(u32::try_from(n).expect("three"));
            observer.add(id, about(name, id.0));
            let state = [State::Running, State::Backoff, State::Stopped][n];
            observer.publish([(id, view(state))]);
        }
        let exits = [(ExitReason::Signal, 9), (ExitReason::CoreDump, 11)];
        for (reason, signal) in exits {
            let status = WaitStatus::Signaled {
                signal,
                core_dumped: false,
                oom: false,
            };
            let exit = Exit {
                run: Run(1),
                pid: 1,
                reason,
                status,
                at: Instant::now(),
                ran: Duration::from_millis(1234),
                was_ready: true,
            };
            observer.record(Id(1), &Event::Exited(exit));
            let started = Event::Started {
                run: Run(2),
                pid: 2,
                cause: Some(Cause::Crash),
            };
            observer.record(Id(0), &started);
        }
        observer.publish([]);
    }

    #[test]
    fn the_text_is_what_the_model_of_the_prometheus_crate_says() {
        for programs in [0, 3] {
            let mut observer = observer();
            if programs > 0 {
                fill(&mut observer);
            }
            let reader = observer.reader();
            let published = reader.published();
            let sample = reader.sample(&published);
            let rows = rows(&published, &sample);
            assert_eq!(rows.len(), programs);
            let mut page = Page::new(false, 0);
            for spec in FAMILIES {
                write_family(spec, &rows, &mut page).expect("memory takes everything");
            }
            let text = String::from_utf8(page.finish().expect("plain")).expect("UTF-8");
            let model = TextEncoder::new()
                .encode_to_string(&families(&rows))
                .expect("the model is sound");
            for (line, expected) in text.lines().zip(model.lines()) {
                assert_eq!(line, expected);
            }
            assert_eq!(text.len(), model.len());
        }
    }

    #[test]
    fn numbers_are_written_as_display_writes_them() {
        let numbers = [
            0.0,
            -0.0,
            1.0,
            10.0,
            0.1,
            -3.0,
            1234.5678,
            1e15,
            9_007_199_254_740_991.0,
            9_007_199_254_740_992.0,
            1.844_674_407_370_955_2e19,
            1e-9,
            f64::NAN,
        ];
        for number in numbers {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
