//! What belongs to a program: how it is told to end, and that nothing of it is left behind.

use nix::libc;
use nix::sys::signal::Signal;

use crate::world::{World, dies, eventually, lives, value};

/// Starts a command in a filter that refuses a system call with EPERM, as profiles of containers do
/// that are older than the call.
const FILTER: &str = r#"
    my ($prctl, $call, @command) = @ARGV;
    my $filter = pack("SCCL" x 4, 0x20, 0, 0, 0, 0x15, 0, 1, $call, 6, 0, 0, 0x50001, 6, 0, 0, 0x7fff0000);
    my $program = pack("Sx6P", 4, $filter);
    syscall($prctl + 0, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl + 0, 22, 2, $program, 0, 0) == 0 or die "seccomp: $!";
    exec @command or die $!;
"#;

/// The process that a script has written to `up`, once its environment is wiped.
fn without_environment(world: &World) -> i32 {
    let pid = world.lines_of("up", 1)[0].parse().expect("a pid");
    eventually("it has become sleep", || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name == "sleep\n").then_some(())
    });
    pid
}

#[test]
fn a_real_time_signal_is_sent_to_the_whole_family() {
    for (signal, number) in [("\"SIGRTMIN+6\"", "NUM40"), ("64", "RTMAX")] {
        let world = World::new(&format!(
            r#"
            [programs.web]
            command = ["perl", "-e", '$SIG{{{number}}} = sub {{ open F, ">>", "bye"; syswrite F, "bye\n"; exit }}; fork; open F, ">>", "up"; syswrite F, "up\n"; sleep 1 while 1']
            stop_signal = {signal}
            stop_timeout = "60s"
            "#
        ));
        let mut daemon = world.run();
        world.lines_of("up", 2);
        assert_eq!(daemon.is_stopped(), 0);
        assert_eq!(world.read("bye"), "bye\nbye\n", "{signal}");
        assert!(!world.log().contains("SIGKILL"), "{}", world.log());
    }
}

#[test]
fn a_program_is_ended_where_signals_by_pidfd_are_refused() {
    let world = World::new(
        r#"
        [programs.alone]
        command = ["sleep", "1000"]
        kill_mode = "process"
        [programs.family]
        command = ["sh", "-c", "setsid sh -c 'echo $$ > child; exec sleep 1000' & exec sleep 1000"]
        "#,
    );
    let mut command = world.command("perl");
    let prctl = libc::SYS_prctl.to_string();
    let call = libc::SYS_pidfd_send_signal.to_string();
    command
        .args(["-e", FILTER, &prctl, &call])
        .args([World::binary(), "run"]);
    let mut daemon = world.launch_as(command);
    daemon.answers();
    let pids = [
        world.pid("alone"),
        world.pid("family"),
        world.pid_in("child"),
    ];
    let said = world.eternal(&["stop", "alone"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(pids[0]));
    assert_eq!(daemon.is_stopped(), 0);
    pids.into_iter().for_each(dies);
    assert!(!world.log().contains("SIGKILL"), "{}", world.log());
}

/// A program that leaves a process alone, which writes a line every 20 ms.
const WRITER: &str = r#"
    [programs.web]
    command = ["sh", "-c", "setsid sh -c 'echo $$ > writer; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done' & while ! test -s writer; do sleep 0.01; done; exit 0"]
    kill_mode = "process"
    restart = "never"
    [programs.other]
    command = ["sleep", "1000"]
"#;

#[test]
fn what_is_left_alone_is_told_with_its_number_and_outlives_the_daemon() {
    // One that writes nothing: nobody reads what it says when the daemon is gone.
    let silent = WRITER.replace(
        "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done",
        "exec sleep 1000",
    );
    let world = World::new(&silent);
    let mut daemon = world.run();
    let pid = world.pid_in("writer");
    world.logged(&["WARN", "web: ended and left", "alone"]);
    assert_eq!(daemon.is_stopped(), 0);
    assert!(lives(pid), "its config leaves it alone");
}

#[test]
fn an_orphan_of_nobody_ends_with_the_daemon() {
    // Two programs could own it, and it shows nothing of whose it is.
    let world = World::new(
        r#"
        [programs.web]
        command = ["perl", "-e", 'use POSIX; if (fork) { sleep 1000 } setsid; exit if fork; setsid; open STDOUT, ">/dev/null"; open STDERR, ">/dev/null"; open F, ">>", "up"; syswrite F, "$$\n"; exec "env", "-i", "sleep", "1000"']
        [programs.other]
        command = ["sleep", "1000"]
        "#,
    );
    let mut daemon = world.run();
    let hidden = without_environment(&world);
    world.pid("other");
    assert_eq!(daemon.is_stopped(), 0);
    assert!(!lives(hidden));
    world.logged(&[
        "WARN",
        "processes that belong to no program: 1; ending them",
    ]);
}

#[test]
fn an_orphan_of_nobody_that_is_deaf_is_killed_at_once_by_a_second_signal() {
    let world = World::new(
        r#"
        [programs.web]
        command = ["perl", "-e", 'use POSIX; if (fork) { sleep 1000 } setsid; exit if fork; setsid; open STDOUT, ">/dev/null"; open STDERR, ">/dev/null"; $SIG{TERM} = "IGNORE"; open F, ">>", "up"; syswrite F, "$$\n"; exec "env", "-i", "sleep", "1000"']
        [programs.other]
        command = ["sleep", "1000"]
        "#,
    );
    let mut daemon = world.run();
    let hidden = without_environment(&world);
    daemon.signal(Signal::SIGTERM);
    world.logged(&["processes that belong to no program"]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends(), 0);
    assert!(!lives(hidden));
}

#[test]
fn a_descendant_with_nothing_to_know_it_by_goes_with_the_only_program_that_there_is() {
    let world = World::new(
        r#"
        [programs.web]
        command = ["perl", "-e", 'use POSIX; if (fork) { sleep 1000 } setsid; exit if fork; setsid; open STDOUT, ">/dev/null"; open STDERR, ">/dev/null"; open F, ">>", "up"; syswrite F, "$$\n"; exec "env", "-i", "sleep", "1000"']
        "#,
    );
    let mut daemon = world.run();
    let hidden = without_environment(&world);
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    assert!(!lives(hidden), "it went with its program");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn what_is_left_alone_keeps_its_output() {
    let world = World::new(WRITER);
    let mut daemon = world.run();
    let pid = world.pid_in("writer");
    world.logged(&["web: ended and left"]);
    // Twice as long as a family's pipes are kept for it.
    world.logged(&["line 100"]);
    assert!(lives(pid), "nobody closed the pipe that it writes to");
    let log = world.log();
    for number in 1..100 {
        assert!(
            log.contains(&format!("line {number}")),
            "line {number}: {log}"
        );
    }
    assert_eq!(daemon.is_stopped(), 0);
}

/// Goes to the background and takes away the page with its environment.
const HIDER: &str = r#"
    use POSIX;
    if (fork) { sleep 1000 }
    setsid; exit if fork; setsid;
    open my $stat, "<", "/proc/self/stat"; my $line = <$stat>; $line =~ s/.*\) //;
    my ($begin, $end) = (split " ", $line)[47, 48];
    my $page = $begin & ~4095;
    syscall($ARGV[0] + 0, $page, ($end | 4095) + 1 - $page, 0) == 0 or die "mprotect: $!";
    open STDOUT, ">/dev/null"; open STDERR, ">/dev/null";
    open my $up, ">>", "up"; syswrite $up, "$$\n";
    sleep 1 while 1;
"#;

/// How often the main thread of a process has gone to sleep so far.
fn naps(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/status"));
    let status = status.expect("it lives");
    let line = status.lines().find(|line| line.starts_with("voluntary"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a count").parse().expect("a number")
}

#[test]
fn a_process_that_hides_its_environment_holds_nobody_up_and_ends_with_the_daemon() {
    let world = World::new(&format!(
        r#"
        [programs.web]
        command = ["sleep", "1000"]
        restart_delay = "10ms"
        [programs.tenant]
        command = ["perl", "hider", "{}"]
        # So much that the page holds nothing but environment.
        environment = {{ PAD = "{}" }}
        "#,
        libc::SYS_mprotect,
        "x".repeat(9000)
    ));
    world.write("hider", HIDER);
    let mut daemon = world.run();
    let hidden: i32 = world.lines_of("up", 1)[0].parse().expect("a pid");
    let environment = std::fs::read(format!("/proc/{hidden}/environ")).expect("it lives");
    assert!(!String::from_utf8_lossy(&environment).contains("ETERNAL_RUN"));
    for _ in 0..3 {
        let before = world.pid("web");
        crate::world::send(before, Signal::SIGKILL);
        world.program("web", "runs again", |web| {
            (web.state == "running" && web.pid != Some(before)).then_some(())
        });
    }
    let metrics = world.scrape().expect("numbers");
    let of_web = |name: &str| {
        value(
            &metrics,
            &format!("{name}{{program=\"web\",replica=\"0\"}}"),
        )
        .expect("a number")
    };
    let slowest = of_web("eternal_program_restart_latency_seconds_sum");
    assert!(slowest < 0.5, "three restarts were held up by {slowest} s");
    // Nothing is looked at for ever: an idle daemon sleeps.
    let before = naps(daemon.pid());
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(naps(daemon.pid()) - before < 100, "it wakes up for nothing");
    assert_eq!(daemon.is_stopped(), 0);
    assert!(!lives(hidden));
}
