//! How soon a program that died runs again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::figures::{Samples, Verdict};
use super::world::{Fleet, Flock, Tools, get};

const ROUNDS: usize = 1500;
/// Ratios are also told for each block of rounds, which shows what noise does to them.
const BLOCK: usize = 300;
const BURST: usize = 100;
const BURSTS: usize = 40;
/// Deaths do not come while the last one is being dealt with.
const PAUSE: Duration = Duration::from_millis(2);

/// One program, killed again and again.
pub fn restart(tools: &Tools) -> Vec<Verdict> {
    let sides = Sides::race(tools, 1, ROUNDS);
    sides.tell(BLOCK);
    vec![
        Verdict::new("restart, p50 against the floor", sides.ratio(0.5), 1.3, "x"),
        Verdict::new(
            "restart, p99 against the floor",
            sides.ratio(0.99),
            2.0,
            "x",
        ),
    ]
}

/// A hundred programs that die at once.
pub fn burst(tools: &Tools) -> Vec<Verdict> {
    let sides = Sides::race(tools, BURST, BURSTS);
    sides.tell(BURSTS / 4);
    let what = "100 deaths at once, all back, against the floor";
    vec![Verdict::new(what, sides.ratio(0.5), 1.5, "x")]
}

/// A restart among many programs, with and without somebody who scrapes all the time.
pub fn scraped(tools: &Tools) -> Vec<Verdict> {
    let mut ours = Flock::daemon(tools, quiet(1000));
    let socket = ours.metrics();
    let (over, scraping) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut without, mut with) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if scraping.load(Ordering::Relaxed) {
                    get(&socket, "/metrics", None).expect("scraped");
                } else {
                    thread::sleep(PAUSE);
                }
            }
        });
        for _ in 0..10 {
            for samples in [&mut without, &mut with] {
                samples.extend((0..BLOCK / 3).map(|_| once(&mut ours)));
                scraping.fetch_xor(true, Ordering::Relaxed);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    ours.end();
    let (without, with) = (Samples::new(without), Samples::new(with));
    without.tell("without scraping", "µs");
    with.tell("while scraped", "µs");
    let ratio = with.quantile(0.99) / without.quantile(0.99);
    vec![Verdict::new(
        "restart while scraped, p99 against without",
        ratio,
        2.0,
        "x",
    )]
}

/// A restart while another program writes as fast as it can.
pub fn flooded(tools: &Tools) -> Vec<Verdict> {
    let fleet = Fleet {
        count: 1,
        flood: true,
    };
    let mut ours = Flock::daemon(tools, fleet);
    let samples = Samples::new((0..ROUNDS / 2).map(|_| once(&mut ours)).collect());
    ours.end();
    samples.tell("under a log flood", "µs");
    let p99 = samples.quantile(0.99) / 1000.0;
    vec![Verdict::new(
        "restart under another's log flood, p99",
        p99,
        10.0,
        "ms",
    )]
}

fn quiet(count: usize) -> Fleet {
    Fleet {
        count,
        flood: false,
    }
}

fn once(flock: &mut Flock) -> f64 {
    thread::sleep(PAUSE);
    flock.restart(0..1)
}

/// What was measured in turn, in microseconds.
struct Sides {
    floor: Vec<f64>,
    /// The floor with a session for each program: tells what of a difference is the scheduler's.
    sessions: Vec<f64>,
    ours: Vec<f64>,
}

impl Sides {
    /// Kills all of `count` programs of each side in turn.
    fn race(tools: &Tools, count: usize, rounds: usize) -> Self {
        let mut flocks = [
            Flock::floor(tools, count, false),
            Flock::floor(tools, count, true),
            Flock::daemon(tools, quiet(count)),
        ];
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (flock, times) in flocks.iter_mut().zip(&mut times) {
                thread::sleep(PAUSE);
                times.push(flock.restart(0..count));
            }
        }
        for flock in flocks {
            flock.end();
        }
        let [floor, sessions, ours] = times;
        Self {
            floor,
            sessions,
            ours,
        }
    }

    fn ratio(&self, share: f64) -> f64 {
        ratio(&self.floor, &self.ours, share)
    }

    fn tell(&self, block: usize) {
        let all = [
            ("floor", &self.floor),
            ("floor, sessions", &self.sessions),
            ("eternal", &self.ours),
        ];
        for (whose, times) in all {
            Samples::new(times.clone()).tell(whose, "µs");
        }
        let blocks = |base: &[f64], share| {
            let blocks = base.chunks_exact(block).zip(self.ours.chunks_exact(block));
            Samples::new(blocks.map(|(base, own)| ratio(base, own, share)).collect())
        };
        blocks(&self.floor, 0.5).tell("p50 / floor", "x");
        blocks(&self.floor, 0.99).tell("p99 / floor", "x");
        blocks(&self.sessions, 0.5).tell("p50 / sessions", "x");
        blocks(&self.sessions, 0.99).tell("p99 / sessions", "x");
    }
}

fn ratio(base: &[f64], own: &[f64], share: f64) -> f64 {
    let of = |times: &[f64]| Samples::new(times.to_vec()).quantile(share);
    of(own) / of(base)
}
