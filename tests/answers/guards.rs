//! A daemon is ended by those whose it is, and goes with the terminal it was started on.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::Child;

use nix::sys::signal::Signal;

use crate::open_terminal;
use crate::world::{World, dies, eventually, lives, send};

const WEB: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

#[test]
fn a_service_is_stopped_and_started_by_its_service_manager_or_by_force() {
    let world = World::new(WEB);
    let manager = UnixDatagram::bind(world.path("notify")).expect("a socket");
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env("NOTIFY_SOCKET", world.path("notify"));
    let mut daemon = world.launch_as(command);
    let pid = world.pid("web");
    for verb in ["stop", "restart"] {
        let said = world.eternal(&[verb]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("was started by a service manager"),
            "{said:?}"
        );
        assert!(
            said.err.contains("--force does it all the same"),
            "{said:?}"
        );
        assert!(!daemon.has_ended() && lives(pid), "{verb} did it");
    }
    assert_eq!(
        world.eternal(&["restart", "web"]).code,
        0,
        "a program by its name is nobody else's"
    );

    world.configure(&format!("[daemon]\nlog_level = \"debug\"\n{WEB}"));
    let said = world.eternal(&["reload"]);
    assert!(said.out.contains("takes effect only after"), "{said:?}");
    assert!(!said.out.contains("eternal restart"), "{said:?}");

    assert_eq!(world.eternal(&["stop", "--force"]).code, 0);
    assert_eq!(daemon.ends(), 0);
    let said = world.eternal(&["start"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("was started by a service manager"),
        "{said:?}"
    );
    assert_eq!(world.eternal(&["start", "--force"]).code, 0);
    assert_eq!(
        world.eternal(&["stop"]).code,
        0,
        "this one is nobody's service"
    );
    drop(manager);
}

/// A daemon on a terminal of its own; dropping the file hangs up.
fn on_a_terminal(world: &World, line: &str) -> (Child, File) {
    let (master, slave) = open_terminal();
    let mut command = world.command("setsid");
    command
        .args(["--ctty", "--wait", "sh", "-c", line])
        .env("ETERNAL", World::binary())
        .stdin(slave.try_clone().expect("a descriptor"))
        .stdout(slave.try_clone().expect("a descriptor"))
        .stderr(slave);
    let child = command.spawn().expect("setsid");
    drop(command);
    world.pid("web");
    (child, master)
}

#[test]
fn a_daemon_in_the_foreground_ends_with_its_terminal() {
    for line in ["exec $ETERNAL run", "$ETERNAL run; true"] {
        let world = World::new(WEB);
        let (mut shell, terminal) = on_a_terminal(&world, line);
        let (daemon, web) = (world.pid_in("daemon.pid"), world.pid("web"));
        drop(terminal);
        dies(daemon);
        dies(web);
        shell.wait().expect("a status");
        assert!(
            world.log().contains("stopping: its terminal is gone"),
            "{}",
            world.log()
        );
        assert!(!world.log().contains("reloaded"), "{}", world.log());
        assert!(!world.path("daemon.pid").exists());
    }
}

#[test]
fn a_daemon_that_was_told_to_outlive_its_terminal_does_and_restarts_nothing() {
    let world = World::new(WEB);
    let (mut shell, terminal) = on_a_terminal(&world, "exec nohup $ETERNAL run >/dev/null");
    let (daemon, web) = (world.pid_in("daemon.pid"), world.pid("web"));
    drop(terminal);
    world.logged(&["SIGHUP received"]);
    // The next one is meant for it.
    send(daemon, Signal::SIGHUP);
    world.logged(&["configuration reloaded"]);
    assert_eq!(world.log().matches("configuration reloaded").count(), 1);
    eventually("web was restarted by the second", || {
        (world.is("web", "running").restarts == 1 && !lives(web)).then_some(())
    });
    send(daemon, Signal::SIGTERM);
    dies(daemon);
    shell.wait().expect("a status");
}

#[test]
fn a_hangup_that_somebody_sends_is_a_reload() {
    let world = World::new(WEB);
    let (mut shell, terminal) = on_a_terminal(&world, "exec $ETERNAL run");
    let daemon = world.pid_in("daemon.pid");
    send(daemon, Signal::SIGHUP);
    world.logged(&["configuration reloaded"]);
    assert!(lives(daemon));
    send(daemon, Signal::SIGTERM);
    dies(daemon);
    drop(terminal);
    shell.wait().expect("a status");
}
