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
    let mut floor = Flock::floor(tools, 1);
    let mut ours = Flock::daemon(tools, quiet(1));
    let (mut base, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        base.push(once(&mut floor));
        own.push(once(&mut ours));
    }
    floor.end();
    ours.end();
    compare(&base, &own, BLOCK);
    let (base, own) = (Samples::new(base), Samples::new(own));
    let ratio = |share| own.quantile(share) / base.quantile(share);
    vec![
        Verdict::new("restart, p50 against the floor", ratio(0.5), 1.3, "x"),
        Verdict::new("restart, p99 against the floor", ratio(0.99), 2.0, "x"),
    ]
}

/// A hundred programs that die at once.
pub fn burst(tools: &Tools) -> Vec<Verdict> {
    let mut floor = Flock::floor(tools, BURST);
    let mut ours = Flock::daemon(tools, quiet(BURST));
    let (mut base, mut own) = (Vec::new(), Vec::new());
    for _ in 0..BURSTS {
        thread::sleep(PAUSE * 5);
        base.push(floor.restart(0..BURST));
        thread::sleep(PAUSE * 5);
        own.push(ours.restart(0..BURST));
    }
    floor.end();
    ours.end();
    compare(&base, &own, BURSTS / 4);
    let ratio = Samples::new(own).median() / Samples::new(base).median();
    vec![Verdict::new(
        "100 deaths at once, all back, against the floor",
        ratio,
        1.5,
        "x",
    )]
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
                    get(&socket, "/metrics").expect("scraped");
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

fn compare(base: &[f64], own: &[f64], block: usize) {
    Samples::new(base.to_vec()).tell("floor", "µs");
    Samples::new(own.to_vec()).tell("eternal", "µs");
    let ratios = |share| {
        let blocks = base.chunks_exact(block).zip(own.chunks_exact(block));
        let ratio = |(base, own): (&[f64], &[f64])| {
            Samples::new(own.to_vec()).quantile(share) / Samples::new(base.to_vec()).quantile(share)
        };
        Samples::new(blocks.map(ratio).collect())
    };
    ratios(0.5).tell("ratios of p50", "x");
    ratios(0.99).tell("ratios of p99", "x");
}
