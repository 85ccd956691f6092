//! The test's own books: what every replica has done and suffered.

use std::collections::BTreeMap;

use eternal::supervision::{Cause, ExitReason};

use crate::scrape::{Series, sum};

/// What one replica is known to have gone through.
#[derive(Debug, Default)]
pub struct Account {
    starts: u64,
    exits: BTreeMap<&'static str, u64>,
    restarts: BTreeMap<&'static str, u64>,
    crashes: u64,
}

impl Account {
    /// It was started.
    pub fn start(&mut self) {
        self.starts += 1;
    }

    /// It was started again, for a cause.
    pub fn restart(&mut self, cause: Cause) {
        self.starts += 1;
        *self.restarts.entry(cause.label()).or_default() += 1;
    }

    /// It ended, or could not be started.
    pub fn end(&mut self, reason: ExitReason) {
        *self.exits.entry(reason.label()).or_default() += 1;
        self.crashes += u64::from(reason.is_crash());
    }

    /// It ended and was started again.
    pub fn end_and_restart(&mut self, reason: ExitReason, cause: Cause) {
        self.end(reason);
        self.restart(cause);
    }

    /// Enters what a program wrote into its own book: an end that was followed by a restart.
    pub fn enter(&mut self, line: &str, dumps: bool) {
        let reason = match line.split_once(' ').expect("a kind and a number") {
            ("exit", "0") => return self.end_and_restart(ExitReason::Success, Cause::Exit),
            ("exit", _) => ExitReason::ExitCode,
            _ if dumps => ExitReason::CoreDump,
            _ => ExitReason::Signal,
        };
        self.end_and_restart(reason, Cause::Crash);
    }

    /// How often it ended.
    pub fn ends(&self) -> u64 {
        self.exits.values().sum()
    }

    /// Adds the ends of each reason to `all`.
    pub fn tally(&self, all: &mut BTreeMap<&'static str, u64>) {
        for (reason, count) in &self.exits {
            *all.entry(reason).or_default() += count;
        }
    }

    /// Returns where a scrape disagrees with the books.
    pub fn differences(&self, who: &str, series: &Series) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |name: String, expected: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let expected = expected as f64;
            let found = series.get(&name).copied();
            if found != Some(expected) {
                wrong.push(format!("{who} {name}: {found:?}, the books say {expected}"));
            }
        };
        let of = |map: &BTreeMap<&'static str, u64>, label| map.get(label).copied().unwrap_or(0);
        for reason in ExitReason::ALL.map(ExitReason::label) {
            let name = format!("exits_total{{reason=\"{reason}\"}}");
            check(name, of(&self.exits, reason));
        }
        for cause in Cause::ALL.map(Cause::label) {
            let name = format!("restarts_total{{cause=\"{cause}\"}}");
            check(name, of(&self.restarts, cause));
        }
        check("starts_total".to_owned(), self.starts);
        check("crashes_total".to_owned(), self.crashes);
        let ran = self.ends() - of(&self.exits, ExitReason::SpawnError.label());
        check("run_duration_seconds_count".to_owned(), ran);
        check("run_duration_seconds_bucket{le=\"+Inf\"}".to_owned(), ran);
        let up = self.starts - self.ends();
        check("up".to_owned(), up);
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let ends = self.ends() as f64;
        let last = sum(series, "last_exit_reason{");
        if (last - ends.min(1.0)).abs() > 1e-9 {
            wrong.push(format!("{who}: {last} last reasons"));
        }
        wrong
    }
}
