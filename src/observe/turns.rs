//! How the supervision loop turns: how long each turn takes, and how late it wakes up.
//!
//! Read by the thread that serves `/metrics`, so that a loop that is stuck shows there: it cannot
//! say so itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Seconds.
const LAG_BOUNDS: [f64; 13] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The turns of the loop. A handle; clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Clockwork>);

#[derive(Debug)]
struct Clockwork {
    origin: Instant,
    /// When the turn under way began, in nanoseconds since the origin, and one more; 0 while the
    /// loop waits.
    began: AtomicU64,
    /// The longest since somebody asked, in nanoseconds.
    longest: AtomicU64,
    /// Wake-ups by how late they were; the last are later than every bound.
    late: [AtomicU64; LAG_BOUNDS.len() + 1],
    /// All of that together, in nanoseconds.
    late_in_all: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Clockwork {
            origin: Instant::now(),
            began: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            late: Default::default(),
            late_in_all: AtomicU64::new(0),
        }))
    }
}

impl Turns {
    /// A turn begins.
    pub fn begin(&self) {
        self.0.began.store(self.now() + 1, Relaxed);
    }

    /// It was none: nothing had happened.
    pub fn was_none(&self) {
        self.0.began.store(0, Relaxed);
    }

    /// The turn is over.
    pub fn end(&self) {
        self.0.longest.fetch_max(self.under_way(), Relaxed);
        self.0.began.store(0, Relaxed);
    }

    /// Adds how late the loop woke up.
    pub fn woke(&self, late: Duration) {
        let seconds = late.as_secs_f64();
        let bucket = LAG_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.0.late[bucket.unwrap_or(LAG_BOUNDS.len())].fetch_add(1, Relaxed);
        self.0.late_in_all.fetch_add(nanos(late), Relaxed);
    }

    /// Writes the families of all this. The longest turn starts over with it.
    pub(super) fn render(&self, text: &mut String) {
        let under_way = self.under_way();
        let longest = self.0.longest.swap(0, Relaxed).max(under_way);
        gauge(
            text,
            "eternal_event_loop_turn_seconds",
            "Longest turn of the supervision loop since the last scrape, in seconds; one under way counts as far as it has come.",
            longest,
        );
        gauge(
            text,
            "eternal_event_loop_turn_under_way_seconds",
            "How long the present turn of the supervision loop has lasted, in seconds; 0 while it waits.",
            under_way,
        );
        let name = "eternal_event_loop_lag_seconds";
        head(
            text,
            name,
            "How late the supervision loop woke up, in seconds.",
            "histogram",
        );
        let mut count = 0;
        for (bound, late) in LAG_BOUNDS.iter().zip(&self.0.late) {
            count += late.load(Relaxed);
            line(text, &format!("{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        count += self.0.late[LAG_BOUNDS.len()].load(Relaxed);
        line(text, &format!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        let sum = seconds(self.0.late_in_all.load(Relaxed));
        line(text, &format!("{name}_sum {sum}"));
        line(text, &format!("{name}_count {count}"));
    }

    /// How long the turn under way has lasted, in nanoseconds; 0 while the loop waits.
    fn under_way(&self) -> u64 {
        match self.0.began.load(Relaxed) {
            0 => 0,
            began => self.now().saturating_sub(began - 1),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.0.origin.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

fn gauge(text: &mut String, name: &str, help: &str, nanos: u64) {
    head(text, name, help, "gauge");
    line(text, &format!("{name} {}", seconds(nanos)));
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    line(text, &format!("# HELP {name} {help}"));
    line(text, &format!("# TYPE {name} {kind}"));
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(turns: &Turns, series: &str) -> f64 {
        let mut text = String::new();
        turns.render(&mut text);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.expect("the series").parse().expect("a number")
    }

    #[test]
    fn a_turn_that_does_not_end_is_shown_as_it_grows() {
        let turns = Turns::default();
        let (longest, under_way) = (
            "eternal_event_loop_turn_seconds",
            "eternal_event_loop_turn_under_way_seconds",
        );
        assert_eq!(shown(&turns, under_way), 0.0);
        turns.begin();
        let first = shown(&turns, under_way);
        assert!(first > 0.0 && shown(&turns, longest) > first);
        turns.end();
        assert_eq!(shown(&turns, under_way), 0.0, "it waits");
        turns.begin();
        turns.was_none();
        assert_eq!(shown(&turns, longest), 0.0, "shown once, and that was none");
    }

    #[test]
    fn the_longest_turn_since_the_last_scrape_is_kept() {
        let turns = Turns::default();
        turns.begin();
        turns.end();
        let longest = "eternal_event_loop_turn_seconds";
        assert!(shown(&turns, longest) > 0.0);
        assert_eq!(shown(&turns, longest), 0.0, "there was none since");
    }

    #[test]
    fn every_wake_up_is_in_one_bucket_and_in_all_above() {
        let turns = Turns::default();
        for late in [
            Duration::ZERO,
            Duration::from_millis(3),
            Duration::from_secs(60),
        ] {
            turns.woke(late);
        }
        let bucket = |le: &str| {
            let series = format!("eternal_event_loop_lag_seconds_bucket{{le=\"{le}\"}}");
            shown(&turns, &series)
        };
        assert_eq!(
            ["0.0001", "0.0025", "0.005", "5", "+Inf"].map(bucket),
            [1.0, 1.0, 2.0, 2.0, 3.0]
        );
        assert_eq!(shown(&turns, "eternal_event_loop_lag_seconds_sum"), 60.003);
        assert_eq!(shown(&turns, "eternal_event_loop_lag_seconds_count"), 3.0);
    }
}
