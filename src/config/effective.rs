//! The configuration in force, with where each value came from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::load::Loaded;
use super::model::{
    Cgroups, Check, Config, KillMode, Limit, Listen, LogFormat, LogLevel, Program, Ready,
};
use super::origins::Origin;
use super::schema::{Key, Section, reference};
use super::signals::signal_name;
use super::text::{length, processors, size, string, strings};
use crate::supervision::{OnCrashLoop, RestartMode};

/// One value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its table: `daemon`, or `programs.NAME`.
    pub table: String,
    /// Its name.
    pub key: &'static str,
    /// As TOML; `None`: unset.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Returns every value in force and where it came from. Values of `environment` are left out: they
/// may be secrets.
#[must_use]
pub fn effective(loaded: &Loaded) -> Vec<Setting> {
    let config = &loaded.config;
    let mut settings: Vec<Setting> = daemon_values(config)
        .into_iter()
        .map(|(key, value)| Setting {
            table: key.section.table().to_owned(),
            key: key.name,
            value,
            origin: loaded
                .origins
                .section(key.section.table(), key.name)
                .clone(),
        })
        .collect();
    for program in &config.programs {
        let keys = reference()
            .iter()
            .filter(|key| key.section == Section::Program);
        settings.extend(keys.map(|key| Setting {
            table: format!("programs.{}", program.name),
            key: key.name,
            value: program_value(program, key.name, Environment::Hidden),
            origin: loaded.origins.program(&program.name, key.name).clone(),
        }));
    }
    settings
}

/// Returns the same as a TOML file, each value with a comment that says where it came from.
#[must_use]
pub fn effective_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut table = String::new();
    for setting in effective(loaded) {
        if setting.table != table {
            if !text.is_empty() {
                text.push('\n');
            }
            let header = match setting.table.strip_prefix("programs.") {
                Some(name) => format!("programs.{}", string(name)),
                None => setting.table.clone(),
            };
            let _ = writeln!(text, "[{header}]");
            table = setting.table;
        }
        let _ = match setting.value {
            Some(value) => writeln!(text, "{} = {value}  # from {}", setting.key, setting.origin),
            None => writeln!(text, "# {} is unset", setting.key),
        };
    }
    text
}

/// Returns eight hexadecimal digits that are the same for the same program and, nearly always,
/// differ for another one. Environment values are part of it and cannot be read back from it.
#[must_use]
pub fn hash(program: &Program) -> String {
    // FNV-1a: stable over releases and machines, which the standard hasher does not promise.
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut state = OFFSET;
    let mut take = |text: &str| {
        for byte in text.bytes().chain([0]) {
            state = (state ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    };
    take(&program.name);
    for key in reference()
        .iter()
        .filter(|key| key.section == Section::Program)
    {
        take(key.name);
        take(&program_value(program, key.name, Environment::Shown).unwrap_or_default());
    }
    let folded = state ^ (state >> 32);
    format!("{:08x}", folded & 0xffff_ffff)
}

/// Returns the values of the tables that are not programs.
pub(super) fn daemon_values(config: &Config) -> Vec<(&'static Key, Option<String>)> {
    let keys = reference()
        .iter()
        .filter(|key| key.section != Section::Program);
    keys.map(|key| (key, daemon_value(config, key))).collect()
}

fn path(path: &Path) -> String {
    string(&path.to_string_lossy())
}

fn path_or_empty(of: Option<&Path>) -> Option<String> {
    Some(of.map_or_else(|| string(""), path))
}

fn daemon_value(config: &Config, key: &Key) -> Option<String> {
    let (daemon, metrics) = (&config.daemon, &config.metrics);
    match (key.section, key.name) {
        (Section::Daemon, "pid_file") => Some(path(&daemon.pid_file)),
        (Section::Daemon, "log_file") => path_or_empty(daemon.log_file.as_deref()),
        (Section::Daemon, "log_format") => Some(string(match daemon.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })),
        (Section::Daemon, "log_level") => Some(string(level(daemon.log_level))),
        (Section::Daemon, "log_max_size") => Some(string(&size(daemon.log_max_size))),
        (Section::Daemon, "log_keep") => Some(daemon.log_keep.to_string()),
        (Section::Daemon, "stats_interval") => {
            Some(string(&length(daemon.stats_interval.unwrap_or_default())))
        }
        (Section::Daemon, "socket") => Some(path(&daemon.socket)),
        (Section::Daemon, "state_dir") => Some(path(&daemon.state_dir)),
        (Section::Daemon, "cgroups") => Some(string(match daemon.cgroups {
            Cgroups::Auto => "auto",
            Cgroups::Off => "off",
            Cgroups::Required => "required",
        })),
        (Section::Metrics, "listen") => Some(string(&match &metrics.listen {
            None => String::new(),
            Some(Listen::Tcp(address)) => address.to_string(),
            Some(Listen::Unix(path)) => format!("unix:{}", path.display()),
        })),
        (Section::Metrics, "linger") => Some(string(&length(metrics.linger))),
        (Section::Metrics, "tls_cert") => metrics.tls_cert.as_deref().map(path),
        (Section::Metrics, "tls_key") => metrics.tls_key.as_deref().map(path),
        (Section::Metrics, "basic_auth_file") => metrics.basic_auth_file.as_deref().map(path),
        (Section::Tracing, "otlp_endpoint") => Some(string(
            config.tracing.otlp_endpoint.as_deref().unwrap_or(""),
        )),
        _ => None,
    }
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// Whether values of environment variables are written out.
#[derive(Clone, Copy, PartialEq)]
enum Environment {
    Shown,
    Hidden,
}

fn program_value(program: &Program, key: &str, shown: Environment) -> Option<String> {
    match key {
        "command" => Some(strings(&program.command)),
        "working_directory" => Some(path(&program.working_directory)),
        "environment" => Some(environment(&program.environment, shown)),
        "env_file" => program.env_file.as_deref().map(path),
        "pass_environment" => Some(strings(&program.pass_environment)),
        "user" => Some(string(program.user.as_deref().unwrap_or(""))),
        "group" => Some(string(program.group.as_deref().unwrap_or(""))),
        "umask" => Some(string(&format!("{:03o}", program.umask))),
        "nice" => program.nice.map(|nice| nice.to_string()),
        "oom_score_adj" => program.oom_score_adj.map(|score| score.to_string()),
        "limits" => Some(limits(&program.limits)),
        "memory_max" => Some(string(&bounded(program.memory_max.map(size)))),
        "pids_max" => Some(
            program
                .pids_max
                .map_or_else(|| string("unlimited"), |most| most.to_string()),
        ),
        "cpu_max" => Some(string(&bounded(program.cpu_max.map(processors)))),
        "autostart" => Some(program.autostart.to_string()),
        "instances" => Some(program.instances.to_string()),
        "after" => Some(strings(&program.after)),
        "stop_signal" => Some(signal(program.stop_signal)),
        "kill_mode" => Some(string(match program.kill_mode {
            KillMode::Family => "family",
            KillMode::Process => "process",
        })),
        "ready" => Some(string(&ready(&program.ready))),
        "health_check" => Some(string(
            &program.health.check.as_ref().map(check).unwrap_or_default(),
        )),
        "health_interval" => Some(string(&length(program.health.interval))),
        "health_timeout" => Some(string(&length(program.health.timeout))),
        "health_failures" => Some(program.health.failures.to_string()),
        "watchdog" => Some(string(&length(program.watchdog.unwrap_or_default()))),
        "log_file" => path_or_empty(program.log_file.as_deref()),
        "metrics_address" => program.metrics_address.as_deref().map(string),
        _ => policy_value(program, key),
    }
}

fn policy_value(program: &Program, key: &str) -> Option<String> {
    let policy = &program.policy;
    let time = |of| Some(string(&length(of)));
    match key {
        "restart" => Some(string(match policy.restart {
            RestartMode::Always => "always",
            RestartMode::OnFailure => "on-failure",
            RestartMode::Never => "never",
        })),
        "max_restarts" => Some(
            policy
                .max_restarts
                .map_or_else(|| string("unlimited"), |most| most.to_string()),
        ),
        "restart_delay" => time(policy.restart_delay),
        "restart_delay_max" => time(policy.restart_delay_max),
        "restart_jitter" => Some(format!("{:?}", policy.restart_jitter)),
        "stable_after" => time(policy.stable_after),
        "crash_threshold" => Some(policy.crash_threshold.to_string()),
        "crash_window" => time(policy.crash_window),
        "on_crash_loop" => Some(string(match policy.on_crash_loop {
            OnCrashLoop::GiveUp => "give-up",
            OnCrashLoop::Retry { .. } => "retry",
        })),
        "retry_after" => match policy.on_crash_loop {
            OnCrashLoop::Retry { after } => time(after),
            OnCrashLoop::GiveUp => None,
        },
        "success_exit_codes" => Some(format!("{:?}", policy.success_exit_codes)),
        "no_restart_exit_codes" => Some(format!("{:?}", policy.no_restart_exit_codes)),
        "stop_timeout" => time(policy.stop_timeout),
        "start_timeout" => time(policy.start_timeout),
        "critical" => Some(policy.critical.to_string()),
        _ => None,
    }
}

fn environment(variables: &BTreeMap<String, String>, shown: Environment) -> String {
    let entries = variables.iter().map(|(name, value)| {
        let value = if shown == Environment::Shown {
            value
        } else {
            "…"
        };
        format!("{} = {}", string(name), string(value))
    });
    inline(entries.collect())
}

fn inline(entries: Vec<String>) -> String {
    if entries.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", entries.join(", "))
    }
}

fn limits(limits: &BTreeMap<String, Limit>) -> String {
    let bound =
        |value: Option<u64>| value.map_or_else(|| string("unlimited"), |value| value.to_string());
    let entries = limits.iter().map(|(name, limit)| {
        if limit.soft == limit.hard {
            return format!("{name} = {}", bound(limit.soft));
        }
        format!(
            "{name} = {{ soft = {}, hard = {} }}",
            bound(limit.soft),
            bound(limit.hard)
        )
    });
    inline(entries.collect())
}

fn bounded(most: Option<String>) -> String {
    most.unwrap_or_else(|| "unlimited".to_owned())
}

fn signal(number: i32) -> String {
    signal_name(number).map_or_else(|| number.to_string(), |name| string(&name))
}

fn ready(ready: &Ready) -> String {
    match ready {
        Ready::Immediately => "immediately".to_owned(),
        Ready::Alive(least) => format!("alive:{}", length(*least)),
        Ready::Exit => "exit".to_owned(),
        Ready::Notify => "notify".to_owned(),
        Ready::Check(of) => check(of),
    }
}

fn check(check: &Check) -> String {
    match check {
        Check::Tcp(target) => format!("tcp://{target}"),
        Check::Http { authority, path } => format!("http://{authority}{path}"),
        Check::Exec(words) => format!("exec:{}", words.join(" ")),
    }
}
