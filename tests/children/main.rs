//! The process room against real processes.

mod births;
mod burst;
mod failures;
mod family;
mod latency;
mod pid_1;
mod world;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use eternal::os::children::News;
use eternal::os::limits::Resource;
use eternal::supervision::WaitStatus;
use nix::sys::signal::{SigSet, Signal};
use world::within;

#[test]
fn an_exit_code_is_told_as_it_was() {
    within(async |world| {
        for code in [0, 1, 7, 127, 255] {
            let started = world.shell(&format!("exit {code}"));
            assert_eq!(
                world.exit(started.run).await,
                (WaitStatus::Exited { code }, false)
            );
        }
    });
}

#[test]
fn a_death_by_signal_is_told_as_one() {
    within(async |world| {
        for signal in ["KILL", "TERM", "HUP"] {
            let started = world.shell(&format!("kill -{signal} $$"));
            let number = format!("SIG{signal}").parse::<Signal>().expect("a signal") as i32;
            let (status, _) = world.exit(started.run).await;
            assert_eq!(status.signal(), Some(number));
        }
    });
}

#[test]
fn a_core_dump_is_seen() {
    within(async |world| {
        let mut launch = world.launch(&["/bin/sh", "-c", "kill -SEGV $$"]);
        let core = Resource::parse("core").expect("a limit");
        launch.limits = vec![(core, None, None)];
        let started = world.start(&launch).expect("the limit is not lowered");
        let (status, _) = world.exit(started.run).await;
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("readable");
        let WaitStatus::Signaled {
            signal,
            core_dumped,
            ..
        } = status
        else {
            panic!("not a signal: {status:?}");
        };
        assert_eq!(signal, Signal::SIGSEGV as i32);
        // A collector behind a pipe may refuse it.
        assert!(
            core_dumped || pattern.starts_with('|'),
            "no core dump with {pattern}"
        );
    });
}

#[test]
fn a_child_finds_a_clean_world() {
    within(async |world| {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.thread_block().expect("a mask");
        let leaked = fs::File::open("/").expect("the root directory");
        nix::fcntl::fcntl(
            &leaked,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .expect("a descriptor that is inherited");
        assert!(leaked.as_raw_fd() > 2);

        let started = world
            .start(&world.launch(&["sleep", "1000"]))
            .expect("sleep is there");
        world::executed(started.pid).await;
        let proc = format!("/proc/{}", started.pid);
        let mut descriptors: Vec<String> = fs::read_dir(format!("{proc}/fd"))
            .expect("a living process")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        descriptors.sort();
        assert_eq!(descriptors, ["0", "1", "2"]);
        let stdin = fs::read_link(format!("{proc}/fd/0")).expect("a link");
        assert_eq!(stdin.to_str(), Some("/dev/null"));
        for field in ["SigBlk", "SigIgn", "SigCgt"] {
            assert_eq!(
                world::status(started.pid, field),
                "0000000000000000",
                "{field}"
            );
        }
        let (group, session) = world::group_and_session(started.pid);
        assert_eq!((group, session), (started.pid, started.pid));
        blocked.thread_unblock().expect("a mask");
    });
}

#[test]
fn a_child_gets_what_was_configured() {
    within(async |world| {
        let mut launch = world.launch(&["/bin/sh", "-c", "umask; exec sleep 1000"]);
        launch.umask = 0o027;
        launch.nice = Some(7);
        launch.oom_score_adj = Some(321);
        launch.environment.push(("COLOUR".into(), "blue".into()));
        let nofile = Resource::parse("nofile").expect("a limit");
        launch.limits = vec![(nofile, Some(123), Some(456))];
        let mut started = world.start(&launch).expect("it starts");
        assert_eq!(started.line().await, "0027");

        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", started.pid)).expect(name);
        assert_eq!(read("oom_score_adj").trim(), "321");
        assert_eq!(world::stat(started.pid, 19), "7");
        let limits = read("limits");
        let limit = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("it");
        let words: Vec<&str> = limit.split_whitespace().collect();
        assert_eq!(words.get(3..5), Some(&["123", "456"][..]));
        let environment = read("environ");
        assert!(environment.split('\0').any(|entry| entry == "COLOUR=blue"));
        let mark = format!("ETERNAL_RUN={}:1:{}", world.marker, started.run.0);
        assert!(
            environment.split('\0').any(|entry| entry == mark),
            "{environment}"
        );
        let directory = fs::read_link(format!("/proc/{}/cwd", started.pid)).expect("a link");
        assert_eq!(directory, world.directory());
    });
}

#[test]
fn a_child_runs_as_its_user_and_enters_the_directory_as_that_user() {
    within(async |world| {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can switch users");
            return;
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(world.directory(), private).expect("a mode");
        let mut launch = world.launch(&["sleep", "1000"]);
        launch.user = Some("nobody".to_owned());
        let failure = world
            .start(&launch)
            .err()
            .expect("the directory is root's alone");
        let directory = world.directory();
        let expected = format!(
            "cannot enter working directory {}: permission denied",
            directory.display()
        );
        assert_eq!(failure.message, expected);

        launch.working_directory = "/".into();
        let started = world.start(&launch).expect("everybody may enter the root");
        world::executed(started.pid).await;
        assert_eq!(
            world::status(started.pid, "Uid"),
            "65534\t65534\t65534\t65534"
        );
        assert_eq!(
            world::status(started.pid, "Gid"),
            "65534\t65534\t65534\t65534"
        );
        assert_eq!(world::status(started.pid, "Groups"), "65534");
        let environment = fs::read_to_string(format!("/proc/{}/environ", started.pid))
            .expect("root reads everything");
        for entry in ["USER=nobody", "LOGNAME=nobody", "HOME=/nonexistent"] {
            assert!(
                environment.split('\0').any(|present| present == entry),
                "{entry}"
            );
        }
    });
}

#[test]
fn a_raised_descriptor_limit_is_not_handed_down() {
    within(async |world| {
        use nix::sys::resource::{Resource as Kernel, getrlimit};
        let (before, hard) = getrlimit(Kernel::RLIMIT_NOFILE).expect("readable");
        eternal::os::raise_nofile().expect("within the hard limit");
        assert_eq!(getrlimit(Kernel::RLIMIT_NOFILE), Ok((hard, hard)));
        let mut started = world.shell("ulimit -Sn; ulimit -Hn");
        assert_eq!(started.line().await, before.to_string());
        assert_eq!(started.line().await, hard.to_string());
        world.exit(started.run).await;
    });
}

#[test]
fn a_program_is_found_in_its_own_path_and_relative_to_its_directory() {
    within(async |world| {
        let directory = world.directory();
        world.script("hello", "#!/bin/sh\necho hello from $0\n");
        let mut started = world
            .start(&world.launch(&["./hello"]))
            .expect("it is there");
        assert_eq!(started.line().await, "hello from ./hello");
        let mut launch = world.launch(&["hello"]);
        launch.environment = vec![("PATH".into(), directory.clone().into_os_string())];
        let mut started = world.start(&launch).expect("it is there");
        assert!(started.line().await.ends_with("/hello"));
        world.everything_ends().await;
    });
}

#[test]
fn stop_reaches_a_stopped_child() {
    within(async |world| {
        for family in [true, false] {
            let mut launch = world.launch(&["sleep", "1000"]);
            launch.family = family;
            let started = world.start(&launch).expect("it starts");
            world::signal(started.pid, Signal::SIGSTOP);
            world::wait_for_state(started.pid, "T").await;
            world.children.stop(started.run, libc::SIGTERM);
            let (status, _) = world.exit(started.run).await;
            assert_eq!(status.signal(), Some(libc::SIGTERM));
        }
    });
}

#[test]
fn kill_ends_what_ignores_the_stop_signal() {
    within(async |world| {
        for family in [true, false] {
            let script =
                "trap '' TERM; trap 'echo told' HUP; echo up; while :; do sleep 0.01; done";
            let mut launch = world.launch(&["/bin/sh", "-c", script]);
            launch.family = family;
            let mut started = world.start(&launch).expect("it starts");
            assert_eq!(started.line().await, "up");
            world.children.stop(started.run, libc::SIGTERM);
            world.children.stop(started.run, libc::SIGHUP);
            assert_eq!(started.line().await, "told", "it outlived SIGTERM");
            world.children.kill(started.run);
            let (status, _) = world.finish(started.run).await;
            assert_eq!(status.signal(), Some(libc::SIGKILL));
        }
    });
}

#[test]
fn news_can_be_waited_for_and_given_up_without_loss() {
    within(async |world| {
        let started = world
            .start(&world.launch(&["sleep", "1000"]))
            .expect("it starts");
        for round in 0..20 {
            if round == 10 {
                world::signal(started.pid, Signal::SIGKILL);
                world::wait_for_state(started.pid, "Z").await;
            }
            tokio::select! {
                biased;
                // The leftover of another test may end meanwhile.
                news @ News::Exited { .. } = world.children.next() => {
                    assert!(round >= 10, "{news:?}");
                    assert!(matches!(news, News::Exited { run, .. } if run == started.run));
                    return;
                }
                () = tokio::task::yield_now() => {}
            }
        }
        world.exit(started.run).await;
    });
}
