//! A daemon of root's whose program owns the place of its log: what that user puts there leads
//! nobody astray, and what clients take keeps no log from being rotated.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::world::{World, eventually, value};

const NOBODY: u32 = 65534;
const SECRET: &str = "a secret of root's\n";

/// A world that everybody may enter, with a directory of nobody's and a file of root's.
fn of_two_users(config: &str) -> Option<World> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can give a directory away");
        return None;
    }
    let world = World::new(config);
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::create_dir(world.path("app")).expect("made");
    chown(world.path("app"), Some(NOBODY), Some(NOBODY)).expect("given away");
    world.write("canary", SECRET);
    fs::set_permissions(world.path("canary"), fs::Permissions::from_mode(0o600)).expect("a mode");
    Some(world)
}

fn nothing_of_roots_has_changed(world: &World) {
    assert_eq!(world.read("canary"), SECRET);
    let canary = fs::metadata(world.path("canary")).expect("there");
    assert_eq!((canary.mode() & 0o7777, canary.uid()), (0o600, 0));
}

/// A program of nobody's that prepares its log directory and then writes without end.
fn attacker(prepare: &str, log: &str) -> String {
    format!(
        "[daemon]\nlog_max_size = \"8KiB\"\nlog_keep = 3\n[programs.app]\n\
         command = [\"sh\", \"-c\", \"{prepare}; i=0; while [ $i -lt 3000 ]; do \
         echo \\\"evil $i ::0:0::/:/bin/sh\\\"; i=$((i+1)); done; touch app/done; exec sleep 1000\"]\n\
         user = \"nobody\"\nlog_file = \"{log}\"\n\
         [programs.other]\ncommand = [\"sh\", \"-c\", \"while echo tick; do sleep 0.05; done\"]\n"
    )
}

#[test]
fn a_program_of_another_user_never_makes_root_write_outside_its_log_directory() {
    let swap = "ln -s ../canary app/new; mv -f app/new app/app.log";
    let pipe = "mkfifo app/new; mv -f app/new app/app.log";
    let rotation = "for n in .app.log.gz.tmp .app.log.new app.log.1 app.log.2; do ln -s ../canary app/$n; done";
    for prepare in [swap, pipe, rotation] {
        let Some(world) = of_two_users(&attacker(prepare, "app/app.log")) else {
            return;
        };
        let mut daemon = world.run();
        eventually("the program has done its worst", || {
            world.path("app/done").exists().then_some(())
        });
        daemon.signal(Signal::SIGUSR1);
        world.logged(&["reopen"]);
        let ticks = |log: &str| log.matches("other: tick").count();
        let before = ticks(&world.log());
        eventually("others are logged", || {
            (ticks(&world.log()) > before + 3).then_some(())
        });
        let said = world.eternal(&["logs", "app", "-n", "5"]);
        assert!(!said.out.contains("secret"), "{said:?}");
        assert_eq!(daemon.is_stopped(), 0);
        nothing_of_roots_has_changed(&world);
    }
}

#[test]
fn a_log_in_the_programs_own_directory_is_written_and_rotated() {
    let Some(world) = of_two_users(&attacker("true", "app/app.log")) else {
        return;
    };
    let mut daemon = world.run();
    eventually("it is rotated and compressed", || {
        world.path("app/app.log.3.gz").exists().then_some(())
    });
    eventually("the program is through", || {
        world.path("app/done").exists().then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
    assert!(
        world
            .read("app/app.log")
            .ends_with("evil 2999 ::0:0::/:/bin/sh\n")
    );
}

#[test]
fn a_pipe_in_place_of_a_log_neither_holds_up_the_start_nor_a_reload() {
    let bad = "[programs.bad]\ncommand = [\"sleep\", \"1000\"]\nlog_file = \"app/pipe\"\nrestart_delay = \"1m\"\n";
    let good = "[programs.good]\ncommand = [\"sleep\", \"1000\"]\n";
    let Some(world) = of_two_users(&format!("{good}{bad}")) else {
        return;
    };
    nix::unistd::mkfifo(&world.path("app/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut daemon = world.run();
    world.pid("good");
    world.logged(&["bad", "app/pipe"]);
    world.configure(good);
    assert_eq!(world.eternal(&["reload"]).code, 0);
    world.configure(&format!("{good}{bad}"));
    let said = world.eternal(&["reload"]);
    assert!(said.code != 0 && said.err.contains("app/pipe"), "{said:?}");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn connections_never_take_the_descriptors_that_a_rotation_needs() {
    const LINES: u32 = 3000;
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = address.expect("a free port").to_string();
    let world = World::new(&format!(
        "[daemon]\nlog_max_size = \"8KiB\"\nlog_keep = 60\n[metrics]\nlisten = \"{address}\"\n\
         [programs.app]\ncommand = [\"sh\", \"-c\", \"while [ ! -e go ]; do sleep 0.05; done; seq 1 {LINES}; exec sleep 1000\"]\n\
         log_file = \"app.log\"\n"
    ));
    let mut command = world.command("prlimit");
    command.args(["--nofile=80:80", World::binary(), "run"]);
    let mut daemon = world.launch_as(command);
    daemon.answers();
    world.pid("app");
    let idle: Vec<_> = (0..60)
        .filter_map(|_| TcpStream::connect(&address).ok())
        .collect();
    let open = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    eventually("clients have taken what they can", || {
        (open() > 40).then_some(())
    });
    world.write("go", "\n");
    eventually("all is written and rotated", || {
        world
            .read("app.log")
            .ends_with(&format!("{LINES}\n"))
            .then_some(())
    });
    assert!(!world.log().contains("cannot rotate"), "{}", world.log());
    assert!(world.path("app.log.1").exists() || world.path("app.log.1.gz").exists());
    // The house is full of silent ones: one who asks is served in somebody's place.
    let mut scraper = TcpStream::connect(&address).expect("connected");
    let _ = write!(scraper, "GET /metrics HTTP/1.0\r\nhost: test\r\n\r\n");
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut scraper, &mut answer);
    let dropped =
        "eternal_program_log_dropped_lines_total{program=\"app\",replica=\"0\",stream=\"stdout\"}";
    assert_eq!(value(&answer, dropped), Some(0.0), "{answer}");
    assert!(world.status().is_some(), "an operator gets in, too");
    drop(idle);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn an_env_file_that_another_user_can_swap_gives_away_nothing_of_roots_and_nobody_waits() {
    let config = "[programs.app]\ncommand = [\"sh\", \"-c\", \"env > app/seen\"]\nuser = \"nobody\"\n\
                  env_file = \"app/env\"\nrestart_delay = \"1m\"\n";
    let Some(world) = of_two_users(config) else {
        return;
    };
    world.write("canary", "TOKEN=of-root\n");
    std::os::unix::fs::symlink("../canary", world.path("app/env")).expect("a link");
    let mut daemon = world.run();
    let why = world.program("app", "says why", |program| {
        program
            .why
            .contains("env_file")
            .then(|| program.why.clone())
    });
    assert!(why.contains("not theirs"), "{why}");
    fs::remove_file(world.path("app/env")).expect("removed");
    nix::unistd::mkfifo(&world.path("app/env"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert_ne!(world.eternal(&["start", "app"]).code, 0);
    world.logged(&["app", "a pipe, not a regular file"]);
    assert!(!world.path("app/seen").exists());
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_log_on_the_daemons_own_stdout_goes_there_even_when_that_is_a_pipe() {
    let world = World::new(
        "[programs.app]\ncommand = [\"sh\", \"-c\", \"echo to stdout; exec sleep 1000\"]\nlog_file = \"/dev/stdout\"\n\
         [programs.mute]\ncommand = [\"sh\", \"-c\", \"echo unheard; exec sleep 1000\"]\nlog_file = \"/dev/null\"\n",
    );
    let mut command = world.command("sh");
    command.args(["-c", "\"$0\" run | cat > piped", World::binary()]);
    let _daemon = world.launch_as(command);
    eventually("it is there", || {
        (world.read("piped") == "to stdout\n").then_some(())
    });
    world.pid("mute");
    assert_eq!(world.eternal(&["stop"]).code, 0);
}
