//! Every source is served in every turn: no flood of one kind keeps another waiting.

use std::fs;
use std::time::Instant;

use crate::world::{DEADLINE, Daemon, World, ask, value, within};

/// As many at once as make more deaths than can be answered between two looks.
const STORM: &str = "instances = 50\nrestart_delay = 0\n";

/// A world with a storm in it, and a program that has nothing to do with it.
fn storm(command: &str, policy: &str) -> World {
    World::new(&format!(
        "[programs.storm]\ncommand = [\"{command}\"]\n{STORM}{policy}\n\
         [programs.other]\ncommand = [\"sleep\", \"1000\"]\n"
    ))
}

/// How often programs have been started so far; `None` while nobody says.
fn starts(world: &World) -> Option<f64> {
    let text = world.scrape()?;
    let all = text.lines().filter_map(|line| {
        let counted = line.strip_prefix("eternal_program_starts_total{")?;
        counted.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    Some(all.sum())
}

/// Waits for so many starts more: a matter of the machine, so with a patience of its own.
fn it_has_raged(world: &World, at_least: f64) {
    let before = starts(world).unwrap_or_default();
    let raged = within(6 * DEADLINE, || {
        starts(world).filter(|now| *now >= before + at_least)
    });
    assert!(raged.is_some(), "the storm rages");
}

fn everybody_is_served(world: &World, daemon: &mut Daemon) {
    for _ in 0..5 {
        let healthy = ask(&world.path("metrics.sock"), "GET", "/-/healthy");
        assert_eq!(healthy, Some((200, "healthy\n".to_owned())));
    }
    let before = world.pid("other");
    let said = world.eternal(&["restart", "other"]);
    assert_eq!(said.code, 0, "an order is carried out: {said:?}");
    assert_ne!(world.pid("other"), before);
    let asked = Instant::now();
    assert_eq!(daemon.is_stopped(), 0, "SIGTERM ends the daemon");
    assert!(asked.elapsed() < DEADLINE);
    assert_eq!(world.processes(), Vec::<i32>::new());
}

#[test]
fn a_storm_of_clean_exits_delays_no_health_no_order_and_no_sigterm() {
    let world = storm("true", "");
    let mut daemon = world.run();
    it_has_raged(&world, 500.0);
    everybody_is_served(&world, &mut daemon);
}

/// Resident memory of a process, in KiB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.expect("VmRSS").trim().parse().expect("a number")
}

#[test]
fn a_storm_of_crashes_delays_nobody_and_fills_no_memory() {
    let world = storm("false", "crash_threshold = 1000000\n");
    let mut daemon = world.run();
    it_has_raged(&world, 1000.0);
    let before = resident(daemon.pid());
    it_has_raged(&world, 2000.0);
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "it grew by {grown} KiB in 2,000 crashes");
    everybody_is_served(&world, &mut daemon);
}

#[test]
fn programs_that_cannot_be_started_at_all_delay_nobody() {
    let world = storm("/does/not/exist", "crash_threshold = 1000000\n");
    let mut daemon = world.run();
    it_has_raged(&world, 500.0);
    everybody_is_served(&world, &mut daemon);
}

/// The sum of a family over the replicas of the storm, and when that was.
fn summed(world: &World, family: &str) -> (f64, Instant) {
    let text = world.scrape().expect("a scrape");
    let at = Instant::now();
    let of = |replica: u32| {
        let labels = format!("{{program=\"storm\",replica=\"{replica}\"}}");
        value(&text, &format!("eternal_program_{family}{labels}")).expect("a series")
    };
    ((0..50).map(of).sum(), at)
}

#[test]
fn who_waits_in_a_storm_to_be_started_again_is_not_counted_as_up() {
    // They are gone in a moment, and each waits for the other 49 to be answered.
    let world = storm("true", "");
    let mut daemon = world.run();
    it_has_raged(&world, 500.0);
    let (before, began) = summed(&world, "uptime_seconds_total");
    it_has_raged(&world, 1000.0);
    let (after, ended) = summed(&world, "uptime_seconds_total");
    let up = (after - before) / 50.0 / (ended - began).as_secs_f64();
    println!("up: {:.1} % of the time", 100.0 * up);
    assert!(
        up < 0.25,
        "programs that only end were up {:.0} % of the time",
        100.0 * up
    );
    assert_eq!(daemon.is_stopped(), 0);
}
