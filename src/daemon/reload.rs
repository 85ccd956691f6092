//! Reload: the new config is checked first and applied by difference; a bad one changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::core::Core;
use super::outcomes::{Standing, with_last_lines};
use super::slots::Slot;
use super::{outside, with_causes};
use crate::config::{self, Config, Diff, FileChoice};
use crate::control::api::Reloaded;
use crate::control::server::Refusal;
use crate::observe::DaemonEvent;
use crate::os::notify::Systemd;
use crate::supervision::{Cause, Id, Request, State};
use crate::text;

/// Where the config comes from, and who waits for a reload under way.
pub(super) struct Reloads {
    sources: config::Sources,
    open: Vec<Open>,
    halted: Option<Halted>,
    /// systemd was told that a reload has begun and not that it is over.
    announced: bool,
}

/// A reload that is carried out and not answered.
struct Open {
    reloaded: Reloaded,
    /// What it started, and what it restarted while that was down.
    awaited: BTreeSet<Id>,
    failures: Vec<String>,
    reply: Option<Reply>,
}

/// A rolling restart that ended early.
struct Halted {
    id: Id,
    why: String,
    left: Vec<Id>,
}

type Reply = oneshot::Sender<Result<Reloaded, Refusal>>;

impl Reloads {
    /// The file that was loaded stays the file, even if it vanishes: looking further then would put
    /// another config, or the bundled server, in the place of everything that runs.
    pub fn new(mut sources: config::Sources, loaded: Option<&Path>) -> Self {
        sources.file = loaded.map_or(FileChoice::None, |path| {
            FileChoice::Explicit(path.to_owned())
        });
        Self {
            sources,
            open: Vec::new(),
            halted: None,
            announced: false,
        }
    }
}

impl Core {
    /// Reads the config again and applies it. `restart_all`: every program is restarted, as SIGHUP
    /// does; otherwise only what changed.
    pub(super) fn reload(&mut self, restart_all: bool, reply: Option<Reply>) {
        let span = tracing::info_span!(
            target: "eternal", "reload", restart_all, otel.status_code = tracing::field::Empty
        );
        let _inside = span.enter();
        // READY=1 ends a reload; said before the start is over it would end the start.
        if self.start_up.is_over() && !self.fleet.is_shutting_down() {
            self.systemd_says(Systemd::reloading);
            self.reloads.announced = true;
        }
        match self.try_reload(restart_all) {
            Ok((reloaded, awaited)) => {
                self.observer.tell(&DaemonEvent::ReloadSucceeded {
                    message: summary(&reloaded),
                });
                self.reloads.open.push(Open {
                    reloaded,
                    awaited,
                    failures: Vec::new(),
                    reply,
                });
            }
            Err(refusal) => {
                span.record("otel.status_code", "ERROR");
                let (Refusal::NotFound(message)
                | Refusal::Conflict(message)
                | Refusal::Invalid(message)
                | Refusal::Failed(message)) = &refusal;
                self.observer.tell(&DaemonEvent::ReloadFailed {
                    message: in_one_line(message),
                });
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }

    /// Answers systemd and those who wait for a reload, once the programs that it started and
    /// restarted are up, or one is known not to come up.
    pub(super) fn answer_reloads(&mut self) {
        if let Some((id, left)) = self.fleet.take_halted_roll() {
            let why = self.ends.why(id).map(str::to_owned);
            let why = why.unwrap_or_else(|| self.observer.why(id));
            self.reloads.halted = Some(Halted { id, why, left });
        }
        let mut open = std::mem::take(&mut self.reloads.open);
        let settled = self.hear_of_halted_roll(&mut open) && !self.fleet.is_rolling();
        for reload in &mut open {
            for id in reload.awaited.clone() {
                match self.standing(id) {
                    Standing::Up(_) => {}
                    Standing::Down(why) => {
                        let name = self.display_name(id);
                        let message = format!("{name} did not come up: {why}");
                        self.trouble(&format!("reload: {}", first_line(&message)));
                        reload.failures.push(message);
                    }
                    Standing::Reading | Standing::UnderWay => continue,
                }
                reload.awaited.remove(&id);
            }
        }
        let over = |reload: &mut Open| settled && reload.awaited.is_empty();
        let through: Vec<Open> = open.extract_if(.., over).collect();
        self.reloads.open = open;
        for reload in through {
            // Nobody waits for that of a signal.
            if let Some(reply) = reload.reply {
                let _ = reply.send(if reload.failures.is_empty() {
                    Ok(reload.reloaded)
                } else {
                    Err(Refusal::Failed(reload.failures.join("\n")))
                });
            }
        }
        if settled && self.reloads.open.is_empty() && std::mem::take(&mut self.reloads.announced) {
            self.systemd_says(Systemd::ready);
        }
    }

    /// Tells every open reload why the roll ended early; whether that is through.
    fn hear_of_halted_roll(&mut self, open: &mut [Open]) -> bool {
        let Some(halted) = self.reloads.halted.take() else {
            return true;
        };
        let Some(lines) = self.crashes.last_words(halted.id) else {
            self.reloads.halted = Some(halted);
            return false;
        };
        let name = self.display_name(halted.id);
        let why = with_last_lines(halted.why, &lines);
        let mut message = format!("{name} did not come up: {why}");
        self.trouble(&format!(
            "rolling restart stopped: {}",
            first_line(&message)
        ));
        if !halted.left.is_empty() {
            let left = halted.left.iter().map(|id| self.display_name(*id));
            let left: Vec<String> = left.collect();
            message.push_str(&format!("\nleft as they were: {}", left.join(", ")));
        }
        for reload in open {
            reload.failures.push(message.clone());
        }
        true
    }

    fn trouble(&mut self, message: &str) {
        let message = message.to_owned();
        self.observer.tell(&DaemonEvent::Trouble { message });
    }

    fn display_name(&self, id: Id) -> String {
        let slot = self.slots.get(&id);
        slot.map(Slot::display_name).unwrap_or_default()
    }

    fn try_reload(&mut self, restart_all: bool) -> Result<(Reloaded, BTreeSet<Id>), Refusal> {
        if self.fleet.is_shutting_down() {
            return Err(Refusal::Conflict("the daemon is stopping".into()));
        }
        let loaded = config::load(&self.reloads.sources)
            .map_err(|problems| Refusal::Invalid(problems.to_string()))?;
        let new = loaded.config;
        let protection = outside::protection(&new.metrics)
            .map_err(|error| Refusal::Invalid(with_causes(&error)))?;
        let mut diff = config::diff(&self.config, &new);
        diff.needs_daemon_restart
            .retain(|key| !outside::PROTECTION_KEYS.contains(&key.as_str()));
        if let Some(name) = self.still_there(&diff) {
            return Err(Refusal::Conflict(format!(
                "{name} is still being stopped: reload again when it is gone"
            )));
        }
        let resized: Vec<String> = diff
            .instances
            .iter()
            .map(|i| {
                let new = text::count(i.new as usize, "instance");
                format!("{} ({new} instead of {})", i.name, i.old)
            })
            .collect();
        let (restart, started) = self.apply(&diff, &new)?;
        self.app.protect(protection);
        let restart = if restart_all {
            self.restartable()
        } else {
            restart
        };
        let reloaded = Reloaded {
            restarted: if restart_all {
                self.names(&restart)
            } else {
                diff.restarted
            },
            unchanged: if restart_all { 0 } else { diff.unchanged.len() },
            added: diff.added,
            removed: diff.removed,
            updated: diff.updated.into_iter().chain(resized).collect(),
            needs_daemon_restart: diff.needs_daemon_restart,
        };
        self.config.programs = new.programs;
        let (metrics, new) = (&mut self.config.metrics, new.metrics);
        metrics.tls_cert = new.tls_cert;
        metrics.tls_key = new.tls_key;
        metrics.basic_auth_file = new.basic_auth_file;
        let is_down = |id: &Id| {
            let view = self.fleet.view(*id);
            view.is_some_and(|v| matches!(v.state, State::Backoff | State::Failed))
        };
        let down: Vec<Id> = restart.iter().copied().filter(is_down).collect();
        self.request(Request::Roll(restart, Cause::Config));
        Ok((reloaded, started.into_iter().chain(down).collect()))
    }

    /// Finds a replica that is to be new while the one of its name that was removed before is still
    /// on its way out: both at once would run a program twice, with one name and one cgroup.
    fn still_there(&self, diff: &Diff) -> Option<String> {
        let added = diff.added.iter().map(|name| (name, 0..u32::MAX));
        let grown = diff.instances.iter().map(|i| (&i.name, i.old..i.new));
        added.chain(grown).find_map(|(name, numbers)| {
            let replicas = self.fleet.replicas(name).iter();
            let mut left = replicas.filter_map(|id| self.slots.get(id));
            let left = left.find(|slot| numbers.contains(&slot.replica))?;
            Some(if numbers.start == 0 {
                name.clone()
            } else {
                format!("{name}/{}", left.replica)
            })
        })
    }

    /// Brings the slots in line with the new config; returns those that have to be restarted.
    fn apply(&mut self, diff: &Diff, new: &Config) -> Result<(Vec<Id>, Vec<Id>), Refusal> {
        let find = |name: &String| new.programs.iter().find(|program| program.name == *name);
        let changed: Vec<_> = diff
            .restarted
            .iter()
            .chain(&diff.updated)
            .filter_map(find)
            .collect();
        let mut fresh: Vec<_> = diff
            .added
            .iter()
            .filter_map(find)
            .map(|program| (program, 0))
            .collect();
        let mut obsolete: Vec<Id> = diff
            .removed
            .iter()
            .flat_map(|name| self.fleet.replicas(name).to_vec())
            .collect();
        let resized: Vec<_> = diff
            .instances
            .iter()
            .filter_map(|change| find(&change.name))
            .collect();
        for change in &diff.instances {
            let replicas = self.fleet.replicas(&change.name).to_vec();
            obsolete.extend(
                replicas
                    .iter()
                    .filter(|id| self.slots.get(id).is_some_and(|s| s.replica >= change.new)),
            );
            fresh.extend(
                find(&change.name)
                    .filter(|_| change.new > change.old)
                    .map(|program| (program, change.old)),
            );
        }
        // What can fail comes first: log files that cannot be opened.
        let added = self.add_all(fresh)?;
        for program in changed.into_iter().chain(resized) {
            self.replace(program)?;
        }
        for id in obsolete {
            self.request(Request::Remove(id));
        }
        let started = added.into_iter().filter(|(_, autostart)| *autostart);
        let started: Vec<Id> = started.map(|(id, _)| id).collect();
        for id in &started {
            self.request(Request::Start(*id));
        }
        let restart = diff
            .restarted
            .iter()
            .flat_map(|name| self.fleet.replicas(name).to_vec())
            .collect();
        Ok((restart, started))
    }

    fn add_all(
        &mut self,
        programs: Vec<(&config::Program, u32)>,
    ) -> Result<Vec<(Id, bool)>, Refusal> {
        let mut added = Vec::new();
        for (program, from) in programs {
            let shared = Arc::new(program.clone());
            for replica in from..program.instances {
                match self.add(Slot {
                    program: Arc::clone(&shared),
                    replica,
                }) {
                    Ok(id) => added.push((id, program.autostart)),
                    Err(error) => {
                        for (id, _) in added {
                            self.request(Request::Remove(id));
                        }
                        return Err(unloggable(&program.name, &error));
                    }
                }
            }
        }
        Ok(added)
    }

    /// Puts a changed program in the place of the old one, for every replica that stays.
    fn replace(&mut self, program: &config::Program) -> Result<(), Refusal> {
        let shared = Arc::new(program.clone());
        for id in self.fleet.replicas(&program.name).to_vec() {
            let Some(replica) = self.slots.get(&id).map(|slot| slot.replica) else {
                continue;
            };
            let slot = Slot {
                program: Arc::clone(&shared),
                replica,
            };
            self.register(id, &slot)
                .map_err(|error| unloggable(&program.name, &error))?;
            let at = self.moment();
            self.fleet.update(at, id, slot.member(), &mut self.out);
            self.children.cgroups().limit(id, &slot.cgroup());
            self.slots.insert(id, slot);
            self.changed.insert(id);
            self.change_checks(id);
        }
        Ok(())
    }

    /// Those that a restart of everything is for: not what a person stopped, nor what is through.
    fn restartable(&self) -> Vec<Id> {
        let wanted = |id: &Id| self.fleet.view(*id).is_some_and(|view| view.desired);
        self.fleet.ids().into_iter().filter(wanted).collect()
    }

    fn names(&self, ids: &[Id]) -> Vec<String> {
        let mut names: Vec<String> = ids
            .iter()
            .filter_map(|id| self.slots.get(id))
            .map(|slot| slot.program.name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn unloggable(name: &str, error: &crate::os::logs::LogError) -> Refusal {
    let cause = std::error::Error::source(error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    Refusal::Invalid(format!("{name}: {error}{cause}"))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What is wrong and where, without the quoted lines that a terminal shows.
fn in_one_line(problems: &str) -> String {
    let mut line = String::new();
    for part in problems.lines().map(str::trim) {
        if let Some(place) = part.strip_prefix("--> ") {
            line.push_str(&format!(" ({place})"));
        } else if let Some(quoted) = quoted_line(part) {
            line.push_str(&format!(": {quoted}"));
        } else if let Some(what) = part.strip_prefix("error: ") {
            line.push_str(if line.is_empty() { "" } else { "; " });
            line.push_str(what);
        }
    }
    if line.is_empty() {
        problems.replace('\n', "; ")
    } else {
        line
    }
}

/// The text of a quoted source line, `9 | x = 3`.
fn quoted_line(part: &str) -> Option<&str> {
    let (number, text) = part.split_once(" | ")?;
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.trim())
}

fn summary(reloaded: &Reloaded) -> String {
    let part = |what: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let parts: Vec<String> = [
        part("added", &reloaded.added),
        part("removed", &reloaded.removed),
        part("restarting", &reloaded.restarted),
        part("updated", &reloaded.updated),
        part(
            "needs a restart of the daemon:",
            &reloaded.needs_daemon_restart,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "nothing changed".into()
    } else {
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_fit_in_one_line_of_the_log() {
        let text = "error: no key \"x\"\n --> /e.toml:9:1\n  |\n9 | x = 3\n\nerror: bad\n --> /e.toml:10:2";
        assert_eq!(
            in_one_line(text),
            "no key \"x\" (/e.toml:9:1): x = 3; bad (/e.toml:10:2)"
        );
        assert_eq!(
            in_one_line("web is still being stopped"),
            "web is still being stopped"
        );
    }
}
