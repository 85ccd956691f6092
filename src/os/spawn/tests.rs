use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::os::launch::Launch;
use crate::os::users::Credentials;
use crate::supervision::WaitStatus;

/// A cgroup below that of the test, gone with it.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn make() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(line.split(' ').nth(4)?)
            .join(own)
            .join(format!("eternal-spawn-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).ok()?;
        Some(Self(directory))
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).expect("nobody lives there");
    }
}

/// What became of a process: how it ended and what it wrote, or what stopped it.
type Became = Result<(WaitStatus, String), Obstacle>;

fn run(way: Way, command: &str) -> Became {
    let mut spawner = Spawner::new();
    spawner.way = way;
    run_in(&mut spawner, (command, "echo $$; exit 9"), None, false)
}

fn prepared(command: &str, script: &str) -> Arc<Prepared> {
    let launch = Launch {
        argv: vec![command.to_owned(), "-c".to_owned(), script.to_owned()],
        working_directory: "/".into(),
        environment: Vec::new(),
        user: None,
        group: None,
        umask: 0o022,
        nice: None,
        oom_score_adj: None,
        limits: Vec::new(),
        family: true,
        cgroup: None,
    };
    Arc::new(Prepared::new(launch, "t:1:1").expect("a valid launch"))
}

fn run_in(
    spawner: &mut Spawner,
    (command, script): (&str, &str),
    cgroup: Option<&PathBuf>,
    walk: bool,
) -> Became {
    let directory = cgroup.map(|path| File::open(path).expect("a directory"));
    let home = directory.as_ref().map(|directory| Home {
        directory: directory.as_fd(),
        walk,
    });
    become_one(spawner, &prepared(command, script), home)
}

fn become_one(spawner: &mut Spawner, prepared: &Arc<Prepared>, home: Option<Home<'_>>) -> Became {
    let null = File::open("/dev/null").expect("it is everywhere");
    let (mut ours, theirs) = std::io::pipe().expect("a pipe");
    let streams = Streams {
        stdin: null.as_fd(),
        stdout: theirs.as_fd(),
        stderr: null.as_fd(),
    };
    let mut newborn = spawner.begin(prepared, &streams, home)?;
    drop(theirs);
    let mut output = String::new();
    ours.read_to_string(&mut output).expect("text");
    let says_its_number = prepared.launch.argv[2].starts_with("echo");
    if says_its_number && !output.is_empty() {
        assert_eq!(output.trim(), newborn.pid.to_string());
    }
    let pidfd = newborn.take_pidfd().expect("the first time");
    let ended = loop {
        if let Some(status) = pidfd::reap(pidfd.as_fd()) {
            break status;
        }
        std::thread::yield_now();
    };
    assert!(newborn.has_left(), "whoever ended has left");
    let obstacle = newborn.obstacle();
    spawner.is_grown(newborn);
    obstacle.map_or(Ok((ended, output)), Err)
}

#[test]
fn both_ways_make_the_same_process() {
    for way in [Way::Shared, Way::Copied] {
        let (status, _) = run(way, "/bin/sh").expect("the shell starts");
        assert_eq!(status, WaitStatus::Exited { code: 9 }, "{way:?}");
    }
}

#[test]
fn every_way_puts_a_process_into_its_cgroup() {
    let Some(cgroup) = TestCgroup::make() else {
        eprintln!("SKIPPED: no writable cgroup v2 here");
        return;
    };
    for (way, inside) in [
        (Way::Shared, true),
        (Way::Shared, false),
        (Way::Copied, true),
    ] {
        let mut spawner = Spawner::new();
        spawner.born_inside = inside && clone3::IS_HERE;
        spawner.way = way;
        let script = "cat /proc/self/cgroup";
        let output = run_in(&mut spawner, ("/bin/sh", script), Some(&cgroup.0), false);
        let (_, output) = output.expect("the shell starts");
        let name = cgroup.0.file_name().expect("a name").to_string_lossy();
        assert!(
            output.trim().ends_with(&*name),
            "{way:?}, {inside}: {output}"
        );
        assert_eq!(spawner.born_inside, inside && clone3::IS_HERE, "{way:?}");
    }
}

#[test]
fn a_cgroup_that_was_killed_takes_whoever_walks_there() {
    let Some(cgroup) = TestCgroup::make() else {
        eprintln!("SKIPPED: no writable cgroup v2 here");
        return;
    };
    std::fs::write(cgroup.0.join("cgroup.kill"), "1").expect("a kernel since 5.14");
    let mut spawner = Spawner::new();
    for _ in 0..2 {
        let script = "cat /proc/self/cgroup";
        let run = run_in(&mut spawner, ("/bin/sh", script), Some(&cgroup.0), true);
        let (status, output) = run.expect("the shell starts");
        assert_eq!(status, WaitStatus::Exited { code: 0 }, "{output}");
        let name = cgroup.0.file_name().expect("a name").to_string_lossy();
        assert!(output.trim().ends_with(&*name), "{output}");
    }
}

#[test]
fn a_cgroup_that_takes_nobody_is_told_from_other_obstacles() {
    let Some(cgroup) = TestCgroup::make() else {
        eprintln!("SKIPPED: no writable cgroup v2 here");
        return;
    };
    let open = File::open(&cgroup.0).expect("a directory");
    drop(cgroup);
    for inside in [true, false] {
        let mut spawner = Spawner::new();
        spawner.born_inside = inside && clone3::IS_HERE;
        let null = File::open("/dev/null").expect("it is everywhere");
        let streams = Streams {
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let home = Home {
            directory: open.as_fd(),
            walk: false,
        };
        let refused = spawner.begin(&prepared("/bin/true", ""), &streams, Some(home));
        let obstacle = refused.expect_err("the cgroup is gone");
        assert_eq!(obstacle.step, Step::Cgroup, "{inside}: {obstacle:?}");
    }
}

#[test]
fn a_process_that_did_not_become_who_it_should_executes_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can switch users");
        return;
    }
    let (unchanged, nobody) = (u32::MAX, 65_534);
    for (uid, gid) in [(unchanged, nobody), (nobody, unchanged)] {
        for way in [Way::Shared, Way::Copied] {
            let prepared = prepared("/bin/true", "");
            let mut prepared = Arc::into_inner(prepared).expect("nobody else has it");
            prepared.identity.credentials = Some(Credentials {
                uid: Some(uid),
                gid,
                groups: vec![nobody],
                already: false,
                keeps_privileges: false,
            });
            let mut spawner = Spawner::new();
            spawner.way = way;
            let refused = become_one(&mut spawner, &Arc::new(prepared), None);
            let obstacle = refused.expect_err("the kernel left it as it was");
            assert_eq!(obstacle.step, Step::Unchanged, "{way:?}, {uid}, {gid}");
        }
    }
}

#[test]
fn both_ways_tell_at_once_what_cannot_be_executed() {
    for way in [Way::Shared, Way::Copied] {
        let obstacle = run(way, "/no/such").expect_err("no such program");
        assert_eq!(
            (obstacle.step, obstacle.errno),
            (Step::Execute, Errno::ENOENT),
            "{way:?}"
        );
    }
}
