//! "Up" means that it stayed up: for start, restart, reload, rolling restarts, systemd and the probes.
//! Nothing waits without saying for whom.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{World, eventually, send};

/// The defaults as they are, not those of most tests.
const DEFAULTS: &str = "[defaults]\nrestart_delay = \"20ms\"\nrestart_delay_max = \"50ms\"\n";

fn world(programs: &str) -> World {
    World::new(&format!("{DEFAULTS}{programs}"))
}

/// A program whose shell runs `script`.
fn program(name: &str, script: &str, keys: &str) -> String {
    format!("[programs.{name}]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{keys}\n")
}

const LASTS: &str = "exec sleep 1000";
/// Waits long after it has failed: what is asked is asked of one that is down.
const SLOW: &str = "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"\n";

#[test]
fn a_program_is_up_when_it_has_lived_for_a_second() {
    let world = world(&program("web", LASTS, ""));
    let asked = Instant::now();
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert!(said.out.contains("1 program up"), "{said:?}");
    world.logged(&["web: ready after 1"]);
    let asked = Instant::now();
    assert_eq!(world.eternal(&["restart", "web"]).code, 0);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn start_does_not_call_up_what_has_ended_before_it_was_up() {
    let world = world(&program("web", "echo cannot read config; exit 3", SLOW));
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("web: exit code 3, ran "), "{said:?}");
    assert!(said.err.contains("\n  | cannot read config\n"), "{said:?}");
    assert!(said.err.contains("0 of 1 program up"), "{said:?}");
    let said = world.eternal(&["healthcheck", "--ready"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn an_order_does_not_call_up_what_has_ended_before_it_was_up() {
    let script = "test -e bad && { echo cannot read config; exit 3; }; exec sleep 1000";
    // Without a pause it is never seen waiting, and fails all the same.
    for pause in [SLOW, "restart_delay = 0\nrestart_delay_max = 0\n"] {
        let programs = program("web", script, pause) + &program("other", LASTS, "");
        let world = world(&programs);
        let _daemon = world.run();
        world.pid("web");
        world.write("bad", "");
        for verb in ["restart", "start"] {
            let said = world.eternal(&[verb, "web"]);
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.out.contains("web: exit code 3, ran "), "{said:?}");
            assert!(said.out.contains("\n  | cannot read config\n"), "{said:?}");
        }
    }
}

#[test]
fn what_start_counts_is_what_is_up_at_that_moment() {
    let world = world(
        &(program("late", LASTS, "ready = \"exec:test -e up\"")
            + &program(
                "crasher",
                "while [ ! -e crash ]; do sleep 0.02; done; exit 1",
                &format!("ready = \"alive:50ms\"\n{SLOW}"),
            )),
    );
    let start = std::thread::scope(|scope| {
        let start = scope.spawn(|| world.eternal(&["start"]));
        world.is("crasher", "running");
        world.write("crash", "");
        world.is("crasher", "backoff");
        world.write("up", "");
        start.join().expect("it returns")
    });
    assert_eq!(start.code, 1, "{start:?}");
    assert!(start.err.contains("crasher: exit code 1"), "{start:?}");
    assert!(start.err.contains("1 of 2 programs up"), "{start:?}");
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn who_comes_after_a_one_shot_waits_for_its_success() {
    let migrate = "while [ ! -e go ]; do sleep 0.02; done; echo migrated >> order";
    let world = world(
        &(program("migrate", migrate, "restart = \"never\"")
            + &program(
                "web",
                "echo web >> order; exec sleep 1000",
                "after = [\"migrate\"]",
            )),
    );
    let _daemon = world.run();
    let web = world.is("web", "starting");
    assert_eq!(web.why, "waiting for migrate to be ready");
    let at_work = "at work: it is ready when it has ended with success";
    world.program("migrate", "is at work", |p| {
        (p.state == "starting" && p.why == at_work).then_some(())
    });
    world.write("go", "");
    world.pid("web");
    assert_eq!(world.lines("order"), ["migrated", "web"]);
    world.is("migrate", "completed");
    assert_eq!(world.eternal(&["healthcheck", "--ready"]).code, 0);
}

#[test]
fn who_comes_after_a_one_shot_that_failed_waits_on_and_says_so() {
    let world = world(
        &(program("migrate", "exit 3", "restart = \"never\"")
            + &program("app", LASTS, "after = [\"migrate\"]")
            + &program("web", LASTS, "after = [\"app\"]")
            + &program("other", LASTS, "")),
    );
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 1, "{said:?}");
    let waits = "waiting for migrate, which failed with exit code 3";
    assert!(said.err.contains("migrate: exit code 3, ran "), "{said:?}");
    assert!(said.err.contains(&format!("app: {waits}")), "{said:?}");
    let far = "web: waiting for app, which waits for migrate, which failed with exit code 3";
    assert!(said.err.contains(far), "{said:?}");
    assert!(said.err.contains("1 of 4 programs up"), "{said:?}");
    assert_eq!(world.is("app", "starting").why, waits);
    let said = world.eternal(&["start", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains(far), "{said:?}");
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn who_waits_for_one_that_nobody_starts_says_so_at_once() {
    let programs =
        program("db", LASTS, "autostart = false") + &program("web", LASTS, "after = [\"db\"]");
    let world = world(&programs);
    let said = world.eternal(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    let warning =
        "warning: programs.web: waits for db, which is not started by itself (autostart = false)";
    assert!(said.err.contains(warning), "{said:?}");
    let socket = world.path("systemd.sock");
    let systemd = UnixDatagram::bind(&socket).expect("a socket");
    systemd
        .set_read_timeout(Some(crate::world::DEADLINE))
        .expect("a limit");
    let mut command = world.command(World::binary());
    command.arg("start").env("NOTIFY_SOCKET", &socket);
    let said = world.said(command);
    assert_eq!(said.code, 1, "{said:?}");
    let waits = "web: waiting for db, which is not started by itself (autostart = false)";
    assert!(said.err.contains(waits), "{said:?}");
    eventually("systemd is told that it is ready", || {
        let mut message = [0; 1024];
        let length = systemd.recv(&mut message).expect("a message");
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        text.contains("READY=1").then_some(())
    });
    assert_eq!(world.eternal(&["start", "db"]).code, 0);
    world.pid("web");
    assert_eq!(world.eternal(&["stop", "--force"]).code, 0);
}

#[test]
fn the_daemon_ends_with_1_when_a_wanted_program_never_ran() {
    let world = world(
        &(program("db", LASTS, "autostart = false")
            + &program("web", LASTS, "after = [\"db\"]")
            + &program("job", "true", "restart = \"never\"")),
    );
    assert_eq!(world.launch(&["run"]).ends(), 1);
}

#[test]
fn a_roll_stops_at_the_first_replica_that_does_not_stay_up() {
    let config = |script: &str| {
        format!(
            "{DEFAULTS}{}",
            program("web", script, &format!("instances = 3\n{SLOW}"))
        )
    };
    let world = World::new(&config(LASTS));
    let _daemon = world.run();
    let pids: Vec<i32> = (0..3).map(|n| world.pid(&format!("web/{n}"))).collect();
    world.configure(&config("echo cannot read config; exit 3"));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err
            .contains("web/0 did not come up: exit code 3, ran "),
        "{said:?}"
    );
    assert!(said.err.contains("\n  | cannot read config\n"), "{said:?}");
    assert!(
        said.err.contains("left as they were: web/1, web/2"),
        "{said:?}"
    );
    for n in [1, 2] {
        assert_eq!(world.pid(&format!("web/{n}")), pids[n]);
    }
}

#[test]
fn a_run_that_lasts_as_long_as_was_asked_is_up_even_if_it_ends_then() {
    let world = world(&program(
        "web",
        LASTS,
        &format!("ready = \"alive:200ms\"\n{SLOW}"),
    ));
    let _daemon = world.run();
    send(world.pid("web"), Signal::SIGKILL);
    let web = world.is("web", "backoff");
    assert!(web.why.contains("SIGKILL"), "{}", web.why);
    world.logged(&["web: ready after "]);
}

#[test]
fn the_bundled_server_is_up_when_it_listens() {
    let world = World::new("");
    std::fs::remove_file(world.path("eternal.toml")).expect("removed");
    let taken = std::net::TcpListener::bind("127.0.0.1:3000");
    let said = world.eternal(&["start", "--metrics-listen", ""]);
    // Whoever has the port, we or a stranger.
    if taken.is_ok() {
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("  | "), "its own words: {said:?}");
    }
    let said = world.eternal(&["config"]);
    assert!(said.out.contains("ready = \"notify\""), "{said:?}");
}
