//! What the daemon does on each signal: section 2 of the contract.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{World, dies, eventually, lives, value};

const POLITE: &str = r#"
[programs.web]
command = ["sh", "-c", 'trap "echo bye >> bye; exit 0" TERM; echo up > up; while :; do sleep 0.02; done']
"#;

#[test]
fn sigterm_and_sigint_stop_everything_and_leave_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new(POLITE);
        let mut daemon = world.run();
        let pid = world.pid("web");
        world.appears("up");
        assert_eq!(world.read("daemon.pid").trim(), daemon.pid().to_string());
        daemon.signal(signal);
        assert_eq!(daemon.ends(), 0);
        assert_eq!(world.read("bye"), "bye\n", "it got its stop signal, once");
        assert!(!lives(pid));
        assert!(!world.path("daemon.pid").exists());
        assert!(!world.path("daemon.sock").exists());
        assert!(!world.path("metrics.sock").exists());
        let log = world.log();
        assert!(log.contains(signal.as_str()), "{log}");
        let (_, end) = log.split_once("stopping: ").expect("it says that it stops");
        assert!(end.contains("statistics"), "final statistics: {log}");
        assert_eq!(world.processes(), Vec::<i32>::new());
    }
}

#[test]
fn a_program_that_ignores_its_stop_signal_is_killed_after_stop_timeout() {
    let world = World::new(
        r#"
        [programs.deaf]
        command = ["sh", "-c", 'trap "" TERM; echo up > up; while :; do sleep 0.02; done']
        stop_timeout = "300ms"
        "#,
    );
    let mut daemon = world.run();
    let pid = world.pid("deaf");
    world.appears("up");
    let asked = Instant::now();
    assert_eq!(daemon.is_stopped(), 0);
    assert!(
        asked.elapsed() >= Duration::from_millis(300),
        "it got its grace"
    );
    assert!(!lives(pid));
    world.logged(&["deaf", "still there after 300ms: SIGKILL"]);
}

#[test]
fn a_second_sigterm_kills_at_once() {
    let world = World::new(
        r#"
        [programs.deaf]
        command = ["sh", "-c", 'trap "" TERM; echo up > up; while :; do sleep 0.02; done']
        stop_timeout = "5m"
        "#,
    );
    let mut daemon = world.run();
    let pid = world.pid("deaf");
    world.appears("up");
    daemon.signal(Signal::SIGTERM);
    world.is("deaf", "stopping");
    assert!(lives(pid));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends(), 0);
    dies(pid);
}

#[test]
fn sighup_with_a_bad_config_touches_nothing_and_says_so_everywhere() {
    let world = World::new(POLITE);
    let daemon = world.run();
    let pid = world.pid("web");
    world.configure("[programs.web]\ncommand = [\"sleep\", \"60\"]\nrestart = \"sometimes\"");
    daemon.signal(Signal::SIGHUP);
    let reload = world.until("the reload has failed", |s| s.daemon.last_reload.clone());
    assert!(!reload.successful);
    // Where and by which rule, but not what is written there: it may be a secret.
    let place = "`programs.web.restart` must be one of \"always\", \"on-failure\", \"never\"";
    assert!(reload.message.contains(place), "{}", reload.message);
    assert!(
        reload.message.contains("eternal.toml:3"),
        "{}",
        reload.message
    );
    world.logged(&["reload failed, nothing changed"]);
    let metrics = world.scrape().expect("a scrape");
    assert_eq!(
        value(&metrics, "eternal_config_last_reload_successful"),
        Some(0.0)
    );
    assert_eq!(world.pid("web"), pid);
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("failed"), "{}", said.out);
    assert!(said.out.contains("eternal.toml:3"), "{}", said.out);
}

#[test]
fn sighup_restarts_one_program_after_the_other_each_ready_before_the_next_goes() {
    let config = r#"
        [programs.a]
        command = ["sleep", "1000"]
        ready = "exec:test -e ready-a"
        [programs.b]
        command = ["sleep", "1000"]
    "#;
    let world = World::new(config);
    world.write("ready-a", "");
    let mut daemon = world.run();
    let (a, b) = (world.pid("a"), world.pid("b"));
    std::fs::remove_file(world.path("ready-a")).expect("removed");
    daemon.signal(Signal::SIGHUP);
    world.program("a", "is another and not ready", |p| {
        (p.state == "starting" && p.pid.is_some_and(|pid| pid != a)).then_some(())
    });
    assert_eq!(world.pid("b"), b, "b waits until a is ready");
    world.write("ready-a", "");
    world.program("b", "is another", |p| {
        (p.state == "running" && p.pid != Some(b)).then_some(())
    });
    let status = world.status().expect("a status");
    for program in &status.programs {
        assert_eq!(
            program.crashes, 0,
            "a restart that was asked for is no crash"
        );
        assert_eq!(program.restarts_by_cause.get("config"), Some(&1));
    }
    let metrics = world.scrape().expect("a scrape");
    assert_eq!(
        value(&metrics, "eternal_config_last_reload_successful"),
        Some(1.0)
    );
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn sighup_applies_a_good_config_and_restarts_even_what_did_not_change() {
    let program = |name: &str| format!("[programs.{name}]\ncommand = [\"sleep\", \"1000\"]\n");
    let world = World::new(&(program("kept") + &program("gone")));
    let daemon = world.run();
    let (kept, gone) = (world.pid("kept"), world.pid("gone"));
    world.configure(&(program("kept") + &program("new")));
    daemon.signal(Signal::SIGHUP);
    world.pid("new");
    world.program("kept", "is another", |p| {
        (p.state == "running" && p.pid != Some(kept)).then_some(())
    });
    dies(gone);
    world.until("gone is forgotten", |s| {
        (s.programs.len() == 2).then_some(())
    });
}

#[test]
fn sigusr1_reopens_log_files() {
    let world = World::new(
        r#"
        [programs.web]
        command = ["sh", "-c", 'while :; do echo line; sleep 0.02; done']
        log_file = "logs/web.log"
        "#,
    );
    let daemon = world.run();
    world.appears("logs/web.log");
    for name in ["daemon.log", "web.log"] {
        let from = world.path("logs").join(name);
        std::fs::rename(&from, from.with_extension("log.moved")).expect("moved");
    }
    daemon.signal(Signal::SIGUSR1);
    world.appears("logs/web.log");
    world.logged(&["log files reopened"]);
    daemon.signal(Signal::SIGUSR2);
    world.logged(&["statistics"]);
}

#[test]
fn sigusr2_logs_the_statistics_line() {
    let world = World::new(POLITE);
    let daemon = world.run();
    let pid = world.pid("web");
    daemon.signal(Signal::SIGUSR2);
    let line = world.logged(&["statistics"]);
    for part in [
        "web",
        "uptime=\"0s\"",
        "restarts=0",
        "crashes=0",
        "status=running",
        "memory=",
        "cpu=",
        "crashes_left=5",
    ] {
        let plain = part.replace('"', "");
        assert!(
            line.contains(part) || line.contains(&plain),
            "{part} in {line}"
        );
    }
    assert!(line.contains(&format!("pid={pid}")), "{line}");
    let log = world.log();
    assert!(log.contains("SIGUSR2"), "{log}");
    let metrics = world.scrape().expect("a scrape");
    let series = "eternal_signals_received_total{signal=\"SIGUSR2\"}";
    assert_eq!(value(&metrics, series), Some(1.0));
}

#[test]
fn the_statistics_line_comes_at_every_interval() {
    let world = World::new(&format!("[daemon]\nstats_interval = \"1s\"\n{POLITE}"));
    let _daemon = world.run();
    eventually("two lines", || {
        (world.log().matches("statistics").count() >= 2).then_some(())
    });
}

#[test]
fn sigterm_ends_a_daemon_whose_programs_wait_for_one_that_is_not_ready() {
    let world = World::new(
        r#"
        [programs.db]
        command = ["sleep", "1000"]
        ready = "exec:false"
        [programs.web]
        command = ["sleep", "1000"]
        after = ["db"]
        "#,
    );
    let mut daemon = world.run();
    world.program("db", "has a process", |p| p.pid);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn sighup_after_the_config_file_vanished_touches_nothing() {
    let world = World::new(POLITE);
    let daemon = world.run();
    let pid = world.pid("web");
    std::fs::rename(world.path("eternal.toml"), world.path("away")).expect("moved");
    daemon.signal(Signal::SIGHUP);
    let reload = world.until("the reload has failed", |s| s.daemon.last_reload.clone());
    assert!(!reload.successful, "{}", reload.message);
    assert_eq!(world.pid("web"), pid);
    assert!(lives(pid));
}

#[test]
fn a_config_that_is_not_even_toml_does_not_keep_anyone_from_stopping_the_daemon() {
    let world = World::new(POLITE);
    let mut daemon = world.run();
    world.pid("web");
    world.configure("bad");
    let said = world.eternal(&["stop"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn stop_names_the_daemon_whose_socket_is_gone() {
    let world = World::new(POLITE);
    let daemon = world.run();
    world.pid("web");
    std::fs::remove_file(world.path("daemon.sock")).expect("removed");
    let said = world.eternal(&["stop"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains(&format!("kill -TERM {}", daemon.pid())),
        "{said:?}"
    );
}

#[test]
fn sigquit_stops_the_daemon_in_order() {
    let world = World::new(POLITE);
    let mut daemon = world.run();
    world.appears("up");
    daemon.signal(Signal::SIGQUIT);
    assert_eq!(daemon.ends(), 0);
    assert_eq!(world.read("bye"), "bye\n");
}

/// Every signal that nobody means for the daemon, by number; the real-time ones included.
fn stray_signals() -> Vec<i32> {
    use Signal as S;
    let named = [
        S::SIGALRM,
        S::SIGCHLD,
        S::SIGCONT,
        S::SIGIO,
        S::SIGPIPE,
        S::SIGPROF,
        S::SIGPWR,
        S::SIGSTKFLT,
        S::SIGTTIN,
        S::SIGTTOU,
        S::SIGURG,
        S::SIGVTALRM,
        S::SIGWINCH,
        S::SIGXCPU,
        S::SIGXFSZ,
    ];
    let real_time = nix::libc::SIGRTMIN()..=nix::libc::SIGRTMAX();
    named
        .into_iter()
        .map(|signal| signal as i32)
        .chain(real_time)
        .collect()
}

#[test]
fn a_stray_signal_does_not_end_the_daemon_and_leave_its_programs_alone() {
    let world = World::new(POLITE);
    let mut daemon = world.run();
    let pid = world.pid("web");
    for number in stray_signals() {
        let mut kill = world.command("kill");
        kill.args([&format!("-{number}"), &daemon.pid().to_string()]);
        assert_eq!(world.said(kill).code, 0, "signal {number} was sent");
        daemon.answers();
        assert!(!daemon.has_ended(), "ended by signal {number}");
    }
    assert_eq!(world.pid("web"), pid);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_program_is_born_with_the_default_of_every_signal() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"grep Sig /proc/self/status > mine; echo up > up; sleep 1000\"]\n",
    );
    let mut daemon = world.run();
    world.appears("up");
    for mask in ["SigIgn:\t", "SigBlk:\t"] {
        let line = format!("{mask}{:016x}", 0);
        assert!(
            world.lines("mine").contains(&line),
            "{}",
            world.read("mine")
        );
    }
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_log_at_the_limit_of_file_sizes_is_a_full_disk_and_no_death() {
    let world = World::new(
        r#"
        [programs.web]
        command = ["sh", "-c", 'while :; do echo a line like any other; done']
        log_file = "web.log"
        "#,
    );
    let mut command = world.command("prlimit");
    command.args(["--fsize=65536", World::binary(), "run"]);
    let mut daemon = world.launch_as(command);
    daemon.answers();
    let series =
        "eternal_program_log_dropped_lines_total{program=\"web\",replica=\"0\",stream=\"stdout\"}";
    eventually("lines are dropped, and counted", || {
        value(&world.scrape()?, series).filter(|dropped| *dropped > 0.0)
    });
    assert!(!daemon.has_ended());
    assert_eq!(daemon.is_stopped(), 0);
}
