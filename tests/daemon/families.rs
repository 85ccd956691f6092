//! What belongs to a program: how it is told to end, and that nothing of it is left behind.

use nix::libc;

use crate::world::{World, dies, lives};

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
