//! The commands that start, stop, change and look at a daemon.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{DEADLINE, World, ask, dies, eventually, lives, send};

const WEB: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

fn daemon_pid(world: &World) -> i32 {
    world.until("a daemon", |status| i32::try_from(status.daemon.pid).ok())
}

#[test]
fn start_returns_when_every_program_is_up_and_stop_when_all_are_gone() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"sleep 0.3; echo > up; exec sleep 1000\"]\nready = \"exec:test -e up\"\n",
    );
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(world.path("up").exists(), "start waits for readiness");
    let daemon = daemon_pid(&world);
    assert!(said.out.contains(&daemon.to_string()), "{said:?}");
    assert!(said.out.contains("1 program up"), "{said:?}");
    let web = world.pid("web");
    let said = world.eternal(&["stop"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        !lives(daemon) && !lives(web),
        "they are gone when stop returns"
    );
    assert!(!world.path("daemon.pid").exists());
    assert!(!world.path("daemon.sock").exists());
}

#[test]
fn start_prints_the_real_error_of_a_program_that_does_not_come_up() {
    let cases = [
        ("[\"/no/such/program\"]", "/no/such/program"),
        (
            "[\"sh\", \"-c\", \"exit 7\"]\nready = \"exec:false\"",
            "exit code 7",
        ),
        (
            "[\"sleep\", \"1000\"]\nready = \"exec:false\"\nstart_timeout = \"200ms\"",
            "not ready within 200ms",
        ),
    ];
    for (command, words) in cases {
        let world = World::new(&format!("{WEB}[programs.bad]\ncommand = {command}\n"));
        let said = world.eternal(&["start"]);
        assert_eq!(said.code, 1, "{command}: {said:?}");
        assert!(said.err.contains("bad: "), "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
        world.pid("web");
        assert_eq!(world.eternal(&["stop"]).code, 0);
    }
}

#[test]
fn start_ends_with_the_code_of_a_daemon_that_gives_up_at_once() {
    let world = World::new("[programs.bad]\ncommand = [\"/no/such\"]\nrestart = \"never\"\n");
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("/no/such"), "{said:?}");
    eventually("it is gone", || world.processes().is_empty().then_some(()));
    assert!(!world.path("daemon.pid").exists());
}

#[test]
fn a_command_after_two_dashes_needs_no_config_file() {
    let world = World::new("");
    std::fs::remove_file(world.path("eternal.toml")).expect("removed");
    let words = [
        "start",
        "--metrics-listen",
        "",
        "--restart",
        "on-failure",
        "--",
        "sleep",
        "1000",
    ];
    let said = world.eternal(&words);
    assert_eq!(said.code, 0, "{said:?}");
    let sleep = world.is("sleep", "running");
    assert_eq!(sleep.command, ["sleep", "1000"]);
    assert_eq!(world.eternal(&["stop"]).code, 0);
    assert_eq!(world.processes(), Vec::<i32>::new());
}

#[test]
fn restart_brings_a_new_daemon_with_the_same_options() {
    let world = World::new(WEB);
    assert_eq!(
        world
            .eternal(&["start", "--log-level", "debug", "--stats-interval", "7s"])
            .code,
        0
    );
    let (daemon, web) = (daemon_pid(&world), world.pid("web"));
    let said = world.eternal(&["restart"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(daemon) && !lives(web));
    let status = world.status().expect("a status");
    assert_ne!(status.daemon.pid, u32::try_from(daemon).expect("a pid"));
    assert!(
        status
            .daemon
            .arguments
            .contains(&"--log-level=debug".to_owned()),
        "{status:?}"
    );
    assert!(
        status
            .daemon
            .arguments
            .contains(&"--stats-interval=7s".to_owned()),
        "{status:?}"
    );
    world.pid("web");
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn reload_does_only_what_changed_and_says_what() {
    let before = r#"
        [programs.kept]
        command = ["sleep", "1000"]
        [programs.policy]
        command = ["sleep", "1000"]
        [programs.changed]
        command = ["sleep", "1000"]
        [programs.removed]
        command = ["sleep", "1000"]
    "#;
    let after = r#"
        [programs.kept]
        command = ["sleep", "1000"]
        [programs.policy]
        command = ["sleep", "1000"]
        crash_threshold = 9
        [programs.changed]
        command = ["sleep", "2000"]
        [programs.added]
        command = ["sleep", "1000"]
    "#;
    let world = World::new(before);
    let mut daemon = world.run();
    let pid = |name| world.pid(name);
    let (kept, policy, changed, removed) =
        (pid("kept"), pid("policy"), pid("changed"), pid("removed"));
    world.configure(after);
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["policy", "changed", "added", "removed"] {
        assert!(said.out.contains(name), "{name} in {said:?}");
    }
    assert_eq!(world.pid("kept"), kept);
    assert_eq!(world.pid("policy"), policy);
    assert_eq!(world.is("policy", "running").crash_budget, 9);
    assert_ne!(world.pid("changed"), changed);
    assert!(!lives(changed));
    world.pid("added");
    dies(removed);
    let metrics = world.scrape().expect("a scrape");
    assert!(!metrics.contains("program=\"removed\""));
    assert!(metrics.contains("eternal_program_crashes_total{program=\"added\",replica=\"0\"} 0"));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(world.pid("kept"), kept);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn reload_with_a_bad_config_fails_with_the_reason_and_changes_nothing() {
    let world = World::new(WEB);
    let mut daemon = world.run();
    let pid = world.pid("web");
    let bad = "[programs.web]\ncommand = [\"sleep\", \"5\"]\nrestart = \"sometimes\"\n[programs.new]\ncommand = [\"true\"]\n";
    world.configure(bad);
    let said = world.eternal(&["reload"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("sometimes"), "{said:?}");
    world.configure(&format!(
        "{WEB}[programs.new]\ncommand = [\"sleep\", \"5\"]\nlog_file = \"/proc/nowhere/x.log\"\n"
    ));
    let said = world.eternal(&["reload"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("/proc/nowhere"), "{said:?}");
    assert_eq!(world.pid("web"), pid);
    assert_eq!(world.status().expect("a status").programs.len(), 1);
    world.configure("[programs.web]\nrestart = \"sometimes\"");
    let said = world.eternal(&["stop"]);
    assert_eq!(
        said.code, 0,
        "a bad config keeps nobody from stopping: {said:?}"
    );
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn reload_changes_the_number_of_instances_and_leaves_those_that_stay() {
    let config = |n: u32| format!("{WEB}instances = {n}\n");
    let world = World::new(&config(1));
    let _daemon = world.run();
    let first = world.pid("web");
    world.configure(&config(3));
    assert_eq!(world.eternal(&["reload"]).code, 0);
    let pids: Vec<i32> = (0..3).map(|n| world.pid(&format!("web/{n}"))).collect();
    assert_eq!(pids[0], first);
    world.configure(&config(2));
    assert_eq!(world.eternal(&["reload"]).code, 0);
    dies(pids[2]);
    world.until("two are left", |s| (s.programs.len() == 2).then_some(()));
    assert_eq!([world.pid("web/0"), world.pid("web/1")], pids[..2]);
}

#[test]
fn a_replica_does_not_come_back_before_the_one_of_its_name_has_gone() {
    let of = |instances: u32| {
        format!(
            "[programs.web]\ncommand = [\"sh\", \"-c\", \"trap '' TERM; echo > set-$ETERNAL_REPLICA; while :; do sleep 0.02; done\"]\ninstances = {instances}\nstop_timeout = \"1h\"\n"
        )
    };
    let world = World::new(&of(2));
    let mut daemon = world.run();
    let pid = world.pid("web/1");
    world.appears("set-1");
    world.configure(&of(1));
    assert_eq!(world.eternal(&["reload"]).code, 0);
    world.configure(&of(2));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("web/1 is still being stopped"),
        "{}",
        said.err
    );
    let metrics = world.scrape().expect("a scrape");
    let series = "eternal_program_up{program=\"web\",replica=\"1\"}";
    assert_eq!(metrics.matches(series).count(), 1, "{metrics}");
    send(pid, Signal::SIGKILL);
    eventually("the old one is gone", || {
        (world.eternal(&["reload"]).code == 0).then_some(())
    });
    assert_ne!(world.pid("web/1"), pid);
    daemon.signal(Signal::SIGTERM);
    // Two signals in a row may be one; the other replica had been stopped before.
    world.logged(&["web/0: stopping"]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn reload_restart_restarts_even_what_did_not_change() {
    let world = World::new(WEB);
    let _daemon = world.run();
    let pid = world.pid("web");
    let said = world.eternal(&["reload", "--restart"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_ne!(world.pid("web"), pid);
}

#[test]
fn logs_show_what_was_written_and_follow_what_comes() {
    let script = "echo first; echo wrong >&2; while ! test -e go; do sleep 0.01; done; echo second; exec sleep 1000";
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", '''{script}''']\n"
    ));
    let _daemon = world.run();
    eventually("the first lines", || {
        let said = world.eternal(&["logs", "web"]);
        (said.out.contains("first") && said.out.contains("wrong")).then_some(())
    });
    let mut follow = world.command(World::binary());
    let file = std::fs::File::create(world.path("followed")).expect("a file");
    let mut following = follow
        .args(["logs", "-f", "web"])
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("logs");
    eventually("the past", || {
        world.read("followed").contains("first").then_some(())
    });
    assert!(!world.read("followed").contains("second"));
    world.write("go", "");
    eventually("what comes", || {
        world.read("followed").contains("second").then_some(())
    });
    let _ = following.kill();
    let _ = following.wait();
    assert!(
        world.log().contains("second"),
        "it is in the daemon's log too"
    );
}

#[test]
fn crashes_tell_when_why_how_long_and_the_last_lines() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo out of luck >&2; exit 3\"]\nrestart_delay = \"5m\"\nrestart_delay_max = \"5m\"\n",
    );
    let _daemon = world.run();
    world.is("web", "backoff");
    let said = eventually("a crash with its last words", || {
        let said = world.eternal(&["crashes"]);
        said.out.contains("out of luck").then_some(said)
    });
    assert!(said.out.contains("exit code 3"), "{said:?}");
    assert!(said.out.contains("restart in 5m"), "{said:?}");
    let json = world.eternal(&["crashes", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let text = value.to_string();
    assert!(
        text.contains("\"code\":3") && text.contains("exit_code"),
        "{text}"
    );
}

#[test]
fn the_event_stream_tells_a_life_in_order() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"exec sleep 1000\"]\nrestart_delay = \"10ms\"\n",
    );
    let _daemon = world.run();
    let pid = world.pid("web");
    let mut stream = UnixStream::connect(world.path("daemon.sock")).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    write!(stream, "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").expect("asked");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head = lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>();
    assert!(head[0].contains("200"), "{head:?}");
    assert!(
        head.iter()
            .any(|h| h.to_lowercase().contains("text/event-stream")),
        "{head:?}"
    );
    crate::world::send(pid, nix::sys::signal::Signal::SIGKILL);
    let mut kinds = lines.filter_map(|line| {
        line.split_once("event: ")
            .or(line.split_once("event:"))
            .map(|(_, kind)| kind.trim().to_owned())
    });
    let heard: Vec<String> = kinds.by_ref().take(3).collect();
    assert_eq!(heard, ["exited", "backing_off", "started"]);
}

#[test]
fn the_control_socket_takes_orders_and_the_metrics_socket_never_does() {
    let world = World::new(WEB);
    let mut daemon = world.run();
    let pid = world.pid("web");
    let control = world.path("daemon.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&control).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    for path in [
        "/v1/programs/web/stop",
        "/v1/shutdown",
        "/v1/status",
        "/metrics",
    ] {
        let (code, _) = ask(&world.path("metrics.sock"), "POST", path).expect("an answer");
        assert!([404, 405].contains(&code), "{path}: {code}");
    }
    assert_eq!(world.pid("web"), pid);
    let (code, body) = ask(&control, "POST", "/v1/programs/web/restart").expect("an answer");
    assert_eq!(code, 200, "{body}");
    assert_ne!(world.pid("web"), pid);
    let (code, body) = ask(&control, "POST", "/v1/programs/nobody/stop").expect("an answer");
    assert_eq!(code, 404, "{body}");
    let asked = Instant::now();
    let (code, body) = ask(&control, "POST", "/v1/shutdown").expect("an answer");
    assert!((200..300).contains(&code), "{code} {body}");
    assert_eq!(daemon.ends(), 0);
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn stop_of_a_program_returns_when_its_family_is_gone() {
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.02; done' & exec sleep 1000";
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", '''{script}''']\nstop_timeout = \"300ms\"\n"
    ));
    let _daemon = world.run();
    let (web, member) = (world.pid("web"), world.pid_in("pid"));
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    assert!(!lives(web) && !lives(member));
}

#[test]
fn reload_starts_at_once_what_was_waiting_with_a_broken_command() {
    let keys = "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"\ncrash_threshold = 2\n";
    let world = World::new(&format!(
        "{WEB}[programs.bad]\ncommand = [\"/no/such\"]\n{keys}"
    ));
    let _daemon = world.run();
    world.is("bad", "backoff");
    world.configure(&format!(
        "{WEB}[programs.bad]\ncommand = [\"sleep\", \"1000\"]\n{keys}"
    ));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    world.pid("bad");
}

#[test]
fn a_rolling_restart_stops_at_the_first_program_that_does_not_come_back() {
    let world = World::new(
        r#"
        [programs.a]
        command = ["sleep", "1000"]
        ready = "exec:test -e good"
        start_timeout = "1s"
        crash_threshold = 1
        [programs.b]
        command = ["sleep", "1000"]
        "#,
    );
    world.write("good", "");
    let _daemon = world.run();
    let (_, b) = (world.pid("a"), world.pid("b"));
    std::fs::remove_file(world.path("good")).expect("removed");
    let said = world.eternal(&["reload", "--restart"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("a did not come up"), "{said:?}");
    assert_eq!(world.pid("b"), b);
    world.logged(&["WARN", "rolling restart stopped"]);
}

#[test]
fn run_with_nothing_to_run_supervises_the_bundled_server() {
    let world = World::new("");
    std::fs::remove_file(world.path("eternal.toml")).expect("removed");
    let _daemon = world.launch(&["run", "--metrics-listen", ""]);
    let command = world.until("a program", |s| Some(s.programs.first()?.command.clone()));
    assert!(
        command[1..].contains(&"api-server".to_owned()),
        "{command:?}"
    );
    assert_eq!(world.status().expect("a status").programs[0].name, "api");
}

#[test]
fn the_log_can_be_json_and_options_come_from_the_environment() {
    let world = World::new(WEB);
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env("ETERNAL__DAEMON__LOG_FORMAT", "json");
    let mut daemon = world.launch_as(command);
    daemon.answers();
    let pid = world.pid("web");
    assert_eq!(daemon.is_stopped(), 0);
    let lines = world.log();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line.to_string().contains(&pid.to_string())),
        "{lines:?}"
    );
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env("ETERNAL__DAEMON__LOG_FROMAT", "json");
    let said = world.said(command);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("ETERNAL__DAEMON__LOG_FROMAT"), "{said:?}");
}
