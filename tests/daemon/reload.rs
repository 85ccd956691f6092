//! A reload is a transaction: a refused one changes nothing, and what is said of one is what it did.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::world::{World, eventually, find, send, value};

fn sleeper(name: &str, keys: &str) -> String {
    format!("[programs.{name}]\ncommand = [\"sleep\", \"1000\"]\n{keys}\n")
}

/// All that a reload could have changed and that somebody can see: who is there and how, what each is
/// configured as, and what the configuration in force is.
fn seen(world: &World) -> BTreeMap<String, String> {
    let status = world.status().expect("a status");
    let metrics = world.scrape().expect("a scrape");
    let mut seen: BTreeMap<String, String> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("eternal_program_info{")
                || line.starts_with("eternal_program_starts_total{")
        })
        .map(|line| (line.to_owned(), String::new()))
        .collect();
    for program in &status.programs {
        let how = format!(
            "{} {:?} {:?} {}",
            program.state, program.pid, program.command, program.why
        );
        seen.insert(program.display_name.clone(), how);
    }
    seen
}

#[test]
fn a_refused_reload_changes_nothing_that_can_be_seen() {
    let good =
        sleeper("a", "") + &sleeper("b", "instances = 2") + &sleeper("c", "autostart = false");
    let world = World::new(&good);
    let _daemon = world.run();
    for name in ["a", "b/0", "b/1"] {
        world.pid(name);
    }
    let refusals = [
        (
            "log_file = \"/proc/nowhere/x.log\"",
            "cannot create the log directory /proc/nowhere",
        ),
        ("env_file = \"not-there\"", "cannot read env_file"),
        ("command = [\"./nosuch\"]", "cannot execute"),
        ("working_directory = \"/not/there\"", "/not/there"),
        ("nice = 100", "must be a whole number"),
        ("user = \"nobody-of-that-name\"", "nobody-of-that-name"),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let before = seen(&world);
    for (turn, (bad, says)) in refusals.iter().cycle().take(24).enumerate() {
        // One change is bad; what stands before and behind it would be fine, and is not done either.
        let bad = if bad.starts_with("command") {
            format!("[programs.z{turn}]\n{bad}\n")
        } else {
            sleeper(&format!("z{turn}"), bad)
        };
        let a = sleeper(
            "a",
            ["", "nice = 1", "environment = { V = \"2\" }"][rng.usize(0..3)],
        );
        let b = sleeper(
            "b",
            [
                "",
                "instances = 1",
                "instances = 4",
                "stop_timeout = \"9s\"",
            ][rng.usize(0..4)],
        );
        let c = [
            sleeper("c", ""),
            sleeper("c", "autostart = true"),
            String::new(),
        ][rng.usize(0..3)]
        .clone();
        let mut parts = [a, b, c, bad, sleeper(&format!("new{turn}"), "")];
        rng.shuffle(&mut parts);
        world.configure(&parts.concat());
        let said = world.eternal(if rng.bool() {
            &["reload"]
        } else {
            &["reload", "--restart"]
        });
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(says), "{says}: {said:?}");
        assert_eq!(seen(&world), before, "{}", parts.concat());
        let failed = world
            .status()
            .expect("a status")
            .daemon
            .last_reload
            .expect("one");
        assert!(!failed.successful, "{failed:?}");
    }
    // Nothing of them lingers: what comes back comes back as it was, and a good one is taken.
    send(world.pid("a"), Signal::SIGKILL);
    world.program("a", "is back as it was", |a| {
        (a.restarts == 1 && a.state == "running" && a.command == ["sleep", "1000"]).then_some(())
    });
    world.configure(&(good + &sleeper("d", "")));
    let said = world.eternal(&["reload"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "added: d\nunchanged: 3 programs\n"),
        "{said:?}"
    );
}

#[test]
fn a_reload_that_replaces_what_works_by_what_cannot_run_is_refused_before_anything_is_stopped() {
    let world = World::new(&sleeper("web", ""));
    let _daemon = world.run();
    let pid = world.pid("web");
    world.write("plain", "no program\n");
    fs::set_permissions(world.path("plain"), fs::Permissions::from_mode(0o644)).expect("a mode");
    for (word, reason) in [
        ("./nosuch", "no such file"),
        ("nosuch-in-path", "no such file"),
        ("./plain", "permission denied"),
    ] {
        world.configure(&format!("[programs.web]\ncommand = [\"{word}\"]\n"));
        let said = world.eternal(&["reload"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("web: cannot execute"), "{said:?}");
        assert!(said.err.to_lowercase().contains(reason), "{said:?}");
        assert_eq!(world.pid("web"), pid);
    }
    world.logged(&["reload failed", "web: cannot execute"]);
}

#[test]
fn a_line_that_is_wrong_is_shown_to_whoever_asked_and_to_nobody_else() {
    let world = World::new(&sleeper("web", ""));
    let _daemon = world.run();
    let wrong = [
        "environment = { TOKEN = \"hunter5\", DB = 7x }",
        "environment = { TOKEN = \"hunter5\" } }",
        "unknown = \"hunter5\"",
        "nice = \"hunter5\"",
    ];
    for line in wrong {
        world.configure(&sleeper("web", line));
        let said = world.eternal(&["reload"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("eternal.toml:3"), "{said:?}");
        let failed = world
            .status()
            .expect("a status")
            .daemon
            .last_reload
            .expect("one");
        let message = failed.message;
        assert!(message.contains("eternal.toml:3"), "the place: {message}");
        let socket = world.path("metrics.sock");
        let (_, page) = crate::world::ask(&socket, "GET", "/").expect("a page");
        assert!(page.contains("eternal.toml:3"), "{page}");
        let status = world.eternal(&["status"]).out;
        for text in [
            &message,
            &page,
            &status,
            &world.log(),
            &world.read("stderr"),
            &world.scrape().expect("a scrape"),
        ] {
            assert!(!text.contains("hunter5"), "{line}: {text}");
        }
    }
}

#[test]
fn replicas_that_a_reload_adds_are_not_restarted_by_it() {
    let config = |version: &str, instances: u32| {
        format!(
            "[programs.web]\ncommand = [\"sh\", \"-c\", 'echo $ETERNAL_REPLICA $V >> starts; exec sleep 1000']\n\
             environment = {{ V = \"{version}\" }}\ninstances = {instances}\n"
        )
    };
    let world = World::new(&config("1", 1));
    let _daemon = world.run();
    world.pid("web");
    world.configure(&config("2", 3));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.out,
        "restarted: web\nnumber of replicas changed: web (3 instead of 1)\n"
    );
    let mut starts = eventually("all have started", || {
        Some(world.lines("starts")).filter(|lines| lines.len() >= 4)
    });
    starts.sort();
    assert_eq!(starts, ["0 1", "0 2", "1 2", "2 2"]);
    let metrics = world.scrape().expect("a scrape");
    let restarts = "eternal_program_restarts_total{program=\"web\",replica=\"1\",cause=\"config\"}";
    assert_eq!(value(&metrics, restarts), Some(0.0));
}

#[test]
fn replicas_of_a_program_that_a_person_stopped_stay_down() {
    let world = World::new(
        &(sleeper("web", "") + &sleeper("hand", "autostart = false") + &sleeper("other", "")),
    );
    let _daemon = world.run();
    world.pid("web");
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    assert_eq!(world.eternal(&["start", "hand"]).code, 0);
    let grown = "instances = 3";
    world.configure(
        &(sleeper("web", grown)
            + &sleeper("hand", &format!("autostart = false\n{grown}"))
            + &sleeper("other", "")),
    );
    assert_eq!(world.eternal(&["reload"]).code, 0);
    for replica in 0..3 {
        assert_eq!(
            world.is(&format!("web/{replica}"), "stopped").starts,
            u64::from(replica == 0)
        );
        // These do as the one of them that was started by hand.
        world.pid(&format!("hand/{replica}"));
    }
    let status = world.status().expect("a status");
    let names: Vec<&str> = status
        .programs
        .iter()
        .map(|p| p.display_name.as_str())
        .collect();
    let expected = [
        "web/0", "web/1", "web/2", "hand/0", "hand/1", "hand/2", "other",
    ];
    assert_eq!(names, expected, "replicas stand together");
}

#[test]
fn a_reload_says_what_it_did_and_not_what_it_meant_to_do() {
    let config = |seconds: u32| {
        let program = |name: &str, keys: &str| {
            format!("[programs.{name}]\ncommand = [\"sleep\", \"{seconds}\"]\n{keys}\n")
        };
        program("live", "")
            + &program("stopped", "")
            + &program("manual", "autostart = false")
            + &format!(
                "[programs.once]\ncommand = [\"true\"]\nenvironment = {{ V = \"{seconds}\" }}\nrestart = \"never\"\n"
            )
    };
    let world = World::new(&config(1000));
    let _daemon = world.run();
    world.is("once", "completed");
    world.pid("live");
    assert_eq!(world.eternal(&["stop", "stopped"]).code, 0);
    world.configure(&config(1001));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.out,
        "restarted: live\nchanged, and not running: stopped, manual, once\n"
    );
    world.logged(&["restarting live; changed and not running: stopped, manual, once"]);
    let status = world.status().expect("a status");
    assert_eq!(find(&status, "once").expect("it is there").starts, 1);
}

#[test]
fn what_a_reload_starts_has_to_come_up() {
    let world = World::new(&sleeper("web", ""));
    let _daemon = world.run();
    let slow = "restart_delay = \"5m\"\nrestart_delay_max = \"5m\"";
    let bad = format!(
        "[programs.bad]\ncommand = [\"sh\", \"-c\", \"echo no database; exit 3\"]\nready = \"alive:1s\"\n{slow}\n"
    );
    world.configure(&(sleeper("web", "") + &bad));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("bad did not come up: exit code 3, ran "),
        "{said:?}"
    );
    assert!(said.err.contains("\n  | no database"), "{said:?}");
    world.logged(&["reload: bad did not come up: exit code 3"]);
}

#[test]
fn who_waits_for_what_a_reload_takes_away_goes_on() {
    let db = sleeper("db", "ready = \"exec:false\"\nstart_timeout = \"1h\"");
    let pool = |instances: u32| {
        let keys =
            format!("ready = \"exec:./is-up\"\nstart_timeout = \"1h\"\ninstances = {instances}");
        sleeper("pool", &keys)
    };
    let after = |name: &str, other: &str| sleeper(name, &format!("after = [\"{other}\"]"));
    let user = after("user", "pool");
    let world = World::new(&(db.clone() + &after("app", "db") + &pool(3) + &user));
    world.write("is-up", "#!/bin/sh\n[ $ETERNAL_REPLICA != 2 ]\n");
    fs::set_permissions(world.path("is-up"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let _daemon = world.run();
    assert_eq!(
        world.is("app", "starting").why,
        "waiting for db to be ready"
    );
    world.program("user", "waits for the last", |user| {
        (user.why == "waiting for pool/2 to be ready").then_some(())
    });
    // The one does not come after it any more; the other's is gone.
    world.configure(&(db + &sleeper("app", "") + &pool(2) + &user));
    assert_eq!(world.eternal(&["reload"]).code, 0);
    world.pid("app");
    world.pid("user");
}
