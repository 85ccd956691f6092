//! Everything labelled with a program: made from the published snapshot when it is scraped, so
//! that series appear, at zero, with the program and vanish with it.

use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric, MetricFamily,
    MetricType,
};

use super::HealthCounts;
use super::exposition::Reader;
use super::ledger::Histogram;
use super::program_families::{FAMILIES, Kind};
use super::program_text::row_labels;
use super::published::{Program, Published};
use super::resources::{Sample, Usage};

/// One program's row in every family.
pub(super) struct Row<'a> {
    pub program: &'a Program,
    pub replica: String,
    /// `program="…",replica="…"`, escaped: every line of the text begins with it.
    pub labels: String,
    pub now: Instant,
    pub usage: Option<&'a Usage>,
    pub totals: Usage,
    pub logs: [super::StreamCounts; 2],
    /// The kind of its health check, and how that stands.
    pub health: Option<(&'static str, HealthCounts)>,
    pub run_time: f64,
}

/// Where the series of one family and one program go.
pub(super) trait Series {
    /// Adds a series with further labels.
    fn add(&mut self, labels: &[(&str, &str)], value: f64);

    /// Adds a histogram.
    fn histogram(&mut self, histogram: &Histogram);
}

impl dyn Series + '_ {
    /// Adds a series without further labels.
    pub fn plain(&mut self, value: f64) {
        self.add(&[], value);
    }

    /// Adds a series without further labels, if there is a value.
    pub fn optional(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.plain(value);
        }
    }

    /// Adds a series for each label value.
    pub fn each<'l>(&mut self, label: &str, values: impl IntoIterator<Item = (&'l str, f64)>) {
        for (name, value) in values {
            self.add(&[(label, name)], value);
        }
    }
}

/// Series as the `prometheus` crate models them.
struct Model<'a> {
    kind: Kind,
    row: &'a Row<'a>,
    out: &'a mut Vec<Metric>,
}

impl Series for Model<'_> {
    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let metric = self.metric(labels);
        self.out.push(valued(metric, self.kind, value));
    }

    fn histogram(&mut self, histogram: &Histogram) {
        let mut proto = HistogramProto::default();
        proto.set_sample_count(histogram.count());
        proto.set_sample_sum(histogram.sum());
        let buckets = histogram.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        proto.set_bucket(buckets.collect());
        let mut metric = self.metric(&[]);
        metric.set_histogram(proto);
        self.out.push(metric);
    }
}

impl Model<'_> {
    fn metric(&self, labels: &[(&str, &str)]) -> Metric {
        let mut pairs = Vec::with_capacity(2 + labels.len());
        pairs.push(pair("program", &self.row.program.about.name));
        pairs.push(pair("replica", &self.row.replica));
        pairs.extend(labels.iter().map(|(name, value)| pair(name, value)));
        Metric::from_label(pairs)
    }
}

fn valued(mut metric: Metric, kind: Kind, value: f64) -> Metric {
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Kind::Gauge | Kind::Histogram => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

/// Returns a label.
fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// Makes a family of series that carry no program.
pub(super) fn family(
    (name, help, kind): (&str, &str, Kind),
    series: &[(&[(&str, &str)], f64)],
) -> MetricFamily {
    let metrics = series.iter().map(|(labels, value)| {
        let labels = labels
            .iter()
            .map(|(name, value)| pair(name, value))
            .collect();
        valued(Metric::from_label(labels), kind, *value)
    });
    dressed(name, help, kind, metrics.collect())
}

fn dressed(name: &str, help: &str, kind: Kind, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(match kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

/// Returns every program's row, sorted by name and replica.
pub(super) fn rows<'a>(published: &'a Published, sample: &'a Sample) -> Vec<Row<'a>> {
    let now = Instant::now();
    let mut rows: Vec<Row<'a>> = published
        .programs()
        .map(|program| Row {
            replica: program.about.replica.to_string(),
            labels: row_labels(&program.about.name, program.about.replica),
            usage: program
                .view
                .run
                .and_then(|(run, _, _)| sample.runs.get(&(program.id, run))),
            totals: sample.totals.get(&program.id).copied().unwrap_or_default(),
            logs: (program.about.log_counters)(),
            health: program
                .about
                .health
                .as_ref()
                .map(|tally| (tally.check(), tally.counts())),
            run_time: program.run_time(now).as_secs_f64(),
            program,
            now,
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &Row<'a>| (&row.program.about.name, row.program.about.replica);
        key(a).cmp(&key(b))
    });
    rows
}

/// Makes every family with a program label, in the order of their names.
pub(super) fn families(rows: &[Row<'_>]) -> Vec<MetricFamily> {
    let mut families = Vec::with_capacity(FAMILIES.len());
    for spec in FAMILIES {
        let mut metrics = Vec::new();
        for row in rows {
            let mut model = Model {
                kind: spec.kind,
                row,
                out: &mut metrics,
            };
            (spec.fill)(row, &mut model);
        }
        if !metrics.is_empty() {
            families.push(dressed(spec.name, spec.help, spec.kind, metrics));
        }
    }
    families
}

/// The program families as a `prometheus` collector, for whoever wants them in a registry. It is
/// also the model that the text of `/metrics`, which is written without it, is held against.
pub struct ProgramCollector {
    reader: Reader,
    descriptions: Vec<Desc>,
}

impl ProgramCollector {
    /// Makes one that collects from the snapshot at every scrape.
    ///
    /// # Errors
    ///
    /// When a family's name is not one that Prometheus takes.
    pub fn new(reader: Reader) -> prometheus::Result<Self> {
        let describe = |spec: &super::program_families::Family| {
            Desc::new(
                spec.name.into(),
                spec.help.into(),
                Vec::new(),
                Default::default(),
            )
        };
        let descriptions = FAMILIES
            .iter()
            .map(describe)
            .collect::<prometheus::Result<_>>()?;
        Ok(Self {
            reader,
            descriptions,
        })
    }
}

impl Collector for ProgramCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let published = self.reader.published();
        let sample = self.reader.sample(&published);
        families(&rows(&published, &sample))
    }
}
