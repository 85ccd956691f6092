//! Real files, real processes, a really full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::mpsc::channel;

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn open(dir: &Path) -> (Journal, Loaded) {
    Journal::open(dir, TOKEN, |_| {}).expect("ours")
}

fn flush(journal: &Journal) {
    assert!(journal.flush(Duration::from_secs(10)), "flushed in time");
}

fn close(journal: Journal) {
    assert!(journal.close(Duration::from_secs(10)), "closed in time");
}

/// Opens it as the next daemon would, looks, and lets go of it.
fn look(dir: &Path) -> Loaded {
    let (journal, loaded) = open(dir);
    close(journal);
    loaded
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().expect("sleep")
}

fn end(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn the_next_daemon_learns_who_runs_and_what_crashed() {
    let dir = tempfile::tempdir().expect("directory");
    let state = dir.path().join("a/state");
    let (journal, first) = open(&state);
    assert_eq!(first, Loaded::default());
    let (one, two) = (sleeper(), sleeper());
    journal.running(1, one.id() as i32, "web 1");
    journal.running(2, two.id() as i32, "db");
    journal.ended(2);
    journal.running(3, i32::MAX, "gone");
    journal.crash(r#"{"n":1}"#.to_owned());
    close(journal);
    let (journal, second) = open(&state);
    let who = Identity::of(one.id() as i32).expect("alive");
    assert_eq!(second.running, [(who, "web 1".to_owned())]);
    assert_eq!(second.crashes, [r#"{"n":1}"#]);
    assert_eq!(second.earlier_token.as_deref(), Some(TOKEN));
    assert_eq!((second.damage, second.problems), (None, Vec::new()));
    let mode = fs::metadata(state.join("marker"))
        .expect("marker")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // It was not ended by the second one, so a third one learns of it too, beside a new key 1.
    journal.running(1, two.id() as i32, "new");
    close(journal);
    let (journal, third) = open(&state);
    assert_eq!(third.running.len(), 2);
    end(one);
    end(two);
    close(journal);
    look(&state);
    assert_eq!(look(&state).running, []);
}

#[test]
fn the_token_of_an_earlier_version_is_honoured_for_one_start() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("marker"), "fedcba9876543210\n").expect("write");
    let earlier = look(dir.path()).earlier_token;
    assert_eq!(earlier.as_deref(), Some("fedcba9876543210"));
    assert_eq!(look(dir.path()).earlier_token.as_deref(), Some(TOKEN));
}

#[test]
fn torn_lines_and_garbage_lose_only_themselves_and_are_said() {
    let dir = tempfile::tempdir().expect("directory");
    let us = Identity::of(std::process::id() as i32).expect("we exist");
    let log = format!("+ 1 {us} kept\n\0\0\u{ff}\n+ 2 garbage x\n- \n? 1\n+ 4 {us} to");
    fs::write(dir.path().join("running"), log).expect("write");
    fs::write(
        dir.path().join("crashes.jsonl"),
        "{\"n\":1}\nnot json\n{\"n\":",
    )
    .expect("write");
    fs::write(dir.path().join("marker"), "no marker").expect("write");
    let (journal, loaded) = open(dir.path());
    assert_eq!(loaded.running, [(us, "kept".to_owned())]);
    assert_eq!(loaded.crashes, [r#"{"n":1}"#]);
    assert_eq!(loaded.earlier_token, None);
    let damage = loaded.damage.expect("it is said");
    assert_eq!(damage, "4 of 6 lines make no sense");
    journal.crash(r#"{"n":2}"#.to_owned());
    flush(&journal);
    assert_eq!(journal.errors(), 0);
    close(journal);
    let next = look(dir.path());
    assert_eq!(next.crashes, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(next.damage, None, "it was written anew");
}

#[test]
fn every_kind_of_damage_to_the_record_is_said_and_prevents_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("running");
    let child = sleeper();
    let (journal, _) = open(dir.path());
    for key in 0..3 {
        journal.running(key, child.id() as i32, "web");
    }
    close(journal);
    let whole = fs::read(&path).expect("read");
    let nothing = || drop(fs::remove_file(&path));
    let write = |text: &[u8]| {
        nothing();
        fs::write(&path, text).expect("write");
    };
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut text = whole.clone();
        edit(&mut text);
        text
    };
    let middle = whole.len() / 2;
    let texts = [
        Vec::new(),
        vec![0; 4096],
        b"garbage".to_vec(),
        vec![0xff; 100],
        whole[..middle].to_vec(),
        whole[middle..].to_vec(),
        edited(&|text| text[middle] ^= 1),
        edited(&|text| text[middle] = b'\n'),
        edited(&|text| text[0] ^= 0x20),
        edited(&|text| text.truncate(text.len() - 1)),
        edited(&|text| text.extend(b"+ 9 1/2/3 forged\n")),
        edited(&|text| text.extend([0; 512])),
        edited(&|text| text.retain(|byte| *byte != b'\n')),
        edited(&|text| text.splice(middle..middle, *b"x").for_each(drop)),
    ];
    for (number, text) in texts.into_iter().enumerate() {
        write(&text);
        let loaded = look(dir.path());
        assert!(loaded.damage.is_some(), "damage {number}: {loaded:?}");
        assert!(
            loaded.running.iter().all(|(_, name)| name == "web"),
            "{loaded:?}"
        );
        write(&whole);
        assert_eq!(look(dir.path()).damage, None);
    }
    let kinds: [(&str, &dyn Fn()); 3] = [
        ("a directory", &|| fs::create_dir(&path).expect("made")),
        ("a pipe", &|| {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        }),
        ("a link", &|| {
            std::os::unix::fs::symlink("crashes.jsonl", &path).expect("made");
        }),
    ];
    for (kind, make) in kinds {
        nothing();
        make();
        let loaded = look(dir.path());
        assert!(!loaded.problems.is_empty(), "{kind}: {loaded:?}");
        let _ = fs::remove_dir(&path);
    }
    end(child);
}

#[test]
fn cut_off_at_any_byte_the_files_lose_no_more_than_the_line_of_the_cut() {
    let us = Identity::of(std::process::id() as i32).expect("we exist");
    let lines: Vec<String> = (0..8)
        .map(|key| records::added(&key.to_string(), &(us, format!("web {key}"))))
        .chain([records::removed("3"), records::removed("5")])
        .collect();
    let text = records::HEADER.to_owned() + &lines.concat();
    for cut in records::HEADER.len()..=text.len() {
        let log = records::parse_running(&text.as_bytes()[..cut]);
        let whole = text[..cut].matches('\n').count() - 1;
        let said = whole.min(8) - whole.saturating_sub(8);
        assert_eq!(log.running.len(), said, "cut at {cut}");
        let torn = usize::from(!text[..cut].ends_with('\n'));
        assert_eq!(log.damaged, torn, "cut at {cut}");
    }
    for cut in 0..records::HEADER.len() {
        assert_eq!(records::parse_running(&text.as_bytes()[..cut]).running, []);
    }
    let crashes: String = (0..5)
        .map(|n| format!("{{\"n\":{n},\"é\":\"\u{2028}\"}}\n"))
        .collect();
    for cut in 0..=crashes.len() {
        let read = records::last_crashes(&crashes.as_bytes()[..cut]);
        let whole = crashes.as_bytes()[..cut]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let complete = usize::from(crashes.as_bytes()[..cut].ends_with(b"}"));
        assert_eq!(read.len(), whole + complete, "cut at {cut}");
    }
}

#[test]
fn no_text_of_a_program_can_forge_a_record() {
    const PIECES: &[&str] = &[
        "\n",
        "\r",
        "\0",
        "\u{2028}",
        "\u{85}",
        "\u{fffd}",
        "\"",
        "\\",
        "{",
        "}",
        "\"}\n{\"n\":\"",
        "+ 1 ",
        "- 1",
        "x",
        " ",
        "\u{1b}[2J",
        "é",
    ];
    let dir = tempfile::tempdir().expect("directory");
    let (journal, _) = open(dir.path());
    let mut random = fastrand::Rng::with_seed(7);
    let mut expected = Vec::new();
    for number in 0..500 {
        let pieces = if number == 250 {
            1 << 20
        } else {
            random.usize(0..200)
        };
        let text: String = (0..pieces)
            .map(|_| PIECES[random.usize(0..PIECES.len())])
            .collect();
        // Output that is not UTF-8 is made so by the log room.
        let text = String::from_utf8_lossy(&text.as_bytes()[random.usize(0..2).min(text.len())..])
            .into_owned();
        let record = serde_json::json!({ "n": number, "last_output": [text] });
        journal.crash(record.to_string());
        expected.push(record);
    }
    flush(&journal);
    assert_eq!(journal.errors(), 0);
    close(journal);
    let read = look(dir.path()).crashes.into_iter();
    let read: Vec<serde_json::Value> = read
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    assert!(
        read == expected,
        "{} records of {}",
        read.len(),
        expected.len()
    );
}

#[test]
fn a_hundred_records_cost_the_same_beside_ten_programs_and_beside_ten_thousand() {
    let us = Identity::of(std::process::id() as i32).expect("we exist");
    let written = |programs: u32| {
        let dir = tempfile::tempdir().expect("directory");
        let (mut store, _) = Store::open(dir.path(), TOKEN).expect("ours");
        let mut bytes = 0;
        let mut length = 0;
        for key in 0..programs {
            store
                .note(vec![(key, Some((us, "web".to_owned())))])
                .expect("written");
            // A rewriting writes all that the file then has, everything else what it grew by.
            let now = fs::metadata(dir.path().join("running"))
                .expect("there")
                .len();
            bytes += if now > length { now - length } else { now };
            length = now;
        }
        bytes / u64::from(programs)
    };
    let (few, many) = (written(10), written(10_000));
    assert!(many < 4 * few, "{few} and {many} bytes a record");
}

#[test]
fn the_files_stay_bounded() {
    let dir = tempfile::tempdir().expect("directory");
    let (journal, _) = open(dir.path());
    let child = sleeper();
    for n in 0..1500 {
        journal.crash(format!(r#"{{"n":{n}}}"#));
        journal.running(7, child.id() as i32, "web");
        journal.ended(7);
        if n % 100 == 0 {
            flush(&journal);
        }
    }
    flush(&journal);
    assert_eq!(journal.errors(), 0);
    close(journal);
    let crashes = look(dir.path()).crashes;
    assert_eq!(
        (crashes.len(), crashes[999].as_str()),
        (1000, r#"{"n":1499}"#)
    );
    let size = |name| fs::metadata(dir.path().join(name)).expect("file").len();
    assert!(size("running") < 66 * 1024, "{}", size("running"));
    assert!(
        size("crashes.jsonl") < 1250 * 12,
        "{}",
        size("crashes.jsonl")
    );
    end(child);
}

#[test]
fn what_is_removed_under_the_daemon_is_written_anew_and_said() {
    let dir = tempfile::tempdir().expect("directory");
    let state = dir.path().join("state");
    let (told, said) = channel();
    let told = move |text: &str| drop(told.send(text.to_owned()));
    let (journal, _) = Journal::open(&state, TOKEN, told).expect("ours");
    let (one, two) = (sleeper(), sleeper());
    journal.running(1, one.id() as i32, "web");
    flush(&journal);
    let removals: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(&state).expect("removed"),
        &|| fs::rename(&state, dir.path().join("moved")).expect("moved"),
        &|| fs::remove_file(state.join("running")).expect("removed"),
        &|| fs::remove_file(state.join("marker")).expect("removed"),
    ];
    for remove in removals {
        remove();
        journal.running(2, two.id() as i32, "db");
        flush(&journal);
        let said: Vec<String> = said.try_iter().collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("was removed"), "{said:?}");
        let text = fs::read(state.join("running")).expect("there");
        assert_eq!(records::parse_running(&text).running.len(), 2);
        let marker = fs::read_to_string(state.join("marker")).expect("there");
        assert_eq!(marker.trim(), TOKEN);
        let second = Journal::open(&state, TOKEN, |_| {});
        assert!(
            matches!(second, Err(StateDirError::Held { .. })),
            "it is locked"
        );
    }
    end(one);
    end(two);
}

#[test]
fn a_directory_that_cannot_be_made_is_said_once_and_prevents_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("file"), "").expect("write");
    let (told, said) = channel();
    let state = dir.path().join("file/state");
    let told = move |text: &str| drop(told.send(text.to_owned()));
    let (journal, loaded) = Journal::open(&state, TOKEN, told).expect("no reason not to start");
    assert_eq!(loaded.problems.len(), 1, "{loaded:?}");
    journal.crash("{}".to_owned());
    flush(&journal);
    journal.crash("{}".to_owned());
    flush(&journal);
    assert!(journal.errors() > 0);
    let said: Vec<String> = said.try_iter().collect();
    assert_eq!(said.len(), 2, "once for each file: {said:?}");
    for said in &said {
        assert!(
            said.starts_with("cannot write ") && said.contains("file/state/"),
            "{said:?}"
        );
    }
    fs::remove_file(dir.path().join("file")).expect("room");
    journal.crash("{}".to_owned());
    flush(&journal);
    close(journal);
    assert_eq!(look(&state).crashes.len(), 3, "the earlier ones, too");
}

/// A disk of a few pages; gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(dir.path());
        mount
            .status()
            .is_ok_and(|status| status.success())
            .then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_once_and_all_is_written_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no mount allowed here");
        return;
    };
    let dir = disk.0.path();
    let (told, said) = channel();
    let told = move |text: &str| drop(told.send(text.to_owned()));
    let (journal, _) = Journal::open(&dir.join("state"), TOKEN, told).expect("ours");
    flush(&journal);
    fs::write(dir.join("ballast"), vec![0; 40 * 1024]).expect("fits");
    let child = sleeper();
    for n in 0..200 {
        journal.crash(format!(r#"{{"n":{n},"output":"{}"}}"#, "x".repeat(100)));
        // The record of who runs has room where the crash history has none.
        journal.running(1, child.id() as i32, "web");
        flush(&journal);
    }
    assert!(journal.errors() > 0);
    assert_eq!(journal.0.pending().crashes.len(), 0);
    fs::remove_file(dir.join("ballast")).expect("room");
    journal.crash(r#"{"after":true}"#.to_owned());
    journal.running(2, child.id() as i32, "db");
    flush(&journal);
    let said: Vec<String> = said.try_iter().collect();
    assert!(said[0].contains("No space left"), "{said:?}");
    assert!(
        said.len() <= 4 && said.last().is_some_and(|s| s.contains("again")),
        "{said:?}"
    );
    close(journal);
    let loaded = look(&dir.join("state"));
    assert_eq!(
        loaded.crashes.last().map(String::as_str),
        Some(r#"{"after":true}"#)
    );
    assert_eq!(loaded.crashes.len(), 201, "none is missing");
    assert_eq!(loaded.running.len(), 2);
    end(child);
}
