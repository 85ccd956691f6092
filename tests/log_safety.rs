//! Log files where others may write, on disks that fail: root is not led astray, and no line is lost
//! without a word.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eternal::os::logs::{Logs, Options, Query, Source, Stderr};
use eternal::supervision::{Id, Run};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tempfile::TempDir;

const WEB: Id = Id(1);
const OTHER: Id = Id(2);
const NOBODY: u32 = 65534;
const SECRET: &str = "a secret of root's\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for the daemon's log, a file of root's, and a directory of another user's for a program.
struct World {
    top: TempDir,
    run: AtomicU64,
}

impl World {
    fn new() -> Self {
        let world = Self {
            top: tempfile::tempdir().expect("a directory"),
            run: AtomicU64::new(0),
        };
        fs::write(world.canary(), SECRET).expect("written");
        fs::set_permissions(world.canary(), fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::create_dir(world.theirs()).expect("made");
        if geteuid().is_root() {
            chown(world.theirs(), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        world
    }

    fn canary(&self) -> PathBuf {
        self.top.path().join("canary")
    }

    fn theirs(&self) -> PathBuf {
        self.top.path().join("theirs")
    }

    fn file(&self) -> PathBuf {
        self.theirs().join("w.log")
    }

    fn start(&self, max_size: u64, keep: u32) -> Logs {
        Logs::start(Options {
            file: Some(self.top.path().join("daemon.log")),
            max_size,
            keep,
            json: false,
            stderr: Stderr::None,
            stderr_to: None,
        })
        .expect("logging starts")
    }

    fn daemon_log(&self) -> String {
        read(&self.top.path().join("daemon.log"))
    }

    /// Runs a script to its end as a run of WEB, or of another.
    fn run(&self, logs: &Logs, id: Id, script: &str) {
        let run = Run(self.run.fetch_add(1, Ordering::Relaxed));
        let (out, err) = logs.open(id, run).expect("pipes");
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().expect("sh runs");
        drop(command);
        logs.attend();
        child.wait().expect("it ends");
        logs.ended(id, run).blocking_recv().expect("an answer");
    }

    /// What another user can put in the place of one of their files.
    fn plant(&self, trick: Trick, at: &Path) {
        match trick {
            Trick::Link => symlink(self.canary(), at).expect("a link"),
            Trick::Dangling => symlink(self.top.path().join("made"), at).expect("a link"),
            Trick::HardLink => fs::hard_link(self.canary(), at).expect("a link"),
            Trick::Pipe => mkfifo(at, Mode::from_bits_truncate(0o666)).expect("a pipe"),
            Trick::Directory => fs::create_dir(at).expect("made"),
        }
        if trick != Trick::HardLink {
            lchown(at, Some(NOBODY), Some(NOBODY)).expect("given away");
        }
    }

    fn nothing_of_roots_has_changed(&self) {
        assert_eq!(read(&self.canary()), SECRET);
        let canary = fs::metadata(self.canary()).expect("there");
        assert_eq!((canary.mode() & 0o7777, canary.uid()), (0o600, 0));
        assert!(!self.top.path().join("made").exists());
        assert!(!self.top.path().join("w.log").exists());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trick {
    Link,
    Dangling,
    HardLink,
    Pipe,
    Directory,
}

const TRICKS: [Trick; 5] = [
    Trick::Link,
    Trick::Dangling,
    Trick::HardLink,
    Trick::Pipe,
    Trick::Directory,
];

/// A world where somebody else has a directory; `None` for those who cannot give one away.
fn of_two_users() -> Option<World> {
    if geteuid().is_root() {
        return Some(World::new());
    }
    eprintln!("skipped: only root can give a directory away");
    None
}

fn source(name: &str, file: Option<&Path>) -> Source {
    Source {
        name: name.into(),
        file: file.map(Path::to_owned),
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
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every line of a log and its rotated files, oldest first.
fn all_lines(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for number in (0..=60).rev() {
        let mut plain = path.as_os_str().to_owned();
        if number > 0 {
            plain.push(format!(".{number}"));
        }
        let mut packed = plain.clone();
        packed.push(".gz");
        let text = match fs::File::open(&packed) {
            Ok(file) => {
                let mut text = String::new();
                let mut packed = flate2::read::GzDecoder::new(file);
                std::io::Read::read_to_string(&mut packed, &mut text).expect("whole");
                text
            }
            Err(_) => read(Path::new(&plain)),
        };
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn tail(logs: &Logs, program: Option<&str>, lines: usize) -> Vec<eternal::os::logs::Line> {
    let query = Query {
        program: program.map(str::to_owned),
        lines,
    };
    logs.tail(query).blocking_recv().expect("an answer")
}

fn texts(lines: &[eternal::os::logs::Line]) -> Vec<&str> {
    lines.iter().map(|line| line.line.as_str()).collect()
}

// ---- what another user may own ---------------------------------------------------------------

#[test]
fn what_a_program_puts_in_place_of_its_log_before_the_start_is_refused_by_name() {
    for trick in TRICKS {
        let Some(world) = of_two_users() else { return };
        let logs = world.start(0, 3);
        world.plant(trick, &world.file());
        let error = logs
            .open_file(source("web", Some(&world.file())))
            .expect_err("refused");
        let error = error.with_cause();
        assert!(error.contains("w.log"), "{trick:?}: {error}");
        logs.shutdown(PATIENCE);
        world.nothing_of_roots_has_changed();
    }
}

#[test]
fn a_link_in_place_of_the_directory_leads_root_nowhere() {
    let Some(world) = of_two_users() else { return };
    let logs = world.start(0, 3);
    let swapped = world.theirs().join("app");
    symlink(world.top.path(), &swapped).expect("a link");
    assert!(
        logs.open_file(source("web", Some(&swapped.join("w.log"))))
            .is_err()
    );
    assert!(
        logs.open_file(source("web", Some(&swapped.join("made/w.log"))))
            .is_err()
    );
    world.nothing_of_roots_has_changed();
}

#[test]
fn what_a_program_puts_in_place_of_its_log_while_it_runs_gets_none_of_its_lines() {
    for (trick, keep) in TRICKS
        .into_iter()
        .flat_map(|trick| [(trick, 0), (trick, 2)])
    {
        let Some(world) = of_two_users() else { return };
        let logs = world.start(2000, keep);
        logs.program(WEB, source("web", Some(&world.file())))
            .expect("opened");
        logs.program(OTHER, source("other", None)).expect("opened");
        world.run(&logs, WEB, "echo before");
        wait_for("it is written", || read(&world.file()) == "before\n");
        fs::rename(world.file(), world.theirs().join("away")).expect("moved");
        world.plant(trick, &world.file());
        // As SIGUSR1 does, and at the next 2,000 bytes a rotation.
        logs.reopen();
        world.run(&logs, WEB, "seq 1 5000");
        world.run(&logs, OTHER, "echo the others go on");
        wait_for("the others go on", || {
            world.daemon_log().contains("the others go on")
        });
        wait_for("it is said", || {
            world.daemon_log().contains("cannot reopen")
        });
        logs.shutdown(PATIENCE);
        world.nothing_of_roots_has_changed();
        assert_eq!(logs.counters(WEB).stdout.dropped(), 0, "{trick:?}");
    }
}

#[test]
fn names_that_a_program_prepares_for_a_rotation_lead_root_nowhere() {
    for name in [
        ".w.log.gz.tmp",
        ".w.log.new",
        "w.log.1",
        "w.log.2",
        "w.log.1.gz",
    ] {
        for trick in TRICKS {
            let Some(world) = of_two_users() else { return };
            let logs = world.start(2000, 3);
            logs.program(WEB, source("web", Some(&world.file())))
                .expect("opened");
            world.plant(trick, &world.theirs().join(name));
            world.run(&logs, WEB, "seq 1 3000");
            logs.shutdown(PATIENCE);
            world.nothing_of_roots_has_changed();
            for entry in fs::read_dir(world.theirs()).expect("there").flatten() {
                let path = entry.path();
                // A planted pipe would keep us waiting for somebody at its other end.
                let is_file = fs::metadata(&path).is_ok_and(|meta| meta.is_file());
                if is_file && path.extension().is_some_and(|end| end == "gz") {
                    let file = fs::File::open(path).expect("readable");
                    let mut text = String::new();
                    let mut packed = flate2::read::GzDecoder::new(file);
                    let _ = std::io::Read::read_to_string(&mut packed, &mut text);
                    assert!(!text.contains("secret"), "{name}: {trick:?}");
                }
            }
        }
    }
}

#[test]
fn names_that_are_swapped_all_the_time_get_nothing_and_give_nothing() {
    let Some(world) = of_two_users() else { return };
    let logs = world.start(4000, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (file, aside) = (world.file(), world.theirs().join("aside"));
            while !over.load(Ordering::Relaxed) {
                for name in [".w.log.gz.tmp", ".w.log.new", "w.log.1", "w.log"] {
                    let _ = fs::rename(world.theirs().join(name), &aside);
                    let _ = symlink(world.canary(), world.theirs().join(name));
                    let _ = fs::remove_file(&aside);
                }
                let _ = fs::remove_file(&file);
                let _ = fs::hard_link(world.canary(), &file);
                let _ = fs::remove_file(&file);
            }
        });
        for _ in 0..20 {
            logs.reopen();
            world.run(&logs, WEB, "seq 1 4000");
            let shown = tail(&logs, Some("web"), 100_000);
            assert!(!texts(&shown).contains(&SECRET.trim()));
        }
        over.store(true, Ordering::Relaxed);
    });
    logs.shutdown(PATIENCE);
    world.nothing_of_roots_has_changed();
}

#[test]
fn what_is_behind_a_link_is_not_shown_as_output() {
    let Some(world) = of_two_users() else { return };
    let logs = world.start(0, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    world.run(&logs, WEB, "echo mine");
    wait_for("it is written", || read(&world.file()) == "mine\n");
    fs::remove_file(world.file()).expect("removed");
    world.plant(Trick::Link, &world.file());
    world.plant(Trick::HardLink, &world.theirs().join("w.log.1"));
    world.plant(Trick::Pipe, &world.theirs().join("w.log.2"));
    assert_eq!(texts(&tail(&logs, Some("web"), 10)), ["mine"]);
}

// ---- rotation ---------------------------------------------------------------------------------

#[test]
fn a_rotation_that_fails_loses_no_line_and_no_history_and_succeeds_later() {
    let world = World::new();
    let logs = world.start(2000, 50);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    world.run(&logs, WEB, "seq 1 1000");
    wait_for("it is rotated", || {
        world.theirs().join("w.log.1").exists() || world.theirs().join("w.log.1.gz").exists()
    });
    // A directory has the name that the next file is made under.
    fs::create_dir(world.theirs().join(".w.log.new")).expect("made");
    world.run(&logs, WEB, "seq 1001 2000");
    wait_for("it is said", || {
        world.daemon_log().contains("cannot rotate")
    });
    // Compressed or not: that goes on meanwhile.
    let history = |world: &World| {
        let there = |number: &u32| {
            let plain = world.theirs().join(format!("w.log.{number}"));
            plain.exists() || plain.with_extension(format!("{number}.gz")).exists()
        };
        (1..=50).filter(there).count()
    };
    let before = history(&world);
    world.run(
        &logs,
        WEB,
        "sleep 1.2; seq 2001 2010; sleep 1.2; seq 2011 2020",
    );
    assert_eq!(history(&world), before, "a retry moves nothing");
    fs::remove_dir(world.theirs().join(".w.log.new")).expect("removed");
    world.run(&logs, WEB, "sleep 1.2; seq 2021 3000");
    logs.shutdown(PATIENCE);
    assert!(history(&world) > before, "it rotates again");
    assert_eq!(all_lines(&world.file()), numbers(1..=3000));
    assert_eq!(world.daemon_log().matches("cannot rotate").count(), 1);
    assert_eq!(logs.counters(WEB).stdout.dropped(), 0);
}

#[test]
fn a_rotation_fills_a_gap_before_it_deletes_the_oldest() {
    let world = World::new();
    for (name, text) in [("w.log.1.gz", "one"), ("w.log.3.gz", "three")] {
        fs::write(world.theirs().join(name), text).expect("written");
    }
    let logs = world.start(100, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    world.run(&logs, WEB, "seq 1 40");
    logs.shutdown(PATIENCE);
    assert_eq!(read(&world.theirs().join("w.log.2.gz")), "one");
    assert_eq!(read(&world.theirs().join("w.log.3.gz")), "three");
}

#[test]
fn a_log_that_is_removed_with_its_directory_is_made_again_and_what_cannot_be_kept_is_counted() {
    let world = World::new();
    let logs = world.start(0, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    world.run(&logs, WEB, "echo before");
    wait_for("it is written", || read(&world.file()) == "before\n");
    fs::remove_dir_all(world.theirs()).expect("removed");
    world.run(&logs, WEB, "echo after");
    wait_for("it is there again", || read(&world.file()) == "after\n");
    assert_eq!(logs.counters(WEB).stdout.dropped(), 0);
    // A file in the place of the directory.
    fs::remove_dir_all(world.theirs()).expect("removed");
    fs::write(world.theirs(), "").expect("written");
    world.run(&logs, WEB, "seq 1 7");
    wait_for("it is counted", || logs.counters(WEB).stdout.dropped() == 7);
    wait_for("it is said", || {
        world
            .daemon_log()
            .contains("lines are dropped until it can")
    });
    fs::remove_file(world.theirs()).expect("removed");
    let mut rounds = 0;
    wait_for("it goes on", || {
        rounds += 1;
        world.run(&logs, WEB, "echo again");
        read(&world.file()).contains("again")
    });
    let dropped = logs.counters(WEB).stdout.dropped();
    wait_for("the loss is said", || {
        world
            .daemon_log()
            .contains(&format!("{dropped} lines lost"))
    });
}

#[test]
fn a_loss_at_the_very_end_is_said_before_the_daemon_goes() {
    let world = World::new();
    let logs = world.start(0, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    fs::remove_dir_all(world.theirs()).expect("removed");
    fs::write(world.theirs(), "").expect("written");
    world.run(&logs, WEB, "seq 1 9");
    logs.shutdown(PATIENCE);
    assert!(
        world.daemon_log().contains("9 lines lost"),
        "{}",
        world.daemon_log()
    );
}

#[test]
fn foreign_files_beside_a_log_stay_and_what_a_smaller_keep_deletes_is_said() {
    let world = World::new();
    let foreign = [
        "w.log.20240101.gz",
        "w.log.20261126",
        "w.log.1764115200",
        "w.log.2024",
        "w.log.12",
        "w.log.30.gz",
        "w.log.old",
        "w.log.1.bz2",
        "w.log.007",
    ];
    let ours: Vec<String> = (1..=8).map(|number| format!("w.log.{number}.gz")).collect();
    for name in foreign
        .iter()
        .copied()
        .chain(ours.iter().map(String::as_str))
    {
        fs::write(world.theirs().join(name), "").expect("written");
    }
    let there = |name: &str| world.theirs().join(name).exists();
    let logs = world.start(0, 10);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    logs.shutdown(PATIENCE);
    assert!(ours.iter().all(|name| there(name)), "fewer than log_keep");
    drop(logs);
    let logs = world.start(0, 5);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    logs.shutdown(PATIENCE);
    let left: Vec<bool> = ours.iter().map(|name| there(name)).collect();
    assert_eq!(left, [true, true, true, true, true, false, false, false]);
    for name in foreign {
        assert!(there(name), "{name} is gone");
    }
    let log = world.daemon_log();
    assert!(
        log.contains("deleted 3 rotated files") && log.contains("w.log.6.gz to w.log.8.gz"),
        "{log}"
    );
}

#[test]
fn a_link_of_the_administrators_is_followed_for_the_file_and_for_its_directory() {
    let world = World::new();
    let far = world.top.path().join("far");
    fs::create_dir(&far).expect("made");
    symlink(&far, world.top.path().join("var-log")).expect("a link");
    symlink("far/real.log", world.top.path().join("link.log")).expect("a link");
    let logs = world.start(100, 2);
    for (id, path) in [(WEB, "var-log/w.log"), (OTHER, "link.log")] {
        let path = world.top.path().join(path);
        logs.program(id, source("web", Some(&path)))
            .expect("opened");
        world.run(&logs, id, "seq 1 40");
    }
    logs.shutdown(PATIENCE);
    for name in ["w.log", "real.log"] {
        assert_eq!(
            all_lines(&far.join(name)).last().map(String::as_str),
            Some("40")
        );
    }
    assert!(world.top.path().join("link.log").is_symlink());
}

// ---- earlier lines ------------------------------------------------------------------------------

#[test]
fn lines_from_a_programs_own_file_are_given_no_time_that_nobody_knows() {
    let world = World::new();
    fs::write(world.file(), "of yesterday\n").expect("written");
    let logs = world.start(0, 3);
    logs.program(WEB, source("web", Some(&world.file())))
        .expect("opened");
    world.run(&logs, WEB, "echo of today");
    wait_for("it is written", || read(&world.file()).contains("today"));
    for name in [Some("web"), None] {
        let lines = tail(&logs, name, 10);
        assert_eq!(texts(&lines), ["of yesterday", "of today"], "{name:?}");
        assert!(lines[0].at.is_none() && lines[1].at.is_some());
    }
}

#[test]
fn no_line_comes_twice_after_one_has_become_several_or_several_one() {
    for own in [false, true] {
        let world = World::new();
        let logs = world.start(0, 3);
        let file = world.file();
        let file = own.then_some(file.as_path());
        let log = || match own {
            true => read(&world.file()),
            false => world.daemon_log(),
        };
        logs.program(WEB, source("web", file)).expect("opened");
        world.run(&logs, WEB, "seq 1 3");
        logs.program(WEB, source("web/0", file)).expect("renamed");
        logs.program(OTHER, source("web/1", file)).expect("opened");
        world.run(&logs, OTHER, "seq 11 13");
        world.run(&logs, WEB, "seq 4 5");
        wait_for("all is written", || log().ends_with("5\n"));
        let expected = ["1", "2", "3", "11", "12", "13", "4", "5"];
        for name in [Some("web"), None] {
            let mut lines = tail(&logs, name, 100);
            lines.retain(|line| !line.program.is_empty());
            assert_eq!(texts(&lines), expected, "own: {own}, {name:?}");
        }
        logs.program(WEB, source("web", file)).expect("renamed");
        logs.forget(OTHER);
        world.run(&logs, WEB, "echo 6");
        wait_for("all is written", || log().ends_with("6\n"));
        let lines = tail(&logs, Some("web"), 100);
        assert_eq!(
            texts(&lines),
            [&expected[..], &["6"]].concat(),
            "own: {own}"
        );
    }
}

#[test]
fn everybodys_last_lines_are_shown_however_loud_one_is_and_wherever_they_are_kept() {
    let world = World::new();
    let logs = world.start(0, 3);
    logs.program(WEB, source("loud", None)).expect("opened");
    logs.program(OTHER, source("own", Some(&world.file())))
        .expect("opened");
    logs.program(Id(3), source("quiet", None)).expect("opened");
    world.run(&logs, Id(3), "echo quiet 1; echo quiet 2");
    world.run(&logs, OTHER, "echo own 1; echo own 2; echo own 3");
    world.run(&logs, WEB, "seq 1 2000");
    wait_for("all is written", || {
        world.daemon_log().ends_with(": 2000\n") && read(&world.file()).ends_with("own 3\n")
    });
    let lines = tail(&logs, None, 2);
    assert_eq!(
        texts(&lines),
        ["quiet 1", "quiet 2", "own 2", "own 3", "1999", "2000"]
    );
}

#[test]
fn a_remembered_line_of_any_length_and_ending_is_found_again() {
    for length in [3_990, 3_999, 4_000, 4_001, 4_095, 4_096, 5_000] {
        for ending in ["", "\\r", "\\303\\251"] {
            let world = World::new();
            let logs = world.start(0, 3);
            logs.program(WEB, source("web", None)).expect("opened");
            let script =
                format!("head -c {length} /dev/zero | tr '\\0' x; printf '{ending}\\n'; echo end");
            world.run(&logs, WEB, &script);
            wait_for("it is written", || world.daemon_log().ends_with("end\n"));
            let lines = tail(&logs, Some("web"), 10);
            assert_eq!(lines.len(), 2, "{length} {ending}");
        }
    }
}
