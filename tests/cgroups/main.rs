//! The real daemon with a part of the real tree of cgroups. Limits and kills for want of memory
//! need controllers, which not every machine has: `qemu.sh` boots one that does.
//!
//! Needs root and a writable cgroup v2; without them every test here says that it is skipped.

mod world;

use std::fs;

use world::{Outsider, World, eventually, is_alive};

/// Hides from groups, sessions, parents and marks, and says its number in a file.
const HIDE: &str =
    "env -i setsid sh -c 'echo $$ > hidden.new; mv hidden.new hidden; exec sleep 4711' &";

#[test]
fn a_descendant_that_hides_is_ended_before_a_restart() {
    let Some(world) = World::new() else { return };
    world.configure(&format!(
        "[programs.web]\nrestart_delay = \"10ms\"\ncommand = [\"sh\", \"-c\", \"\"\"{HIDE}\n\
         while [ ! -e hidden ]; do sleep 0.01; done; cat hidden >> all; echo $$ > main; exec sleep 4711\"\"\"]\n"
    ));
    let daemon = world.daemon();
    let main: i32 = world.number("main");
    let hidden: i32 = world.number("hidden");
    world.remove(&["main", "hidden"]);
    daemon.kill_process(main);
    assert_ne!(world.number::<i32>("main"), main, "it runs again");
    assert!(!is_alive(hidden), "{}", world.log());
    assert!(
        world.log().contains("left processes behind"),
        "{}",
        world.log()
    );
    daemon.stops();
    for pid in world.read("all").lines() {
        assert!(
            !is_alive(pid.parse().expect("a number")),
            "{pid} outlived the daemon"
        );
    }
    world.tree_is_as_it_was();
}

#[test]
fn a_kill_reaches_those_that_are_being_born() {
    let Some(world) = World::new() else { return };
    // Each one lives for a moment, in a session and a world of its own, and makes the next two.
    world.write(
        "bomb",
        "trap '' TERM\necho $$ > born\nsleep 0.05\nenv -i setsid sh bomb & \nenv -i setsid sh bomb & \n\
         [ $(cat /proc/loadavg | cut -d/ -f2 | cut -d' ' -f1) -lt 20000 ] && sleep 0.2\n",
    );
    world.configure(
        "[programs.bomb]\nstop_timeout = \"200ms\"\nlimits = { nproc = 4000 }\n\
         command = [\"sh\", \"-c\", \"trap '' TERM; sh bomb; sleep 4711\"]\n",
    );
    let daemon = world.daemon();
    world.number::<i32>("born");
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn in_process_mode_descendants_are_left_alone_and_keep_the_cgroup() {
    let Some(world) = World::new() else { return };
    world.configure(&format!(
        "[programs.web]\nkill_mode = \"process\"\nrestart_delay = \"10ms\"\n\
         command = [\"sh\", \"-c\", \"\"\"[ -e hidden ] || {HIDE}\n\
         while [ ! -e hidden ]; do sleep 0.01; done; echo $$ > main; exec sleep 4711\"\"\"]\n"
    ));
    let daemon = world.daemon();
    let (main, hidden): (i32, i32) = (world.number("main"), world.number("hidden"));
    world.remove(&["main"]);
    daemon.kill_process(main);
    let again: i32 = world.number("main");
    assert_ne!(again, main);
    assert!(is_alive(hidden), "left alone");
    let members = world.members("program-web-0");
    assert!(
        members.contains(&hidden) && members.contains(&again),
        "{members:?}"
    );
    daemon.stops();
    assert!(is_alive(hidden), "left alone at the end too");
    assert_eq!(world.members("program-web-0"), [hidden]);

    // The next daemon does not know it, but knows the cgroup.
    world.configure("[programs.other]\ncommand = [\"sleep\", \"4711\"]\n");
    let daemon = world.daemon();
    eventually("the hidden one goes", || (!is_alive(hidden)).then_some(()));
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn what_a_killed_daemon_left_is_ended_by_the_next() {
    let Some(world) = World::new() else { return };
    world.configure(&format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"\"\"{HIDE}\n\
         while [ ! -e hidden ]; do sleep 0.01; done; echo $$ > main; exec sleep 4711\"\"\"]\n"
    ));
    let daemon = world.daemon();
    let (main, hidden): (i32, i32) = (world.number("main"), world.number("hidden"));
    daemon.dies();
    assert!(is_alive(main) && is_alive(hidden), "nobody ended them");
    world.remove(&["main", "hidden"]);
    let daemon = world.daemon();
    world.number::<i32>("main");
    assert!(!is_alive(main) && !is_alive(hidden), "{}", world.log());
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn one_that_was_moved_in_from_elsewhere_holds_up_the_end_of_the_family() {
    let Some(world) = World::new() else { return };
    // Goes when it is asked, but not at once.
    let script = "trap 'sleep 0.5; exit' TERM; while :; do sleep 0.02; done";
    let mut stranger = Outsider::start(&["sh", "-c", script]);
    let number = stranger.0.id();
    world.configure(&format!(
        "[programs.web]\nrestart_delay = \"10ms\"\ncommand = [\"sh\", \"-c\", \
         \"grep -c '^State:.[^ZX]' /proc/{number}/status >> seen; echo $$ > main; exec sleep 4711\"]\n"
    ));
    let daemon = world.daemon();
    let main: i32 = world.number("main");
    fs::write(
        world.cgroup("program-web-0/cgroup.procs"),
        number.to_string(),
    )
    .expect("moved");
    world.remove(&["main"]);
    daemon.kill_process(main);
    assert_ne!(world.number::<i32>("main"), main);
    eventually("the stranger ends", || {
        stranger.0.try_wait().expect("a child")
    });
    assert_eq!(
        world.read("seen"),
        "1\n0\n",
        "it lived at the first start alone"
    );
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn no_name_is_taken_for_a_file_of_the_kernel_or_for_another_program() {
    let Some(world) = World::new() else { return };
    let names = [
        "cgroup.procs",
        "memory.max",
        "supervisor",
        "a.service",
        "a-1",
        "a",
        "web:x@y",
        "program-a-0",
    ];
    let mut config = String::new();
    for name in names {
        config.push_str(&format!(
            "[programs.\"{name}\"]\ninstances = 2\ncommand = [\"sleep\", \"4711\"]\n"
        ));
    }
    world.configure(&config);
    let daemon = world.daemon();
    for name in names {
        for replica in 0..2 {
            let directory = format!("program-{name}-{replica}");
            let one = eventually(&directory, || {
                Some(world.members(&directory)).filter(|members| !members.is_empty())
            });
            assert_eq!(one.len(), 1, "{directory}");
            let marks = [
                format!("ETERNAL_PROGRAM={name}\0"),
                format!("ETERNAL_REPLICA={replica}\0"),
            ];
            // It may not have been executed yet.
            eventually(&format!("{directory} holds {marks:?}"), || {
                let environment = fs::read(format!("/proc/{}/environ", one[0])).expect("readable");
                let environment = String::from_utf8_lossy(&environment).into_owned();
                marks
                    .iter()
                    .all(|mark| environment.contains(mark))
                    .then_some(())
            });
        }
    }
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn a_cgroup_that_is_not_ours_is_not_touched() {
    let Some(world) = World::new() else { return };
    world.configure(
        "[programs.web]\nmemory_max = \"1GiB\"\npids_max = 7\ncommand = [\"sleep\", \"4711\"]\n",
    );
    let refused = |why: &str| {
        let daemon = world.daemon();
        world.logged(&format!("programs get no cgroups of their own: {why}"));
        let without = format!("web: runs without memory_max 1GiB, pids_max 7: {why}");
        world.logged(&without);
        assert_eq!(world.log().matches(&without).count(), 1);
        daemon.stops();
        world.tree_is_as_it_was();
        world.remove(&["logs/daemon.log"]);
    };
    // As systemd marks a service without Delegate=.
    world.mark("trusted.invocation_id", Some("00"));
    refused(&format!(
        "{} is managed by systemd, without Delegate=yes",
        world.name()
    ));
    // With it, it is ours.
    world.mark("trusted.delegate", Some("1"));
    let daemon = world.daemon();
    world.logged("each replica gets a cgroup of its own, below");
    daemon.stops();
    world.mark("trusted.delegate", None);
    world.mark("trusted.invocation_id", None);

    let other = Outsider::start(&["sleep", "4711"]);
    fs::write(world.cgroup("cgroup.procs"), other.0.id().to_string()).expect("moved");
    refused(&format!(
        "{} also holds process {} (sleep)",
        world.name(),
        other.0.id()
    ));
}

#[test]
fn where_cgroups_are_required_the_daemon_does_not_start_without() {
    let Some(world) = World::new() else { return };
    world.configure(
        "[daemon]\ncgroups = \"required\"\n[programs.web]\ncommand = [\"sleep\", \"4711\"]\n",
    );
    world.mark("trusted.invocation_id", Some("00"));
    let (code, said) = world.run_to_its_end();
    assert_eq!(code, Some(2), "{said}");
    let why = format!(
        "cannot use cgroups, which daemon.cgroups requires: {} is managed by systemd, without Delegate=yes",
        world.name()
    );
    assert!(said.contains(&why), "{said}");
}

#[test]
fn with_cgroups_off_the_daemon_stays_where_it_is() {
    let Some(world) = World::new() else { return };
    world.configure("[daemon]\ncgroups = \"off\"\n[programs.web]\ncommand = [\"sh\", \"-c\", \"echo $$ > main; exec sleep 4711\"]\n");
    let daemon = world.daemon();
    let main: i32 = world.number("main");
    let members = world.members("");
    assert!(
        members.contains(&main) && members.contains(&daemon.pid()),
        "{members:?}"
    );
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn a_daemon_in_the_background_gets_its_cgroup_though_the_start_waits_in_it() {
    let Some(world) = World::new() else { return };
    world.configure(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo $$ > main; exec sleep 4711\"]\n",
    );
    let (code, said) = world.to_its_end("\"$BINARY\" start");
    assert_eq!(code, Some(0), "{said}");
    let main: i32 = world.number("main");
    assert_eq!(world.members("program-web-0"), [main], "{}", world.log());
    let (code, said) = world.to_its_end("\"$BINARY\" stop");
    assert_eq!(code, Some(0), "{said}");
    assert!(!is_alive(main));
}

#[test]
fn the_first_process_of_a_container_has_its_cgroup() {
    let Some(world) = World::new() else { return };
    world.configure(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo $$ > main; exec sleep 4711\"]\n",
    );
    let daemon = world.container();
    world.number::<i32>("main");
    world.logged("each replica gets a cgroup of its own, below / with");
    assert_eq!(world.members("program-web-0").len(), 1);
    assert_eq!(world.members("supervisor").len(), 1);
    daemon.stops();
    world.tree_is_as_it_was();
}

#[test]
fn a_program_that_gives_its_controllers_away_is_started_again() {
    let Some(world) = World::new() else { return };
    // A nested tree in its own cgroup, as a container runtime makes one, left behind at a crash.
    world.configure(
        "[programs.nested]\nrestart_delay = \"10ms\"\ncommand = [\"sh\", \"-c\", \"\"\"\n\
         here=$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p $TREE$here/inner/most\n\
         echo $$ > $TREE$here/inner/most/cgroup.procs; echo $$ > main; exec sleep 4711\"\"\"]\n",
    );
    let daemon = world.daemon();
    let main: i32 = world.number("main");
    assert_eq!(world.members("program-nested-0/inner/most"), [main]);
    world.remove(&["main"]);
    daemon.kill_process(main);
    assert_ne!(world.number::<i32>("main"), main);
    daemon.stops();
    world.tree_is_as_it_was();
}
