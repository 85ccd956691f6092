//! A storm of programs that go to the background: forked, a session of its own, forked again, and
//! their main process ends at once. Nothing of them may be left.
//!
//! A few hundred rounds here; all of it is
//! `ETERNAL_STORM=10000 cargo test --test daemon storm`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::world::{World, lives, value};

/// Rounds where nobody asks for more.
const SAMPLE: u32 = 300;
/// So many programs at a time, on two cores: the races are between their processes and ours.
const AT_A_TIME: u32 = 20;

fn rounds() -> u32 {
    std::env::var("ETERNAL_STORM").map_or(SAMPLE, |rounds| rounds.parse().expect("a number"))
}

/// Lets programs go to the background that many times; returns who is left after `eternal stop
/// storm` and after the end of the daemon.
fn storm(delay: &str, last: &str, rounds: u32) -> [HashSet<i32>; 2] {
    let world = World::new(&format!(
        r#"
        [programs.storm]
        command = ["perl", "-e", 'use POSIX; exit if fork; setsid; exit if fork; {last}']
        instances = {AT_A_TIME}
        restart_delay = "{delay}"
        restart_delay_max = "{delay}"
        stop_timeout = "60s"
        "#
    ));
    let mut daemon = world.run();
    let started = || -> f64 {
        let metrics = world.scrape().unwrap_or_default();
        let of = |replica| {
            let labels = format!("{{program=\"storm\",replica=\"{replica}\"}}");
            value(&metrics, &format!("eternal_program_starts_total{labels}"))
        };
        (0..AT_A_TIME).filter_map(of).sum()
    };
    let patience = Instant::now() + Duration::from_secs(60) + Duration::from_millis(200) * rounds;
    while started() < f64::from(rounds) {
        assert!(Instant::now() < patience, "{} of {rounds}", started());
        std::thread::sleep(Duration::from_millis(20));
    }
    world.eternal(&["stop", "storm"]);
    world.until("all are stopped", |status| {
        let mut all = status.programs.iter();
        all.all(|program| program.state == "stopped").then_some(())
    });
    let but_the_daemon = |pids: Vec<i32>| pids.into_iter().filter(|pid| *pid != daemon.pid());
    let stopped = but_the_daemon(world.processes()).collect();
    assert_eq!(daemon.is_stopped(), 0);
    let ended = world.processes().into_iter().filter(|pid| lives(*pid));
    [stopped, ended.collect()]
}

#[test]
fn nothing_is_left_of_programs_that_go_to_the_background() {
    for delay in ["0s", "150ms"] {
        let left = storm(delay, r#"exec "sleep", "1000""#, rounds());
        assert_eq!(left, [HashSet::new(), HashSet::new()], "delay {delay}");
    }
}
