//! What programs, files and whoever answers at the socket say reaches a terminal as text alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::open_terminal;
use crate::world::{World, eventually};

/// Sets the clipboard, the title; clears the screen by both sets of control characters; returns to the
/// beginning of the line; turns the direction of writing.
const WILD: &str =
    "\x1b]52;c;ZXZpbA==\x07\x1b]0;mine\x07\x1b[2J\u{9b}31mred\rover\u{202e}txet\u{2066}\x7f\x08";

/// Runs a command on a terminal of its own and returns everything that the terminal got.
fn on_a_terminal(mut command: Command) -> String {
    let (mut master, slave) = open_terminal();
    let mut child = command
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(slave.try_clone().expect("a descriptor"))
        .stdout(slave.try_clone().expect("a descriptor"))
        .stderr(slave)
        .spawn()
        .expect("it runs");
    // The command has a copy of the other end, which would keep the terminal open.
    drop(command);
    let mut got = Vec::new();
    let mut block = [0; 4096];
    // EIO: nobody has the other end any more.
    while let Ok(length @ 1..) = master.read(&mut block) {
        got.extend_from_slice(&block[..length]);
    }
    child.wait().expect("a status");
    String::from_utf8(got).expect("UTF-8")
}

/// Takes away what we print ourselves: colours, the line of progress, line ends.
#[track_caller]
fn is_harmless(shown: &str) {
    let mut rest = shown.replace("\r\n", "\n").replace("\r\x1b[2K", "");
    for ours in [
        "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m",
    ] {
        rest = rest.replace(ours, "");
    }
    let obeyed =
        |c: &char| (c.is_control() && !"\n\t".contains(*c)) || "\u{202e}\u{2066}".contains(*c);
    assert_eq!(rest.chars().find(obeyed), None, "{shown:?}");
}

fn eternal(world: &World, words: &[&str]) -> String {
    let mut command = world.command(World::binary());
    command.args(words);
    on_a_terminal(command)
}

#[test]
fn what_a_program_writes_cannot_reach_the_terminal_of_who_reads_it() {
    let world = World::new(
        "[defaults]\nrestart_delay = \"10ms\"\ncrash_threshold = 1\n\
         [programs.shared]\ncommand = [\"sh\", \"-c\", \"cat wild; exit 3\"]\n\
         [programs.own]\nlog_file = \"own.log\"\ncommand = [\"sh\", \"-c\", \"cat wild; exit 3\"]\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    world.write("wild", &format!("{WILD}the end\n"));
    let mut daemon = world.run();
    world.is("shared", "failed");
    world.is("own", "failed");
    let asked: [&[&str]; 5] = [
        &["logs", "shared", "own"],
        &["logs", "own", "--json"],
        &["crashes"],
        &["crashes", "--json"],
        &["status"],
    ];
    let ask = || {
        for words in asked {
            let shown = eternal(&world, words);
            is_harmless(&shown);
            assert!(
                shown.contains("the end") || words[0] == "status",
                "{words:?} {shown:?}"
            );
        }
    };
    ask();
    // Elsewhere it is the same text, but for those who ask for the bytes.
    let piped = world.eternal(&["logs", "own"]);
    assert!(piped.out.contains("\\x1b]52;c;"), "{piped:?}");
    let raw = world.eternal(&["logs", "own", "--raw"]);
    assert_eq!(raw.out, format!("{WILD}the end\n"));
    assert_eq!(daemon.is_stopped(), 0);
    ask();
}

/// Whoever planted the socket answers every question with this.
fn planted(socket: &Path, answer: String) -> UnixListener {
    let listener = UnixListener::bind(socket).expect("a socket");
    let served = listener.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = served.accept() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let text = String::from_utf8_lossy(&head);
            let (code, body) = if text.starts_with("GET /v1/status") {
                (200, answer.clone())
            } else {
                let error = serde_json::json!({ "error": WILD });
                (500, error.to_string())
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {code} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    listener
}

/// A status in which every text is wild.
fn wild_status(of: &World) -> String {
    let mut daemon = of.run();
    of.pid("good");
    let mut status: serde_json::Value = eventually("a status", || {
        serde_json::from_str(&of.get("/v1/status")?.1).ok()
    });
    assert_eq!(daemon.is_stopped(), 0);
    fn taint(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => text.push_str(WILD),
            serde_json::Value::Array(all) => all.iter_mut().for_each(taint),
            serde_json::Value::Object(all) => all.values_mut().for_each(taint),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            }
        }
    }
    // A number of a process that is not there: nobody is to be waited for.
    status["daemon"]["pid"] = 999_999_999_u32.into();
    taint(&mut status);
    status.to_string()
}

#[test]
fn whoever_answers_at_the_socket_cannot_reach_the_terminal_of_any_verb() {
    let world = World::new("[programs.good]\ncommand = [\"sleep\", \"1000\"]\n");
    let status = wild_status(&world);
    let _ = std::fs::remove_file(world.path("daemon.sock"));
    let listener = planted(&world.path("daemon.sock"), status);
    let good = format!("good{WILD}");
    let asked: [&[&str]; 13] = [
        &["status"],
        &["status", "--json"],
        &["status", "nosuch"],
        &["crashes"],
        &["logs"],
        &["logs", "-f"],
        &["start"],
        &["stop"],
        &["restart"],
        &["reload"],
        &["healthcheck"],
        &["stop", &good],
        &["restart", "good", "nosuch"],
    ];
    for words in asked {
        let shown = eternal(&world, words);
        is_harmless(&shown);
        assert!(!shown.is_empty(), "{words:?}");
    }
    drop(listener);
}

#[test]
fn status_fits_the_width_of_the_terminal() {
    let long = "a-program-with-a-name-of-64-letters-which-is-the-most-there-can-";
    let world = World::new(&format!(
        "[programs.{long}]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\ncrash_threshold = 1\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n"
    ));
    let mut daemon = world.run();
    world.is(long, "failed");
    let mut command = world.command("sh");
    command.args([
        "-c",
        &format!("stty rows 24 cols 80; exec {} status", World::binary()),
    ]);
    let shown = on_a_terminal(command);
    let plain = anstream_free(&shown);
    assert!(
        plain.lines().all(|line| line.chars().count() <= 80),
        "{plain}"
    );
    assert!(
        plain.contains("crash loop") && plain.contains("WHY"),
        "{plain}"
    );
    assert_eq!(daemon.is_stopped(), 0);
}

fn anstream_free(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}
