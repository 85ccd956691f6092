//! What the daemon takes: memory, wake-ups, the time to start and stop, the time of a scrape.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Samples, Verdict};
use super::world::{Fleet, Flock, Tools, get};

/// What a start left to do is done by then.
const CALM: Duration = Duration::from_secs(4);
const WATCH: Duration = Duration::from_secs(10);
const MANY: usize = 1000;
const SCRAPES: usize = 50;
/// What a scrape read of /proc serves the next one for half a second.
const STALE: Duration = Duration::from_millis(600);
const MIB: f64 = 1024.0;

/// Memory, alone and with a thousand idle programs.
pub fn memory(tools: &Tools) -> Vec<Verdict> {
    let [one, many] = [1, MANY].map(|count| {
        let ours = start(tools, count);
        thread::sleep(CALM);
        let pss = pss(ours.supervisor.id());
        println!("  {count:>4} programs: {pss:.0} KiB proportional set size");
        for _ in 0..3 {
            get(&ours.metrics(), "/metrics", None).expect("scraped");
        }
        thread::sleep(CALM / 2);
        println!("  {count:>4} programs, after three scrapes:");
        self::pss(ours.supervisor.id());
        ours.end();
        pss
    });
    let each = (many - one) / (MANY as f64 - 1.0);
    vec![
        Verdict::new("memory with 1 program", one / MIB, 6.0, "MiB"),
        Verdict::new("memory with 1000 idle programs", many / MIB, 10.0, "MiB"),
        Verdict::new("memory for each program more", each, 4.0, "KiB"),
    ]
}

/// Context switches of all threads while nothing happens.
pub fn idle(tools: &Tools) -> Vec<Verdict> {
    let counts = [1, MANY].map(|count| {
        let ours = start(tools, count);
        thread::sleep(CALM);
        let before = switches(ours.supervisor.id());
        thread::sleep(WATCH);
        let after = switches(ours.supervisor.id());
        ours.end();
        for (name, count) in &after {
            let more = count
                - before
                    .iter()
                    .find(|(n, _)| n == name)
                    .map_or(0, |(_, c)| *c);
            if more > 0 {
                println!("  {name}: {more}");
            }
        }
        let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, c)| *c).sum::<u64>();
        (count, sum(&after) - sum(&before))
    });
    counts
        .map(|(programs, count)| {
            let what = format!("context switches in 10 s idle, {programs} programs");
            Verdict::new(what, count as f64, 2.0, "")
        })
        .into()
}

/// From the start of the daemon to the last program's first instruction, and the end of all.
pub fn start_stop(tools: &Tools) -> Vec<Verdict> {
    let rounds: Vec<_> = (0..5).map(|_| up_and_down(tools, MANY)).collect();
    let up = Samples::new(rounds.iter().map(|(up, _)| *up).collect());
    let down = Samples::new(rounds.iter().map(|(_, down)| *down).collect());
    up.tell("start of 1000", "ms");
    down.tell("stop of 1000", "ms");
    let (many_up, many_down) = up_and_down(tools, 5 * MANY);
    println!("  5000 programs: started in {many_up:.0} ms, stopped in {many_down:.0} ms");
    vec![
        Verdict::new("start of 1000 programs", up.median(), 2000.0, "ms"),
        Verdict::new("stop of 1000 programs", down.median(), 1000.0, "ms"),
    ]
}

/// A scrape with a thousand programs, plain and compressed, and the memory that it takes for a
/// while.
pub fn scrape(tools: &Tools) -> Vec<Verdict> {
    let ours = start(tools, MANY);
    let pid = ours.supervisor.id();
    thread::sleep(CALM);
    // The high-water mark of what is resident starts over.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("ours");
    let resident = memory_of(pid, "VmRSS:");
    pss(pid);
    let mut verdicts = Vec::new();
    for (name, encoding) in [("plain", None), ("gzip", Some("gzip"))] {
        let mut size = 0;
        let before = processor_time(pid);
        let times = (0..SCRAPES).map(|_| {
            thread::sleep(STALE);
            let begin = Instant::now();
            size = get(&ours.metrics(), "/metrics", encoding).expect("scraped");
            begin.elapsed().as_secs_f64() * 1000.0
        });
        let times = Samples::new(times.collect());
        let each = (processor_time(pid) - before) * 10.0 / SCRAPES as f64;
        times.tell(name, "ms");
        println!("  {} KiB, {each:.0} ms of processor time each", size / 1024);
        let what = format!("/metrics with 1000 programs, {name}, p99");
        verdicts.push(Verdict::new(what, times.quantile(0.99), 100.0, "ms"));
    }
    let most = (memory_of(pid, "VmHWM:") - resident) / MIB;
    pss(pid);
    ours.end();
    let what = "memory for a while of these scrapes";
    verdicts.push(Verdict::new(what, most, 30.0, "MiB"));
    verdicts
}

/// A figure of /proc/PID/status, in KiB.
fn memory_of(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("ours");
    number(&status, name) as f64
}

fn start(tools: &Tools, count: usize) -> Flock {
    let flood = false;
    Flock::daemon(tools, Fleet { count, flood })
}

/// In milliseconds.
fn up_and_down(tools: &Tools, count: usize) -> (f64, f64) {
    let ours = start(tools, count);
    let up = (ours.complete - ours.begun) as f64 / 1e6;
    (up, ours.end() / 1000.0)
}

/// The proportional set size of a process, in KiB.
fn pss(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("ours");
    for kind in ["Pss:", "Pss_Anon:", "Pss_File:"] {
        print!("  {kind} {} KiB", number(&rollup, kind));
    }
    println!();
    number(&rollup, "Pss:") as f64
}

/// What all threads of a process have used, in hundredths of a second, as the kernel counts.
fn processor_time(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("ours");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum()
}

/// Context switches so far, by thread.
fn switches(pid: u32) -> Vec<(String, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("ours");
    let of = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let name = status.lines().next()?.split_whitespace().nth(1)?.to_owned();
        let id = path.file_name()?.to_string_lossy().into_owned();
        let count = number(&status, "voluntary_ctxt_switches:")
            + number(&status, "nonvoluntary_ctxt_switches:");
        Some((format!("{name} ({id})"), count))
    };
    threads.flatten().filter_map(|t| of(t.path())).collect()
}

fn number(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
