//! The daemon is killed and started again: it finds what it left, and never runs a second copy
//! beside a first.

use std::fs;

use crate::world::{World, lives};

/// A program that notices a second copy of itself.
const JEALOUS: &str = "exec 9>> lock; flock -n 9 || { echo second >> second; exit 9; }";

fn program(script: &str) -> String {
    format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", '''{JEALOUS}; {script}''']\nrestart_delay = \"10ms\"\n"
    )
}

/// Starts, kills, starts again: the process whose pid is in the file `pid` has to be gone then.
fn survives_nothing(config: &str) {
    let world = World::new(config);
    let mut first = world.run();
    let left = world.pid_in("pid");
    world.is("web", "running");
    first.is_killed();
    assert!(lives(left), "the test is about what is left");
    fs::remove_file(world.path("pid")).expect("removed");
    let mut second = world.run();
    let new = world.pid_in("pid");
    assert_ne!(new, left);
    assert!(!lives(left));
    assert!(!world.path("second").exists(), "there was a second copy");
    world.logged(&["an earlier daemon left processes behind"]);
    world.logged(&["an earlier daemon left web", &left.to_string()]);
    assert_eq!(world.is("web", "running").crashes, 0);
    assert_eq!(second.is_stopped(), 0);
    assert_eq!(world.processes(), Vec::<i32>::new());
}

#[test]
fn a_plain_survivor_is_found_and_ended() {
    survives_nothing(&program("echo $$ > pid; exec sleep 1000"));
}

#[test]
fn a_survivor_that_ignores_its_stop_signal_is_killed() {
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    survives_nothing(&(program(script) + "stop_timeout = \"200ms\"\n"));
}

#[test]
fn a_survivor_in_a_session_of_its_own_is_found() {
    survives_nothing(
        &program("setsid sh -c 'echo $$ > pid; exec sleep 1000' & exec sleep 1000")
            .replace("'''", "\"\"\"")
            .replace("$$", "$$"),
    );
}

#[test]
fn a_survivor_that_forked_twice_is_found_though_its_program_is_gone() {
    let script = "(setsid sh -c '(sh -c \"echo \\$\\$ > pid; exec sleep 1000\" &)' &) ; while ! test -s pid; do sleep 0.01; done; exec sleep 1000";
    let world = World::new(&program(script));
    let mut first = world.run();
    let left = world.pid_in("pid");
    let main = world.pid("web");
    first.is_killed();
    // The program itself does not survive: nothing on record lives.
    crate::world::send(main, nix::sys::signal::Signal::SIGKILL);
    crate::world::dies(main);
    assert!(lives(left));
    fs::remove_file(world.path("pid")).expect("removed");
    let mut second = world.run();
    world.pid_in("pid");
    assert!(!lives(left));
    assert!(!world.path("second").exists());
    world.logged(&["an earlier daemon left processes behind"]);
    assert_eq!(second.is_stopped(), 0);
}

#[test]
fn survivors_of_a_program_that_is_not_configured_any_more_are_ended_too() {
    let world = World::new(&program("echo $$ > pid; exec sleep 1000"));
    let mut first = world.run();
    let left = world.pid_in("pid");
    world.is("web", "running");
    first.is_killed();
    world.configure("[programs.other]\ncommand = [\"sleep\", \"1000\"]\n");
    let _second = world.run();
    world.pid("other");
    assert!(!lives(left));
}

#[test]
fn a_clean_stop_leaves_nothing_to_find() {
    let world = World::new(&program("echo $$ > pid; exec sleep 1000"));
    let mut first = world.run();
    world.is("web", "running");
    assert_eq!(first.is_stopped(), 0);
    let mut second = world.run();
    world.is("web", "running");
    assert!(!world.log().contains("an earlier daemon left"));
    assert_eq!(second.is_stopped(), 0);
}

#[test]
fn the_crash_history_survives_the_daemon() {
    let config = "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo last words; exit 3\"]\nrestart_delay = \"5m\"\nrestart_delay_max = \"5m\"\n";
    let world = World::new(config);
    let mut first = world.run();
    world.is("web", "backoff");
    crate::world::eventually("the crash is on record", || {
        world
            .eternal(&["crashes"])
            .out
            .contains("last words")
            .then_some(())
    });
    assert_eq!(first.is_stopped(), 0);
    world.configure("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let _second = world.run();
    let said = world.eternal(&["crashes", "--json"]);
    assert!(said.out.contains("last words"), "{said:?}");
}
