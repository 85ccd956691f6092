//! Configuration as people meet it: what is accepted, and the full text of what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eternal::config::{
    Check, Config, FileChoice, Flags, Loaded, Problems, Section, Sources, check, check_json, diff,
    effective_toml, hash, load, reference,
};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("eternal.toml")
    }

    fn sources(&self) -> Sources {
        Sources {
            file: FileChoice::None,
            directory: self.0.path().to_owned(),
            environment: Vec::new(),
            flags: Flags::default(),
            command: None,
            own_executable: "/usr/bin/eternal".into(),
        }
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<Loaded, Problems> {
        fs::write(self.file(), text).expect("the file is written");
        load(&Sources {
            file: FileChoice::Explicit(self.file()),
            ..self.sources()
        })
    }

    /// The message without what differs from machine to machine.
    fn message(&self, text: impl AsRef<[u8]>) -> String {
        self.plain(&self.load(text).expect_err("it is refused"))
    }

    fn plain(&self, problems: &Problems) -> String {
        let directory = self.0.path().to_str().expect("a UTF-8 path");
        problems.to_string().replace(directory, "/etc/x")
    }
}

fn valid(text: &str) -> Config {
    Place::new()
        .load(text)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}

#[test]
fn every_message_reads_as_it_did() {
    let golden = include_str!("config_messages/golden.txt");
    let cases: Vec<&str> = golden.split("=== ").skip(1).collect();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut now = String::new();
    for case in cases {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (input, _) = rest
            .split_once("--- says\n")
            .expect("an input and a message");
        let said = Place::new().message(input);
        now.push_str(&format!("=== {title}\n{input}--- says\n{said}\n"));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_messages/golden.txt");
        fs::write(path, &now).expect("the golden file is written");
        return;
    }
    assert_eq!(
        now, golden,
        "run with UPDATE_GOLDEN=1 and read the difference"
    );
}

#[test]
fn ten_mistakes_are_reported_at_once_and_in_their_order() {
    let text = r#"[daemon]
log_level = "loud"
log_fil = "x"
stats_interval = -5
[metrics]
listen = "localhost"
[programs.api]
command = "./server --port 3000"
umask = 22
restart = "alway"
crash_threshold = 0
ready = "tcp://localhost"
[programs.web]
after = ["apii"]
"#;
    let problems = Place::new().load(text).expect_err("it is refused");
    let shown = problems.to_string();
    let lines: Vec<usize> = shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--> "))
        .filter_map(|place| place.rsplit(':').nth(1)?.parse().ok())
        .collect();
    assert_eq!(lines, [2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14], "{shown}");
    assert_eq!(problems.count(), 11);
}

/// The contract's block, with every key at its documented default.
const CONTRACT: &str = r#"
[daemon]
pid_file = "daemon.pid"
log_file = "logs/daemon.log"
log_format = "text"
log_level = "info"
log_max_size = "50MiB"
log_keep = 10
stats_interval = "5m"
socket = "daemon.sock"
state_dir = "state"
cgroups = "auto"
[metrics]
listen = "127.0.0.1:10477"
linger = "30s"
[tracing]
otlp_endpoint = ""
[defaults]
[programs.api]
command = ["./server", "--port", "3000"]
working_directory = "."
environment = {}
pass_environment = []
user = ""
group = ""
umask = "022"
limits = {}
memory_max = "unlimited"
pids_max = "unlimited"
cpu_max = "unlimited"
autostart = true
instances = 1
after = []
restart = "always"
max_restarts = "unlimited"
restart_delay = "1s"
restart_delay_max = "30s"
restart_jitter = 0.1
stable_after = "60s"
crash_threshold = 5
crash_window = "60s"
on_crash_loop = "give-up"
retry_after = "5m"
success_exit_codes = [0]
no_restart_exit_codes = []
stop_signal = "SIGTERM"
kill_mode = "family"
stop_timeout = "5s"
start_timeout = "30s"
ready = "alive:1s"
health_check = ""
health_interval = "10s"
health_timeout = "5s"
health_failures = 3
watchdog = 0
critical = false
log_file = ""
"#;

#[test]
fn the_defaults_are_the_ones_the_contract_prints() {
    let place = Place::new();
    let spelt_out = place
        .load(CONTRACT)
        .unwrap_or_else(|p| panic!("{p}"))
        .config;
    let silent = place
        .load("[programs.api]\ncommand = [\"./server\", \"--port\", \"3000\"]")
        .unwrap_or_else(|p| panic!("{p}"))
        .config;
    assert_eq!(spelt_out, silent);
    assert_eq!(
        silent.programs[0].policy,
        eternal::supervision::Policy::default()
    );
    let tables: toml::Table = CONTRACT.parse().expect("TOML");
    for key in reference().iter().filter(|key| !key.default.is_empty()) {
        let table = if key.section == Section::Program {
            &tables["programs"]["api"]
        } else {
            &tables[key.section.table()]
        };
        let documented: toml::Table = format!("v = {}", key.default).parse().expect("TOML");
        assert_eq!(table.get(key.name), documented.get("v"), "{}", key.name);
    }
}

#[test]
fn every_other_key_is_accepted() {
    let config = valid(
        "[metrics]\ntls_cert='c'\ntls_key='k'\nbasic_auth_file='b'\nlisten='unix:m.sock'\n[defaults]\nrestart_delay='5s'\n\
         [programs.a]\ncommand=['x']\nenvironment={PORT=3000}\nenv_file='e'\nnice=0\noom_score_adj=0\n\
         limits={nofile=65536,core={soft=0,hard='unlimited'}}\nmetrics_address='127.0.0.1:3000'\nstop_signal='int'\n\
         memory_max='512MiB'\npids_max=20\ncpu_max=1.5\n\
         ready='exec:/bin/check now'\n[programs.b]\ncommand=['x']\nrestart_delay=\"1m 30s\"\nafter=['a']\n",
    );
    assert_eq!(
        config.programs[0].policy.restart_delay,
        Duration::from_secs(5)
    );
    assert_eq!(
        config.programs[1].policy.restart_delay,
        Duration::from_secs(90)
    );
    assert_eq!(
        config.programs[1].policy.restart_delay_max,
        Duration::from_secs(90),
        "a default gives way"
    );
    assert_eq!(config.programs[0].stop_signal, 2);
    let real_time = valid("[programs.a]\ncommand=['x']\nstop_signal='SIGRTMIN+3'\n");
    assert_eq!(real_time.programs[0].stop_signal, 37);
    assert_eq!(config.programs[0].environment["PORT"], "3000");
    assert_eq!(
        (
            config.programs[0].memory_max,
            config.programs[0].pids_max,
            config.programs[0].cpu_max
        ),
        (Some(512 << 20), Some(20), Some(1_500))
    );
}

#[test]
fn a_program_that_retries_takes_the_time_for_it_from_the_defaults() {
    let config =
        valid("[defaults]\nretry_after='9s'\n[programs.a]\ncommand=['x']\non_crash_loop='retry'");
    let after = Duration::from_secs(9);
    assert_eq!(
        config.programs[0].policy.on_crash_loop,
        eternal::supervision::OnCrashLoop::Retry { after }
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    fs::write(
        place.file(),
        "[daemon]\nlog_level='warn'\nlog_keep=3\nsocket='a'\n[programs.a]\ncommand=['x']",
    )
    .expect("written");
    let sources = Sources {
        file: FileChoice::Search,
        environment: vec![
            ("ETERNAL__DAEMON__LOG_LEVEL".into(), "debug".into()),
            ("ETERNAL__DAEMON__SOCKET".into(), "b".into()),
            ("ETERNAL__DEFAULTS__RESTART_DELAY".into(), "7".into()),
            ("ETERNAL_CONFIG".into(), "/not/ours/to/judge".into()),
        ],
        flags: Flags {
            socket: Some("c".into()),
            ..Flags::default()
        },
        ..place.sources()
    };
    let loaded = load(&sources).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.config.daemon.socket, place.0.path().join("c"));
    assert_eq!(
        loaded.config.programs[0].policy.restart_delay,
        Duration::from_secs(7)
    );
    let text = effective_toml(&loaded);
    assert!(
        text.contains("log_level = \"debug\"  # from the variable ETERNAL__DAEMON__LOG_LEVEL"),
        "{text}"
    );
    assert!(
        text.contains("log_keep = 3  # from ") && text.contains("eternal.toml:3"),
        "{text}"
    );
    assert!(text.contains("c\"  # from the option --socket"), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
}

#[test]
fn nothing_configured_supervises_the_bundled_server_and_a_command_is_named_after_itself() {
    let place = Place::new();
    let loaded = load(&place.sources()).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.config.programs[0].name, "api");
    assert_eq!(
        loaded.config.programs[0].command,
        ["/usr/bin/eternal", "api-server"]
    );
    fs::write(place.file(), "not read").expect("written");
    let command = Some(vec!["/opt/my server!".to_owned(), "-x".to_owned()]);
    let loaded = load(&Sources {
        command,
        file: FileChoice::Search,
        ..place.sources()
    })
    .unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.config.programs[0].name, "my-server-");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn problems_of_variables_and_flags_name_them() {
    let place = Place::new();
    let sources = Sources {
        environment: vec![
            ("ETERNAL__DAEMON__LOG_LEVL".into(), "debug".into()),
            ("ETERNAL__METRICS__LINGER".into(), "soon".into()),
        ],
        flags: Flags {
            restart: Some("alway".into()),
            log_level: Some("loud".into()),
            ..Flags::default()
        },
        ..place.sources()
    };
    let said = place.plain(&load(&sources).expect_err("refused"));
    for part in [
        "ETERNAL__DAEMON__LOG_LEVL",
        "did you mean `ETERNAL__DAEMON__LOG_LEVEL`?",
        "ETERNAL__METRICS__LINGER=soon",
        "--restart alway",
        "--log-level loud",
    ] {
        assert!(said.contains(part), "{part} is missing from\n{said}");
    }
    fs::write(place.file(), "[programs.a]\ncommand=['x']").expect("written");
    let with_file = Sources {
        file: FileChoice::Search,
        environment: Vec::new(),
        flags: Flags {
            restart: Some("never".into()),
            ..Flags::default()
        },
        ..place.sources()
    };
    let said = place.plain(&load(&with_file).expect_err("refused"));
    assert!(
        said.contains("set it in [programs.NAME] or [defaults] of /etc/x/eternal.toml"),
        "{said}"
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let place = Place::new();
    let explicit = |path: PathBuf| {
        load(&Sources {
            file: FileChoice::Explicit(path),
            ..place.sources()
        })
        .expect_err("refused")
        .to_string()
    };
    assert!(explicit("missing.toml".into()).contains("there is no such file"));
    assert!(explicit(place.0.path().to_owned()).contains("it is a directory"));
    let both = Sources {
        file: FileChoice::Explicit("a.toml".into()),
        command: Some(vec!["x".into()]),
        ..place.sources()
    };
    assert!(
        load(&both)
            .expect_err("refused")
            .to_string()
            .contains("exclude each other")
    );
    assert!(
        place
            .message(b"[programs.a]\ncommand=['\xff']")
            .contains("eternal.toml:2:11")
    );
    assert!(
        place.load("\u{feff}[programs.a]\ncommand=['x']").is_ok(),
        "a byte order mark is tolerated"
    );
}

#[test]
fn the_default_timeline_is_the_one_the_contract_tells() {
    let loaded = Place::new()
        .load("[programs.api]\ncommand=['x']")
        .unwrap_or_else(|p| panic!("{p}"));
    let text = check(&loaded);
    for line in [
        "crash at 0s, restart after 1s",
        "crash at 7s, restart after 8s",
        "gives up at 15s",
        "a program that lives longer than 15s each time never trips it; EternalProgramCrashLoopingSlow covers that",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert_eq!(
        check_json(&loaded)["programs"][0]["gives_up_at_seconds"],
        15.0
    );
    for (policy, line) in [
        (
            "restart='never'",
            "crash at 0s: failed, as restart = \"never\"",
        ),
        ("max_restarts=2", "at most 2 automatic restarts in all"),
        ("on_crash_loop='retry'", "tried again every 5m after that"),
    ] {
        let loaded = Place::new()
            .load(format!("[programs.api]\ncommand=['x']\n{policy}"))
            .unwrap_or_else(|p| panic!("{p}"));
        assert!(
            check(&loaded).contains(line),
            "{policy}:\n{}",
            check(&loaded)
        );
    }
}

#[test]
fn a_difference_is_a_restart_only_if_the_process_would_be_another() {
    let old = valid(
        "[programs.a]\ncommand=['x']\n[programs.b]\ncommand=['x']\n[programs.c]\ncommand=['x']\n[programs.d]\ncommand=['x']",
    );
    let mut new = valid(
        "[daemon]\nlog_keep=1\n[programs.a]\ncommand=['x']\n[programs.b]\ncommand=['y']\n[programs.c]\ncommand=['x']\ncrash_threshold=9\ninstances=2\n[programs.e]\ncommand=['x']",
    );
    // Each was loaded from its own directory.
    new.daemon = eternal::config::Daemon {
        log_keep: 1,
        ..old.daemon.clone()
    };
    new.programs.iter_mut().for_each(|p| {
        p.working_directory
            .clone_from(&old.programs[0].working_directory)
    });
    let diff = diff(&old, &new);
    assert_eq!(diff.unchanged, ["a"]);
    assert_eq!(diff.restarted, ["b"]);
    assert_eq!(diff.updated, ["c"]);
    assert_eq!((diff.instances[0].old, diff.instances[0].new), (1, 2));
    assert_eq!(diff.removed, ["d"]);
    assert_eq!(diff.added, ["e"]);
    assert_eq!(diff.needs_daemon_restart, ["daemon.log_keep"]);
    assert_eq!(hash(&old.programs[0]), hash(&new.programs[0]));
    assert_ne!(hash(&old.programs[1]), hash(&new.programs[1]));
}

#[test]
fn secrets_of_the_environment_are_never_shown() {
    let place = Place::new();
    let said = place.message(
        "[programs.a]\ncommand=['x']\nenvironment = { PASSWORD = \"hunter2\", RATE = 1.5 }",
    );
    assert!(
        !said.contains("hunter2") && said.contains("eternal.toml:3"),
        "{said}"
    );
    let loaded = place
        .load("[programs.a]\ncommand=['x']\nenvironment = { PASSWORD = \"hunter2\" }")
        .unwrap_or_else(|p| panic!("{p}"));
    assert!(!effective_toml(&loaded).contains("hunter2"));
}

/// The CPU time of this thread: the clock on the wall tells how busy the machine is.
fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock)
        .expect("the clock is read")
        .into()
}

#[test]
fn ten_thousand_programs_load_in_two_seconds() {
    let mut text = String::from("[defaults]\nrestart = \"on-failure\"\n");
    for n in 0..10_000 {
        let after = if n == 0 {
            String::new()
        } else {
            format!("\"p{}\"", n - 1)
        };
        text.push_str(&format!("[programs.p{n}]\ncommand = [\"/bin/true\", \"{n}\"]\nafter = [{after}]\nlog_file = \"logs/{n}.log\"\n"));
    }
    let place = Place::new();
    let begin = cpu_time();
    let loaded = place.load(&text).unwrap_or_else(|p| panic!("{p}"));
    let took = cpu_time() - begin;
    println!("10,000 programs loaded in {took:?} of CPU time");
    assert_eq!(loaded.config.programs.len(), 10_000);
    assert_eq!(
        loaded.config.programs[9_999].name, "p9999",
        "in the order of the file"
    );
    assert!(
        took < Duration::from_secs(6),
        "{took:?}: it should be about one second"
    );
}

#[test]
fn no_mutation_of_a_valid_file_panics_and_every_refusal_has_a_place() {
    let place = Place::new();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..5_000 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut text = CONTRACT.as_bytes().to_vec();
        for _ in 0..chance.usize(1..4) {
            mutate(&mut text, &mut chance);
        }
        match place.load(&text) {
            Ok(_) => accepted += 1,
            Err(problems) => {
                refused += 1;
                let said = problems.clone().color(seed % 2 == 0).to_string();
                assert!(
                    problems.count() > 0 && said.contains("eternal.toml:"),
                    "seed {seed} has no place:\n{said}"
                );
            }
        }
    }
    assert!(
        accepted > 100 && refused > 1_000,
        "{accepted} accepted, {refused} refused: too one-sided to mean much"
    );
}

fn mutate(text: &mut Vec<u8>, chance: &mut fastrand::Rng) {
    let at = chance.usize(0..text.len());
    match chance.u8(0..6) {
        0 => text[at] = chance.u8(..),
        1 => {
            text.remove(at);
        }
        2 => text.insert(
            at,
            *chance
                .choice(b"\"[]{}=.,#\n-0\\\xff".iter())
                .expect("not empty"),
        ),
        3 => {
            let end = (at + chance.usize(0..40)).min(text.len());
            text.drain(at..end);
        }
        4 => {
            let end = (at + chance.usize(0..40)).min(text.len());
            let piece = text[at..end].to_vec();
            let to = chance.usize(0..=text.len());
            text.splice(to..to, piece);
        }
        _ => text.truncate(at.max(1)),
    }
    if text.is_empty() {
        text.push(b'\n');
    }
}

#[test]
fn what_is_asked_of_a_program_that_runs_is_inherited_key_by_key() {
    let text = "[defaults]\nhealth_interval=\"1m\"\nhealth_failures=7\nwatchdog=30\nhealth_check=\"tcp://a:1\"\n\
                [programs.own]\ncommand=['x']\nhealth_check=\"http://b:2\"\nhealth_failures=1\n\
                [programs.none]\ncommand=['x']\nhealth_check=\"\"\nwatchdog=0\n";
    let config = valid(text);
    let [own, none] = &config.programs[..] else {
        panic!("two programs");
    };
    let expected = Check::Http {
        authority: "b:2".into(),
        path: "/".into(),
    };
    assert_eq!(own.health.check, Some(expected));
    assert_eq!(own.health.interval, Duration::from_secs(60));
    assert_eq!(own.health.timeout, Duration::from_secs(5));
    assert_eq!(own.health.failures, 1);
    assert_eq!(own.watchdog, Some(Duration::from_secs(30)));
    assert_eq!((&none.health.check, none.watchdog), (&None, None));
    assert_eq!(none.health.failures, 7);
    let shown = effective_toml(&Place::new().load(text).expect("valid"));
    for line in [
        "health_check = \"http://b:2/\"",
        "health_check = \"\"",
        "health_interval = \"1m\"",
        "watchdog = \"30s\"",
    ] {
        assert!(shown.contains(&format!("\n{line}  # from ")), "{shown}");
    }
}

#[test]
fn a_changed_check_needs_no_restart_and_a_changed_watchdog_does() {
    let place = Place::new();
    let with = |keys: &str| {
        let text = format!("[programs.a]\ncommand=['x']\n{keys}\n");
        place.load(text).unwrap_or_else(|p| panic!("{p}")).config
    };
    let plain = with("");
    let checked = diff(&plain, &with("health_check=\"tcp://a:1\""));
    assert_eq!((checked.updated.len(), checked.restarted.len()), (1, 0));
    let guarded = diff(&plain, &with("watchdog=1"));
    assert_eq!((guarded.updated.len(), guarded.restarted.len()), (0, 1));
}
