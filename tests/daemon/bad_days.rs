//! Programs that cannot be started, do not stop, or do not behave.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{World, dies, eventually, lives, send, value, within};

/// A shell program that waits long before it is tried again.
fn slow_to_return(keys: &str) -> String {
    format!("[programs.web]\n{keys}\nrestart_delay = \"5m\"\nrestart_delay_max = \"5m\"\n")
}

#[test]
fn what_cannot_be_started_backs_off_and_says_why() {
    let cases = [
        (
            "command = [\"/no/such/program\"]",
            "/no/such/program: ",
            "exec",
        ),
        ("command = [\"no-such-program\"]", "no-such-program", "exec"),
        ("command = [\"./plain\"]", "plain", "permission"),
        ("command = [\"/tmp\"]", "/tmp", "exec"),
        ("command = [\"./no-interpreter\"]", "no-interpreter", "exec"),
        (
            "command = [\"true\"]\nuser = \"no-such-user\"",
            "no-such-user",
            "user",
        ),
        (
            "command = [\"true\"]\ngroup = \"no-such-group\"",
            "no-such-group",
            "user",
        ),
        (
            "command = [\"true\"]\nworking_directory = \"gone\"",
            "gone",
            "directory",
        ),
        (
            "command = [\"true\"]\nenv_file = \"no.env\"",
            "no.env",
            "exec",
        ),
        (
            "command = [\"true\"]\nenv_file = \"/dev/zero\"",
            "/dev/zero: it is a device, not a regular file",
            "exec",
        ),
    ];
    for (keys, words, reason) in cases {
        let world = World::new(&slow_to_return(keys));
        world.write("plain", "text\n");
        let mut daemon = world.run();
        let web = world.is("web", "backoff");
        assert!(web.why.contains(words), "{keys}: {}", web.why);
        assert_eq!(web.crashes, 1, "{keys}");
        assert_eq!(web.pid, None);
        let exit = web.last_exit.expect("an end");
        assert_eq!(exit.reason, "spawn_error", "{keys}");
        let said = world.eternal(&["status"]);
        assert!(said.out.contains(words), "{}", said.out);
        let metrics = world.scrape().expect("a scrape");
        let series = format!(
            "eternal_program_start_failures_total{{program=\"web\",replica=\"0\",reason=\"{reason}\"}}"
        );
        assert_eq!(value(&metrics, &series), Some(1.0), "{keys}: {series}");
        assert_eq!(daemon.is_stopped(), 0);
    }
}

#[test]
fn a_pipe_where_a_file_belongs_holds_nobody_up() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let pipe = world.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let mut daemon = world.run();
    let web = world.pid("web");
    let pipes = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n\
        [programs.api]\ncommand = [\"sleep\", \"1000\"]\nenv_file = \"pipe\"\nrestart_delay = \"1h\"\nrestart_delay_max = \"1h\"\n";
    world.configure(pipes);
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("api: cannot read env_file"), "{said:?}");
    assert!(said.err.contains("not a regular file"), "{said:?}");
    world.configure(&format!(
        "[metrics]\nlisten = \"unix:metrics.sock\"\nbasic_auth_file = \"pipe\"\n{pipes}"
    ));
    let said = world.eternal(&["reload"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains("pipe: it is a pipe, not a regular file"),
        "{}",
        said.err
    );
    assert_eq!(world.pid("web"), web);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_program_that_appears_later_is_started_by_the_next_try() {
    let world = World::new(
        "[programs.web]\ncommand = [\"./late\"]\nrestart_delay = \"50ms\"\ncrash_threshold = 1000\n",
    );
    let _daemon = world.run();
    world.program("web", "failed twice", |p| (p.crashes >= 2).then_some(()));
    fs::copy("/bin/sleep", world.path("late.new")).expect("copied");
    world.configure("[programs.web]\ncommand = [\"./late\", \"1000\"]\nrestart_delay = \"50ms\"\n");
    fs::rename(world.path("late.new"), world.path("late")).expect("renamed");
    assert_eq!(world.eternal(&["reload"]).code, 0);
    world.pid("web");
}

#[test]
fn a_program_that_cannot_be_started_is_given_up_like_one_that_dies() {
    let world = World::new(
        "[programs.web]\ncommand = [\"/no/such\"]\nrestart_delay = \"10ms\"\ncrash_threshold = 3\n",
    );
    assert_eq!(world.launch(&["run"]).ends(), 1);
    world.logged(&["gave up: crash loop: 3 crashes"]);
}

#[test]
fn a_stopped_program_can_be_stopped() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo $$ > pid; kill -STOP $$; sleep 1000\"]\nstop_timeout = \"5m\"\n",
    );
    let mut daemon = world.run();
    let pid = world.pid_in("pid");
    eventually("it has stopped itself", || {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()?
            .contains(") T ")
            .then_some(())
    });
    world.is("web", "running");
    assert_eq!(daemon.is_stopped(), 0);
    assert!(!lives(pid));
}

#[test]
fn an_unkillable_program_is_an_alarm_and_no_hang() {
    let frozen =
        Path::new("/sys/fs/cgroup/freezer").join(format!("eternal-{}", std::process::id()));
    if fs::create_dir(&frozen).is_err() {
        eprintln!("skipped: there is no freezer cgroup here");
        return;
    }
    let world = World::new(
        r#"
        [programs.stuck]
        command = ["sh", "-c", "echo $$ > pid; exec sleep 1000"]
        stop_timeout = "100ms"
        [programs.other]
        command = ["sleep", "1000"]
        "#,
    );
    let mut daemon = world.run();
    // Made after the world, and so gone before it: the frozen cannot be killed.
    let _thaw = Freezer(frozen.clone());
    let pid = world.pid_in("pid");
    fs::write(frozen.join("cgroup.procs"), pid.to_string()).expect("moved");
    fs::write(frozen.join("freezer.state"), "FROZEN").expect("frozen");
    eventually("it is frozen", || {
        fs::read_to_string(frozen.join("freezer.state"))
            .ok()?
            .starts_with("FROZEN")
            .then_some(())
    });
    let said = world.eternal(&["stop", "stuck"]);
    assert_eq!(said.code, 1, "{said:?}");
    world.logged(&["ERROR", "stuck", "after SIGKILL"]);
    assert_eq!(
        world.eternal(&["restart", "other"]).code,
        0,
        "the daemon goes on"
    );
    world.is("stuck", "stopping");
    assert_eq!(daemon.is_stopped(), 1, "something outlives SIGKILL");
    assert!(lives(pid));
}

/// Lets everybody go who was frozen.
struct Freezer(std::path::PathBuf);

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = within(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn what_a_program_forks_away_goes_with_it() {
    let script = r#"
        setsid sh -c "echo \$\$ > session; exec sleep 1000" &
        (setsid sh -c "(echo \$(sh -c 'echo \$PPID') > double; exec sleep 1000) &") &
        sh -c "echo \$\$ > child; exec sleep 1000" &
        while ! test -s session || ! test -s double || ! test -s child; do sleep 0.01; done
        echo all > all
        while ! test -e fall; do sleep 0.01; done
        rm fall; exit 3
    "#;
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", '''{script}''']\nrestart_delay = \"10ms\"\n"
    ));
    let mut daemon = world.run();
    world.appears("all");
    let first: Vec<i32> = ["session", "double", "child"]
        .iter()
        .map(|f| world.pid_in(f))
        .collect();
    assert!(first.iter().all(|pid| lives(*pid)), "{first:?}");
    fs::remove_file(world.path("all")).expect("removed");
    world.write("fall", "");
    world.program("web", "was restarted", |p| (p.restarts == 1).then_some(()));
    for pid in first {
        assert!(
            !lives(pid),
            "a crash takes the family with it, before the next start"
        );
    }
    world.appears("all");
    assert_eq!(daemon.is_stopped(), 0);
    assert_eq!(world.processes(), Vec::<i32>::new());
}

#[test]
fn a_program_that_closes_its_output_is_not_taken_for_dead() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"exec >&- 2>&-; echo $$ > pid; exec sleep 1000\"]\n",
    );
    let _daemon = world.run();
    let pid = world.pid_in("pid");
    assert_eq!(world.pid("web"), pid);
    assert_eq!(world.eternal(&["status", "web"]).code, 0);
    assert_eq!(world.is("web", "running").restarts, 0);
}

#[test]
fn a_grandchild_that_holds_the_pipe_delays_no_restart() {
    let script = "setsid sleep 1000 & echo start >> starts; test $(wc -l < starts) -ge 2 && exec sleep 1000; exit 3";
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sh\", \"-c\", '''{script}''']\nrestart_delay = \"10ms\"\nkill_mode = \"process\"\n"
    ));
    let mut daemon = world.run();
    let died = Instant::now();
    world.program("web", "is back", |p| {
        (p.restarts == 1 && p.state == "running").then_some(())
    });
    assert!(
        died.elapsed() < Duration::from_secs(3),
        "{:?}",
        died.elapsed()
    );
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn long_lines_nuls_and_bytes_that_are_not_utf8_are_captured_and_harm_nothing() {
    let script = r#"head -c 30000000 /dev/zero | tr '\0' x; echo; printf 'a\0b\n\377\376bad\n'; echo last; exec sleep 1000"#;
    let world = World::new(&format!(
        "[daemon]\nlog_max_size = \"1GiB\"\n[programs.web]\ncommand = [\"sh\", \"-c\", '''{script}''']\nlog_file = \"logs/web.log\"\n"
    ));
    let mut daemon = world.run();
    eventually("the last line is captured", || {
        let said = world.eternal(&["logs", "web", "-n", "3"]);
        (said.code == 0 && said.out.contains("last")).then_some(())
    });
    let said = world.eternal(&["logs", "web", "-n", "3"]);
    assert!(said.out.contains("bad"), "{}", said.out);
    let metrics = world.scrape().expect("a scrape");
    let bytes = "eternal_program_log_bytes_total{program=\"web\",replica=\"0\",stream=\"stdout\"}";
    assert!(value(&metrics, bytes).expect("bytes") >= 30_000_000.0);
    assert_eq!(world.is("web", "running").restarts, 0);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_full_disk_stops_the_log_and_nothing_else() {
    let world = World::new(
        r#"
        [daemon]
        log_file = "small/daemon.log"
        [programs.web]
        command = ["sh", "-c", 'while :; do echo 0123456789012345678901234567890123456789; done']
        [programs.other]
        command = ["sleep", "1000"]
        "#,
    );
    let small = world.path("small");
    fs::create_dir(&small).expect("a directory");
    let mut mount = world.command("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&small);
    if world.said(mount).code != 0 {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    }
    let _unmount = Mount(small);
    let mut daemon = world.run();
    let pid = world.pid("web");
    eventually("the disk is full and the daemon says so on stderr", || {
        world.read("stderr").contains("No space left").then_some(())
    });
    let before = world.pid("other");
    assert_eq!(world.eternal(&["restart", "other"]).code, 0, "it goes on");
    assert_ne!(world.pid("other"), before);
    assert_eq!(world.pid("web"), pid, "the writer is not blocked to death");
    assert_eq!(daemon.is_stopped(), 0);
}

/// Takes the small disk away.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_daemon_out_of_descriptors_defers_starts_and_never_gives_up_for_it() {
    let mut config = String::new();
    for number in 0..40 {
        config.push_str(&format!(
            "[programs.p{number}]\ncommand = [\"sleep\", \"1000\"]\ncrash_threshold = 1\n"
        ));
    }
    let world = World::new(&config);
    let mut command = world.command("prlimit");
    command.args(["--nofile=64:64", World::binary(), "run"]);
    let mut daemon = world.launch_as(command);
    world.logged(&["start deferred"]);
    let log = world.log();
    assert!(!log.contains("gave up"), "{log}");
    assert!(!daemon.has_ended());
    // Whoever frees some lets others in.
    let deferred = |s: &eternal::control::api::Status| {
        let mut waiting = s.programs.iter().filter(|p| p.state == "backoff");
        waiting.next().map(|p| p.name.clone())
    };
    let name = world.until("one waits", deferred);
    // Nobody else who waits may come first.
    let all = (0..40).map(|number| format!("p{number}"));
    let others: Vec<String> = all.filter(|other| *other != name).collect();
    let mut stop = vec!["stop"];
    stop.extend(others.iter().map(String::as_str));
    let said = world.eternal(&stop);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(world.eternal(&["start", &name]).code, 0);
    world.pid(&name);
    let crashes: u64 = world
        .status()
        .expect("a status")
        .programs
        .iter()
        .map(|p| p.crashes)
        .sum();
    assert_eq!(crashes, 0, "a shortage of ours is no crash of theirs");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_fork_that_is_refused_is_tried_again_and_never_a_give_up() {
    let world =
        World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\ncrash_threshold = 1\n");
    let mut command = world.command("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=clone"]);
    // The threads of the daemon are made by clone3, its children by clone.
    command.args([
        "-e",
        "inject=clone:error=EAGAIN:when=1..2",
        World::binary(),
        "run",
    ]);
    let daemon = world.launch_as(command);
    daemon.answers();
    let web = world.is("web", "running");
    assert_eq!(web.crashes, 0);
    world.logged(&["web", "start deferred"]);
    assert_eq!(world.eternal(&["stop"]).code, 0);
}

#[test]
fn a_jump_of_the_clock_changes_no_delay() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo start >> starts; exit 3\"]\nrestart_delay = \"300ms\"\ncrash_threshold = 2\n",
    );
    let mut command = world.command("unshare");
    command.args([
        "-T",
        "--boottime",
        "1000000",
        "--monotonic",
        "1000000",
        "--fork",
        "--kill-child",
    ]);
    command.args([World::binary(), "run"]);
    let mut probe = world.command("unshare");
    probe.args(["-T", "--monotonic", "1000000", "true"]);
    if world.said(probe).code != 0 {
        eprintln!("skipped: no time namespaces here");
        return;
    }
    let asked = Instant::now();
    assert_eq!(world.launch_as(command).ends(), 1);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.lines("starts").len(), 2);
}

#[test]
fn a_program_killed_while_it_is_being_stopped_is_no_crash() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.02; done']\nstop_timeout = \"5m\"\n",
    );
    let _daemon = world.run();
    let pid = world.pid_in("pid");
    let stopping = std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.eternal(&["stop", "web"]));
        world.is("web", "stopping");
        send(pid, Signal::SIGKILL);
        stop.join().expect("it returns")
    });
    assert_eq!(stopping.code, 0, "{stopping:?}");
    dies(pid);
    let web = world.is("web", "stopped");
    assert_eq!(web.crashes, 0);
}
