//! The command line against a real socket, as scripts see it: words and exit codes.

mod fake_daemon;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fake_daemon::FakeDaemon;

fn eternal(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eternal"));
    command
        .args(words)
        .current_dir(directory)
        .env_remove("ETERNAL_CONFIG");
    command
}

fn output(directory: &Path, words: &[&str]) -> Output {
    eternal(directory, words).output().expect("it runs")
}

/// Runs it and expects an exit code; returns what it printed.
#[track_caller]
fn expect(directory: &Path, words: &[&str], code: i32) -> (String, String) {
    let output = output(directory, words);
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let daemon = FakeDaemon::start();
    let (text, _) = expect(daemon.directory(), &["status"], 0);
    assert!(!text.contains('\x1b'), "{text:?}");
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("eternal 0.1.0, pid "), "{text}");
    assert!(rows[1].starts_with("NAME "), "{text}");
    let web: Vec<&str> = rows[2]
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(
        web,
        [
            "web/0", "running", "100", "3d 4h", "0", "0", "12.3MiB", "because"
        ]
    );
    assert!(rows[3].ends_with("because; restart in 2 s"), "{text}");

    let (json, _) = expect(daemon.directory(), &["status", "--json", "hare"], 0);
    assert_eq!(json.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["programs"][0]["name"], "hare");
    assert_eq!(json["programs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn colour_is_for_those_who_ask_for_it_and_touches_no_other_column() {
    let daemon = FakeDaemon::start();
    let colored = eternal(daemon.directory(), &["status"])
        .env("CLICOLOR_FORCE", "1")
        .env_remove("NO_COLOR")
        .output()
        .expect("it runs");
    let text = String::from_utf8(colored.stdout).expect("UTF-8");
    assert!(
        text.contains("web/0     \x1b[32mrunning\x1b[0m"),
        "{text:?}"
    );
    assert!(text.contains("\x1b[33mbackoff\x1b[0m"), "{text:?}");
}

#[test]
fn status_follows_lsb() {
    let daemon = FakeDaemon::start();
    expect(daemon.directory(), &["status", "web/0", "hare"], 0);
    expect(daemon.directory(), &["status", "web"], 3);
    let (_, words) = expect(daemon.directory(), &["status", "hrae"], 4);
    assert!(
        words.contains("there is no program \"hrae\"; did you mean \"hare\"?"),
        "{words}"
    );

    let empty = tempfile::tempdir().expect("a directory");
    let (_, words) = expect(empty.path(), &["status"], 3);
    assert!(
        words.contains("no daemon is running (no socket at /"),
        "{words}"
    );
    std::fs::write(empty.path().join("daemon.pid"), "999999999\n").expect("a pid file");
    let (json, words) = expect(empty.path(), &["status", "--json"], 1);
    assert!(
        words.contains("died without removing its pid file"),
        "{words}"
    );
    assert!(json.starts_with("{\"error\":"), "{json}");
}

#[test]
fn whatever_needs_a_daemon_says_that_there_is_none_with_3() {
    let empty = tempfile::tempdir().expect("a directory");
    for words in [
        &["stop"][..],
        &["start", "web"],
        &["stop", "web"],
        &["restart", "web"],
        &["reload"],
        &["logs"],
        &["crashes"],
    ] {
        let (_, complaint) = expect(empty.path(), words, 3);
        assert!(
            complaint.starts_with("eternal: no daemon is running (no socket at /"),
            "{complaint}"
        );
    }
}

#[test]
fn orders_are_given_to_all_names_or_to_none() {
    let daemon = FakeDaemon::start();
    let (text, _) = expect(daemon.directory(), &["restart", "hare", "web/1"], 0);
    assert_eq!(text, "restart hare\nrestart web/1\n");
    let (text, words) = expect(daemon.directory(), &["stop", "hare", "zzz"], 1);
    assert_eq!(text, "");
    assert!(
        words.contains("there are: web, hare, tortoise, broken"),
        "{words}"
    );
    let (text, words) = expect(daemon.directory(), &["start", "broken", "hare"], 1);
    assert_eq!(text, "start hare\n");
    assert!(
        words.contains("cannot start broken: broken: exit code 3"),
        "{words}"
    );
}

#[test]
fn start_without_names_leaves_a_running_daemon_alone() {
    let daemon = FakeDaemon::start();
    let socket = daemon.socket();
    let socket = socket.to_str().expect("UTF-8");
    let (text, _) = expect(
        Path::new("/"),
        &["start", "--socket", socket, "--pid-file", "x"],
        0,
    );
    assert!(text.starts_with("already running with pid "), "{text}");
}

#[test]
fn stop_returns_when_the_daemons_process_is_gone() {
    let daemon = FakeDaemon::start();
    let (json, _) = expect(daemon.directory(), &["status", "--json"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let pid = json["daemon"]["pid"].as_u64().expect("a pid");
    let (text, _) = expect(daemon.directory(), &["stop"], 0);
    assert_eq!(text, format!("stopped (pid {pid} is gone)\n"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    expect(daemon.directory(), &["status"], 3);
}

#[test]
fn reload_says_what_it_did_or_why_not() {
    let daemon = FakeDaemon::start();
    let (text, _) = expect(daemon.directory(), &["reload"], 0);
    assert_eq!(text, "added: new\nunchanged: 4 programs\n");
    let (_, words) = expect(daemon.directory(), &["reload", "--restart"], 2);
    assert!(words.contains("eternal.toml:3: no such key"), "{words}");
}

#[test]
fn a_config_with_mistakes_does_not_keep_anyone_from_stopping_the_daemon() {
    let daemon = FakeDaemon::start();
    std::fs::write(daemon.directory().join("eternal.toml"), "[daemon\n").expect("a bad config");
    let (text, words) = expect(daemon.directory(), &["stop"], 0);
    assert!(words.contains("the config has mistakes"), "{words}");
    assert!(text.starts_with("stopped"), "{text}");
}

#[test]
fn logs_of_several_programs_are_shown_in_order_of_time() {
    let daemon = FakeDaemon::start();
    let (text, _) = expect(daemon.directory(), &["logs", "hare", "web", "-n", "2"], 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[0].ends_with("line 1") && lines[1].ends_with("line 1"),
        "{text}"
    );
    assert_eq!(lines[2], "2026-11-23T00:00:02Z hare | line 2");
    let (json, _) = expect(daemon.directory(), &["logs", "-n1", "--json"], 0);
    assert!(json.starts_with("{\"at\":\"2026"), "{json}");
}

#[test]
fn crashes_are_shown_with_the_last_words() {
    let daemon = FakeDaemon::start();
    let (text, _) = expect(daemon.directory(), &["crashes", "web"], 0);
    let expected = "2026-11-23T00:00:00Z web/1 (pid 4711): exit code 3, ran 12.3s; restart in 2 s\n    \
                    | the last word\n";
    assert_eq!(text, expected);
    assert_eq!(
        expect(daemon.directory(), &["crashes", "hare"], 0).0,
        "no crashes\n"
    );
    expect(daemon.directory(), &["crashes", "nobody"], 1);
}

#[test]
fn usage_and_configuration_errors_are_2() {
    let empty = tempfile::tempdir().expect("a directory");
    expect(empty.path(), &[], 2);
    expect(empty.path(), &["explode"], 2);
    expect(empty.path(), &["start", "web", "--", "sleep", "1"], 2);
    expect(empty.path(), &["check", "missing.toml"], 2);
    expect(empty.path(), &["--version"], 0);
    expect(empty.path(), &["status", "--help"], 0);
    expect(empty.path(), &["check", "--file-only"], 0);
    expect(empty.path(), &["config"], 0);
}

#[test]
fn completions_and_the_man_page_know_every_command() {
    let empty = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _) = expect(empty.path(), &["completions", shell], 0);
        assert!(script.contains("api-server"), "{shell}");
        assert!(script.contains("crash-threshold"), "{shell}");
    }
    let (page, _) = expect(empty.path(), &["man"], 0);
    for words in [
        ".TH eternal 1",
        "ETERNAL STATUS",
        "ETERNAL API SERVER",
        "crash\\-threshold",
    ] {
        assert!(page.contains(words), "{words} is missing");
    }
    assert!(!page.contains("detached"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let daemon = FakeDaemon::start();
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["logs", "-f"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = eternal(daemon.directory(), words)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let mut followers = daemon.followers();
        let gone = followers.wait_for(|followers| *followers == 0);
        let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
        gone.expect("the server notices").expect("the server lives");
    });
}

#[test]
fn another_user_is_turned_away_by_the_file_mode_and_then_by_the_server() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to become another user: not tested");
        return;
    }
    let daemon = FakeDaemon::start();
    let binary = daemon.directory().join("eternal");
    // Not copied by ourselves: a child forked meanwhile would hold the file open for writing.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_eternal"))
        .arg(&binary)
        .status();
    assert!(
        copied.expect("cp runs").success(),
        "a copy others can execute"
    );
    let open = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(daemon.directory(), 0o755);
    let ask = || {
        let output = Command::new(&binary)
            .args(["status", "--socket"])
            .arg(daemon.socket())
            .current_dir("/")
            .uid(65_534)
            .gid(65_534)
            .output()
            .expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, words) = ask();
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("Permission denied"), "{words}");
    open(&daemon.socket(), 0o666);
    let (code, words) = ask();
    assert_eq!(code, Some(4), "{words}");
    assert!(
        words.contains("uid 65534 may not control this daemon"),
        "{words}"
    );
}
