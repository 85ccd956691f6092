//! Log capture, with real pipes, real children and real files.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use eternal::os::logs::{Level, Line, Logs, Options, Query, Record, Source, Stderr};
use eternal::supervision::{Id, Run};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

const WEB: Id = Id(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn options(directory: &TempDir) -> Options {
    Options {
        file: Some(directory.path().join("daemon.log")),
        max_size: 0,
        keep: 3,
        json: false,
        stderr: Stderr::None,
        stderr_to: None,
    }
}

fn start(options: Options, file: Option<&Path>) -> Logs {
    let logs = Logs::start(options).expect("logging starts");
    let source = Source {
        name: "web".into(),
        file: file.map(Path::to_owned),
        lasting: false,
    };
    logs.program(WEB, source).expect("registered");
    logs
}

fn spawn(logs: &Logs, run: Run, script: &str) -> Child {
    let (out, err) = logs.open(WEB, run).expect("pipes");
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let child = command.spawn().expect("sh runs");
    logs.attend();
    child
}

/// Runs a script to its end and returns the last lines of the run.
fn run(logs: &Logs, run: Run, script: &str) -> Vec<String> {
    spawn(logs, run, script).wait().expect("it ends");
    logs.ended(WEB, run).blocking_recv().expect("an answer")
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn own(message: &str) -> Record {
    let fields = vec![("pid", "42".into())];
    Record {
        level: Level::Info,
        at: SystemTime::now(),
        program: Some("web".into()),
        message: message.into(),
        fields,
    }
}

fn texts(lines: Vec<Line>) -> Vec<String> {
    lines.into_iter().map(|line| line.line).collect()
}

#[test]
fn captured_and_own_lines_are_in_the_daemon_log_and_an_unfinished_one_gets_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(options(&directory), None);
    logs.line(&own("started"));
    let last = run(&logs, Run(1), "echo one; echo oops >&2; printf 'no end'");
    assert!(
        last.contains(&"one".to_owned()) && last.contains(&"no end".to_owned()),
        "{last:?}"
    );
    logs.shutdown(PATIENCE);
    let log = read(&directory.path().join("daemon.log"));
    for wanted in [
        "INFO  web: started pid=42\n",
        "OUT   web: one\n",
        "ERR   web: oops\n",
        "OUT   web: no end\n",
    ] {
        assert!(log.contains(wanted), "{wanted} is not in {log}");
    }
    let counters = logs.counters(WEB);
    assert_eq!((counters.stdout.lines(), counters.stdout.bytes()), (2, 10));
    assert_eq!((counters.stderr.lines(), counters.stderr.dropped()), (1, 0));
}

#[test]
fn every_line_arrives_once_and_in_order_over_rotation() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web.log");
    let logs = start(
        Options {
            max_size: 100_000,
            keep: 50,
            ..options(&directory)
        },
        Some(&file),
    );
    run(&logs, Run(1), "seq 1 300000");
    logs.shutdown(PATIENCE);
    let mut all = Vec::new();
    let mut files = 0;
    for number in (0..=50).rev() {
        let plain = if number == 0 {
            file.clone()
        } else {
            directory.path().join(format!("web.log.{number}"))
        };
        let packed = directory.path().join(format!("web.log.{number}.gz"));
        if let Ok(bytes) = fs::read(&plain) {
            assert!(bytes.len() <= 100_000, "{} bytes", bytes.len());
            assert_eq!(bytes.last(), Some(&b'\n'), "rotated at a line end");
            all.extend(bytes);
            files += 1;
        } else if let Ok(packed) = fs::File::open(packed) {
            let mut reader = flate2::read::GzDecoder::new(packed);
            std::io::Read::read_to_end(&mut reader, &mut all).expect("whole");
            files += 1;
        }
    }
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert!(all == expected.into_bytes(), "lines differ");
    assert!(files > 10);
}

#[test]
fn bytes_survive_in_the_programs_own_file_and_are_harmless_in_the_daemon_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web.log");
    let script = r"printf 'a\0b\377\033[2Jc'"; // the line end is ours
    let logs = start(options(&directory), Some(&file));
    run(&logs, Run(1), script);
    logs.program(
        WEB,
        Source {
            name: "web".into(),
            file: None,
            lasting: false,
        },
    )
    .expect("changed");
    run(&logs, Run(2), script);
    logs.shutdown(PATIENCE);
    assert_eq!(fs::read(&file).expect("written"), b"a\0b\xff\x1b[2Jc\n");
    let log = read(&directory.path().join("daemon.log"));
    assert!(
        log.ends_with("OUT   web: a\\x00b\u{fffd}\\x1b[2Jc\n"),
        "{log}"
    );
}

#[test]
fn a_grandchild_that_keeps_the_pipe_delays_the_answer_not_at_all_and_the_end_by_a_second() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(options(&directory), None);
    let script = "sh -c 'trap \"\" PIPE; while echo still here; do sleep 0.05; done; touch \"$0/ended\"' \"$0\" & printf last";
    let (out, err) = logs.open(WEB, Run(1)).expect("pipes");
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let mut child = command.spawn().expect("sh runs");
    drop(command);
    child.wait().expect("it ends");
    let asked = Instant::now();
    let last = logs.ended(WEB, Run(1)).blocking_recv().expect("an answer");
    assert!(
        asked.elapsed() < Duration::from_millis(500),
        "{:?}",
        asked.elapsed()
    );
    assert!(last.iter().any(|line| line.contains("last")), "{last:?}");
    wait_for("the grandchild's pipe is closed", || {
        directory.path().join("ended").exists()
    });
    assert!(asked.elapsed() > Duration::from_millis(900));
}

#[test]
fn a_line_of_100_mib_grows_no_memory_and_loses_no_byte() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web.log");
    let logs = start(options(&directory), Some(&file));
    run(&logs, Run(1), "head -c 104857600 /dev/zero; echo; echo end");
    logs.shutdown(PATIENCE);
    assert_eq!(fs::metadata(&file).expect("written").len(), 104_857_600 + 5);
    let peak = fs::read_to_string("/proc/self/status").expect("proc");
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    let kib: u64 = peak
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    assert!(kib < 90 * 1024, "{kib} KiB");
}

#[test]
fn the_last_lines_are_those_of_the_run_that_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(options(&directory), None);
    let mut first = spawn(&logs, Run(1), "echo first run");
    first.wait().expect("it ends");
    let mut second = spawn(&logs, Run(2), "seq 1 100");
    second.wait().expect("it ends");
    let ask = |run| logs.ended(WEB, run).blocking_recv().expect("an answer");
    assert_eq!(ask(Run(1)), ["first run"]);
    let expected: Vec<String> = (81..=100).map(|number| number.to_string()).collect();
    assert_eq!(ask(Run(2)), expected);
    assert!(ask(Run(3)).is_empty());
}

#[test]
fn reopen_follows_a_file_that_was_moved_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web.log");
    let moved = directory.path().join("moved");
    let logs = start(options(&directory), Some(&file));
    run(&logs, Run(1), "echo before");
    wait_for("it is written", || read(&file) == "before\n");
    fs::rename(&file, &moved).expect("moved");
    run(&logs, Run(2), "echo between");
    wait_for("it is written", || read(&moved) == "before\nbetween\n");
    logs.reopen();
    run(&logs, Run(3), "echo after");
    wait_for("the new file has it", || read(&file) == "after\n");
}

#[test]
fn tail_goes_on_from_memory_into_rotated_files_without_telling_a_line_twice() {
    for json in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let logs = start(
            Options {
                max_size: 20_000,
                json,
                ..options(&directory)
            },
            None,
        );
        run(&logs, Run(1), "seq 1 1000");
        let ask = |lines| {
            let query = Query {
                program: Some("web".into()),
                lines,
            };
            texts(logs.tail(query).blocking_recv().expect("an answer"))
        };
        for count in [5, 400] {
            // What memory no longer holds has to reach the file first.
            wait_for("all lines are there", || ask(count).len() == count);
            let expected: Vec<String> = (1001 - count..=1000)
                .map(|number| number.to_string())
                .collect();
            assert_eq!(ask(count), expected, "json: {json}");
        }
    }
}

#[test]
fn a_slow_follower_loses_lines_and_is_told_how_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(options(&directory), Some(&directory.path().join("web.log")));
    let mut lines = logs.follow(Some("web".into()));
    run(&logs, Run(1), "seq 1 5000");
    for number in 1..=1024 {
        assert_eq!(
            lines.blocking_recv().expect("open").line,
            number.to_string()
        );
    }
    run(&logs, Run(2), "echo next");
    let told = lines.blocking_recv().expect("open").line;
    assert!(told.contains("3976 lines"), "{told}");
    assert_eq!(lines.blocking_recv().expect("open").line, "next");
}

#[test]
fn a_stalled_stderr_does_not_stall_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let to = Some(OwnedFd::from(writer));
    let logs = start(
        Options {
            stderr: Stderr::Text,
            stderr_to: to,
            ..options(&directory)
        },
        None,
    );
    run(&logs, Run(1), "seq 1 200000");
    let log = directory.path().join("daemon.log");
    wait_for("the file has the last line", || {
        read(&log).ends_with("web: 200000\n")
    });
    assert_eq!(
        read(&log)
            .lines()
            .filter(|line| line.contains("OUT"))
            .count(),
        200_000
    );
    assert_eq!(
        logs.counters(WEB).stdout.dropped(),
        0,
        "the file has them all"
    );
    // Once somebody reads again, the loss is said.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    wait_for("the loss is said", || {
        read(&log).contains("lines lost: stderr did not take them")
    });
    assert_eq!(read(&log).matches("lines lost").count(), 1);
}

#[test]
fn a_full_disk_loses_lines_says_so_once_and_recovers() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("created");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&small)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    let file = small.join("web.log");
    let logs = start(options(&directory), Some(&file));
    fs::File::create(small.join("ballast"))
        .and_then(|mut at| at.write_all(&[0; 128 * 1024]))
        .expect("fits");
    let status = spawn(&logs, Run(1), "seq 1 100000")
        .wait()
        .expect("it ends");
    assert!(status.success(), "the child goes on");
    let _ = logs.ended(WEB, Run(1)).blocking_recv();
    let log = directory.path().join("daemon.log");
    wait_for("it is said", || read(&log).contains("cannot write"));
    fs::remove_file(small.join("ballast")).expect("there");
    let mut number = 1;
    wait_for("it recovers", || {
        number += 1;
        run(&logs, Run(number), "echo again");
        read(&log).contains("lines lost")
    });
    logs.shutdown(PATIENCE);
    let (text, said) = (read(&file), read(&log));
    let kept = text.lines().filter(|line| *line != "again").count() as u64;
    let dropped = logs.counters(WEB).stdout.dropped();
    assert!(text.ends_with("again\n"));
    assert!(
        dropped > 0 && said.contains(&format!("{dropped} lines lost")),
        "{dropped}: {said}"
    );
    assert_eq!(said.matches("cannot write").count(), 1);
    assert!(kept < 100_000);
    // The file is open until the room's threads have noticed that it is closed.
    assert!(
        Command::new("umount")
            .arg("--lazy")
            .arg(&small)
            .status()
            .is_ok_and(|status| status.success())
    );
}

#[test]
fn an_idle_source_costs_less_than_a_kibibyte() {
    const COUNT: u32 = 1000;
    const NAME: &str = "an_idle_source_costs_less_than_a_kibibyte";
    if std::env::var_os("ALONE").is_none() {
        // Memory is the process's: no other test may run in it.
        let mut alone = Command::new(std::env::current_exe().expect("this test"));
        let alone = alone
            .args(["--exact", NAME, "--nocapture"])
            .env("ALONE", "1");
        assert!(alone.status().expect("it runs").success());
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if most < 6 * u64::from(COUNT) {
        eprintln!("skipped: at most {most} descriptors");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("descriptors for a thousand programs");
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(options(&directory), None);
    run(&logs, Run(1), "echo warm");
    let resident = || {
        let status = fs::read_to_string("/proc/self/smaps_rollup").expect("proc");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"))
            .expect("a size")
            .trim()
            .to_owned();
        line.trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
    };
    let before = resident();
    let mut ends = Vec::with_capacity(COUNT as usize);
    let opening = Instant::now();
    for number in 0..COUNT {
        logs.program(
            Id(100 + number),
            Source {
                name: format!("p{number}"),
                file: None,
                lasting: false,
            },
        )
        .expect("registered");
        ends.push(
            logs.open(Id(100 + number), Run(100 + u64::from(number)))
                .expect("pipes"),
        );
    }
    eprintln!(
        "registering and opening: {:?} each",
        opening.elapsed() / COUNT
    );
    // The answer comes after everything before it was done.
    let _ = logs
        .tail(Query {
            program: Some("web".into()),
            lines: 1,
        })
        .blocking_recv();
    let grown = resident().saturating_sub(before) * 1024 / u64::from(COUNT);
    eprintln!("{grown} bytes a source");
    assert!(grown < 1024, "{grown} bytes a source");
}
