//! Whatever a start hangs in, the others go on, people are told, and the daemon can be ended.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use crate::world::{Daemon, World, ask, dies, eventually, lives, send, value};

const OTHER: &str = "[programs.other]\ncommand = [\"sleep\", \"1000\"]\nrestart_delay = \"0s\"\n\
                     crash_threshold = 1000\n";

/// Starts the daemon where what is mounted is seen by nobody else; `None`: not possible here.
fn alone<'a>(world: &'a World) -> Option<Daemon<'a>> {
    let apart = ["--mount", "--propagation", "private", "--"];
    let mut probe = world.command("unshare");
    probe.args(apart).arg("true");
    if world.said(probe).code != 0 {
        eprintln!("SKIPPED: no mount namespace of our own here");
        return None;
    }
    let mut command = world.command("unshare");
    command.args(apart).arg(World::binary()).arg("run");
    let daemon = world.launch_as(command);
    daemon.answers();
    Some(daemon)
}

fn inside(world: &World, daemon: &Daemon<'_>, words: &[&str]) -> Command {
    let mut command = world.command("nsenter");
    command.args(["--mount", "--target", &daemon.pid().to_string(), "--"]);
    command.args(words);
    command
}

/// Covers a directory with a file system that never answers, as long as the file is open.
fn silence_over(world: &World, daemon: &Daemon<'_>, directory: &str) -> Option<File> {
    let Ok(fuse) = File::options().read(true).write(true).open("/dev/fuse") else {
        eprintln!("SKIPPED: no /dev/fuse here");
        return None;
    };
    // For `mount` alone, which cannot say who would answer otherwise.
    fcntl(&fuse, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        fuse.as_raw_fd()
    );
    let place = world.path(directory);
    let place = place.to_str().expect("a plain path");
    let mount = [
        "mount", "-i", "-t", "fuse", "-o", &options, "silence", place,
    ];
    let said = world.said(inside(world, daemon, &mount));
    fcntl(&fuse, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor");
    if said.code != 0 {
        eprintln!("SKIPPED: FUSE cannot be mounted here: {}", said.err);
        return None;
    }
    Some(fuse)
}

/// `web` is killed, and its new start hangs: it is said where, everybody else is as well as ever,
/// and the daemon can be ended.
fn hangs_alone(world: &World, daemon: &mut Daemon<'_>, place: &str) {
    send(world.pid("web"), Signal::SIGKILL);
    let hanging = world.program("web", "is said to hang", |web| {
        web.why.contains("its start hangs").then(|| web.clone())
    });
    assert_eq!(hanging.state, "starting");
    assert!(hanging.why.contains(place), "{:?}", hanging.why);
    world.logged(&["web", "its start hangs", place]);
    let page = world.scrape().expect("metrics");
    let gauge = |name: &str| {
        let series = format!("eternal_program_start_hanging{{program=\"{name}\",replica=\"0\"}}");
        value(&page, &series)
    };
    assert_eq!((gauge("web"), gauge("other")), (Some(1.0), Some(0.0)));
    others_go_on(world);
    assert_eq!(daemon.is_stopped(), 0, "{}", world.log());
}

/// Another program is started again at once, by its own account, and the daemon is healthy.
fn others_go_on(world: &World) {
    for _ in 0..5 {
        let pid = world.pid("other");
        send(pid, Signal::SIGKILL);
        world.program("other", "runs again", |other| {
            other.pid.filter(|now| *now != pid && lives(*now))
        });
    }
    let page = world.scrape().expect("metrics");
    let series = |what: &str| {
        let name = "eternal_program_restart_latency_seconds";
        value(&page, &format!("{name}_{what}")).expect("a histogram")
    };
    let of = "program=\"other\",replica=\"0\"";
    assert_eq!(series(&format!("count{{{of}}}")), 5.0);
    // Far below what the start hangs, far above what a busy machine adds.
    assert!(series(&format!("sum{{{of}}}")) < 1.0, "{page}");
    let healthy = ask(&world.path("metrics.sock"), "GET", "/-/healthy").map(|(code, _)| code);
    assert_eq!(healthy, Some(200));
}

/// A world with `web`, which has these keys, beside another program.
fn world_of(web: &str) -> World {
    let world = World::new(&format!(
        "{OTHER}[programs.web]\nrestart_delay = \"0s\"\ncrash_threshold = 1000\n\
         start_timeout = \"1h\"\n{web}\n"
    ));
    fs::create_dir(world.path("place")).expect("made");
    world
}

#[test]
fn a_working_directory_that_does_not_answer_holds_up_nobody_else() {
    let world = world_of("command = ['sleep', '1000']\nworking_directory = 'place'");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    world.pid("web");
    let Some(_silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    hangs_alone(&world, &mut daemon, "working directory ");
}

#[test]
fn a_command_that_cannot_be_reached_holds_up_nobody_else() {
    let world = world_of("command = ['place/sleep', '1000']");
    fs::copy("/bin/sleep", world.path("place/sleep")).expect("copied");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    world.pid("web");
    let Some(_silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    hangs_alone(&world, &mut daemon, "executing ");
}

#[test]
fn an_env_file_that_does_not_answer_holds_up_nobody_else() {
    let world = world_of("command = ['sleep', '1000']\nenv_file = 'place/env'");
    world.write("place/env", "A=1\n");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    world.pid("web");
    let Some(_silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    hangs_alone(&world, &mut daemon, "reading env_file ");
}

#[test]
fn a_user_database_that_does_not_answer_holds_up_nobody_else() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can switch users");
        return;
    }
    let world = world_of("command = ['sleep', '1000']\nuser = 'nobody'\nworking_directory = '/'");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    world.pid("web");
    nix::unistd::mkfifo(&world.path("silent"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let silent = world.path("silent");
    let bind = [
        "mount",
        "--bind",
        silent.to_str().expect("plain"),
        "/etc/passwd",
    ];
    let said = world.said(inside(&world, &daemon, &bind));
    assert_eq!(said.code, 0, "{said:?}");
    hangs_alone(&world, &mut daemon, "looking up user nobody");
}

#[test]
fn a_start_that_hangs_is_ended_by_a_stop_and_by_its_time() {
    let world = world_of("command = ['sleep', '1000']\nworking_directory = 'place'");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    let first = world.pid("web");
    let Some(silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    send(first, Signal::SIGKILL);
    world.program("web", "hangs", |web| {
        web.why.contains("its start hangs").then_some(())
    });
    let newborn = eventually("the newborn is there", || {
        let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
        let other = world.pid("other");
        let children = fs::read_to_string(children).ok()?;
        let mut pids = children.split_whitespace().flat_map(str::parse::<i32>);
        pids.find(|pid| *pid != other)
    });
    let said = world.eternal(&["stop", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    world.is("web", "stopped");
    dies(newborn);
    drop(silence);
    let said = world.eternal(&["start", "web"]);
    assert_ne!(said.code, 0, "the place is gone now: {said:?}");
    assert_eq!(daemon.is_stopped(), 0);

    let keys = "command = ['sleep', '1000']\nworking_directory = 'place'";
    let world = World::new(&format!(
        "{OTHER}[programs.web]\nstart_timeout = \"2s\"\ncrash_threshold = 2\n{keys}\n"
    ));
    fs::create_dir(world.path("place")).expect("made");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    let first = world.pid("web");
    let Some(_silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    send(first, Signal::SIGKILL);
    world.logged(&["web", "its start hung and was ended: working directory "]);
    world.is("web", "failed");
    others_go_on(&world);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_newborn_that_outlives_the_daemon_keeps_nothing_of_it() {
    let world = world_of("command = ['sleep', '1000']\nworking_directory = 'place'");
    let Some(mut daemon) = alone(&world) else {
        return;
    };
    let first = world.pid("web");
    let Some(_silence) = silence_over(&world, &daemon, "place") else {
        return;
    };
    send(first, Signal::SIGKILL);
    world.program("web", "hangs", |web| {
        web.why.contains("its start hangs").then_some(())
    });
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    let other = world.pid("other");
    let children = fs::read_to_string(children).expect("children");
    let newborn = children
        .split_whitespace()
        .flat_map(str::parse::<i32>)
        .find(|pid| *pid != other)
        .expect("the newborn");
    crate::world::eventually("it is on record", || {
        let record = world.read("state/running");
        record.contains(&format!("/{newborn}/")).then_some(())
    });
    let descriptors = fs::read_dir(format!("/proc/{newborn}/fd")).expect("it lives");
    let left: Vec<_> = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    assert_eq!(left.len(), 4, "three streams and its answer: {left:?}");
    daemon.is_killed();
    assert!(lives(newborn), "it hangs on");
    send(other, Signal::SIGKILL);
    let mut next = world.run();
    dies(newborn);
    assert_eq!(next.is_stopped(), 0);
}
