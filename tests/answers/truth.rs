//! `status` says what is, why, and what to do.

use crate::world::World;

#[test]
fn a_failing_health_check_is_visible_before_it_is_the_last() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sleep\", \"1000\"]\nhealth_check = \"exec:test -e well\"\n\
         health_interval = \"50ms\"\nhealth_failures = 100000\n",
    );
    let mut daemon = world.run();
    let why = world.program("web", "has failed two checks", |web| {
        let failing = web.health_failing.clone()?;
        failing.contains("failed 2 of").then(|| web.why.clone())
    });
    assert!(why.contains("of 100000: test: exit code 1"), "{why}");
    world.write("well", "");
    world.program("web", "is well again", |web| {
        (web.health_failing.is_none() && web.why == "ready").then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_give_up_keeps_its_cause_and_says_what_to_do() {
    let world = World::new(
        "[programs.web]\ncommand = [\"./worker\"]\nrestart_delay = \"10ms\"\ncrash_threshold = 2\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let mut daemon = world.run();
    world.is("web", "failed");
    let said = world.eternal(&["status", "web"]);
    for words in [
        "crash loop: 2 crashes within 1m of run time",
        "last: cannot execute ./worker: no such file",
        "`eternal start web` tries it again",
    ] {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_limit_that_is_not_in_force_is_shown() {
    let world = World::new(
        "[daemon]\ncgroups = \"off\"\n[programs.web]\ncommand = [\"sleep\", \"1000\"]\nmemory_max = \"100MiB\"\n",
    );
    let mut daemon = world.run();
    world.pid("web");
    let said = world.eternal(&["status"]);
    assert!(
        said.out
            .contains("ready; without memory_max 100MiB: daemon.cgroups is \"off\""),
        "{said:?}"
    );
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn every_length_of_time_and_every_size_is_written_in_one_way() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\ncrash_threshold = 1\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let mut daemon = world.run();
    world.is("web", "failed");
    world.pid("good");
    for words in [&["status"][..], &["crashes"], &["check"]] {
        let said = world.eternal(words);
        let spaced = ["0 s", "1 s", "0 MiB", "5 MiB", "0 KiB"];
        let found = spaced.iter().find(|wrong| said.out.contains(**wrong));
        assert_eq!(found, None, "{words:?} {said:?}");
    }
    assert_eq!(daemon.is_stopped(), 0);
}
