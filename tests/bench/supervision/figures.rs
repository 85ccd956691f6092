//! Samples, what is told of them, and whether a target is met.

/// Measurements of one kind, in order of size.
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The value below which this share of the samples lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0[((last as f64) * share).round() as usize]
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Prints one line: the noise is to be seen.
    pub fn tell(&self, whose: &str, unit: &str) {
        let [least, p10, p50, p90, p99, most] =
            [0.0, 0.1, 0.5, 0.9, 0.99, 1.0].map(|share| self.quantile(share));
        println!(
            "  {whose:<18} min {least:>8.2}  p10 {p10:>8.2}  p50 {p50:>8.2}  p90 {p90:>8.2}  \
             p99 {p99:>8.2}  max {most:>8.2} {unit} (n = {})",
            self.0.len()
        );
    }
}

/// A figure and its target: at most this much.
pub struct Verdict {
    pub what: String,
    pub figure: f64,
    pub target: f64,
    pub unit: &'static str,
}

impl Verdict {
    pub fn new(what: impl Into<String>, figure: f64, target: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            figure,
            target,
            unit,
        }
    }

    pub fn met(&self) -> bool {
        self.figure <= self.target
    }
}

/// Prints every figure beside its target.
pub fn table(verdicts: &[Verdict]) {
    println!("\n{:<52} {:>10} {:>10}", "", "figure", "target");
    for verdict in verdicts {
        println!(
            "{:<52} {:>10.2} {:>10.2} {:<4} {}",
            verdict.what,
            verdict.figure,
            verdict.target,
            verdict.unit,
            if verdict.met() { "met" } else { "MISSED" }
        );
    }
}
