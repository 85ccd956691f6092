//! Pid files, sockets, logs and configs that cannot work: an error that names the thing, an exit
//! code, and nothing started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::world::{Said, World, eventually};

const WEB: &str =
    "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo up >> ups; exec sleep 1000\"]\n";

/// `eternal run` ends by itself with this code, says these words, and starts nothing.
fn refused(world: &World, code: i32, words: &[&str]) -> Said {
    let said = world.eternal(&["run"]);
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} in {said:?}");
    }
    assert!(!world.path("ups").exists(), "nothing was started");
    said
}

/// A command of `eternal` as a user without rights.
fn as_nobody(world: &World, words: &[&str]) -> std::process::Command {
    let mut command = world.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(World::binary())
        .args(words);
    command
}

/// Lends the world to everybody.
fn open(world: &World) {
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o1777)).expect("a mode");
}

/// Whether nobody may execute the binary under test at all.
fn nobody_can_run(world: &World) -> bool {
    let able = world.said(as_nobody(world, &["--version"])).code == 0;
    if !able {
        eprintln!("skipped: the binary under test is out of reach for an ordinary user");
    }
    able
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let world = World::new(WEB);
    let mut first = world.run();
    let pid = world.pid("web");
    let said = world.eternal(&["run"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&first.pid().to_string()), "{said:?}");
    assert!(said.err.contains("daemon.pid"), "{said:?}");
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 0, "already there: {said:?}");
    assert!(said.out.contains("already running"), "{said:?}");
    assert_eq!(world.pid("web"), pid);
    assert_eq!(first.is_stopped(), 0);
    assert_eq!(world.lines("ups").len(), 1);
}

#[test]
fn a_stale_pid_file_is_replaced_and_said_so() {
    let world = World::new(WEB);
    world.write("daemon.pid", "999999999\n");
    let daemon = world.run();
    assert_eq!(world.read("daemon.pid").trim(), daemon.pid().to_string());
    world.logged(&["replaced a", "stale"]);
}

#[test]
fn a_pid_file_that_names_an_unrelated_process_is_replaced_and_that_process_is_left_alone() {
    let world = World::new(WEB);
    let mut stranger = world
        .command("sleep")
        .arg("1000")
        .stdout(Stdio::null())
        .spawn()
        .expect("sleep");
    world.write("daemon.pid", &format!("{}\n", stranger.id()));
    let mut daemon = world.run();
    world.pid("web");
    assert_eq!(world.eternal(&["stop"]).code, 0);
    assert_eq!(daemon.ends(), 0);
    assert!(stranger.try_wait().expect("a status").is_none());
    stranger.kill().expect("killed");
    stranger.wait().expect("a status");
}

#[test]
fn a_pid_file_that_cannot_be_written_is_an_error_with_its_path() {
    let world = World::new(&format!(
        "[daemon]\npid_file = \"/proc/nowhere/daemon.pid\"\n{WEB}"
    ));
    refused(&world, 2, &["/proc/nowhere"]);
    let world = World::new(WEB);
    fs::create_dir(world.path("daemon.pid")).expect("a directory");
    refused(&world, 2, &["daemon.pid", "directory"]);
}

#[test]
fn a_socket_path_that_is_too_long_is_an_error_that_says_so() {
    let long = "x".repeat(120);
    let world = World::new(&format!("[daemon]\nsocket = \"{long}.sock\"\n{WEB}"));
    let said = world.eternal(&["run"]);
    assert!([1, 2].contains(&said.code), "{said:?}");
    assert!(said.err.contains(&long), "{said:?}");
    assert!(!world.path("ups").exists());
    assert!(!world.path("daemon.pid").exists());
}

#[test]
fn a_log_directory_that_cannot_be_made_is_an_error_before_anything_is_started() {
    let world = World::new(&format!(
        "[daemon]\nlog_file = \"/proc/nowhere/daemon.log\"\n{WEB}"
    ));
    refused(&world, 2, &["/proc/nowhere"]);
    assert!(!world.path("daemon.pid").exists());
}

#[test]
fn a_log_file_that_cannot_be_opened_is_a_failed_start_of_its_program_alone() {
    let world = World::new(&format!(
        "{WEB}[programs.bad]\ncommand = [\"sleep\", \"1000\"]\nlog_file = \"place/bad.log\"\nrestart_delay = \"50ms\"\ncrash_threshold = 100\n"
    ));
    world.write("place", "a file where a directory has to be");
    let mut daemon = world.run();
    world.pid("web");
    world.logged(&["bad", "place", "log directory"]);
    let why = world.program("bad", "says why", |program| {
        program.why.contains("place").then(|| program.why.clone())
    });
    assert!(why.contains("log directory"), "{why}");
    fs::remove_file(world.path("place")).expect("removed");
    world.pid("bad");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_config_that_cannot_be_read_is_an_error_with_its_path() {
    let world = World::new(WEB);
    let said = world.eternal(&["--config", "missing.toml", "run"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("missing.toml"), "{said:?}");
    let said = world.eternal(&["--config", ".", "run"]);
    assert_eq!(said.code, 2, "{said:?}");
    world.write("eternal.toml", "this is not toml\n");
    refused(&world, 2, &["eternal.toml", "1"]);
    fs::write(world.path("eternal.toml"), [0xff, 0xfe, 0x00]).expect("written");
    refused(&world, 2, &["eternal.toml"]);
}

#[test]
fn ten_mistakes_are_reported_at_once() {
    let mistakes = [
        ("restart", "\"sometimes\""),
        ("restart_delay", "\"soon\""),
        ("crash_threshold", "0"),
        ("crash_window", "\"0s\""),
        ("stop_signal", "\"SIGWHAT\""),
        ("umask", "\"999\""),
        ("nice", "99"),
        ("instances", "-1"),
        ("ready", "\"maybe\""),
        ("comand", "[\"sleep\"]"),
    ];
    let mut config = WEB.to_owned();
    for (key, value) in mistakes {
        config.push_str(&format!("{key} = {value}\n"));
    }
    let world = World::new(&config);
    let said = refused(&world, 2, &["did you mean"]);
    for (key, _) in mistakes {
        assert!(said.err.contains(key), "{key} is named: {}", said.err);
    }
    assert_eq!(world.eternal(&["start"]).code, 2);
    assert_eq!(world.eternal(&["check"]).code, 2);
}

#[test]
fn the_lsb_codes_of_status_tell_running_dead_gone_and_unknown() {
    let world = World::new(WEB);
    assert_eq!(world.eternal(&["status"]).code, 3, "never started");
    let mut daemon = world.run();
    world.pid("web");
    assert_eq!(world.eternal(&["status"]).code, 0);
    assert_eq!(world.eternal(&["status", "web"]).code, 0);
    assert_eq!(world.eternal(&["status", "wbe"]).code, 4, "no such program");
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    assert_eq!(
        world.eternal(&["status", "web"]).code,
        3,
        "the program does not run"
    );
    assert_eq!(world.eternal(&["status"]).code, 0, "the daemon does");
    daemon.is_killed();
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("pid file"), "{said:?}");
    let mut daemon = world.run();
    assert_eq!(daemon.is_stopped(), 0);
    assert_eq!(world.eternal(&["status"]).code, 3);
}

#[test]
fn commands_that_need_a_daemon_end_with_3_where_there_is_none() {
    let world = World::new(WEB);
    for words in [
        &["stop"][..],
        &["stop", "web"],
        &["start", "web"],
        &["restart", "web"],
        &["reload"],
        &["logs"],
        &["crashes"],
    ] {
        let said = world.eternal(words);
        assert_eq!(said.code, 3, "{words:?}: {said:?}");
        assert!(said.err.contains("daemon.sock"), "{words:?}: {said:?}");
    }
    assert_eq!(world.eternal(&["no-such-word"]).code, 2);
    assert_eq!(world.eternal(&["run", "--no-such-flag"]).code, 2);
}

#[test]
fn a_daemon_without_rights_says_that_it_may_not_switch_users_and_backs_off() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\nuser = \"root\"\n");
    open(&world);
    if !nobody_can_run(&world) {
        return;
    }
    let mut daemon = world.launch_as(as_nobody(&world, &["run"]));
    daemon.answers();
    let web = world.is("web", "backoff");
    assert!(web.why.contains("root"), "{}", web.why);
    assert!(web.why.contains("not permitted"), "{}", web.why);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn another_user_may_not_command_the_daemon() {
    let world = World::new(WEB);
    if !nobody_can_run(&world) {
        return;
    }
    open(&world);
    let mut daemon = world.run();
    let pid = world.pid("web");
    let said = world.said(as_nobody(&world, &["stop"]));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("ermission"), "{said:?}");
    let said = world.said(as_nobody(&world, &["status"]));
    assert_eq!(said.code, 4, "{said:?}");
    assert_eq!(world.pid("web"), pid);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_unix_socket_for_metrics_left_by_a_killed_daemon_is_replaced() {
    let world = World::new(WEB);
    let mut daemon = world.run();
    world.scrape().expect("a scrape");
    daemon.is_killed();
    assert!(world.path("metrics.sock").exists());
    let _daemon = world.run();
    eventually("a scrape", || world.scrape());
}
