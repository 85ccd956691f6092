//! Descendants: who belongs to a run, and that they go with it.

use eternal::os::children::News;
use eternal::supervision::WaitStatus;
use nix::sys::signal::Signal;

use crate::world::{World, alive, signal, within};

/// How a descendant comes to be; each prints its own number.
const SLEEPER: &str = "sh -c 'echo $$; exec sleep 1000'";
const WAYS: [(&str, &str); 5] = [
    ("in the background", "SLEEPER &"),
    ("in its own session", "setsid SLEEPER &"),
    ("forked twice", "(setsid SLEEPER &)"),
    ("forked twice in the group", "(SLEEPER &)"),
    ("deaf to hang-ups", "nohup SLEEPER &"),
];

/// Starts a program with a descendant of every kind; returns their numbers.
async fn patriarch(
    world: &mut World,
    end: &str,
    family: bool,
) -> (crate::world::Started, Vec<i32>) {
    let lines: Vec<String> = WAYS
        .iter()
        .map(|(_, way)| way.replace("SLEEPER", SLEEPER))
        .collect();
    let script = format!("{}\n{end}", lines.join("\n"));
    let mut launch = world.launch(&["/bin/sh", "-c", &script]);
    launch.family = family;
    let mut started = world.start(&launch).expect("it starts");
    let mut pids = Vec::new();
    for _ in WAYS {
        pids.push(started.number().await);
    }
    (started, pids)
}

#[test]
fn the_whole_family_goes_on_stop() {
    within(async |world| {
        let (started, pids) = patriarch(world, "exec sleep 1000", true).await;
        assert!(pids.iter().all(|&pid| alive(pid)));
        world.children.stop(started.run, libc::SIGTERM);
        let (status, _) = world.finish(started.run).await;
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        assert_eq!(pids.into_iter().find(|&pid| alive(pid)), None);
        assert!(
            world.orphans.is_empty(),
            "relatives are no orphans: {:?}",
            world.orphans
        );
    });
}

#[test]
fn the_whole_family_is_seen_after_a_crash_and_goes_on_stop() {
    within(async |world| {
        let (started, pids) = patriarch(world, "exec sleep 1000", true).await;
        signal(started.pid, Signal::SIGKILL);
        let (status, family) = world.exit(started.run).await;
        assert_eq!((status.signal(), family), (Some(libc::SIGKILL), true));
        assert!(
            pids.iter().all(|&pid| alive(pid)),
            "nobody was signalled unasked"
        );
        assert_eq!(
            world.children.pid(started.run),
            Some(started.pid),
            "the zombie stays"
        );
        world.children.stop(started.run, libc::SIGTERM);
        world.family_gone(started.run).await;
        assert_eq!(pids.into_iter().find(|&pid| alive(pid)), None);
        assert!(
            world.orphans.is_empty(),
            "relatives are no orphans: {:?}",
            world.orphans
        );
    });
}

#[test]
fn process_mode_leaves_descendants_alone() {
    within(async |world| {
        let (started, pids) = patriarch(world, "exec sleep 1000", false).await;
        world.children.stop(started.run, libc::SIGTERM);
        let (status, family) = world.exit(started.run).await;
        assert_eq!((status.signal(), family), (Some(libc::SIGTERM), false));
        assert!(pids.iter().all(|&pid| alive(pid)));
        for pid in pids {
            signal(pid, Signal::SIGKILL);
            assert_eq!(world.orphan(pid).await.signal(), Some(libc::SIGKILL));
        }
    });
}

#[test]
fn a_descendant_that_hid_is_found_while_its_parent_lives() {
    within(async |world| {
        let script = format!("env -i setsid {SLEEPER} & wait");
        let mut started = world.shell(&script);
        let hidden = started.number().await;
        world.children.stop(started.run, libc::SIGTERM);
        world.finish(started.run).await;
        assert!(!alive(hidden));
    });
}

#[test]
fn a_family_deaf_to_the_stop_signal_is_killed() {
    within(async |world| {
        let deaf = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.01; done'";
        let mut started = world.shell(&format!("{deaf} & exec sleep 1000"));
        let pid = started.number().await;
        world.children.stop(started.run, libc::SIGTERM);
        assert!(world.exit(started.run).await.1, "a family remains");
        assert!(alive(pid));
        world.children.kill(started.run);
        world.family_gone(started.run).await;
        assert!(!alive(pid));
    });
}

#[test]
fn a_family_that_forks_without_end_is_killed() {
    within(async |world| {
        for next in ["\"$0\" &", "setsid \"$0\" &"] {
            let path = world.script("fork-on", &format!("#!/bin/sh\n{next}\nsleep 0.01\n"));
            let mut started = world.shell(&format!(
                "setsid {} & echo up; exec sleep 1000",
                path.display()
            ));
            assert_eq!(started.line().await, "up");
            world.children.kill(started.run);
            world.finish(started.run).await;
        }
    });
}

#[test]
fn a_stopped_descendant_obeys_too() {
    within(async |world| {
        let mut started = world.shell(&format!("setsid {SLEEPER} & exec sleep 1000"));
        let pid = started.number().await;
        crate::world::wait_for_state(pid, "S").await;
        signal(pid, Signal::SIGSTOP);
        crate::world::wait_for_state(pid, "T").await;
        world.children.stop(started.run, libc::SIGTERM);
        world.finish(started.run).await;
        assert!(!alive(pid));
    });
}

#[test]
fn a_descendant_that_ends_before_its_parent_is_no_family() {
    within(async |world| {
        let started = world.shell("(setsid true &); true & wait; exit 3");
        let (status, family) = world.finish(started.run).await;
        assert_eq!(status, WaitStatus::Exited { code: 3 });
        // The double-forked one may live a moment longer than its grandparent.
        let _ = family;
        assert!(world.children.is_empty());
    });
}

#[test]
fn the_families_of_two_runs_are_told_apart() {
    within(async |world| {
        let (first, mine) = patriarch(world, "exec sleep 1000", true).await;
        let (second, others) = patriarch(world, "exec sleep 1000", true).await;
        signal(first.pid, Signal::SIGKILL);
        assert!(world.exit(first.run).await.1);
        world.children.kill(first.run);
        world.family_gone(first.run).await;
        assert!(mine.iter().all(|&pid| !alive(pid)));
        assert!(others.iter().all(|&pid| alive(pid)));
        world.children.kill(second.run);
        assert!(matches!(world.news().await, News::Exited { .. }));
        while !world.children.is_empty() {
            world.news().await;
        }
        assert!(others.iter().all(|&pid| !alive(pid)));
    });
}

#[test]
fn a_descendant_that_was_about_to_execute_is_found() {
    // Between the old program and the new one a process has no environment to read.
    let daemons = "echo up; while :; do (setsid sleep 1000 &); done";
    within(async |world| {
        for _ in 0..40 {
            let mut started = world.shell(daemons);
            assert_eq!(started.line().await, "up");
            signal(started.pid, Signal::SIGKILL);
            let (_, family) = world.exit(started.run).await;
            world.children.kill(started.run);
            if family {
                world.family_gone(started.run).await;
            }
            assert_eq!(crate::world::living_children(), Vec::<i32>::new());
        }
    });
}
