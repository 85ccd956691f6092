//! One exposition of both sides: the collector's families and the facade's, merged by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};
use tokio::sync::watch;

use super::ProcessMetrics;
use super::program_families::{FAMILIES, Kind, number};
use super::program_metrics::{family, rows};
use super::program_text::{Page, write_family};
use super::published::Published;
use super::resources::{OwnSampler, Resources, Sample, Usage};
use crate::control::api;
use crate::supervision::State;

/// The content type of `/metrics`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Makes a status or an exposition of the published snapshot, on any thread. A handle.
#[derive(Clone)]
pub struct Reader {
    published: watch::Receiver<Arc<Published>>,
    resources: Arc<Resources>,
    own: OwnSampler,
    metrics: ProcessMetrics,
    /// What the last expositions took, plain and gzipped, in bytes.
    sizes: Arc<[AtomicUsize; 2]>,
}

impl Reader {
    pub(super) fn new(
        published: watch::Receiver<Arc<Published>>,
        resources: Arc<Resources>,
        own: OwnSampler,
        metrics: ProcessMetrics,
    ) -> Self {
        Self {
            published,
            resources,
            own,
            metrics,
            sizes: Arc::default(),
        }
    }

    /// Returns the latest snapshot.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Returns the snapshot as it changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Returns the whole status without looking at any process: what programs use is left out.
    #[must_use]
    pub fn outline(&self) -> api::Status {
        self.published().status(&Sample::default())
    }

    /// Returns what the programs of a snapshot use.
    #[must_use]
    pub fn sample(&self, published: &Published) -> Arc<Sample> {
        self.resources.look(published)
    }

    /// Returns the whole status.
    #[must_use]
    pub fn status(&self) -> api::Status {
        let published = self.published();
        published.status(&self.sample(&published))
    }

    /// Returns the exposition, gzipped if asked. It is compressed on the way, so that the text
    /// of thousands of programs never exists as a whole.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn exposition(&self, gzip: bool) -> io::Result<Vec<u8>> {
        let expected = &self.sizes[usize::from(gzip)];
        let mut page = Page::new(gzip, expected.load(Ordering::Relaxed));
        self.write_exposition(&mut page)?;
        let written = page.finish()?;
        // A little more than this time, so that the next one need not grow.
        expected.store(written.len() + written.len() / 64, Ordering::Relaxed);
        Ok(written)
    }

    fn write_exposition(&self, page: &mut Page) -> io::Result<()> {
        let published = self.published();
        let began = Instant::now();
        let sample = self.sample(&published);
        let resources = Look {
            took: began.elapsed(),
            success: !sample.blind,
        };
        let began = Instant::now();
        let own = (self.own)();
        let process = Look {
            took: began.elapsed(),
            success: own.is_some(),
        };
        let mut facade = Facade(blocks(&self.metrics.render()));
        let began = Instant::now();
        let rows = rows(&published, &sample);
        for spec in FAMILIES {
            facade.write_before(spec.name, page)?;
            write_family(spec, &rows, page)?;
        }
        let programs = Look {
            took: began.elapsed(),
            success: true,
        };
        let mut rest = vec![by_state(&published)];
        rest.extend(looks([
            ("process", process),
            ("programs", programs),
            ("resources", resources),
        ]));
        rest.extend(own_process(own.as_ref(), &published));
        for family in rest {
            facade.write_before(family.name(), page)?;
            TextEncoder::new()
                .encode(&[family], &mut page.text)
                .map_err(io::Error::other)?;
        }
        facade.write_rest(page);
        Ok(())
    }
}

struct Look {
    took: Duration,
    success: bool,
}

fn looks(all: [(&str, Look); 3]) -> [MetricFamily; 2] {
    let labels = all.each_ref().map(|(name, _)| [("collector", *name)]);
    let series = |value: fn(&Look) -> f64| -> Vec<(&[(&str, &str)], f64)> {
        labels
            .iter()
            .zip(&all)
            .map(|(label, (_, look))| (label.as_slice(), value(look)))
            .collect()
    };
    let took = series(|look| look.took.as_secs_f64());
    let success = series(|look| f64::from(u8::from(look.success)));
    [
        family(
            (
                "eternal_scrape_collector_duration_seconds",
                "How long a part of this scrape took, in seconds.",
                Kind::Gauge,
            ),
            &took,
        ),
        family(
            (
                "eternal_scrape_collector_success",
                "Whether a part of this scrape could read all it wanted.",
                Kind::Gauge,
            ),
            &success,
        ),
    ]
}

fn by_state(published: &Published) -> MetricFamily {
    let mut counts = [0_u64; State::ALL.len()];
    for program in published.programs() {
        counts[program.view.state as usize] += 1;
    }
    let labels = State::ALL.map(|state| [("state", state.label())]);
    let series: Vec<(&[(&str, &str)], f64)> = labels
        .iter()
        .zip(counts)
        .map(|(l, n)| (l.as_slice(), number(n)))
        .collect();
    family(
        (
            "eternal_programs",
            "Replicas of programs, by state.",
            Kind::Gauge,
        ),
        &series,
    )
}

/// The daemon's own `process_*`, sorted by name.
fn own_process(usage: Option<&Usage>, published: &Published) -> Vec<MetricFamily> {
    use Kind::{Counter, Gauge};
    let started = super::text::unix_seconds(published.identity.started_at);
    let mut all = vec![(
        "process_start_time_seconds",
        "When the daemon started, in seconds since 1970.",
        Gauge,
        started,
    )];
    if let Some(u) = usage {
        let cpu = u.cpu_user_seconds + u.cpu_system_seconds;
        all.extend([
            (
                "process_cpu_seconds_total",
                "CPU time of the daemon, in seconds.",
                Counter,
                cpu,
            ),
            (
                "process_max_fds",
                "Limit of open descriptors of the daemon.",
                Gauge,
                number(u.max_fds),
            ),
            (
                "process_open_fds",
                "Open descriptors of the daemon.",
                Gauge,
                number(u.open_fds),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory of the daemon, in bytes.",
                Gauge,
                number(u.resident_bytes),
            ),
            (
                "process_threads",
                "Threads of the daemon.",
                Gauge,
                number(u.threads),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory of the daemon, in bytes.",
                Gauge,
                number(u.virtual_bytes),
            ),
        ]);
    }
    all.sort_by_key(|(name, ..)| *name);
    all.into_iter()
        .map(|(name, help, kind, v)| family((name, help, kind), &[(&[], v)]))
        .collect()
}

/// The facade's families that are still to be merged in.
struct Facade(BTreeMap<String, Vec<String>>);

impl Facade {
    /// Writes those whose turn is before `name`.
    fn write_before(&mut self, name: &str, page: &mut Page) -> io::Result<()> {
        while let Some(entry) = self.0.first_entry()
            && entry.key().as_str() < name
        {
            write_lines(&entry.remove(), page);
        }
        page.pack()
    }

    fn write_rest(self, page: &mut Page) {
        for lines in self.0.values() {
            write_lines(lines, page);
        }
    }
}

fn write_lines(lines: &[String], page: &mut Page) {
    for line in lines {
        page.text.extend_from_slice(line.as_bytes());
        page.text.push(b'\n');
    }
}

/// Splits the facade's exposition into families, each with its series in a stable order.
fn blocks(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            comment
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .clone_into(&mut name);
        }
        blocks
            .entry(name.clone())
            .or_default()
            .push(line.to_owned());
    }
    for lines in blocks.values_mut() {
        lines.sort_by_cached_key(|line| series_key(line));
    }
    blocks
}

/// Orders lines by their labels without `le`, so that the lines of one histogram stay together in
/// the order in which they came; comments come first.
fn series_key(line: &str) -> String {
    if line.starts_with('#') {
        return String::new();
    }
    let labels = line
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'));
    let kept = labels.map_or("", |(labels, _)| labels);
    let kept: Vec<&str> = kept
        .split(',')
        .filter(|label| !label.starts_with("le="))
        .collect();
    format!("{{{}}}", kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facades_families_come_out_sorted_with_histograms_intact() {
        let text = "# HELP b B.\n# TYPE b histogram\n\
            b_bucket{h=\"y\",le=\"1\"} 1\nb_bucket{h=\"y\",le=\"+Inf\"} 1\nb_sum{h=\"y\"} 1\nb_count{h=\"y\"} 1\n\
            b_bucket{h=\"x\",le=\"1\"} 2\nb_bucket{h=\"x\",le=\"+Inf\"} 2\nb_sum{h=\"x\"} 2\nb_count{h=\"x\"} 2\n\
            \n# HELP a A.\n# TYPE a counter\na 3\n";
        let blocks = blocks(text);
        assert_eq!(blocks.keys().collect::<Vec<_>>(), ["a", "b"]);
        let b = &blocks["b"];
        assert_eq!(b[0], "# HELP b B.");
        assert_eq!(b[2], "b_bucket{h=\"x\",le=\"1\"} 2");
        assert_eq!(b[3], "b_bucket{h=\"x\",le=\"+Inf\"} 2");
        assert_eq!(b[5], "b_count{h=\"x\"} 2");
        assert_eq!(b[6], "b_bucket{h=\"y\",le=\"1\"} 1");
    }
}
