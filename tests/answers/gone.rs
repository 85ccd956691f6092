//! When nobody answers any more, the answers lie in the files.

use crate::world::{World, eventually};

const GIVES_UP: &str = "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo boom; exit 3\"]\n\
                        restart_delay = \"10ms\"\ncrash_threshold = 2\n";

/// A world whose daemon has given up and is gone.
fn given_up() -> World {
    let world = World::new(GIVES_UP);
    let mut daemon = world.launch(&["run"]);
    assert_eq!(daemon.ends(), 1);
    drop(daemon);
    world
}

#[test]
fn after_a_give_up_status_says_when_and_why_the_daemon_ended() {
    let world = given_up();
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("no daemon is running"), "{said:?}");
    let first = said.out.lines().next().unwrap_or_default();
    for words in [
        "the daemon (pid ",
        ") ended at 20",
        "exit code 1: gave up: web: crash loop",
        "exit code 3",
    ] {
        assert!(first.contains(words), "{words:?}: {said:?}");
    }
    assert!(said.out.contains("failed"), "{said:?}");

    let json = world.eternal(&["status", "--json"]);
    assert_eq!(json.code, 3);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["last"]["ended"]["code"], 1);
    assert_eq!(json["last"]["status"]["programs"][0]["state"], "failed");
    assert!(
        json["error"]
            .as_str()
            .is_some_and(|error| error.contains("no daemon"))
    );
}

#[test]
fn after_a_give_up_the_crashes_and_the_last_words_can_still_be_read() {
    let world = given_up();
    let said = world.eternal(&["crashes"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.matches("exit code 3").count(), 2, "{said:?}");
    assert!(said.out.contains("    | boom"), "{said:?}");
    assert!(said.err.contains("this is from its files"), "{said:?}");
    assert!(said.err.contains("gave up: web"), "{said:?}");

    let said = world.eternal(&["logs", "web", "-n", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    assert!(said.out.trim_end().ends_with("web | boom"), "{said:?}");

    for verb in ["crashes", "logs"] {
        let said = world.eternal(&[verb, "webb"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("did you mean \"web\"?"), "{said:?}");
    }
}

#[test]
fn a_daemon_that_was_killed_leaves_how_its_programs_stood() {
    let world =
        World::new("[programs.web]\ncommand = [\"sh\", \"-c\", \"echo hello; sleep 1000\"]\n");
    let mut daemon = world.run();
    let pid = world.pid("web");
    eventually("how it stands is written", || {
        world
            .read("state/last.json")
            .contains("\"state\":\"running\"")
            .then_some(())
    });
    daemon.is_killed();
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("ended without a word after 20"),
        "{said:?}"
    );
    assert!(
        said.out.contains(&format!("web   running  {pid}")),
        "{said:?}"
    );
    let said = world.eternal(&["logs"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("web | hello"), "{said:?}");
}

#[test]
fn a_stopped_daemon_says_who_stopped_it_and_one_that_never_was_says_nothing() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let said = world.eternal(&["crashes"]);
    assert_eq!((said.code, said.out.as_str()), (3, ""), "{said:?}");
    let mut daemon = world.run();
    world.pid("web");
    assert_eq!(daemon.is_stopped(), 0);
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("with exit code 0: SIGTERM"), "{said:?}");
    let said = world.eternal(&["crashes"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "no crashes\n"),
        "{said:?}"
    );
}

#[test]
fn what_a_daemon_leaves_is_for_its_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = given_up();
    let file = std::fs::metadata(world.path("state/last.json")).expect("it is there");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    // A link that somebody put there leads nowhere.
    std::fs::remove_file(world.path("state/last.json")).expect("removed");
    std::os::unix::fs::symlink("/dev/zero", world.path("state/last.json")).expect("a link");
    let said = world.eternal(&["status"]);
    assert_eq!((said.code, said.out.as_str()), (3, ""), "{said:?}");
}

#[test]
fn a_pid_file_with_the_number_of_another_living_process_is_not_a_daemon() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    // This very test lives, and runs a binary of ours.
    world.write("daemon.pid", &format!("{}\n", std::process::id()));
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("it died without removing its pid file"),
        "{said:?}"
    );
    let mut daemon = world.run();
    std::fs::remove_file(world.path("daemon.sock")).expect("removed");
    let said = world.eternal(&["status"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(
        said.err
            .contains(&format!("process {} holds", daemon.pid())),
        "{said:?}"
    );
    let said = world.eternal(&["stop"]);
    assert!(
        said.err.contains(&format!("kill -TERM {}", daemon.pid())),
        "{said:?}"
    );
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn watching_in_a_pipe_ends_with_the_daemon_and_following_says_so() {
    let world =
        World::new("[programs.web]\ncommand = [\"sh\", \"-c\", \"echo hello; sleep 1000\"]\n");
    let mut daemon = world.run();
    world.pid("web");
    let watch = |words: &[&str], name: &str| {
        let mut command = world.command(World::binary());
        let file = std::fs::File::create(world.path(name)).expect("a file");
        let err = std::fs::File::create(world.path(&format!("{name}.err"))).expect("a file");
        command
            .args(words)
            .stdout(file)
            .stderr(err)
            .spawn()
            .expect("it runs")
    };
    let mut status = watch(&["status", "-w"], "watched");
    let mut logs = watch(&["logs", "-f"], "followed");
    eventually("both see something", || {
        (world.read("watched").contains("running") && world.read("followed").contains("hello"))
            .then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
    let code = eventually("status -w ends", || status.try_wait().expect("a status"));
    assert_eq!(code.code(), Some(3));
    eventually("logs -f ends", || logs.try_wait().expect("a status"));
    assert!(world.read("followed.err").contains("the daemon has ended"));
}

#[test]
fn the_crash_that_ends_the_daemon_is_in_the_history_too() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo the last word; exit 3\"]\ncrash_threshold = 1\n",
    );
    let mut daemon = world.launch(&["run"]);
    assert_eq!(daemon.ends(), 1);
    let history = world.read("state/crashes.jsonl");
    assert!(history.contains("the last word"), "{history:?}");
    assert!(history.contains("gave up: crash loop"), "{history:?}");
}
