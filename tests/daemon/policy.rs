//! When programs are started again, and how the daemon ends: section 4 of the contract.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{World, eventually, lives, send, value};

/// A program that runs `script`, restarted quickly.
fn program(name: &str, script: &str, keys: &str) -> String {
    let quick = if keys.contains("restart_delay ") {
        ""
    } else {
        "restart_delay = \"10ms\"\nrestart_delay_max = \"20ms\"\n"
    };
    format!("[programs.{name}]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{quick}{keys}\n")
}

/// Runs a config to its end and returns the exit code.
fn ends_with(world: &World) -> i32 {
    world.launch(&["run"]).ends()
}

#[test]
fn a_clean_exit_under_always_is_a_restart_and_no_crash() {
    let world = World::new(&program("web", "exit 0", "restart = \"always\""));
    let mut daemon = world.run();
    let web = world.program("web", "was restarted often", |p| {
        (p.restarts >= 8).then(|| p.clone())
    });
    assert_eq!(web.crashes, 0);
    assert_eq!(web.restarts_by_cause.get("exit"), Some(&web.restarts));
    assert_eq!(web.crash_budget_remaining, web.crash_budget);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn on_failure_restarts_crashes_and_completes_at_a_clean_exit() {
    let script = "echo start >> starts; [ $(wc -l < starts) -ge 3 ] || exit 7";
    let world = World::new(&program("job", script, "restart = \"on-failure\""));
    assert_eq!(ends_with(&world), 0);
    assert_eq!(world.lines("starts").len(), 3);
    world.logged(&["job", "completed"]);
}

#[test]
fn never_means_once_and_the_exit_code_tells_how_it_went() {
    for (code, expected) in [(0, 0), (3, 1)] {
        let script = format!("echo start >> starts; exit {code}");
        let world = World::new(&program("job", &script, "restart = \"never\""));
        assert_eq!(ends_with(&world), expected);
        assert_eq!(world.lines("starts").len(), 1);
    }
}

#[test]
fn delays_double_up_to_the_limit() {
    let world = World::new(&program(
        "web",
        "date +%s%3N >> starts; exit 1",
        "restart_delay = \"100ms\"\nrestart_delay_max = \"400ms\"\nrestart_jitter = 0\ncrash_threshold = 6",
    ));
    assert_eq!(ends_with(&world), 1);
    let starts: Vec<i64> = world
        .lines("starts")
        .iter()
        .map(|line| line.parse().expect("milliseconds"))
        .collect();
    let gaps: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps.len(), 5, "six crashes, five restarts: {gaps:?}");
    for (gap, delay) in gaps.iter().zip([100, 200, 400, 400, 400]) {
        assert!((delay - 5..delay + 350).contains(gap), "{gaps:?}");
    }
}

#[test]
fn a_crash_loop_is_given_up_at_the_threshold_with_exit_1() {
    let keys = "crash_threshold = 3";
    let world = World::new(&program("web", "echo start >> starts; exit 3", keys));
    assert_eq!(ends_with(&world), 1);
    assert_eq!(world.lines("starts").len(), 3);
    world.logged(&[
        "ERROR",
        "web",
        "gave up: crash loop: 3 crashes within 1m of run time",
    ]);
    world.logged(&["exit code 3"]);
    assert!(!world.path("daemon.pid").exists());
}

#[test]
fn a_failed_program_does_not_take_the_others_down() {
    let config =
        program("bad", "exit 3", "crash_threshold = 2") + &program("good", "sleep 1000", "");
    let world = World::new(&config);
    let mut daemon = world.run();
    let bad = world.is("bad", "failed");
    assert_eq!(bad.crashes, 2);
    assert_eq!(bad.crash_budget_remaining, 0);
    assert!(bad.why.contains("crash loop"), "{}", bad.why);
    let next = bad.next.unwrap_or_default();
    assert_eq!(next, "`eternal start bad` tries it again");
    world.pid("good");
    assert_eq!(world.eternal(&["status", "bad"]).code, 3);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_critical_program_that_fails_brings_the_daemon_down() {
    let config = program("bad", "exit 3", "crash_threshold = 2\ncritical = true")
        + &program(
            "good",
            "trap 'echo bye > bye; exit' TERM; while :; do sleep 0.02; done",
            "",
        );
    let world = World::new(&config);
    assert_eq!(ends_with(&world), 1);
    assert_eq!(world.read("bye"), "bye\n");
}

#[test]
fn of_several_one_failed_program_makes_the_end_a_failure() {
    let config = program("bad", "exit 3", "restart = \"never\"")
        + &program("good", "sleep 0.1", "restart = \"never\"");
    assert_eq!(ends_with(&World::new(&config)), 1);
}

#[test]
fn retry_tries_again_after_a_while_and_the_daemon_stays() {
    let keys = "crash_threshold = 2\non_crash_loop = \"retry\"\nretry_after = \"300ms\"";
    let world = World::new(&program("web", "echo start >> starts; exit 3", keys));
    let mut daemon = world.run();
    let failed = world.is("web", "failed");
    let next = failed.next.unwrap_or_default();
    assert!(next.contains("next try"), "{next}");
    eventually("it is tried again", || {
        (world.lines("starts").len() >= 5).then_some(())
    });
    assert!(!daemon.has_ended());
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn one_automatic_restart_more_than_max_restarts_is_a_give_up() {
    let script = "echo start >> starts; exit 3";
    let world = World::new(&program("web", script, "max_restarts = 2"));
    assert_eq!(ends_with(&world), 1);
    assert_eq!(world.lines("starts").len(), 3);
    world.logged(&["web", "gave up", "restart"]);

    let world = World::new(&program("web", "echo start >> starts", "max_restarts = 2"));
    assert_eq!(ends_with(&world), 0, "its last exit was clean");
    assert_eq!(world.lines("starts").len(), 3);
}

#[test]
fn exit_codes_can_be_called_a_success_or_not_worth_a_restart() {
    let keys = "restart = \"on-failure\"\nsuccess_exit_codes = [0, 3]";
    let world = World::new(&program("job", "echo start >> starts; exit 3", keys));
    assert_eq!(ends_with(&world), 0);
    assert_eq!(world.lines("starts").len(), 1);

    let keys = "no_restart_exit_codes = [78]";
    let world = World::new(&program("job", "echo start >> starts; exit 78", keys));
    assert_eq!(ends_with(&world), 1);
    assert_eq!(world.lines("starts").len(), 1);
}

#[test]
fn death_by_any_signal_that_was_not_ours_is_a_crash() {
    let world = World::new(&program("web", "exec sleep 1000", ""));
    let _daemon = world.run();
    for (count, signal) in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM]
        .into_iter()
        .enumerate()
    {
        let pid = world.pid("web");
        send(pid, signal);
        let exit = world.program("web", "crashed and is back", |p| {
            let back = p.state == "running" && p.crashes == count as u64 + 1;
            p.last_exit.clone().filter(|_| back)
        });
        assert!(exit.crash);
        assert_eq!(exit.signal, Some(signal as i32));
        assert!(exit.description.contains(signal.as_str()), "{exit:?}");
    }
}

#[test]
fn stop_during_a_wait_is_immediate_and_the_daemon_stays_for_a_start() {
    let world = World::new(&program(
        "web",
        "exit 3",
        "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"",
    ));
    let mut daemon = world.run();
    let waiting = world.is("web", "backoff");
    assert!(
        waiting.next.unwrap_or_default().contains("restart in 4m"),
        "what happens next"
    );
    assert!(waiting.why.contains("exit code 3"), "{}", waiting.why);
    let asked = Instant::now();
    let said = world.eternal(&["stop", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    world.is("web", "stopped");
    assert!(!daemon.has_ended(), "a person may want to start it again");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn start_by_a_person_clears_the_record() {
    let keys = "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"\ncrash_threshold = 3";
    let world = World::new(&program("web", "exit 3", keys));
    let _daemon = world.run();
    assert_eq!(world.is("web", "backoff").crash_budget_remaining, 2);
    let said = world.eternal(&["start", "web"]);
    assert_eq!(said.code, 0, "it was up for a moment: {said:?}");
    let again = world.program("web", "crashed twice", |p| {
        (p.state == "backoff" && p.crashes == 2).then(|| p.clone())
    });
    assert_eq!(
        again.crash_budget_remaining, 2,
        "the first crash is forgotten"
    );
}

#[test]
fn start_brings_a_failed_program_back() {
    let config = program(
        "web",
        "test -e good && exec sleep 1000; exit 3",
        "crash_threshold = 1",
    ) + &program("other", "exec sleep 1000", "");
    let world = World::new(&config);
    let _daemon = world.run();
    world.is("web", "failed");
    world.write("good", "");
    let said = world.eternal(&["start", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(world.is("web", "running").crash_budget_remaining, 1);
}

#[test]
fn a_restart_by_a_person_is_no_crash() {
    let world = World::new(&program(
        "web",
        "exec sleep 1000",
        "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"",
    ));
    let _daemon = world.run();
    let before = world.pid("web");
    let said = world.eternal(&["restart", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let web = world.is("web", "running");
    assert_ne!(web.pid, Some(before));
    assert!(!lives(before));
    assert_eq!(web.crashes, 0);
    assert_eq!(web.restarts_by_cause.get("operator"), Some(&1));
}

#[test]
fn what_follows_leftovers_is_published_although_nothing_is_told_then() {
    let leaving = "(setsid sleep 1000 &) ; sleep 0.1; exit";
    let config = program("failing", &format!("{leaving} 5"), "restart = \"never\"")
        + &program("done", &format!("{leaving} 0"), "restart = \"never\"")
        + &program(
            "waiting",
            &format!("{leaving} 5"),
            "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"",
        )
        + &program("other", "exec sleep 1000", "");
    let world = World::new(&config);
    let _daemon = world.run();
    world.is("failing", "failed");
    world.is("done", "completed");
    world.is("waiting", "backoff");
    let metrics = world.scrape().expect("a scrape");
    let state = |program, state| {
        let series = format!(
            "eternal_program_state{{program=\"{program}\",replica=\"0\",state=\"{state}\"}}"
        );
        value(&metrics, &series)
    };
    assert_eq!(state("failing", "failed"), Some(1.0));
    assert_eq!(state("failing", "stopping"), Some(0.0));
    assert_eq!(state("waiting", "backoff"), Some(1.0));
}

#[test]
fn the_end_that_a_critical_program_brings_is_said() {
    let config = program("web", "exit 3", "critical = true\ncrash_threshold = 1")
        + &program("other", "exec sleep 1000", "");
    let world = World::new(&config);
    assert_eq!(world.launch(&["run"]).ends(), 1);
    world.logged(&["stopping: a critical program failed"]);
}

#[test]
fn the_stop_inside_a_restart_is_timed_like_any_other() {
    let world = World::new(&program("web", "exec sleep 1000", ""));
    let _daemon = world.run();
    world.pid("web");
    let count = || {
        let metrics = world.scrape()?;
        let series = "eternal_program_stop_duration_seconds_count{program=\"web\",replica=\"0\"}";
        value(&metrics, series)
    };
    assert_eq!(count(), Some(0.0));
    assert_eq!(world.eternal(&["restart", "web"]).code, 0);
    eventually("the stop is counted", || count().filter(|n| *n >= 1.0));
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    eventually("the second is", || count().filter(|n| *n >= 2.0));
    assert_eq!(count(), Some(2.0));
}
