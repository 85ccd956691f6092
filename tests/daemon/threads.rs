//! Threads: too few of them at the start, and probes that want one.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::world::{World, eventually, within};

/// Nobody else's, so that the limit of its threads is the daemon's alone; one for each test.
const SOMEBODY: u32 = 61_300;
/// How long a daemon that lacks a thread is waited for.
const WANT: Duration = Duration::from_secs(2);

/// The daemon as an ordinary user who may have so many threads. `None` where tests cannot be others.
fn with_threads(world: &World, user: u32, most: u64) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root can be somebody else");
        return None;
    }
    let directory = world.path("");
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("opened");
    for entry in std::fs::read_dir(&directory)
        .expect("a directory")
        .flatten()
    {
        chown(entry.path(), Some(user), Some(user)).expect("given away");
    }
    chown(&directory, Some(user), Some(user)).expect("given away");
    let mut command = world.command("prlimit");
    command.args([&format!("--nproc={most}"), World::binary(), "run"]);
    command.uid(user).gid(user);
    Some(command)
}

#[test]
fn a_start_without_enough_threads_is_refused_with_a_message() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n");
    for most in 1..40 {
        let Some(command) = with_threads(&world, SOMEBODY, most) else {
            return;
        };
        let mut daemon = world.launch_as(command);
        // With one thread too few for the program it goes on, and tries again.
        let up = eventually("it is up or has ended", || {
            if daemon.has_ended() {
                return Some(false);
            }
            world.status().map(|_| true)
        });
        let runs = || world.status()?.programs.first()?.pid;
        // What its work takes beyond the start may still be missing.
        if up && within(WANT, runs).is_none() {
            daemon.is_killed();
            continue;
        }
        if up {
            assert_eq!(daemon.is_stopped(), 0);
            assert!(most > 1, "one thread is not enough");
            return;
        }
        let (code, said) = (daemon.ends(), world.read("stderr"));
        assert!(
            (1..=2).contains(&code),
            "{code} with {most} threads: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
        assert!(
            said.contains("eternal: cannot "),
            "with {most} threads: {said}"
        );
    }
    panic!("it never came up");
}

#[test]
fn a_check_by_name_goes_on_after_a_time_without_threads() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let name = name.trim();
    let server = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    if std::net::TcpStream::connect((name, port)).is_err() {
        eprintln!("left out: this machine does not know its own name");
        return;
    }
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sleep\", \"1000\"]\nhealth_check = \"tcp://{name}:{port}\"\n\
         health_interval = \"50ms\"\nhealth_failures = 1000000\n"
    ));
    let Some(command) = with_threads(&world, SOMEBODY + 1, 1000) else {
        return;
    };
    let mut daemon = world.launch_as(command);
    daemon.answers();
    let counted = |family: &str| {
        let series = format!(
            "eternal_program_health_{family}{{program=\"web\",replica=\"0\",check=\"tcp\"}}"
        );
        crate::world::value(&world.scrape()?, &series)
    };
    eventually("it is checked", || {
        counted("checks_total").filter(|n| *n >= 2.0)
    });
    assert_eq!(counted("check_up"), Some(1.0));
    let limit = |most: u64| {
        let pid = daemon.pid().to_string();
        let said = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nproc={most}:1000")])
            .uid(SOMEBODY + 1)
            .gid(SOMEBODY + 1)
            .status();
        said.expect("prlimit").success()
    };
    assert!(limit(1));
    eventually("the want shows as a failed check", || {
        counted("check_up").filter(|up| *up == 0.0)
    });
    assert!(limit(1000));
    let again = within(crate::world::DEADLINE, || {
        counted("check_up").filter(|up| *up == 1.0)
    });
    assert!(again.is_some(), "it is checked again when there is room");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_server_that_puts_its_answer_off_for_ever_fails_its_checks_and_delays_nobody() {
    use std::io::Write as _;
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut asks in server.incoming().flatten() {
            std::thread::spawn(
                move || {
                    while asks.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
                },
            );
        }
    });
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n\
         health_check = \"http://127.0.0.1:{port}/\"\nhealth_timeout = \"30s\"\n\
         health_interval = \"20ms\"\nhealth_failures = 1000000\n\
         [programs.other]\ncommand = [\"sleep\", \"1000\"]\n"
    ));
    let mut daemon = world.run();
    let series =
        "eternal_program_health_check_failures_total{program=\"web\",replica=\"0\",check=\"http\"}";
    eventually("each is cut off long before its time is up", || {
        crate::world::value(&world.scrape()?, series).filter(|failed| *failed >= 5.0)
    });
    let before = world.pid("other");
    assert_eq!(world.eternal(&["restart", "other"]).code, 0);
    assert_ne!(world.pid("other"), before);
    assert_eq!(daemon.is_stopped(), 0);
}
