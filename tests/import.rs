//! `eternal import`, with the real binary: what becomes of configurations of other supervisors, the
//! full text of what is said about them, and whether the result does what the source did.

#[path = "import/differences.rs"]
mod differences;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long enough for a busy machine; only a failing test takes it.
const DEADLINE: Duration = Duration::from_secs(30);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// A directory of its own, with the fixtures in it.
struct Place(tempfile::TempDir);

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.copy(&fixtures(), place.0.path());
        fs::rename(place.path("env.txt"), place.path(".env")).expect("a .env");
        place
    }

    fn copy(&self, from: &Path, to: &Path) {
        for entry in fs::read_dir(from).expect("a folder").flatten() {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs::create_dir(&target).expect("a folder");
                self.copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).expect("a copy");
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eternal"));
        command
            .args(words)
            .current_dir(self.0.path())
            .env_remove("ETERNAL_CONFIG");
        command
    }

    fn say(&self, words: &[&str]) -> Said {
        finish(&mut self.command(words))
    }

    /// The text without what differs from machine to machine.
    fn plain(&self, text: &str) -> String {
        let whole = self.0.path().canonicalize().expect("a path");
        text.replace(whole.to_str().expect("UTF-8"), "/etc/x")
            .replace(self.0.path().to_str().expect("UTF-8"), "/etc/x")
    }
}

fn finish(command: &mut Command) -> Said {
    let output = command.output().expect("it runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Imports a fixture and holds what is written and said to the golden file; what is written is a
/// configuration that `eternal check` takes.
#[track_caller]
fn golden(name: &str, words: &[&str], variables: &[(&str, &str)]) {
    let place = Place::new();
    let mut command = place.command(&["import"]);
    let said = finish(command.args(words).envs(variables.iter().copied()));
    assert_eq!(said.code, Some(0), "{}", said.err);
    place.write("eternal.toml", &said.out);
    let checked = place.say(&["check", "--file-only"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    let now = place.plain(&format!("{}--- says\n{}", said.out, said.err));
    let file = fixtures().join(format!("golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(fixtures().join("golden")).expect("a folder");
        fs::write(&file, &now).expect("the golden file is written");
        return;
    }
    let golden = fs::read_to_string(&file).expect("the golden file");
    assert_eq!(
        now, golden,
        "run with UPDATE_GOLDEN=1 and read the difference"
    );
}

#[test]
fn a_supervisord_file_reads_as_it_did() {
    let variables = [("EXTRA_USER", "nobody"), ("EXTRA_ON", "false")];
    golden("supervisord", &["supervisord", "shop.conf"], &variables);
}

#[test]
fn an_ecosystem_file_in_json_reads_as_it_did() {
    golden(
        "pm2_json",
        &["pm2", "ecosystem.json", "--env", "production"],
        &[],
    );
}

#[test]
fn an_ecosystem_file_in_yaml_reads_as_it_did() {
    golden("pm2_yaml", &["pm2", "ecosystem.yaml"], &[]);
}

#[test]
fn an_ecosystem_file_in_javascript_is_run_and_that_is_said() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: there is no node");
        return;
    }
    let variables = [("IMPORT_TEST", "yes")];
    golden("pm2_js", &["pm2", "ecosystem.config.js"], &variables);
}

#[test]
fn a_procfile_reads_as_it_did() {
    golden(
        "procfile",
        &["procfile", "Procfile", "-m", "all=1,worker=2,old_one=0"],
        &[],
    );
}

/// Every key of the sources is in the result's notes or its values: nothing goes without a word.
#[test]
fn no_option_is_dropped_without_a_word() {
    let place = Place::new();
    let options = [
        "watch = true",
        "max_memory_restart = 1",
        "cron_restart = 1",
        "wait_ready = true",
        "nonsense = 1",
        "post_update = 1",
    ];
    for option in options {
        let (key, value) = option.split_once(" = ").expect("a pair");
        place.write(
            "one.json",
            format!("{{\"script\": \"a.js\",\n\"{key}\": {value}}}"),
        );
        let said = place.say(&["import", "pm2", "one.json"]);
        let line = format!("one.json:2: [a] {option}: ");
        assert!(
            said.err.contains(&format!("no equivalent: {line}")),
            "{}",
            said.err
        );
    }
    for option in [
        "stdout_events_enabled = true",
        "serverurl = http://x",
        "nonsense = 1",
    ] {
        place.write("one.conf", format!("[program:a]\ncommand = a\n{option}\n"));
        let said = place.say(&["import", "supervisord", "one.conf"]);
        let line = format!("no equivalent: one.conf:3: [program:a] {option}: ");
        assert!(said.err.contains(&line), "{}", said.err);
    }
}

#[test]
fn secrets_are_written_to_the_config_and_nowhere_else() {
    let place = Place::new();
    let said = place.say(&["import", "supervisord", "shop.conf"]);
    assert!(
        said.err.contains("[unix_http_server] password = …"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("hunter2") && !said.out.contains("hunter2"));
    let said = place.say(&["import", "pm2", "ecosystem.json", "--json"]);
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    let said = place.say(&[
        "import",
        "pm2",
        "ecosystem.json",
        "--env",
        "staging",
        "-o",
        "x.toml",
    ]);
    assert!(!said.err.contains("s3cret"), "{}", said.err);
    let written = fs::read_to_string(place.path("x.toml")).expect("the config");
    assert!(written.contains("TOKEN = \"s3cret\""), "{written}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(place.path("x.toml"))
            .expect("a file")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_is_there_is_replaced_only_with_force() {
    let place = Place::new();
    place.write("mine.toml", "precious");
    let words = ["import", "procfile", "Procfile", "-o", "mine.toml"];
    let said = place.say(&words);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("mine.toml is there already; --force replaces it"),
        "{}",
        said.err
    );
    let read = || fs::read_to_string(place.path("mine.toml")).expect("a file");
    assert_eq!(read(), "precious");
    let said = place.say(&[words.as_slice(), &["--force"]].concat());
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), ""),
        "{}",
        said.err
    );
    assert!(read().contains("[programs.web]"));
    let left: Vec<_> = fs::read_dir(place.0.path())
        .expect("a folder")
        .flatten()
        .collect();
    assert!(
        !left
            .iter()
            .any(|entry| entry.path().extension().is_some_and(|e| e == "tmp"))
    );
}

#[test]
fn strict_fails_when_something_has_no_equivalent() {
    let place = Place::new();
    place.write("plain.conf", "[program:a]\ncommand = a\n");
    for (file, code) in [("plain.conf", 0), ("shop.conf", 1)] {
        let said = place.say(&["import", "supervisord", file, "--strict"]);
        assert_eq!(said.code, Some(code), "{}", said.err);
        assert!(
            said.out.contains("[programs."),
            "it is written all the same"
        );
    }
}

#[test]
fn json_has_the_config_the_programs_and_every_note() {
    let place = Place::new();
    let words = [
        "import",
        "supervisord",
        "shop.conf",
        "--json",
        "-o",
        "out.toml",
    ];
    let said = place.say(&words);
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(report["from"], "supervisord");
    assert_eq!(report["written"], "out.toml");
    let written = fs::read_to_string(place.path("out.toml")).expect("the config");
    assert_eq!(report["config"].as_str(), Some(written.as_str()));
    let programs: Vec<&str> = report["programs"]
        .as_array()
        .expect("programs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let names = [
        "queue_01",
        "queue_02",
        "mailer",
        "web",
        "my-report",
        "php",
        "extra",
    ];
    assert_eq!(programs, names);
    let notes = report["notes"].as_array().expect("notes");
    let events = notes
        .iter()
        .find(|note| note["key"] == "events")
        .expect("a note");
    assert_eq!(
        (
            &events["kind"],
            &events["line"],
            &events["section"],
            &events["value"]
        ),
        (
            &"no-equivalent".into(),
            &100.into(),
            &"eventlistener:memmon".into(),
            &"TICK_60".into()
        )
    );
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    let place = Place::new();
    let bomb: String = (1..12).fold(
        "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(),
        |text, level| {
            let items = vec![format!("*a{}", level - 1); 10].join(",");
            format!("{text}a{level}: &a{level} [{items}]\n")
        },
    );
    let cases: &[(&str, &str, &[u8], &str)] = &[
        (
            "supervisord",
            "a.conf",
            b"[program:a]\ncommand = caf\xE9\n",
            "a.conf:2: the byte 0xE9 is not UTF-8",
        ),
        (
            "supervisord",
            "a.conf",
            b"\xFF\xFE[\0p\0",
            "it is UTF-16; save it as UTF-8",
        ),
        (
            "supervisord",
            "a.conf",
            b"[program:a]\ncommand = \0\n",
            "a.conf:2: a NUL byte",
        ),
        (
            "supervisord",
            "a.conf",
            b"command = a\n[x]\n",
            "a.conf:1: \"command = a\" is not in a section",
        ),
        (
            "supervisord",
            "a.conf",
            b"[program:a]\nuser = b\n",
            "a.conf has no program that can be translated\n  no equivalent: a.conf:1: [program:a]: it has no command",
        ),
        (
            "supervisord",
            "a.conf",
            b"",
            "a.conf has no program that can be translated",
        ),
        (
            "supervisord",
            "none.conf",
            b"",
            "cannot read nothere.conf: No such file",
        ),
        (
            "pm2",
            "a.json",
            b"{\"apps\": [\n{\"script\": }}",
            "a.json:2: not valid JSON",
        ),
        (
            "pm2",
            "a.json",
            b"[1, 2]",
            "a.json has neither `apps` nor an app",
        ),
        (
            "pm2",
            "a.yaml",
            b"apps:\n  - name: a\n   script: b\n",
            "a.yaml:3: not valid YAML",
        ),
        (
            "pm2",
            "a.yaml",
            bomb.as_bytes(),
            "it is too large or too deep for a configuration",
        ),
        (
            "pm2",
            "a.config.js",
            b"throw new Error('no such thing')",
            "node cannot load a.config.js (exit status: 1): Error: no such thing",
        ),
        (
            "procfile",
            "P",
            b"# nothing\n",
            "P has no program that can be translated",
        ),
        (
            "procfile",
            "P",
            b"web: a\n",
            "P has no type db, which the formation names; it has web",
        ),
    ];
    for (format, file, bytes, problem) in cases {
        if file.ends_with(".js") && Command::new("node").arg("--version").output().is_err() {
            eprintln!("skipped: there is no node");
            continue;
        }
        place.write(file, bytes);
        let mut words = vec!["import", format, file];
        if problem.contains("nothere") {
            words[2] = "nothere.conf";
        }
        if problem.contains("db") {
            words.extend(["-m", "db=1"]);
        }
        let said = place.say(&words);
        assert_eq!(said.code, Some(2), "{problem}\n{}", said.err);
        assert!(said.err.contains(problem), "{problem}\n{}", said.err);
        assert_eq!(said.out, "");
    }
}

#[test]
fn a_mark_and_carriage_returns_change_nothing() {
    let place = Place::new();
    for (format, file) in [
        ("supervisord", "shop.conf"),
        ("pm2", "ecosystem.json"),
        ("pm2", "ecosystem.yaml"),
        ("procfile", "Procfile"),
    ] {
        let plain = place.say(&["import", format, file]);
        let text = fs::read_to_string(place.path(file)).expect("a fixture");
        place.write(file, format!("\u{FEFF}{}", text.replace('\n', "\r\n")));
        let marked = place.say(&["import", format, file]);
        assert_eq!(marked.out, plain.out, "{file}");
        assert_eq!(marked.err, plain.err, "{file}");
    }
}

#[test]
fn includes_that_include_each_other_end() {
    let place = Place::new();
    place.write(
        "a.conf",
        "[include]\nfiles = *.conf a.conf\n[program:a]\ncommand = a\n",
    );
    fs::remove_file(place.path("shop.conf")).expect("removed");
    place.write(
        "b.conf",
        "[include]\nfiles = a.conf\n[program:b]\ncommand = b\n",
    );
    let said = place.say(&["import", "supervisord", "a.conf"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.err.contains("a.conf is included more than once"),
        "{}",
        said.err
    );
    assert_eq!(said.out.matches("[programs.").count(), 2, "{}", said.out);
}

#[test]
fn ten_megabytes_are_read_in_seconds() {
    let place = Place::new();
    let mut text = "[program:a]\ncommand = a\n".to_owned();
    for number in 0..110_000 {
        text.push_str(&format!(
            "; a comment that says nothing, {number}, over and over again, to the end\n"
        ));
    }
    text.push_str(&format!(
        "environment = BIG=\"{}\"\n",
        "x".repeat(3_000_000)
    ));
    place.write("big.conf", &text);
    assert!(text.len() > 10_000_000);
    let began = Instant::now();
    let said = place.say(&["import", "supervisord", "big.conf"]);
    assert_eq!(said.code, Some(0));
    assert!(said.out.len() > 3_000_000);
    assert!(began.elapsed() < DEADLINE, "it took {:?}", began.elapsed());
}

#[test]
fn without_node_it_says_what_to_do() {
    let place = Place::new();
    let mut command = place.command(&["import", "pm2", "ecosystem.config.js"]);
    let said = finish(command.env("PATH", place.0.path()));
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("node cannot be started"), "{}", said.err);
    assert!(
        said.err.contains("node -p 'JSON.stringify(require("),
        "{}",
        said.err
    );
}

#[test]
fn paths_mean_the_same_wherever_the_result_goes() {
    let place = Place::new();
    fs::create_dir(place.path("elsewhere")).expect("a folder");
    place.write(
        "a.conf",
        "[program:a]\ncommand = a\ndirectory = run\nstdout_logfile = ./a.log\n",
    );
    let words = ["import", "supervisord", "a.conf", "-o"];
    for (out, directory, log) in [
        ("a.toml", "run", "./a.log"),
        ("elsewhere/a.toml", "/etc/x/run", "/etc/x/a.log"),
    ] {
        let said = place.say(&[words.as_slice(), &[out]].concat());
        assert_eq!(said.code, Some(0), "{}", said.err);
        let written = place.plain(&fs::read_to_string(place.path(out)).expect("a config"));
        assert!(
            written.contains(&format!("working_directory = \"{directory}\"")),
            "{written}"
        );
        assert!(
            written.contains(&format!("log_file = \"{log}\"")),
            "{written}"
        );
    }
}

#[test]
fn more_programs_than_a_daemon_takes_are_refused_at_once() {
    let place = Place::new();
    let many = |line: &dyn Fn(u32) -> String| (0..30_000).map(line).collect::<String>();
    let options = many(&|n| format!("option{n} = 1\n"));
    place.write(
        "a.conf",
        many(&|n| format!("[program:a{n}]\ncommand = a\n")),
    );
    place.write("P", many(&|n| format!("a{n}: a\n")));
    place.write(
        "a.json",
        format!("[{}]", many(&|_| "{\"script\": \"a\"},\n".to_owned())),
    );
    place.write("b.conf", format!("[program:a]\ncommand = a\n{options}"));
    let began = Instant::now();
    for (format, file) in [
        ("supervisord", "a.conf"),
        ("procfile", "P"),
        ("pm2", "a.json"),
    ] {
        let said = place.say(&["import", format, file]);
        assert_eq!(said.code, Some(2), "{file}");
        let text = format!("{file} has more than 10000 programs");
        assert!(
            said.err.contains(&text),
            "{file}: {}",
            &said.err[..said.err.len().min(500)]
        );
    }
    let said = place.say(&["import", "supervisord", "b.conf"]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.err.contains("30000 options have no equivalent"),
        "every one is named"
    );
    assert!(began.elapsed() < DEADLINE, "it took {:?}", began.elapsed());
}

#[test]
fn a_script_without_an_ending_is_run_as_pm2_would() {
    let place = Place::new();
    fs::create_dir(place.path("bin")).expect("a folder");
    place.write("bin/www", "#!/usr/bin/env node\n");
    fs::copy(env!("CARGO_BIN_EXE_eternal"), place.path("binary")).expect("a copy");
    for (script, command) in [
        ("./bin/www", r#"["node", "./bin/www"]"#),
        ("./binary", r#"["./binary"]"#),
        ("binary", r#"["./binary"]"#),
        ("yarn", r#"["yarn"]"#),
        ("dist/gone", r#"["node", "dist/gone"]"#),
        ("a.py", r#"["python3", "a.py"]"#),
    ] {
        place.write("a.json", format!("{{\"script\": \"{script}\"}}"));
        let said = place.say(&["import", "pm2", "a.json"]);
        assert!(
            said.out.contains(&format!("command = {command}\n")),
            "{script}: {}",
            said.out
        );
    }
}

#[test]
fn a_program_of_two_groups_runs_once_and_that_is_said() {
    let place = Place::new();
    let groups = "[group:x]\nprograms = a\n[group:y]\nprograms = a\n";
    place.write(
        "a.conf",
        format!("{groups}[program:a]\ncommand = a %(group_name)s\n"),
    );
    let said = place.say(&["import", "supervisord", "a.conf"]);
    assert!(
        said.out.contains("command = [\"a\", \"y\"]"),
        "{}",
        said.out
    );
    let text = "differs: a.conf:4: [group:y] programs = a: a is in the group x too";
    assert!(said.err.contains(text), "{}", said.err);
}

/// A daemon in the foreground, ended with its programs.
struct Daemon<'a> {
    place: &'a Place,
    child: Child,
}

impl<'a> Daemon<'a> {
    fn start(place: &'a Place, variables: &[(&str, &str)]) -> Self {
        let child = place
            .command(&["run", "--metrics-listen", ""])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a daemon");
        Self { place, child }
    }

    /// Returns the state of every replica, by its name.
    fn states(&self) -> Value {
        let said = self.place.say(&["status", "--json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Value {
        let states = self.states();
        let all = states["programs"].as_array().cloned().unwrap_or_default();
        let found = all
            .into_iter()
            .find(|program| program["display_name"] == name);
        found.unwrap_or_default()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Waits for something to be true.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

/// What supervisord would do with this, the daemon does: it runs them, with their variables, as
/// their user, into their files; it restarts the one that dies and gives up the one that cannot
/// start; an expected code is an end; a stop signal is the one that was asked for.
const LIVE: &str = r#"
[supervisord]
environment = SHARED="shared value"

[program:worker]
command = sh -c 'trap "echo caught usr1; exit 0" USR1; echo "up $SHARED/$OWN/$(id -un)/$1"; while :; do sleep 0.05; done' sh %(ENV_GREETING)s
environment = OWN="a, b"
directory = /
stopsignal = USR1
redirect_stderr = true
stdout_logfile = worker.log
USER

[program:crasher]
command = sh -c 'echo try >> tries; exit 3'
startretries = 1
autorestart = true

[program:oneshot]
command = sh -c 'exit 7'
exitcodes = 0,7
startsecs = 0

[program:pair]
command = sleep 1000
process_name = %(program_name)s_%(process_num)02d
numprocs = 2

[program:off]
command = sleep 1000
autostart = false
"#;

#[test]
fn an_imported_supervisord_config_runs_as_it_did() {
    let place = Place::new();
    let root = nix::unistd::geteuid().is_root();
    let (line, user) = if root {
        ("user = nobody", "nobody".to_owned())
    } else {
        let said = Command::new("id").arg("-un").output().expect("id");
        (
            "",
            String::from_utf8(said.stdout)
                .expect("UTF-8")
                .trim()
                .to_owned(),
        )
    };
    place.write("live.conf", LIVE.replace("USER", line));
    let said = place.say(&["import", "supervisord", "live.conf", "-o", "eternal.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let daemon = Daemon::start(&place, &[("GREETING", "hello there")]);

    let log = || fs::read_to_string(place.path("worker.log")).unwrap_or_default();
    let up = format!("up shared value/a, b/{user}/hello\n");
    until("the worker is up", || log().contains(&up).then_some(()));
    let pid = until("the worker has a pid", || {
        daemon.program("worker")["pid"].as_i64()
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    until("it is up again", || {
        (log().matches(&up).count() == 2).then_some(())
    });

    until("the crasher is given up", || {
        (daemon.program("crasher")["state"] == "failed").then_some(())
    });
    let tries = fs::read_to_string(place.path("tries")).expect("its file");
    assert_eq!(tries.lines().count(), 2, "one start and one retry");
    assert_eq!(daemon.program("oneshot")["state"], "completed");
    assert_eq!(daemon.program("off")["state"], "stopped");
    let running = |name: &str| daemon.program(name)["state"] == "running";
    until("both replicas run", || {
        (running("pair/0") && running("pair/1")).then_some(())
    });

    assert_eq!(place.say(&["stop", "worker"]).code, Some(0));
    until("it was told to stop as asked", || {
        log().contains("caught usr1").then_some(())
    });
}
