//! What a new configuration changes.

use std::collections::HashMap;

use super::effective;
use super::model::{Config, Program};

/// What is different between two configurations; programs by name, in the order of the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// New ones.
    pub added: Vec<String>,
    /// Those that are gone, in the order of the old one.
    pub removed: Vec<String>,
    /// Those that run something else, or in another way: a running process cannot be changed so.
    pub restarted: Vec<String>,
    /// Those that are only treated in another way from here on.
    pub updated: Vec<String>,
    /// Those of which nothing changed.
    pub unchanged: Vec<String>,
    /// Those with another number of replicas; they may be in `restarted` or `updated` besides.
    pub instances: Vec<InstancesChange>,
    /// `daemon.…`, `metrics.…` and `tracing.…` keys that changed: they take effect at the next
    /// start of the daemon.
    pub needs_daemon_restart: Vec<String>,
}

/// A number of replicas that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancesChange {
    /// Whose.
    pub name: String,
    /// How many there were.
    pub old: u32,
    /// How many there shall be.
    pub new: u32,
}

impl Diff {
    /// Returns whether nothing changed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                unchanged: self.unchanged.clone(),
                ..Self::default()
            }
    }
}

/// Compares two configurations.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff {
        needs_daemon_restart: daemon_keys(old, new),
        ..Diff::default()
    };
    let mut before: HashMap<&str, &Program> =
        old.programs.iter().map(|p| (p.name.as_str(), p)).collect();
    for program in &new.programs {
        let name = || program.name.clone();
        let Some(was) = before.remove(program.name.as_str()) else {
            diff.added.push(name());
            continue;
        };
        if was.instances != program.instances {
            diff.instances.push(InstancesChange {
                name: name(),
                old: was.instances,
                new: program.instances,
            });
        }
        if !same_process(was, program) {
            diff.restarted.push(name());
        } else if *was
            != (Program {
                instances: was.instances,
                ..program.clone()
            })
        {
            diff.updated.push(name());
        } else if was.instances == program.instances {
            diff.unchanged.push(name());
        }
    }
    let gone = old
        .programs
        .iter()
        .filter(|program| before.contains_key(program.name.as_str()));
    diff.removed = gone.map(|program| program.name.clone()).collect();
    diff
}

/// Returns whether two configurations of a program would spawn the same process. The log file
/// counts: it is bound to the process's output when that is spawned.
fn same_process(a: &Program, b: &Program) -> bool {
    a.command == b.command
        && a.working_directory == b.working_directory
        && a.environment == b.environment
        && a.env_file == b.env_file
        && a.pass_environment == b.pass_environment
        && (&a.user, &a.group, a.umask) == (&b.user, &b.group, b.umask)
        && (a.nice, a.oom_score_adj) == (b.nice, b.oom_score_adj)
        && a.limits == b.limits
        && a.log_file == b.log_file
        // Whether somebody listens for it is told in the environment.
        && a.watchdog == b.watchdog
}

fn daemon_keys(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (effective::daemon_values(old), effective::daemon_values(new));
    let changed = old.iter().zip(&new).filter(|(a, b)| a.1 != b.1);
    changed
        .map(|((key, _), _)| format!("{}.{}", key.section.table(), key.name))
        .collect()
}
