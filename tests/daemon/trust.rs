//! Who is believed: the configuration of another user, a daemon of another user, a peer that says
//! it is somebody.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{Said, World};

const WEB: &str = "[programs.web]\ncommand = ['sh', '-c', 'echo up >> ups; exec sleep 1000']\n";
const NOBODY: u32 = 65_534;
const GAMES: u32 = 5;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can be led astray by other users");
    }
    root
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("another owner");
}

fn eternal_as(world: &World, uid: u32, words: &[&str]) -> Said {
    let mut command = world.command(World::binary());
    command.args(words).uid(uid).gid(uid);
    world.said(command)
}

#[test]
fn root_runs_no_configuration_of_another_user_unless_it_is_named() {
    if !is_root() {
        return;
    }
    type Change = fn(&World);
    let cases: [(&str, Change); 5] = [
        ("belongs to user 65534", |world| {
            give(&world.path(""), NOBODY)
        }),
        ("belongs to user 65534", |world| {
            give(&world.path("eternal.toml"), NOBODY);
        }),
        ("everybody may write to", |world| {
            mode(&world.path(""), 0o777)
        }),
        ("group 5 may write to", |world| {
            chown(world.path("eternal.toml"), None, Some(GAMES)).expect("another group");
            mode(&world.path("eternal.toml"), 0o664);
        }),
        ("belongs to user 65534", |world| {
            fs::create_dir(world.path("theirs")).expect("a directory");
            fs::rename(world.path("eternal.toml"), world.path("theirs/x")).expect("moved");
            give(&world.path("theirs"), NOBODY);
            symlink("theirs/x", world.path("eternal.toml")).expect("a link");
        }),
    ];
    for (words, change) in cases {
        let world = World::new(WEB);
        change(&world);
        for verb in [
            "run", "start", "check", "config", "status", "stop", "reload",
        ] {
            let said = world.eternal(&[verb]);
            assert_eq!(said.code, 2, "{verb}: {said:?}");
            for word in [words, "eternal.toml is not read", "--config"] {
                assert!(said.err.contains(word), "{verb}, {word:?}: {said:?}");
            }
        }
        assert!(!world.path("ups").exists(), "nothing was started");
        let mut daemon = world.launch(&["run", "--config", "eternal.toml"]);
        daemon.answers();
        world.pid("web");
        world.logged(&["WARN", words, "decides what runs as root"]);
        assert_eq!(daemon.is_stopped(), 0);
    }
}

#[test]
fn who_is_not_root_runs_what_they_can_read() {
    let world = World::new(WEB);
    mode(&world.path(""), 0o777);
    if is_root() {
        let said = eternal_as(&world, NOBODY, &["check"]);
        assert_eq!(said.code, 0, "{said:?}");
    }
}

/// Answers everything with what a daemon would say of itself.
const PLANTED: &str = r#"
import os, socket
door = socket.socket(socket.AF_UNIX)
door.bind("daemon.sock")
os.chmod("daemon.sock", 0o666)
door.listen()
open("planted", "w").write("yes\n")
while True:
    guest, _ = door.accept()
    try:
        guest.recv(4096)
        guest.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    except OSError: pass
    guest.close()
"#;

#[test]
fn a_daemon_of_another_user_is_not_asked() {
    if !is_root() {
        return;
    }
    let world = World::new(WEB);
    mode(&world.path(""), 0o1777);
    let mut command: Command = world.command("python3");
    command.args(["-c", PLANTED]).uid(NOBODY).gid(NOBODY);
    let mut planted = command.stdout(Stdio::null()).spawn().expect("python");
    world.appears("planted");
    for user in [0, GAMES] {
        for verb in ["status", "stop", "reload", "crashes"] {
            let said = eternal_as(&world, user, &[verb]);
            assert_ne!(said.code, 0, "{user}, {verb}: {said:?}");
            let words = "user 65534 answers there, who is neither root nor you";
            assert!(said.err.contains(words), "{user}, {verb}: {said:?}");
        }
    }
    planted.kill().expect("killed");
    planted.wait().expect("a status");
}

#[test]
fn a_peer_is_who_the_kernel_says_whatever_its_address_and_its_namespace_say() {
    if !is_root() {
        return;
    }
    let world = World::new(&format!("[daemon]\nsocket = 'd;uid=0;pid=1;.sock'\n{WEB}"));
    mode(&world.path(""), 0o1777);
    let mut daemon = world.launch(&["run"]);
    let web = crate::world::eventually("it runs", || world.lines("ups").first().cloned());
    let socket = world.path("d;uid=0;pid=1;.sock");
    let answers = || crate::world::ask(&socket, "GET", "/v1/status");
    crate::world::eventually("the daemon answers", answers);
    // The mode is the first door; this is about the second.
    mode(&socket, 0o666);
    let ask = r#"
import os, socket, sys
me = socket.socket(socket.AF_UNIX)
me.bind("me;uid=0;gid=0;" + str(os.getpid()))
me.connect("d;uid=0;pid=1;.sock")
me.sendall(b"POST /v1/stop HTTP/1.0\r\ncontent-length: 0\r\n\r\n")
print(me.recv(4096).decode().split()[1])
"#;
    for inside in [&[][..], &["unshare", "--user", "--map-root-user"]] {
        let mut command = world.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(inside)
            .args(["/usr/bin/env", "PATH=/usr/bin:/bin", "python3", "-c", ask]);
        let said = world.said(command);
        if !inside.is_empty() && said.err.contains("unshare") {
            eprintln!("skipped: no user namespaces here: {said:?}");
            continue;
        }
        assert_eq!(said.out.trim(), "403", "{inside:?}: {said:?}");
    }
    assert_eq!(web, "up");
    assert!(answers().is_some(), "it goes on");
    assert_eq!(daemon.is_stopped(), 0);
}
