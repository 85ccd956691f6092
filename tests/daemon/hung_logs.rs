//! Programs whose logs are on a disk that does not answer: they wait, and nobody else does.

use nix::sys::signal::Signal;

use crate::silent::Silent;
use crate::world::{World, eventually, send};

/// One program on this disk and one that is not.
fn config(disk: &Silent) -> String {
    format!(
        "[programs.good]\ncommand = [\"sh\", \"-c\", \"while echo tick; do sleep 0.05; done\"]\nrestart_delay = 0\n\
         [programs.hung]\ncommand = [\"sh\", \"-c\", \"echo here; exec sleep 1000\"]\nlog_file = \"{}\"\n",
        disk.path().join("hung.log").display()
    )
}

/// The other program is restarted and logged, and orders are answered.
fn others_go_on(world: &World) {
    let pid = world.pid("good");
    send(pid, Signal::SIGKILL);
    world.program("good", "is back", |good| {
        (good.state == "running" && good.pid != Some(pid)).then_some(())
    });
    let ticks = || world.log().matches("good: tick").count();
    let before = ticks();
    eventually("it is logged", || (ticks() > before + 3).then_some(()));
    assert_eq!(world.eternal(&["healthcheck"]).code, 0);
}

#[test]
fn a_log_that_hangs_at_the_start_holds_up_its_program_and_nobody_else() {
    let Some(disk) = Silent::mount() else { return };
    disk.does_not_open();
    let world = World::new(&config(&disk));
    let mut daemon = world.run();
    disk.has_heard(1);
    others_go_on(&world);
    let hung = world.program("hung", "is not there", |hung| {
        (hung.pid.is_none()).then(|| hung.clone())
    });
    assert_eq!(hung.state, "starting", "{hung:?}");
    disk.answers();
    world.pid("hung");
    eventually("its line is written", || {
        disk.written().contains("here").then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn logs_that_hang_when_they_are_opened_again_hold_up_nobody_else() {
    let Some(disk) = Silent::mount() else { return };
    let world = World::new(&config(&disk));
    let mut daemon = world.run();
    world.pid("hung");
    eventually("its line is written", || {
        disk.written().contains("here").then_some(())
    });
    disk.does_not_open();
    daemon.signal(Signal::SIGUSR1);
    disk.has_heard(1);
    others_go_on(&world);
    assert_eq!(
        world.eternal(&["restart", "hung"]).code,
        0,
        "its log was open"
    );
    disk.answers();
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_log_that_hangs_while_it_is_written_holds_up_nobody_else_and_no_stop() {
    let Some(disk) = Silent::mount() else { return };
    let world = World::new(&config(&disk));
    let mut daemon = world.run();
    world.pid("hung");
    disk.does_not_write();
    assert_eq!(world.eternal(&["restart", "hung"]).code, 0);
    disk.has_heard(1);
    others_go_on(&world);
    assert_eq!(world.eternal(&["stop", "hung"]).code, 0);
    disk.answers();
    assert_eq!(daemon.is_stopped(), 0);
}
