//! What one daemon leaves to the next: two of them never share a state directory, no record ends a
//! stranger, and what a killed daemon left ends gracefully while the next one answers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use eternal::os::identity::Identity;
use nix::sys::signal::Signal;

use crate::world::{World, ask, dies, eventually, lives, send};

/// Writes what it was told when it is asked to end, slowly, as a database does. Its own words go
/// elsewhere: when the daemon is dead nobody reads them, and writing them would be its end.
const DATABASE: &str = r#"
[programs.db]
command = ["sh", "-c", '''
    exec >/dev/null 2>&1
    trap "echo flushing >> db.state; sleep 1; echo closed >> db.state; exit 0" USR1
    echo open >> db.state
    while :; do sleep 0.02; done''']
stop_signal = "SIGUSR1"
stop_timeout = "20s"
"#;
/// A program that is killed in its own time.
const DEAF: &str = r#"
[programs.deaf]
command = ["sh", "-c", "trap '' TERM; echo $$ > pid; echo up >> ups; while :; do sleep 0.05; done"]
"#;
const SLEEPER: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

/// The config of a second daemon beside the first, but for what is given.
fn beside(daemon: &str) -> String {
    format!(
        "[daemon]\npid_file = \"b.pid\"\nsocket = \"b.sock\"\nlog_file = \"b.log\"\n{daemon}\n\
         [metrics]\nlisten = \"\"\n[programs.other]\ncommand = [\"sleep\", \"1000\"]\n"
    )
}

#[test]
fn each_survivor_gets_its_own_stop_signal_and_grace_though_others_are_gone_before() {
    let world = World::new(&format!(
        "{DATABASE}{SLEEPER}[programs.a]\ncommand = [\"sleep\", \"1000\"]\n"
    ));
    let mut first = world.run();
    world.is("web", "running");
    world.is("a", "running");
    world.appears("db.state");
    first.is_killed();
    let mut second = world.run();
    world.is("db", "running");
    let said = eventually("it is open again", || {
        Some(world.lines("db.state")).filter(|lines| lines.len() == 4)
    });
    assert_eq!(said, ["open", "flushing", "closed", "open"]);
    // The shell, and the `sleep` that it may have had; the two sleepers; each once.
    let told = world.logged(&["left-over processes ended"]);
    let count: usize = told
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a count");
    assert!((3..=5).contains(&count), "{told}");
    assert_eq!(second.is_stopped(), 0);
}

#[test]
fn two_daemons_never_share_a_state_directory() {
    let world = World::new(SLEEPER);
    let mut first = world.run();
    let web = world.pid("web");
    world.write("b.toml", &beside("state_dir = \"state\""));
    let said = world.eternal(&["--config", "b.toml", "run"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains(&format!("pid {} (eternal)", first.pid())),
        "{said:?}"
    );
    assert!(said.err.contains("state"), "{said:?}");
    let said = world.eternal(&["--config", "b.toml", "start"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(world.is("web", "running").pid, Some(web));
    assert_eq!(world.is("web", "running").crashes, 0);
    // With one of its own it runs beside the first, and neither takes the other's for its own.
    world.write("b.toml", &beside("state_dir = \"b-state\""));
    let mut second = world.launch(&["--config", "b.toml", "run"]);
    eventually("it runs its program", || {
        let (_, status) = ask(&world.path("b.sock"), "GET", "/v1/status")?;
        status.contains("\"running\"").then_some(())
    });
    assert_eq!(world.is("web", "running").pid, Some(web));
    assert_eq!(second.is_stopped(), 0);
    assert_eq!(first.is_stopped(), 0);
}

#[test]
fn a_program_never_runs_twice_though_the_state_directory_was_removed_or_never_written() {
    let blocked = format!("[daemon]\nstate_dir = \"file/state\"\n{SLEEPER}");
    type Harm = fn(&World);
    let harms: [(&str, Harm); 4] = [
        (SLEEPER, |world| {
            fs::remove_dir_all(world.path("state")).expect("removed");
        }),
        (SLEEPER, |world| {
            fs::remove_dir_all(world.path("state")).expect("removed");
            world.write("state", "a file");
        }),
        (SLEEPER, |world| {
            for file in ["running", "marker"] {
                world.write(&format!("state/{file}"), "\0\0\0\0");
            }
        }),
        (&blocked, |_| {}),
    ];
    for (number, (config, harm)) in harms.into_iter().enumerate() {
        let world = World::new(config);
        world.write("file", "no directory");
        let mut first = world.run();
        let left = world.pid("web");
        harm(&world);
        first.is_killed();
        let mut second = world.run();
        let new = world.pid("web");
        assert!(!lives(left), "harm {number}: it runs twice");
        assert_ne!(new, left);
        world.logged(&["an earlier daemon left web"]);
        assert_eq!(second.is_stopped(), 0);
    }
}

#[test]
fn a_damaged_record_is_said_where_it_matters() {
    let world = World::new(SLEEPER);
    let mut first = world.run();
    world.pid("web");
    eventually("it is on record", || {
        world.read("state/running").contains(" web\n").then_some(())
    });
    first.is_killed();
    world.write("state/running", "");
    let mut second = world.run();
    world.logged(&[
        "WARN",
        "the record of running programs is damaged (it is empty)",
    ]);
    assert_eq!(second.is_stopped(), 0);
    let before = world.log().matches("is damaged").count();
    world.write("state/running", "");
    let mut third = world.run();
    world.pid("web");
    assert_eq!(
        world.log().matches("is damaged").count(),
        before,
        "nobody was left"
    );
    assert_eq!(third.is_stopped(), 0);
}

#[test]
fn a_daemon_whose_files_were_removed_is_found_by_its_programs_and_left_alone() {
    let world = World::new(SLEEPER);
    let mut first = world.run();
    let web = world.pid("web");
    for file in ["daemon.pid", "daemon.sock", "metrics.sock"] {
        fs::remove_file(world.path(file)).expect("removed");
    }
    // Its state directory is locked.
    let said = world.eternal(&["run"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains(&format!("pid {}", first.pid())),
        "{said:?}"
    );
    assert!(lives(web));
    // Without that, its programs tell whose they are.
    fs::remove_dir_all(world.path("state")).expect("removed");
    for word in ["run", "start"] {
        let said = world.eternal(&[word]);
        assert_eq!(said.code, 1, "{said:?}");
        let wanted = format!("another eternal (pid {}) lives", first.pid());
        assert!(said.err.contains(&wanted), "{said:?}");
        assert!(lives(web));
    }
    assert_eq!(first.is_stopped(), 0);
    dies(web);
    let mut second = world.run();
    assert_ne!(world.pid("web"), web);
    assert_eq!(second.is_stopped(), 0);
}

#[test]
fn a_program_that_cleared_its_environment_is_known_by_the_record() {
    let world = World::new(
        "[programs.web]\ncommand = [\"env\", \"-i\", \"/bin/sleep\", \"1000\"]\ninstances = 2\n",
    );
    let mut first = world.run();
    let left = [world.pid("web/0"), world.pid("web/1")];
    eventually("they are on record", || {
        let record = world.read("state/running");
        (record.contains(" web/0\n") && record.contains(" web/1\n")).then_some(())
    });
    first.is_killed();
    let mut second = world.run();
    let new = [world.pid("web/0"), world.pid("web/1")];
    for pid in left {
        if lives(pid) {
            send(pid, Signal::SIGKILL);
            panic!("it runs twice");
        }
    }
    assert!(new.iter().all(|pid| !left.contains(pid)));
    world.logged(&["an earlier daemon left web/1"]);
    assert_eq!(second.is_stopped(), 0);
}

/// A process that has nothing to do with Eternal: of a session of its own, as a service has.
fn bystander(world: &World) -> (Child, i32) {
    let mut command = world.command("setsid");
    command
        .args(["sh", "-c", "echo $$ > bystander; exec sleep 1000"])
        .stdout(Stdio::null());
    let child = command.spawn().expect("setsid");
    (child, world.pid_in("bystander"))
}

#[test]
fn a_forged_record_never_ends_a_stranger() {
    let world = World::new(SLEEPER);
    let mut first = world.run();
    world.pid("web");
    first.is_killed();
    let (mut child, innocent) = bystander(&world);
    let identity = Identity::of(innocent).expect("it lives");
    // As an earlier version writes it, without a sum: whoever can write can also sum.
    world.write("state/running", &format!("+ 0 {identity} innocent\n"));
    let mut second = world.run();
    world.pid("web");
    assert!(lives(innocent));
    world.logged(&[
        "WARN",
        &format!("process {innocent} is on record as innocent"),
    ]);
    assert_eq!(second.is_stopped(), 0);
    assert!(lives(innocent));
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn state_that_others_can_write_is_refused_with_its_owner_and_the_rule() {
    let world = World::new(SLEEPER);
    let is_refused = |why: &[&str]| {
        for word in ["run", "check"] {
            let said = world.eternal(&[word]);
            assert_eq!(said.code, 2, "{word}: {said:?}");
            let text = said.err.clone() + &said.out;
            for why in why {
                assert!(text.contains(why), "{why}: {said:?}");
            }
        }
        assert!(!world.path("daemon.pid").exists());
    };
    let set_mode = |name: &str, mode: u32| {
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).expect("mode");
    };
    fs::create_dir(world.path("state")).expect("made");
    set_mode("state", 0o777);
    is_refused(&["/state ", "mode 0777", "nobody else may write"]);
    set_mode("state", 0o755);
    world.write("state/running", "");
    set_mode("state/running", 0o666);
    is_refused(&["/state/running ", "mode 0666"]);
    fs::remove_file(world.path("state/running")).expect("removed");
    if nix::unistd::geteuid().is_root() {
        chown(world.path("state"), Some(65534), None).expect("chown");
        is_refused(&["belongs to user 65534"]);
        chown(world.path("state"), Some(0), None).expect("chown");
    }
    let mut daemon = world.run();
    world.pid("web");
    assert_eq!(daemon.is_stopped(), 0);
}

/// A world in which a daemon is ending what a killed one left, and goes on doing so.
fn recovering() -> (World, i32) {
    let world = World::new(&format!("{DEAF}stop_timeout = \"5m\"\n"));
    let mut first = world.run();
    let left = world.pid_in("pid");
    world.is("deaf", "running");
    first.is_killed();
    drop(first);
    (world, left)
}

#[test]
fn while_survivors_are_ended_everything_is_answered() {
    let (world, left) = recovering();
    let mut second = world.run();
    world.logged(&["an earlier daemon left processes behind"]);
    let asked = Instant::now();
    let (code, _) = ask(&world.path("metrics.sock"), "GET", "/-/healthy").expect("an answer");
    assert_eq!(code, 200);
    for words in [
        &["start", "deaf"][..],
        &["restart", "deaf"],
        &["stop", "deaf"],
        &["reload"],
    ] {
        let said = world.eternal(words);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert!(
            said.err
                .contains("still ending what an earlier one left: deaf"),
            "{said:?}"
        );
    }
    assert_eq!(world.eternal(&["status"]).code, 0);
    assert!(asked.elapsed() < Duration::from_secs(15));
    second.signal(Signal::SIGUSR2);
    world.logged(&["SIGUSR2 received"]);
    assert!(lives(left), "it still has its grace");
    // Its grace is what a stop waits for; a second wish ends it.
    second.signal(Signal::SIGTERM);
    world.logged(&["stopping: SIGTERM"]);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ends(), 0);
    assert!(!lives(left));
    assert_eq!(world.lines("ups").len(), 1, "nothing was started");
}

#[test]
fn eternal_stop_while_survivors_are_ended_waits_for_their_grace_and_starts_nothing() {
    let world = World::new(&format!("{DEAF}stop_timeout = \"2s\"\n"));
    let mut first = world.run();
    let left = world.pid_in("pid");
    world.is("deaf", "running");
    first.is_killed();
    let mut second = world.run();
    world.logged(&["an earlier daemon left processes behind"]);
    let said = world.eternal(&["stop"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(second.ends(), 0);
    assert!(!lives(left));
    assert_eq!(world.lines("ups").len(), 1, "nothing was started");
}

#[test]
fn a_hangup_while_survivors_are_ended_is_obeyed_afterwards() {
    let world = World::new(&format!("{DEAF}stop_timeout = \"1500ms\"\n"));
    let mut first = world.run();
    world.pid_in("pid");
    world.is("deaf", "running");
    first.is_killed();
    let second = world.run();
    world.logged(&["an earlier daemon left processes behind"]);
    world.configure(SLEEPER);
    second.signal(Signal::SIGHUP);
    world.pid("web");
    world.logged(&["configuration reloaded"]);
}

#[test]
fn systemd_hears_that_the_daemon_lives_while_survivors_are_ended() {
    let (world, _) = recovering();
    let socket = std::os::unix::net::UnixDatagram::bind(world.path("systemd")).expect("bound");
    let deadline = Some(Duration::from_secs(20));
    socket.set_read_timeout(deadline).expect("a deadline");
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env("NOTIFY_SOCKET", world.path("systemd"))
        .env("WATCHDOG_USEC", "200000");
    let mut second = world.launch_as(command);
    let mut signs = 0;
    let mut buffer = [0; 4096];
    while signs < 5 {
        let length = socket.recv(&mut buffer).expect("a sign of life");
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!text.contains("READY=1"), "{text}");
        signs += usize::from(text.contains("WATCHDOG=1"));
    }
    second.signal(Signal::SIGTERM);
    world.logged(&["stopping: SIGTERM"]);
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ends(), 0);
}

#[test]
fn a_lock_that_a_newborn_of_a_dead_daemon_holds_is_waited_for_and_its_holder_named() {
    let world = World::new(SLEEPER);
    let hold = |seconds: &str| {
        let mut command = world.command("flock");
        command.args(["--no-fork", "daemon.pid", "sh", "-c"]);
        command.arg(format!("echo held > held; exec sleep {seconds}"));
        let child = command.spawn().expect("flock of util-linux");
        world.appears("held");
        fs::remove_file(world.path("held")).expect("removed");
        child
    };
    // The number of the daemon that took the lock, which is gone.
    let mut gone = world.command("true").spawn().expect("true");
    gone.wait().expect("wait");
    world.write("daemon.pid", &format!("{}\n", gone.id()));
    let mut newborn = hold("1");
    let mut daemon = world.run();
    newborn.wait().expect("wait");
    world.pid("web");
    assert_eq!(daemon.is_stopped(), 0);
    world.write("daemon.pid", &format!("{}\n", gone.id()));
    let mut newborn = hold("1000");
    let said = world.eternal(&["run"]);
    assert_eq!(said.code, 1, "{said:?}");
    let named = format!("still locked by pid {} (sleep)", newborn.id());
    assert!(said.err.contains(&named), "{said:?}");
    newborn.kill().expect("kill");
    newborn.wait().expect("wait");
}

#[test]
fn a_crash_without_a_process_has_no_last_words_of_an_earlier_run() {
    let world = World::new(
        "[programs.web]\ncommand = [\"./web\"]\nrestart_delay = \"300ms\"\nrestart_delay_max = \"5m\"\n",
    );
    world.write(
        "web",
        "#!/bin/sh\necho bye\nwhile ! test -e fall; do sleep 0.02; done\nexit 0\n",
    );
    fs::set_permissions(world.path("web"), fs::Permissions::from_mode(0o755)).expect("mode");
    let mut daemon = world.run();
    world.pid("web");
    eventually("it has said so", || {
        world.log().contains("bye").then_some(())
    });
    // It ends well, and cannot be started again.
    fs::remove_file(world.path("web")).expect("removed");
    world.write("fall", "");
    let crash = eventually("the crash is on record", || {
        let said = world.eternal(&["crashes", "--json"]).out;
        said.contains("web").then_some(said)
    });
    assert!(crash.contains("no such file"), "{crash}");
    assert!(!crash.contains("bye"), "{crash}");
    assert_eq!(daemon.is_stopped(), 0);
}
