//! Truth: hundreds of real ends of every kind that can be had here, under constant scraping. The
//! test keeps its own books, and in the end the counters equal them exactly.

mod books;
mod daemon;
mod names;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use books::Account;
use daemon::{Daemon, script, until};
use eternal::supervision::{Cause, ExitReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scrape::{Scrape, keep_scraping, sum};

/// A script of its own that ends by itself: its name and how often it ends.
const SCRIPTS: [(&str, usize); 7] = [
    ("codes.0", 150),
    ("codes.1", 150),
    ("quick.0", 60),
    ("signals.0", 96),
    ("parents.0", 16),
    ("burners.0", 12),
    ("dumps.0", 6),
];
/// Programs that the policy lets start so often, each time in vain: why, and how it shows.
const VAIN: [(&str, u64, ExitReason); 6] = [
    ("missing", 40, ExitReason::SpawnError),
    ("forbidden", 20, ExitReason::SpawnError),
    ("late", 10, ExitReason::StartupTimeout),
    ("stubborn-late", 3, ExitReason::StartupTimeout),
    ("sick", 12, ExitReason::Health),
    ("silent", 12, ExitReason::Watchdog),
];
const KILLED: usize = 32;
const ROUNDS: usize = 10;

type Books = BTreeMap<String, Account>;

#[test]
fn every_counter_equals_the_books_after_hundreds_of_ends_of_every_kind() {
    let began = Instant::now();
    let dumps = cores_can_be_dumped();
    let programs = programs(dumps, "");
    let daemon = Daemon::start(&programs);
    let mut first = None;
    until("the first scrape is answered", || {
        first = Scrape::of(&daemon.metrics());
        first.is_some()
    });
    let first = first.expect("answered");
    first.check();
    assert_eq!(first.programs.len(), programs.len() + 1, "all at once");

    let scrapers = [Duration::from_secs(1), Duration::from_millis(10)]
        .map(|pause| Scraper::start(&daemon, pause));
    let mut books = Books::new();
    for deed in [kill_from_outside, stop_and_restart, outlive_the_grace] {
        deed(&daemon, &mut books);
    }
    change_the_config(&daemon, dumps, &mut books);
    come_to_rest(&daemon, dumps, &mut books);
    compare(&daemon, &books);
    cpu_time_is_all_there(&daemon);
    let text = Scrape::text(&daemon.metrics()).expect("the daemon answers");
    names::check_live(&text);
    add_and_remove(&daemon, &programs, dumps);
    let counts = scrapers.map(Scraper::stop);
    compare(&daemon, &books);
    assert_eq!(daemon.stop().code(), Some(0), "a stop that was asked for");

    let mut all = BTreeMap::new();
    books.values().for_each(|account| account.tally(&mut all));
    let total: u64 = all.values().sum();
    println!(
        "{total} ends in {:?}, {counts:?} scrapes: {all:?}",
        began.elapsed()
    );
    assert!(total >= 500, "only {total} ends");
}

fn programs(dumps: bool, version: &str) -> Vec<String> {
    let vain = |name: &str, rest: &str| {
        let (_, starts, _) = VAIN.iter().find(|(vain, ..)| *vain == name).expect("one");
        format!("{rest}\nmax_restarts = {}\n", starts - 1)
    };
    let command =
        |name: &str, path: &str| vain(name, &format!("[programs.{name}]\ncommand = [{path:?}]"));
    let late = |name, kind, keys: &str| vain(name, &script(name, kind, keys));
    // One byte: no dump into a file nor into a pipe.
    let no_core = "limits = { core = 1 }";
    let mut programs = vec![
        script("codes", "codes 150 0.005", "instances = 2"),
        script("quick", "codes 60 0", "restart_delay = 0"),
        script("signals", "signals 96", no_core),
        script("parents", "parents 16", ""),
        script("burners", "burners 12", ""),
        script("victims", "victims 9999", no_core),
        script("steady", "victims 9999", ""),
        script("stubborn", "stubborn 9999", "stop_timeout = \"50ms\""),
        script(
            "changed",
            "victims 9999",
            &format!("environment = {{ VERSION = {version:?} }}"),
        ),
        command("missing", "./missing"),
        command("forbidden", "./not-executable"),
        late(
            "late",
            "victims 9999",
            "ready = \"notify\"\nstart_timeout = \"60ms\"",
        ),
        late(
            "stubborn-late",
            "stubborn 9999",
            "ready = \"notify\"\nstart_timeout = \"200ms\"\nstop_timeout = \"50ms\"",
        ),
        late(
            "sick",
            "victims 9999",
            "health_check = \"exec:false\"\nhealth_interval = \"5ms\"\nhealth_failures = 2",
        ),
        late("silent", "victims 9999", "watchdog = \"20ms\""),
        "[programs.once]\ncommand = [\"true\"]\nrestart = \"never\"\n".to_owned(),
        "[programs.patient]\ncommand = [\"false\"]\nrestart_delay = \"1h\"\nrestart_delay_max = \"1h\"\n"
            .to_owned(),
    ];
    if dumps {
        programs.push(script(
            "dumps",
            "dumps 6",
            "limits = { core = \"unlimited\" }",
        ));
    }
    programs
}

/// Death by signals that neither the program nor its supervisor sent.
fn kill_from_outside(daemon: &Daemon, books: &mut Books) {
    let account = books.entry("victims.0".to_owned()).or_default();
    account.start();
    let signals = [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGSEGV,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ];
    for (times, signal) in (1..=KILLED).zip(signals.iter().cycle()) {
        let pid = daemon.born("victims", times);
        kill(Pid::from_raw(pid), *signal).expect("it lives");
        account.end_and_restart(ExitReason::Signal, Cause::Crash);
    }
    daemon.born("victims", KILLED + 1);
}

fn stop_and_restart(daemon: &Daemon, books: &mut Books) {
    let account = books.entry("steady.0".to_owned()).or_default();
    account.start();
    for _ in 0..ROUNDS {
        daemon.tell(&["stop", "steady"]);
        account.end(ExitReason::Stop);
        daemon.tell(&["start", "steady"]);
        account.start();
        daemon.tell(&["restart", "steady"]);
        account.end_and_restart(ExitReason::Restart, Cause::Operator);
    }
}

/// Programs that ignore the stop signal: SIGKILL after the grace period.
fn outlive_the_grace(daemon: &Daemon, books: &mut Books) {
    let account = books.entry("stubborn.0".to_owned()).or_default();
    account.start();
    for round in 0..ROUNDS / 2 {
        daemon.born("stubborn", 2 * round + 1);
        daemon.tell(&["stop", "stubborn"]);
        account.end(ExitReason::StopTimeout);
        daemon.tell(&["start", "stubborn"]);
        account.start();
        daemon.born("stubborn", 2 * round + 2);
        daemon.tell(&["restart", "stubborn"]);
        account.end_and_restart(ExitReason::StopTimeout, Cause::Operator);
    }
}

fn change_the_config(daemon: &Daemon, dumps: bool, books: &mut Books) {
    let account = books.entry("changed.0".to_owned()).or_default();
    account.start();
    for round in 1..=ROUNDS {
        daemon.born("changed", round);
        daemon.reload(&programs(dumps, &round.to_string()));
        account.end_and_restart(ExitReason::Restart, Cause::Config);
    }
    daemon.born("changed", ROUNDS + 1);
}

/// Waits until nothing ends any more, and enters what ended by itself.
fn come_to_rest(daemon: &Daemon, dumps: bool, books: &mut Books) {
    for (replica, ends) in SCRIPTS {
        if !dumps && replica.starts_with("dumps") {
            continue;
        }
        daemon.parked(replica);
        let account = books.entry(replica.to_owned()).or_default();
        account.start();
        let lines = daemon.book(replica);
        assert_eq!(lines.len(), ends, "{replica}");
        for line in &lines {
            account.enter(line, replica.starts_with("dumps"));
        }
    }
    for (name, starts, reason) in VAIN {
        let cause = match name {
            "sick" => Cause::Health,
            "silent" => Cause::Watchdog,
            _ => Cause::Crash,
        };
        let account = books.entry(format!("{name}.0")).or_default();
        account.start();
        for _ in 1..starts {
            account.end_and_restart(reason, cause);
        }
        account.end(reason);
    }
    let once = books.entry("once.0".to_owned()).or_default();
    once.start();
    once.end(ExitReason::Success);
    let patient = books.entry("patient.0".to_owned()).or_default();
    patient.start();
    patient.end(ExitReason::ExitCode);
}

/// Compares the books with `/metrics`. A program knows of its start a moment before it is
/// published, so what is short may catch up; what is over never goes back.
fn compare(daemon: &Daemon, books: &Books) {
    let began = Instant::now();
    loop {
        let scrape = Scrape::of(&daemon.metrics()).expect("the daemon answers");
        scrape.check();
        let mut wrong = Vec::new();
        for ((name, replica), series) in &scrape.programs {
            let who = format!("{name}.{replica}");
            match books.get(&who) {
                Some(account) => wrong.extend(account.differences(&who, series)),
                None => wrong.push(format!("{who} is not in the books")),
            }
        }
        if scrape.programs.len() != books.len() {
            let known: BTreeSet<_> = books.keys().collect();
            wrong.push(format!("not all are there of {known:?}"));
        }
        if wrong.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{}",
            wrong.join("\n")
        );
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Every run's last moments count, and no run counts twice.
fn cpu_time_is_all_there(daemon: &Daemon) {
    let times = daemon.book("burners.0.times");
    let seconds = |time: &str| -> f64 {
        let (minutes, rest) = time.split_once('m').expect("minutes");
        let minutes: f64 = minutes.parse().expect("a number");
        60.0 * minutes + rest.trim_end_matches('s').parse::<f64>().expect("a number")
    };
    // Lines of two: the shell's own time, and that of its children.
    let told: f64 = times
        .iter()
        .flat_map(|line| line.split(' '))
        .map(seconds)
        .sum();
    let scrape = Scrape::of(&daemon.metrics()).expect("the daemon answers");
    let series = &scrape.programs[&("burners".to_owned(), "0".to_owned())];
    let found = sum(series, "cpu_seconds_total{");
    println!("burners: {found} s, they say {told} s");
    assert!(told > 0.1, "they burn {told} s");
    // The shell counts whole hundredths, and its beginning and end are not in its count.
    assert!(
        found >= told - 0.001 && found < told * 1.25 + 0.3,
        "{found} s, they say {told} s"
    );
}

/// A program that a reload adds is whole in the next scrape, and gone after one that removes it.
fn add_and_remove(daemon: &Daemon, programs: &[String], dumps: bool) {
    let version = ROUNDS.to_string();
    let mut more = self::programs(dumps, &version);
    assert_eq!(more.len(), programs.len());
    more.push(script("added", "codes 20 0", ""));
    daemon.reload(&more);
    let scrape = Scrape::of(&daemon.metrics()).expect("the daemon answers");
    scrape.check();
    assert!(
        has(&scrape, "added"),
        "in the first scrape after the reload"
    );
    daemon.parked("added.0");
    let mut account = Account::default();
    account.start();
    let lines = daemon.book("added.0");
    lines.iter().for_each(|line| account.enter(line, false));
    let mut wrong = Vec::new();
    until("its counters equal its book", || {
        let scrape = Scrape::of(&daemon.metrics()).expect("the daemon answers");
        let series = &scrape.programs[&("added".to_owned(), "0".to_owned())];
        wrong = account.differences("added", series);
        wrong.is_empty()
    });
    more.pop();
    daemon.reload(&more);
    until("it is gone", || {
        !has(
            &Scrape::of(&daemon.metrics()).expect("the daemon answers"),
            "added",
        )
    });
}

fn has(scrape: &Scrape, name: &str) -> bool {
    scrape.programs.keys().any(|(program, _)| program == name)
}

fn cores_can_be_dumped() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let dumped = Command::new("sh")
        .current_dir(directory.path())
        .args(["-c", "ulimit -c unlimited && kill -SEGV $$"])
        .status()
        .is_ok_and(|status| status.core_dumped());
    if !dumped {
        eprintln!("skipped: no core dump can be had here, so core_dump is not tested");
    }
    dumped
}

/// A thread that scrapes and checks all the time.
struct Scraper {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<(usize, BTreeSet<String>)>,
}

impl Scraper {
    fn start(daemon: &Daemon, pause: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let socket = daemon.metrics();
        let thread = std::thread::spawn(move || keep_scraping(socket, pause, stopped));
        Self { stop, thread }
    }

    /// Returns how often it scraped.
    fn stop(self) -> usize {
        // Nobody hears it if a check has failed, which the join tells.
        let _ = self.stop.send(());
        let (count, seen) = self.thread.join().expect("every scrape holds");
        assert!(seen.contains("codes"));
        count
    }
}
