//! What the daemon knows of each replica beyond the fleet: its config, its name, how to launch it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::environment::Inherited;
use crate::config::{self, KillMode, Ready};
use crate::observe::{About, HealthTally, LogCounters};
use crate::os::cgroups::{Limits, Wanted};
use crate::os::children::Launch;
use crate::os::limits::Resource;
use crate::os::logs::Source;
use crate::os::places;
use crate::supervision::{FailureKind, Member, RestartMode, SpawnFailure};

/// Where a program notifies us: see sd_notify(3).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// As much of an `env_file` is read; bytes. A new process takes little more.
const LONGEST_ENV_FILE: u64 = 1 << 20;
/// How often it has to, in microseconds: see sd_watchdog_enabled(3).
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";

/// The span that its own belong below: see the W3C's Trace Context.
const TRACE: &str = "TRACEPARENT";

/// One replica of a program, as configured.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub program: Arc<config::Program>,
    pub replica: u32,
}

impl Slot {
    /// How people call it: `web`, or `web/1` where there are several instances.
    pub fn display_name(&self) -> String {
        if self.program.instances > 1 {
            format!("{}/{}", self.program.name, self.replica)
        } else {
            self.program.name.clone()
        }
    }

    /// How its lines are called, and where they go.
    pub fn log_source(&self) -> Source {
        Source {
            name: self.display_name(),
            file: self.program.log_file.clone(),
            lasting: self.program.kill_mode == KillMode::Process,
        }
    }

    pub fn member(&self) -> Member {
        Member {
            name: self.program.name.clone(),
            after: self.program.after.clone(),
            policy: self.program.policy.clone(),
        }
    }

    pub fn about(&self, log_counters: LogCounters, health: Option<Arc<HealthTally>>) -> About {
        let program = &self.program;
        About {
            name: program.name.clone(),
            replica: self.replica,
            display_name: self.display_name(),
            command: program.command.clone(),
            restart_policy: match program.policy.restart {
                RestartMode::Always => "always",
                RestartMode::OnFailure => "on-failure",
                RestartMode::Never => "never",
            },
            user: program.user.clone().unwrap_or_default(),
            config_hash: config::hash(program),
            autostart: program.autostart,
            crash_budget: program.policy.crash_threshold,
            crash_window: program.policy.crash_window,
            metrics_address: program.metrics_address.clone(),
            log_counters,
            health,
        }
    }

    /// What a start of it takes. `notify` is where it may say that it is ready, `trace` the span
    /// that its own belong below.
    ///
    /// # Errors
    ///
    /// When its `env_file` cannot be read: that is a failed start like any other.
    pub fn launch(
        &self,
        inherited: &Inherited,
        notify: &str,
        trace: Option<String>,
    ) -> Result<Launch, SpawnFailure> {
        let program = &self.program;
        let mut environment: BTreeMap<OsString, OsString> = inherited.of(program).collect();
        environment.insert("ETERNAL_PROGRAM".into(), program.name.clone().into());
        environment.insert("ETERNAL_REPLICA".into(), self.replica.to_string().into());
        if let Some(trace) = trace {
            environment.insert(TRACE.into(), trace.into());
            environment.remove(OsStr::new("TRACESTATE"));
        }
        if let Some(path) = &program.env_file {
            environment.extend(read_env_file(path)?);
        }
        for (key, value) in &program.environment {
            environment.insert(key.into(), value.into());
        }
        if program.ready == Ready::Notify || program.watchdog.is_some() {
            environment.insert(NOTIFY_SOCKET.into(), notify.into());
        }
        if let Some(silence) = program.watchdog {
            // Without WATCHDOG_PID it is meant for whoever finds it: the main process is not there
            // yet.
            let microseconds = silence.as_micros().to_string();
            environment.insert(WATCHDOG_USEC.into(), microseconds.into());
        }
        Ok(Launch {
            argv: program.command.clone(),
            working_directory: program.working_directory.clone(),
            environment: environment.into_iter().collect(),
            user: program.user.clone(),
            group: program.group.clone(),
            umask: program.umask,
            nice: program.nice,
            oom_score_adj: program.oom_score_adj,
            limits: program
                .limits
                .iter()
                .filter_map(|(name, limit)| Some((Resource::parse(name)?, limit.soft, limit.hard)))
                .collect(),
            family: program.kill_mode == KillMode::Family,
            cgroup: Some(self.cgroup()),
        })
    }

    /// Whether a start of it asks for what may be slow to answer: a user database, a file of the
    /// administrator's.
    pub fn looks_up(&self) -> bool {
        let program = &self.program;
        program.user.is_some() || program.group.is_some() || program.env_file.is_some()
    }

    /// What it asks for, after so many steps: reading, looking up, opening.
    pub fn looks_for(&self, steps: u8) -> String {
        let program = &self.program;
        let user = program.user.as_ref().map(|user| format!("user {user}"));
        let group = program.group.as_ref().map(|group| format!("group {group}"));
        match (steps, &program.env_file, user.or(group), &program.log_file) {
            (0, Some(path), ..) => format!("reading env_file {}", path.display()),
            (0 | 1, _, Some(whom), _) => format!("looking up {whom}"),
            (.., Some(path)) => format!("opening log_file {}", path.display()),
            (.., None) => "getting ready".to_owned(),
        }
    }

    /// Where all of it lives, in bounds.
    pub fn cgroup(&self) -> Wanted {
        let program = &self.program;
        Wanted {
            program: program.name.clone(),
            replica: self.replica,
            limits: Limits {
                memory_max: program.memory_max,
                pids_max: program.pids_max,
                cpu_max: program.cpu_max,
            },
        }
    }

    /// A launch of a command that finds out about it, in its own surroundings. What it has to
    /// notify is not for another to say.
    pub fn probe_launch(&self, command: &[String], launch: &Launch) -> Launch {
        let environment = launch.environment.iter();
        let not_its_own = [NOTIFY_SOCKET, WATCHDOG_USEC, TRACE];
        let own = |(key, _): &&(OsString, OsString)| not_its_own.iter().all(|name| key != name);
        Launch {
            argv: command.to_vec(),
            environment: environment.filter(own).cloned().collect(),
            family: true,
            // Not its program's: that is killed as a whole.
            cgroup: None,
            ..launch.clone()
        }
    }
}

/// Reads `KEY=VALUE` lines; blank lines and those that begin with `#` are passed over, one pair of
/// quotes around a value is dropped.
fn read_env_file(path: &Path) -> Result<Vec<(OsString, OsString)>, SpawnFailure> {
    let failure = |kind, what: String| SpawnFailure {
        kind,
        transient: false,
        message: format!("cannot read env_file {}: {what}", path.display()),
    };
    let read = places::read(path, LONGEST_ENV_FILE).and_then(|bytes| {
        let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
        String::from_utf8(bytes).map_err(not_text)
    });
    let text = read.map_err(|error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let kind = if denied {
            FailureKind::Permission
        } else {
            FailureKind::Exec
        };
        failure(kind, error.to_string())
    })?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() && !value.contains('\0') => {
                pairs.push((key.trim().into(), unquoted(value.trim()).into()));
            }
            _ => {
                return Err(failure(
                    FailureKind::Exec,
                    format!("line {} is not KEY=VALUE", number + 1),
                ));
            }
        }
    }
    Ok(pairs)
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_the_config_takes_is_one_the_kernel_has() {
        assert_eq!(
            config::LIMITS,
            Resource::NAMES,
            "one that differs would be dropped without a word"
        );
        assert!(
            config::LIMITS
                .iter()
                .all(|name| Resource::parse(name).is_some())
        );
    }

    #[test]
    fn an_env_file_is_read_with_comments_quotes_and_export() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# c\n\nA=1\nexport B=\"two words\"\nC='x=y'\n")
            .expect("written");
        let pairs = read_env_file(file.path()).expect("read");
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "x=y")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_bad_line_of_an_env_file_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "A=1\nnonsense\n").expect("written");
        let failure = read_env_file(file.path()).expect_err("refused");
        assert!(
            failure.message.ends_with("line 2 is not KEY=VALUE"),
            "{failure}"
        );
    }
}
