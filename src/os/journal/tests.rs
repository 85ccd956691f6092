//! Real files, real processes, a really full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::mpsc::channel;

use super::*;

fn open(dir: &Path) -> (Journal, Loaded) {
    Journal::open(dir, |_| {})
}

fn flush(journal: &Journal) {
    assert!(journal.flush(Duration::from_secs(10)), "flushed in time");
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
    assert_eq!(
        (first.running.len(), first.crashes.len(), first.marker.len()),
        (0, 0, 16)
    );
    let (one, two) = (sleeper(), sleeper());
    journal.running(1, one.id() as i32, "web 1");
    journal.running(2, two.id() as i32, "db");
    journal.ended(2);
    journal.running(3, i32::MAX, "gone");
    journal.crash(r#"{"n":1}"#.to_owned());
    flush(&journal);
    drop(journal);
    let (journal, second) = open(&state);
    let who = Identity::of(one.id() as i32).expect("alive");
    assert_eq!(second.running, [(who, "web 1".to_owned())]);
    assert_eq!(second.crashes, [r#"{"n":1}"#]);
    assert_eq!(second.marker, first.marker);
    let mode = fs::metadata(state.join("marker"))
        .expect("marker")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // It was not ended by the second one, so a third one learns of it too, beside a new key 1.
    journal.running(1, two.id() as i32, "new");
    flush(&journal);
    drop(journal);
    let (journal, third) = open(&state);
    assert_eq!(third.running.len(), 2);
    end(one);
    end(two);
    drop(journal);
    flush(&open(&state).0);
    assert_eq!(open(&state).1.running, []);
}

#[test]
fn torn_lines_and_garbage_lose_only_themselves() {
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
    assert_ne!(loaded.marker, "no marker");
    journal.crash(r#"{"n":2}"#.to_owned());
    flush(&journal);
    assert_eq!(open(dir.path()).1.crashes, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(journal.errors(), 0);
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
    }
    flush(&journal);
    let crashes = open(dir.path()).1.crashes;
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
    assert_eq!(journal.errors(), 0);
    end(child);
}

#[test]
fn a_directory_that_cannot_be_made_is_said_once_and_prevents_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("file"), "").expect("write");
    let (told, said) = channel();
    let state = dir.path().join("file/state");
    let (journal, loaded) = Journal::open(&state, move |text| drop(told.send(text.to_owned())));
    assert_eq!(loaded.marker.len(), 16);
    journal.crash("{}".to_owned());
    journal.crash("{}".to_owned());
    flush(&journal);
    assert_eq!(journal.errors(), 3);
    let said: Vec<String> = said.try_iter().collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("cannot write ") && said[0].contains("ot a directory"),
        "{said:?}"
    );
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
fn a_full_disk_is_said_once_and_heals_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no mount allowed here");
        return;
    };
    let dir = disk.0.path();
    let (told, said) = channel();
    let (journal, _) = Journal::open(dir, move |text| drop(told.send(text.to_owned())));
    flush(&journal);
    fs::write(dir.join("ballast"), vec![0; 48 * 1024]).expect("fits");
    let child = sleeper();
    for n in 0..200 {
        journal.crash(format!(r#"{{"n":{n},"output":"{}"}}"#, "x".repeat(100)));
    }
    journal.running(1, child.id() as i32, "web");
    flush(&journal);
    assert!(journal.errors() > 0);
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
    let loaded = open(dir).1;
    assert_eq!(
        loaded.crashes.last().map(String::as_str),
        Some(r#"{"after":true}"#)
    );
    assert_eq!(loaded.running.len(), 2);
    end(child);
}
