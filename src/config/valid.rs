//! From merged layers to a [`Config`]: every value read, every rule of one key checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::addresses::{endpoint, health_check, listen, target};
use super::collections;
use super::layers::{Keys, Layers};
use super::model::{
    Cgroups, Config, Daemon, Health, KillMode, LogFormat, LogLevel, Metrics, Program, Tracing,
};
use super::node::{Node, Place};
use super::problem::{Fault, Problem};
use super::values::{self, Read};
use crate::supervision::{OnCrashLoop, Policy, RestartMode};

mod pairs;

use pairs::{READY, delays, never_ready, readiness, settle_delays};

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const RESTARTS: [(&str, RestartMode); 3] = [
    ("always", RestartMode::Always),
    ("on-failure", RestartMode::OnFailure),
    ("never", RestartMode::Never),
];
const CGROUPS: [(&str, Cgroups); 3] = [
    ("auto", Cgroups::Auto),
    ("off", Cgroups::Off),
    ("required", Cgroups::Required),
];
const KILL_MODES: [(&str, KillMode); 2] =
    [("family", KillMode::Family), ("process", KillMode::Process)];

/// Reads the keys of one table.
struct Reader<'a> {
    path: String,
    keys: Keys<'a>,
    /// `[defaults]`, for a program.
    inherited: Option<Keys<'a>>,
    base: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn section(
        name: &str,
        layers: &'a Layers,
        base: &'a Path,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self {
            path: name.to_owned(),
            keys: layers.section(name),
            inherited: None,
            base,
            problems,
        }
    }

    /// Reads a key; `otherwise` stands in where it is unset, and where it is wrong (which is noted).
    fn read<T>(&mut self, key: &str, parse: impl FnOnce(&Node) -> Read<T>, otherwise: T) -> T {
        let Some(node) = self.keys.get(key) else {
            return otherwise;
        };
        match parse(node) {
            Ok(value) => value,
            Err(fault) => {
                self.problems
                    .push(Problem::of(&format!("{}.{key}", self.path), fault));
                otherwise
            }
        }
    }

    /// Returns the place where somebody set a key, here or in `[defaults]`.
    fn explicit(&self, key: &str) -> Option<&'a Place> {
        let inherited = self.inherited.and_then(|keys| keys.explicit(key));
        self.keys.explicit(key).or(inherited)
    }

    /// Reads a path; empty is none.
    fn path(&mut self, key: &str, otherwise: Option<PathBuf>) -> Option<PathBuf> {
        let base = self.base;
        let parse =
            |node: &Node| Ok(values::optional(node)?.map(|path| values::absolute(base, &path)));
        self.read(key, parse, otherwise)
    }

    /// Reads a path that has to be there.
    fn required_path(&mut self, key: &str) -> PathBuf {
        let base = self.base;
        let parse = |node: &Node| match values::optional(node)? {
            Some(path) => Ok(values::absolute(base, &path)),
            None => Err(Fault::new(node, "must not be empty")),
        };
        self.read(key, parse, PathBuf::new())
    }
}

/// Reads everything. What is returned is right if no problem was noted.
pub(super) fn config(
    layers: &Layers,
    (file, base): (Option<PathBuf>, PathBuf),
    problems: &mut Vec<Problem>,
) -> Config {
    let base_path = base.as_path();
    let daemon = daemon(&mut Reader::section("daemon", layers, base_path, problems));
    let metrics = metrics(&mut Reader::section("metrics", layers, base_path, problems));
    let tracing = Tracing {
        otlp_endpoint: Reader::section("tracing", layers, base_path, problems).read(
            "otlp_endpoint",
            endpoint,
            None,
        ),
    };
    let mut reader = Reader::section("defaults", layers, base_path, problems);
    let defaults = program(&mut reader, &blank(base_path));
    delays(&mut reader);
    let defaults_keys = layers.section("defaults");
    let mut programs = Vec::new();
    for (name, header, keys) in layers.programs() {
        let inherited = Some(defaults_keys);
        let mut reader = Reader {
            path: format!("programs.{name}"),
            keys,
            inherited,
            base: base_path,
            problems: &mut *problems,
        };
        let mut valid = program(
            &mut reader,
            &Program {
                name: name.to_owned(),
                ..defaults.clone()
            },
        );
        delays(&mut reader);
        never_ready(&mut reader, &valid);
        settle_delays(
            &mut valid.policy,
            reader.explicit("restart_delay_max").is_some(),
        );
        let written = keys.get("command").or(defaults_keys.get("command"));
        if written.is_none() {
            problems.push(no_command(name, header));
        }
        programs.push(valid);
    }
    Config {
        file,
        base,
        daemon,
        metrics,
        tracing,
        programs,
    }
}

fn no_command(name: &str, header: Place) -> Problem {
    let title = format!("`programs.{name}` has no command");
    Problem::new(header, title, "this program")
        .help("add, for example, command = [\"./server\", \"--port\", \"3000\"]")
}

fn daemon(r: &mut Reader<'_>) -> Daemon {
    const MOST_KEPT: i64 = 10_000;
    Daemon {
        pid_file: r.required_path("pid_file"),
        log_file: r.path("log_file", None),
        log_format: r.read(
            "log_format",
            |n| values::word(n, &LOG_FORMATS),
            LogFormat::Text,
        ),
        log_level: r.read(
            "log_level",
            |n| values::word(n, &LOG_LEVELS),
            LogLevel::Info,
        ),
        log_max_size: r.read("log_max_size", values::size, 1),
        log_keep: r
            .read("log_keep", |n| values::whole(n, 0, MOST_KEPT), 0)
            .unsigned_abs()
            .try_into()
            .unwrap_or(0),
        stats_interval: Some(r.read("stats_interval", values::duration, Duration::ZERO))
            .filter(|every| !every.is_zero()),
        socket: r.required_path("socket"),
        state_dir: r.required_path("state_dir"),
        cgroups: r.read("cgroups", |n| values::word(n, &CGROUPS), Cgroups::Auto),
    }
}

fn metrics(r: &mut Reader<'_>) -> Metrics {
    let base = r.base;
    let metrics = Metrics {
        listen: r.read("listen", |n| listen(n, base), None),
        linger: r.read("linger", values::duration, Duration::ZERO),
        tls_cert: r.path("tls_cert", None),
        tls_key: r.path("tls_key", None),
        basic_auth_file: r.path("basic_auth_file", None),
    };
    for (have, lack, alone) in [
        (
            "tls_cert",
            "tls_key",
            metrics.tls_cert.is_some() && metrics.tls_key.is_none(),
        ),
        (
            "tls_key",
            "tls_cert",
            metrics.tls_key.is_some() && metrics.tls_cert.is_none(),
        ),
    ] {
        if let (true, Some(place)) = (alone, r.keys.explicit(have)) {
            let title = format!("`metrics.{have}` is set without `metrics.{lack}`");
            r.problems
                .push(Problem::new(place.clone(), title, "one needs the other"));
        }
    }
    metrics
}

/// A program of which nothing is said.
fn blank(base: &Path) -> Program {
    const UMASK: u32 = 0o022;
    Program {
        name: String::new(),
        command: Vec::new(),
        working_directory: base.to_owned(),
        environment: BTreeMap::new(),
        env_file: None,
        pass_environment: Vec::new(),
        user: None,
        group: None,
        umask: UMASK,
        nice: None,
        oom_score_adj: None,
        limits: BTreeMap::new(),
        memory_max: None,
        pids_max: None,
        cpu_max: None,
        autostart: true,
        instances: 1,
        after: Vec::new(),
        policy: Policy::default(),
        stop_signal: nix::sys::signal::Signal::SIGTERM as i32,
        kill_mode: KillMode::Family,
        ready: READY,
        health: Health::default(),
        watchdog: None,
        log_file: None,
        metrics_address: None,
    }
}

/// Reads a program; where it is silent, it is as `silent`.
fn program(r: &mut Reader<'_>, silent: &Program) -> Program {
    const MOST_INSTANCES: i64 = 1_000;
    let mut policy = policy(r, &silent.policy);
    let ready = readiness(r, &mut policy, &silent.ready);
    let small = |least: i64, most: i64| {
        move |node: &Node| Ok(i32::try_from(values::whole(node, least, most)?).ok())
    };
    Program {
        name: silent.name.clone(),
        command: r.read("command", collections::command, silent.command.clone()),
        working_directory: r
            .path("working_directory", None)
            .unwrap_or_else(|| silent.working_directory.clone()),
        environment: r.read(
            "environment",
            collections::environment,
            silent.environment.clone(),
        ),
        env_file: r.path("env_file", silent.env_file.clone()),
        pass_environment: r.read(
            "pass_environment",
            collections::variables,
            silent.pass_environment.clone(),
        ),
        user: r.read("user", values::account, silent.user.clone()),
        group: r.read("group", values::account, silent.group.clone()),
        umask: r.read("umask", values::umask, silent.umask),
        nice: r.read("nice", small(-20, 19), silent.nice),
        oom_score_adj: r.read("oom_score_adj", small(-1000, 1000), silent.oom_score_adj),
        limits: r.read("limits", collections::limits, silent.limits.clone()),
        memory_max: r.read("memory_max", values::memory, silent.memory_max),
        pids_max: r.read("pids_max", values::processes, silent.pids_max),
        cpu_max: r.read("cpu_max", values::processors, silent.cpu_max),
        autostart: r.read("autostart", values::truth, silent.autostart),
        instances: r
            .read(
                "instances",
                |n| values::whole(n, 1, MOST_INSTANCES),
                i64::from(silent.instances),
            )
            .unsigned_abs()
            .try_into()
            .unwrap_or(1),
        after: r.read("after", collections::names, silent.after.clone()),
        policy,
        stop_signal: r.read("stop_signal", values::signal, silent.stop_signal),
        kill_mode: r.read(
            "kill_mode",
            |n| values::word(n, &KILL_MODES),
            silent.kill_mode,
        ),
        ready,
        health: health(r, &silent.health),
        watchdog: Some(r.read(
            "watchdog",
            values::duration,
            silent.watchdog.unwrap_or_default(),
        ))
        .filter(|silence| !silence.is_zero()),
        log_file: r.path("log_file", silent.log_file.clone()),
        metrics_address: r.read("metrics_address", target, silent.metrics_address.clone()),
    }
}

fn health(r: &mut Reader<'_>, silent: &Health) -> Health {
    Health {
        check: r.read("health_check", health_check, silent.check.clone()),
        interval: r.read(
            "health_interval",
            values::positive_duration,
            silent.interval,
        ),
        timeout: r.read("health_timeout", values::positive_duration, silent.timeout),
        failures: r.read("health_failures", |n| values::count(n, 1), silent.failures),
    }
}

fn policy(r: &mut Reader<'_>, silent: &Policy) -> Policy {
    Policy {
        restart: r.read("restart", |n| values::word(n, &RESTARTS), silent.restart),
        max_restarts: r.read(
            "max_restarts",
            values::count_or_unlimited,
            silent.max_restarts,
        ),
        restart_delay: r.read("restart_delay", values::duration, silent.restart_delay),
        restart_delay_max: r.read(
            "restart_delay_max",
            values::duration,
            silent.restart_delay_max,
        ),
        restart_jitter: r.read("restart_jitter", values::share, silent.restart_jitter),
        stable_after: r.read(
            "stable_after",
            values::positive_duration,
            silent.stable_after,
        ),
        crash_threshold: r.read(
            "crash_threshold",
            |n| values::count(n, 1),
            silent.crash_threshold,
        ),
        crash_window: r.read(
            "crash_window",
            values::positive_duration,
            silent.crash_window,
        ),
        on_crash_loop: on_crash_loop(r, silent.on_crash_loop),
        success_exit_codes: r.read(
            "success_exit_codes",
            collections::codes,
            silent.success_exit_codes.clone(),
        ),
        no_restart_exit_codes: r.read(
            "no_restart_exit_codes",
            collections::codes,
            silent.no_restart_exit_codes.clone(),
        ),
        stop_timeout: r.read("stop_timeout", values::duration, silent.stop_timeout),
        start_timeout: r.read(
            "start_timeout",
            values::positive_duration,
            silent.start_timeout,
        ),
        // What `ready` says: read together with it.
        ready: silent.ready,
        critical: r.read("critical", values::truth, silent.critical),
    }
}

fn on_crash_loop(r: &mut Reader<'_>, silent: OnCrashLoop) -> OnCrashLoop {
    const FIVE_MINUTES: Duration = Duration::from_secs(300);
    let inherited = r
        .inherited
        .and_then(|keys| values::positive_duration(keys.get("retry_after")?).ok());
    let after = r.read(
        "retry_after",
        values::positive_duration,
        inherited.unwrap_or(FIVE_MINUTES),
    );
    let retries = matches!(silent, OnCrashLoop::Retry { .. });
    match r.read(
        "on_crash_loop",
        |n| values::word(n, &[("give-up", false), ("retry", true)]),
        retries,
    ) {
        true => OnCrashLoop::Retry { after },
        false => OnCrashLoop::GiveUp,
    }
}
