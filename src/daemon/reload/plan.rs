//! What a reload will do, decided without doing it: nothing here can wait or change anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{self, Config, Diff, Program};
use crate::control::api::Reloaded;
use crate::daemon::outside;
use crate::daemon::slots::Slot;
use crate::supervision::Id;

/// A replica as it stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub id: Id,
    pub replica: u32,
    /// Somebody wants it up.
    pub wanted: bool,
    /// A person stopped it.
    pub held: bool,
    /// It has not been started yet: what it waits for is not ready.
    pub waits: bool,
}

/// The replicas that stand, by program; those on their way out are among them.
pub(super) type Roster = BTreeMap<String, Vec<Standing>>;

/// Everything a reload does. There is nothing in it that could fail.
#[derive(Debug)]
pub(super) struct Plan {
    /// Replicas that are to be known otherwise from here on.
    pub changed: Vec<(Id, Slot)>,
    /// New replicas, and whether they are started.
    pub fresh: Vec<(Slot, bool)>,
    /// Replicas that go.
    pub obsolete: Vec<Id>,
    /// Replicas that are restarted, one after the other.
    pub restart: Vec<Id>,
    /// What is said of it.
    pub reloaded: Reloaded,
}

/// Plans the change from one configuration to another. `restart_all`: whatever is up is restarted,
/// otherwise only what changed.
///
/// # Errors
///
/// The name of a replica that is to be new while the one of its name that was removed before is still
/// on its way out: both at once would run a program twice, with one name and one cgroup.
pub(super) fn plan(
    old: &Config,
    new: &Config,
    roster: &Roster,
    restart_all: bool,
) -> Result<Plan, String> {
    let mut diff = config::diff(old, new);
    diff.needs_daemon_restart
        .retain(|key| !outside::PROTECTION_KEYS.contains(&key.as_str()));
    if let Some(name) = still_there(&diff, roster) {
        return Err(name);
    }
    let shared: BTreeMap<&str, Arc<Program>> = new
        .programs
        .iter()
        .map(|program| (program.name.as_str(), Arc::new(program.clone())))
        .collect();
    let mut plan = Plan {
        changed: changed(&diff, &shared, roster),
        fresh: fresh(&diff, &shared, roster),
        obsolete: obsolete(&diff, roster),
        restart: Vec::new(),
        reloaded: Reloaded::default(),
    };
    plan.restart(&diff, roster, restart_all);
    plan.say(diff);
    Ok(plan)
}

fn replicas<'a>(roster: &'a Roster, name: &str) -> &'a [Standing] {
    roster.get(name).map_or(&[], Vec::as_slice)
}

fn still_there(diff: &Diff, roster: &Roster) -> Option<String> {
    let added = diff.added.iter().map(|name| (name, 0..u32::MAX));
    let grown = diff.instances.iter().map(|i| (&i.name, i.old..i.new));
    added.chain(grown).find_map(|(name, numbers)| {
        let mut left = replicas(roster, name).iter();
        let left = left.find(|standing| numbers.contains(&standing.replica))?;
        Some(if numbers.start == 0 {
            name.clone()
        } else {
            format!("{name}/{}", left.replica)
        })
    })
}

/// Also where only the number of replicas changed: it is part of their names.
fn changed(
    diff: &Diff,
    programs: &BTreeMap<&str, Arc<Program>>,
    roster: &Roster,
) -> Vec<(Id, Slot)> {
    let resized = diff.instances.iter().map(|change| &change.name);
    let names = diff.restarted.iter().chain(&diff.updated).chain(resized);
    let mut changed = BTreeMap::new();
    for name in names {
        let Some(program) = programs.get(name.as_str()) else {
            continue;
        };
        let staying = replicas(roster, name).iter();
        for standing in staying.filter(|standing| standing.replica < program.instances) {
            let slot = Slot {
                program: Arc::clone(program),
                replica: standing.replica,
            };
            changed.insert(standing.id, slot);
        }
    }
    changed.into_iter().collect()
}

/// A new replica of a program does as the others do: it is up where one of them is wanted up, and
/// stays down where a person stopped them.
fn fresh(
    diff: &Diff,
    programs: &BTreeMap<&str, Arc<Program>>,
    roster: &Roster,
) -> Vec<(Slot, bool)> {
    let added = diff.added.iter().map(|name| (name, 0));
    let grown = diff
        .instances
        .iter()
        .map(|change| (&change.name, change.old));
    let mut fresh = Vec::new();
    for (name, from) in added.chain(grown) {
        let Some(program) = programs.get(name.as_str()) else {
            continue;
        };
        let others = replicas(roster, name);
        let held = !others.is_empty() && others.iter().all(|other| other.held);
        let wanted = others.iter().any(|other| other.wanted);
        let start = wanted || program.autostart && !held;
        fresh.extend((from..program.instances).map(|replica| {
            let program = Arc::clone(program);
            (Slot { program, replica }, start)
        }));
    }
    fresh
}

fn obsolete(diff: &Diff, roster: &Roster) -> Vec<Id> {
    let removed = diff.removed.iter().map(|name| (name, 0));
    let shrunk = diff
        .instances
        .iter()
        .map(|change| (&change.name, change.new));
    let gone = removed.chain(shrunk).flat_map(|(name, from)| {
        let all = replicas(roster, name).iter();
        all.filter(move |standing| standing.replica >= from)
    });
    gone.map(|standing| standing.id).collect()
}

impl Plan {
    /// Restarts what is wanted up: not what a person stopped, what is through, or what has not begun.
    fn restart(&mut self, diff: &Diff, roster: &Roster, all: bool) {
        let mut names: Vec<&String> = diff.restarted.iter().collect();
        if all {
            names = roster.keys().collect();
        }
        let standing = names.iter().flat_map(|name| replicas(roster, name));
        let standing = standing.filter(|s| s.wanted && !s.waits);
        let obsolete: BTreeSet<Id> = self.obsolete.iter().copied().collect();
        self.restart = standing
            .map(|standing| standing.id)
            .filter(|id| !obsolete.contains(id))
            .collect();
        let ids: BTreeSet<Id> = self.restart.iter().copied().collect();
        let is_restarted = |name: &&&String| {
            let mut replicas = replicas(roster, name).iter();
            replicas.any(|standing| ids.contains(&standing.id))
        };
        let restarted = names.iter().filter(is_restarted);
        self.reloaded.restarted = restarted.map(|name| (*name).clone()).collect();
    }

    /// Puts into words what is done, which may be less than what was changed.
    fn say(&mut self, diff: Diff) {
        let said = &mut self.reloaded;
        let restarted: BTreeSet<&String> = said.restarted.iter().collect();
        let changed = diff.restarted.into_iter();
        said.not_running = changed.filter(|name| !restarted.contains(name)).collect();
        let untouched = diff.unchanged.iter();
        said.unchanged = untouched.filter(|name| !restarted.contains(name)).count();
        said.resized = diff
            .instances
            .iter()
            .map(|i| format!("{} ({} instead of {})", i.name, i.new, i.old))
            .collect();
        said.added = diff.added;
        said.removed = diff.removed;
        said.updated = diff.updated;
        said.needs_daemon_restart = diff.needs_daemon_restart;
    }
}
