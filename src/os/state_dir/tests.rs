//! Real directories, real owners (where we may make them), real second daemons.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

#[test]
fn one_at_a_time_has_it_whatever_becomes_of_the_files_in_it() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("state");
    let first = StateDir::open(&path).expect("free");
    first.replace("running", b"", false).expect("written");
    fs::remove_file(path.join("running")).expect("removed");
    let error = StateDir::open(&path).expect_err("held").to_string();
    assert!(error.contains("uses the state directory"), "{error}");
    drop(first);
    StateDir::open(&path).expect("free again");
}

#[test]
fn whoever_holds_it_is_named() {
    let dir = tempfile::tempdir().expect("directory");
    let mut holder = std::process::Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(dir.path())
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut line = String::new();
    let output = holder.stdout.take().expect("piped");
    io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).expect("read");
    let error = StateDir::open(dir.path()).expect_err("held").to_string();
    assert!(error.contains(&format!("pid {} (", holder.id())), "{error}");
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    StateDir::open(dir.path()).expect("free");
}

#[test]
fn what_others_can_write_to_is_refused_with_its_owner_and_mode() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("state");
    let is_refused = |what: &str| match StateDir::open(&path).map(|dir| dir.read("running", 9)) {
        Err(error @ StateDirError::NotOurs { .. })
        | Ok(Err(error @ StateDirError::NotOurs { .. })) => {
            let error = error.to_string();
            assert!(error.contains(what), "{error}");
        }
        other => panic!("{what}: {other:?}"),
    };
    drop(StateDir::open(&path).expect("made"));
    for mode in [0o777, 0o775, 0o757, 0o1777] {
        set_mode(&path, mode);
        is_refused(&format!("mode {mode:04o}"));
    }
    set_mode(&path, 0o755);
    fs::write(path.join("running"), "").expect("written");
    for mode in [0o666, 0o620, 0o602] {
        set_mode(&path.join("running"), mode);
        is_refused(&format!("mode {mode:04o}"));
    }
    set_mode(&path.join("running"), 0o600);
    if geteuid().is_root() {
        std::os::unix::fs::chown(path.join("running"), Some(65534), None).expect("chown");
        is_refused("belongs to user 65534");
        std::os::unix::fs::chown(path.join("running"), Some(0), None).expect("chown");
        std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
        is_refused("belongs to user 65534");
    }
}

#[test]
fn links_in_it_are_never_followed_and_a_link_of_somebody_else_leads_nowhere() {
    let dir = tempfile::tempdir().expect("directory");
    let precious = dir.path().join("precious");
    fs::write(&precious, "content").expect("written");
    let path = dir.path().join("state");
    let state = StateDir::open(&path).expect("made");
    for name in ["running", "running.new", "crashes.jsonl"] {
        std::os::unix::fs::symlink(&precious, path.join(name)).expect("link");
    }
    assert!(state.read("running", 9).is_err());
    assert!(state.append("crashes.jsonl").is_err());
    state.replace("running", b"new", true).expect("replaced");
    assert_eq!(fs::read_to_string(&precious).expect("read"), "content");
    assert_eq!(
        fs::read_to_string(path.join("running")).expect("read"),
        "new"
    );
    drop(state);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("link");
    StateDir::open(&link).expect("a link of ours");
    if geteuid().is_root() {
        std::os::unix::fs::lchown(&link, Some(65534), None).expect("chown");
        let error = StateDir::open(&link).expect_err("refused");
        assert!(error.into_io().to_string().contains("link of user 65534"));
    }
}

#[test]
fn it_is_not_in_place_when_it_was_removed_or_moved() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("state");
    let state = StateDir::open(&path).expect("made");
    assert!(state.is_in_place());
    fs::rename(&path, dir.path().join("moved")).expect("moved");
    assert!(!state.is_in_place());
    fs::create_dir(&path).expect("made");
    assert!(!state.is_in_place());
    fs::remove_dir(&path).expect("removed");
    fs::rename(dir.path().join("moved"), &path).expect("moved back");
    assert!(state.is_in_place());
    fs::remove_dir(&path).expect("removed");
    assert!(!state.is_in_place());
}
