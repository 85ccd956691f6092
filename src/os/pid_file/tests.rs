//! Real files, real locks, real other processes.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn ours() -> i32 {
    std::process::id() as i32
}

#[test]
fn it_is_ours_until_released_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("a/b/daemon.pid");
    assert_eq!(inspect(&path).expect("inspect"), Standing::Absent);
    let held = PidFile::acquire(&path).expect("free");
    assert_eq!(held.found(), Found::None);
    assert_eq!(
        fs::read_to_string(&path).expect("read"),
        format!("{}\n", ours())
    );
    assert_eq!(
        inspect(&path).expect("inspect"),
        Standing::Held(Some(ours()))
    );
    let error = PidFile::acquire(&path).expect_err("held").to_string();
    assert_eq!(
        error,
        format!("another eternal (pid {}) holds {}", ours(), path.display())
    );
    held.release();
    assert_eq!(inspect(&path).expect("inspect"), Standing::Absent);
}

#[test]
fn what_was_found_is_told_and_replaced() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("daemon.pid");
    let mut gone = Command::new("true").spawn().expect("true");
    gone.wait().expect("wait");
    let gone = gone.id() as i32;
    let cases = [
        (String::new(), Found::None),
        (format!("{gone}\n"), Found::Stale(gone)),
        (format!("{}\n", ours()), Found::Stale(ours())),
        ("1".to_owned(), Found::Unrelated(1)),
        ("-1".to_owned(), Found::Garbage),
        (
            "no pid at all, and much longer than the line that replaces it".to_owned(),
            Found::Garbage,
        ),
    ];
    for (content, found) in cases {
        fs::write(&path, &content).expect("write");
        let held = PidFile::acquire(&path).expect("free");
        assert_eq!(held.found(), found, "{content:?}");
        assert_eq!(
            fs::read_to_string(&path).expect("read"),
            format!("{}\n", ours())
        );
    }
    fs::write(&path, "77\n").expect("write");
    assert_eq!(inspect(&path).expect("inspect"), Standing::Stale(Some(77)));
}

#[test]
fn a_file_that_is_not_ours_is_not_removed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("daemon.pid");
    let first = PidFile::acquire(&path).expect("free");
    fs::remove_file(&path).expect("somebody removes it");
    let second = PidFile::acquire(&path).expect("another file, so another lock");
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn what_is_not_a_regular_file_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("precious"), "content").expect("write");
    std::os::unix::fs::symlink(at("precious"), at("link")).expect("link");
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    let cases = [
        ("", "a directory"),
        ("link", "a symbolic link"),
        ("fifo", "a pipe or device"),
    ];
    for (name, what) in cases {
        let error = PidFile::acquire(&at(name))
            .expect_err("refused")
            .to_string();
        assert!(
            error.ends_with(&format!("is {what}, not a regular file")),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(at("precious")).expect("read"), "content");
    let error = PidFile::acquire(&at("precious/daemon.pid"))
        .expect_err("refused")
        .to_string();
    assert!(error.starts_with("cannot create the directory "), "{error}");
    assert_eq!(
        inspect(&at("precious/daemon.pid")).expect("inspect"),
        Standing::Absent
    );
}

#[test]
fn the_lock_goes_with_its_holder_however_it_dies() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("daemon.pid");
    let mut holder = Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(&path)
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut line = String::new();
    let output = holder.stdout.take().expect("piped");
    io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).expect("read");
    assert_eq!(line, "held\n");
    fs::write(&path, format!("{}\n", holder.id())).expect("write");
    let pid = Some(holder.id() as i32);
    assert_eq!(inspect(&path).expect("inspect"), Standing::Held(pid));
    assert!(matches!(PidFile::acquire(&path), Err(PidFileError::Held { pid: p, .. }) if p == pid));
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    assert_eq!(
        PidFile::acquire(&path).expect("free").found(),
        Found::Stale(holder.id() as i32)
    );
}

#[test]
fn of_many_at_once_one_holds_it_at_a_time() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("daemon.pid");
    let (holders, won) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    inspect(&path).expect("inspect");
                    match PidFile::acquire(&path) {
                        Ok(held) => {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                            assert!(is_at(&held.file, &path));
                            won.fetch_add(1, Ordering::SeqCst);
                            holders.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(PidFileError::Held { .. } | PidFileError::Contested { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(won.load(Ordering::SeqCst) >= 4);
    assert!(!path.exists());
}
