//! Logs on a disk that does not answer: it stops its own lines, nobody else's, and no thread but
//! its own.

mod silent;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eternal::os::logs::{Level, Logs, Options, Record, Source, Stderr};
use eternal::supervision::{Id, Run};
use silent::Silent;
use tempfile::TempDir;

const HUNG: Id = Id(1);
const OTHER: Id = Id(2);
/// Only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    top: TempDir,
    disk: Silent,
    logs: Logs,
}

impl World {
    fn new() -> Option<Self> {
        let top = tempfile::tempdir().expect("a directory");
        let disk = Silent::mount()?;
        let logs = Logs::start(Options {
            file: Some(top.path().join("daemon.log")),
            max_size: 0,
            keep: 3,
            json: false,
            stderr: Stderr::None,
            stderr_to: None,
        })
        .expect("logging starts");
        let world = Self { top, disk, logs };
        let other = world.other();
        world.opens(OTHER, "other", &other);
        Some(world)
    }

    fn other(&self) -> PathBuf {
        self.top.path().join("other.log")
    }

    fn daemon_log(&self) -> String {
        read(&self.top.path().join("daemon.log"))
    }

    fn opens(&self, id: Id, name: &str, path: &Path) {
        self.logs.program(id, source(name, path)).expect("opened");
    }

    /// Runs a script to its end.
    fn run(&self, id: Id, run: u64, script: &str) {
        let (out, err) = self.logs.open(id, Run(run)).expect("pipes");
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().expect("sh runs");
        drop(command);
        self.logs.attend();
        child.wait().expect("it ends");
        let ended = self.logs.ended(id, Run(run));
        ended.blocking_recv().expect("an answer");
    }

    /// Others are written, the daemon's own lines too.
    fn others_go_on(&self, word: &str) {
        self.run(OTHER, 1000, &format!("echo {word}"));
        self.logs.line(&Record {
            level: Level::Info,
            at: std::time::SystemTime::now(),
            program: None,
            message: word.to_owned(),
            fields: Vec::new(),
        });
        wait_for("another program's line is written", || {
            read(&self.other()).contains(word)
        });
        wait_for("the daemon's own line is written", || {
            self.daemon_log().contains(word)
        });
    }
}

fn source(name: &str, path: &Path) -> Source {
    Source {
        name: name.into(),
        file: Some(path.to_owned()),
        lasting: false,
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_write_that_hangs_stops_only_its_own_lines_and_every_one_is_counted() {
    const LINES: u64 = 400_000;
    let Some(world) = World::new() else { return };
    world.opens(HUNG, "hung", &world.disk.path().join("hung.log"));
    world.run(HUNG, 1, "echo first");
    wait_for("it is written", || world.disk.written() == "first\n");
    world.disk.does_not_write();
    world.run(HUNG, 2, "echo second");
    world.disk.has_heard(1);
    world.others_go_on("meanwhile");
    // More than a queue holds: the program is not held up for longer than a second.
    world.run(HUNG, 3, &format!("seq 1 {LINES}"));
    world.others_go_on("later");
    let dropped = world.logs.counters(HUNG).stdout.dropped();
    assert!(dropped > 0, "what the queue cannot hold is counted");
    world.disk.answers();
    wait_for("the loss is said", || {
        world
            .daemon_log()
            .contains(&format!("{dropped} lines lost"))
    });
    world.logs.shutdown(PATIENCE);
    let kept = world.disk.written().lines().count() as u64;
    assert_eq!(kept + dropped, LINES + 2);
}

#[test]
fn files_that_hang_when_they_are_opened_again_hold_up_nobody_else() {
    let Some(world) = World::new() else { return };
    for number in 0..3 {
        let path = world.disk.path().join(format!("hung-{number}.log"));
        world.opens(Id(10 + number), "hung", &path);
    }
    world.disk.does_not_open();
    world.logs.reopen();
    world.others_go_on("meanwhile");
    world.disk.has_heard(3);
    world.others_go_on("later");
    world.run(Id(10), 1, "echo kept");
    world.disk.answers();
    wait_for("its lines have waited", || {
        world.disk.written().contains("kept")
    });
    world.logs.shutdown(PATIENCE);
    assert_eq!(world.logs.counters(Id(10)).stdout.dropped(), 0);
}

#[test]
fn a_file_that_hangs_when_it_is_opened_holds_up_who_asked_and_nobody_else() {
    let Some(world) = World::new() else { return };
    world.disk.does_not_open();
    let path = world.disk.path().join("hung.log");
    world
        .logs
        .adopt(HUNG, world.logs.later(source("hung", &path)));
    let (done, opened) = channel();
    let (logs, again) = (world.logs.clone(), world.logs.clone());
    let both = done.clone();
    thread::spawn(move || done.send(logs.prepare(HUNG).is_ok()));
    thread::spawn(move || both.send(again.open_file(source("hung", &path)).is_ok()));
    world.disk.has_heard(1);
    let another = world.top.path().join("another.log");
    world.opens(Id(3), "another", &another);
    world.logs.prepare(OTHER).expect("open for long");
    world.others_go_on("meanwhile");
    assert!(opened.try_recv().is_err(), "they still wait");
    world.disk.answers();
    for _ in 0..2 {
        assert_eq!(opened.recv_timeout(PATIENCE), Ok(true));
    }
}

#[test]
fn a_program_whose_log_hangs_can_be_started_again() {
    let Some(world) = World::new() else { return };
    world.opens(HUNG, "hung", &world.disk.path().join("hung.log"));
    world.disk.does_not_write();
    world.run(HUNG, 1, "echo first");
    world.disk.has_heard(1);
    world.logs.prepare(HUNG).expect("it was open");
    world.run(HUNG, 2, "echo second");
    world.disk.answers();
    wait_for("both are written", || {
        world.disk.written() == "first\nsecond\n"
    });
}

#[test]
fn the_end_does_not_wait_for_a_disk_for_ever() {
    let Some(world) = World::new() else { return };
    world.opens(HUNG, "hung", &world.disk.path().join("hung.log"));
    world.disk.does_not_write();
    world.run(HUNG, 1, "echo first");
    world.disk.has_heard(1);
    let begin = Instant::now();
    world.logs.shutdown(Duration::from_millis(300));
    assert!(begin.elapsed() < PATIENCE / 2);
}
