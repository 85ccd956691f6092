//! `run` as the first process of a container.

use std::fs;

use nix::sys::signal::Signal;

use crate::world::{Daemon, World, eventually, send, value};

/// Starts the daemon as PID 1 of a pid namespace; `None`, with a word, where that is not possible.
fn first_process(world: &World) -> Option<Daemon<'_>> {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut probe = world.command("unshare");
    probe.args(namespace).arg("true");
    if world.said(probe).code != 0 {
        eprintln!("skipped: no pid namespaces here");
        return None;
    }
    let mut command = world.command("unshare");
    command.args(namespace).args([World::binary(), "run"]);
    Some(world.launch_as(command))
}

/// The daemon's pid as seen from here: the only child of `unshare`.
fn seen_from_outside(daemon: &Daemon<'_>) -> i32 {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children
        .expect("children")
        .trim()
        .parse()
        .expect("one child")
}

#[test]
fn orphans_are_reaped_and_sigterm_works() {
    let world = World::new(
        r#"
        [programs.web]
        command = ["sh", "-c", "for i in 1 2 3; do (sleep 0.05 &) ; done; trap 'echo bye > bye; exit' TERM; while :; do sleep 0.02; done"]
        "#,
    );
    let Some(mut daemon) = first_process(&world) else {
        return;
    };
    daemon.answers();
    assert_eq!(world.read("daemon.pid").trim(), "1");
    world.is("web", "running");
    eventually("three orphans are reaped", || {
        let metrics = world.scrape()?;
        (value(&metrics, "eternal_orphans_reaped_total")? >= 3.0).then_some(())
    });
    let inside = seen_from_outside(&daemon);
    send(inside, Signal::SIGTERM);
    assert_eq!(daemon.ends(), 0);
    assert_eq!(world.read("bye"), "bye\n");
}

#[test]
fn a_give_up_ends_the_container_with_1() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\nrestart_delay = \"10ms\"\ncrash_threshold = 2\n",
    );
    let Some(mut daemon) = first_process(&world) else {
        return;
    };
    assert_eq!(daemon.ends(), 1);
}

#[test]
fn a_container_that_was_killed_starts_again_beside_its_own_pid_file() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let Some(mut first) = first_process(&world) else {
        return;
    };
    first.answers();
    world.is("web", "running");
    first.is_killed();
    eventually("the container is gone", || {
        world.processes().is_empty().then_some(())
    });
    assert_eq!(world.read("daemon.pid").trim(), "1");
    let Some(mut second) = first_process(&world) else {
        return;
    };
    second.answers();
    world.is("web", "running");
    send(seen_from_outside(&second), Signal::SIGTERM);
    assert_eq!(second.ends(), 0);
}
