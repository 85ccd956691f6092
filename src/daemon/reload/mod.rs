//! Reload: the new config is looked at first and applied by difference; a bad one changes nothing.
//!
//! ```text
//! asked ─▶ open (a thread: may wait, may fail, touches nothing) ─▶ plan (pure, may refuse) │ commit (cannot fail)
//! ```

mod answers;
mod open;
mod plan;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use self::open::{Opened, Question, Refused};
use self::plan::{Plan, Roster, Standing};
use super::core::Core;
use super::readiness::Found;
use super::slots::Slot;
use crate::config::{self, FileChoice};
use crate::control::api::Reloaded;
use crate::control::server::Refusal;
use crate::observe::DaemonEvent;
use crate::os::logs::OpenLog;
use crate::os::notify::Systemd;
use crate::os::threads;
use crate::supervision::{Cause, Id, Request, State};

/// A file system may not answer: a reload that waits longer is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the config comes from, and who waits for a reload under way.
pub(super) struct Reloads {
    sources: config::Sources,
    /// The one that is being looked at.
    opening: Option<Opening>,
    /// Those that were asked for meanwhile.
    queue: VecDeque<Asked>,
    open: Vec<Open>,
    halted: Option<Halted>,
    /// systemd was told that a reload has begun and not that it is over.
    announced: bool,
    number: u64,
}

/// Who asked for a reload, and of which kind.
struct Asked {
    restart_all: bool,
    reply: Option<Reply>,
    span: tracing::Span,
}

struct Opening {
    asked: Asked,
    number: u64,
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

/// What came of looking at a configuration.
pub(super) struct Looked {
    /// Of which reload: what comes of an earlier one is old news.
    number: u64,
    outcome: Result<Opened, Refused>,
}

impl std::fmt::Debug for Looked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looked")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Reloads {
    /// The file that was loaded stays the file, even if it vanishes: looking further then would put
    /// another config, or the bundled server, in the place of everything that runs.
    pub fn new(mut sources: config::Sources, loaded: Option<&Path>) -> Self {
        sources.file = loaded.map_or(FileChoice::None, |path| {
            FileChoice::Explicit(path.to_owned())
        });
        Self {
            sources,
            opening: None,
            queue: VecDeque::new(),
            open: Vec::new(),
            halted: None,
            announced: false,
            number: 0,
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
        // READY=1 ends a reload; said before the start is over it would end the start.
        if self.start_up.is_over() && !self.fleet.is_shutting_down() {
            self.systemd_says(Systemd::reloading);
            self.reloads.announced = true;
        }
        self.reloads.queue.push_back(Asked {
            restart_all,
            reply,
            span,
        });
        self.look_at_next();
    }

    /// Begins to look at the config for whoever asked first, one at a time: the next one is compared
    /// with what this one leaves.
    fn look_at_next(&mut self) {
        if self.reloads.opening.is_some() {
            return;
        }
        let Some(asked) = self.reloads.queue.pop_front() else {
            return;
        };
        self.reloads.number += 1;
        let number = self.reloads.number;
        let question = self.question(asked.restart_all);
        self.reloads.opening = Some(Opening { asked, number });
        let (answer, answered) = oneshot::channel();
        let look = move || drop(answer.send(open::open(&question)));
        if let Err(error) = threads::spawn_helper("reload", look) {
            let refused = Refused::failed(format!("cannot start a thread to look at it: {error}"));
            return self.looked(Looked {
                number,
                outcome: Err(refused),
            });
        }
        let found = self.readiness.found();
        tokio::spawn(async move {
            let outcome = match tokio::time::timeout(PATIENCE, answered).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Refused::failed("looking at it ended early".into())),
                Err(_) => Err(Refused::failed(format!(
                    "looking at it and at the files it names takes longer than {} s: is a disk in the way?",
                    PATIENCE.as_secs()
                ))),
            };
            let looked = Looked { number, outcome };
            let _ = found.send(Found::Looked(Box::new(looked))).await;
        });
    }

    fn question(&self, restart_all: bool) -> Question {
        let is_up = |id: &Id| self.fleet.view(*id).is_some_and(|view| view.ready);
        let up = self.slots.iter().filter(|(id, _)| is_up(id));
        Question {
            sources: self.reloads.sources.clone(),
            old: self.config.clone(),
            restart_all,
            up: up.map(|(_, slot)| slot.program.name.clone()).collect(),
            inherited: self.inherited.clone(),
            notify: self.readiness.notify_address().to_owned(),
            logs: self.logs.clone(),
        }
    }

    /// Goes on with a reload whose configuration has been looked at.
    pub(super) fn looked(&mut self, looked: Looked) {
        let current = |opening: &mut Opening| opening.number == looked.number;
        let Some(Opening { asked, .. }) = self.reloads.opening.take_if(current) else {
            return;
        };
        let span = asked.span.clone();
        let inside = span.enter();
        match self.decide(looked.outcome, asked.restart_all) {
            Ok((plan, opened)) => self.commit(plan, opened, asked.reply),
            Err(refused) => {
                span.record("otel.status_code", "ERROR");
                let message = refused.told;
                self.observer.tell(&DaemonEvent::ReloadFailed { message });
                if let Some(reply) = asked.reply {
                    let _ = reply.send(Err(refused.answer));
                }
            }
        }
        drop(inside);
        self.look_at_next();
    }

    /// The last thing that may refuse: how the programs stand at this moment.
    fn decide(
        &self,
        outcome: Result<Opened, Refused>,
        restart_all: bool,
    ) -> Result<(Plan, Opened), Refused> {
        if self.fleet.is_shutting_down() {
            return Err(Refused::conflict("the daemon is stopping".into()));
        }
        let opened = outcome?;
        let plan = plan::plan(&self.config, &opened.config, &self.roster(), restart_all).map_err(
            |name| {
                Refused::conflict(format!(
                    "{name} is still being stopped: reload again when it is gone"
                ))
            },
        )?;
        Ok((plan, opened))
    }

    fn roster(&self) -> Roster {
        let mut roster = Roster::new();
        for (id, slot) in &self.slots {
            let Some(view) = self.fleet.view(*id) else {
                continue;
            };
            roster
                .entry(slot.program.name.clone())
                .or_default()
                .push(Standing {
                    id: *id,
                    replica: slot.replica,
                    wanted: view.desired,
                    held: self.fleet.is_held(*id),
                    waits: view.waits_for.is_some(),
                });
        }
        roster
    }

    /// Puts a configuration in force. Everything that can fail is behind us.
    fn commit(&mut self, plan: Plan, opened: Opened, reply: Option<Reply>) {
        let Plan {
            changed,
            fresh,
            obsolete,
            restart,
            reloaded,
        } = plan;
        let mut logs = opened.logs;
        for (id, slot) in changed {
            let log = self.log_of(&slot, &mut logs);
            self.introduce(id, &slot, log);
            let at = self.moment();
            self.fleet.update(at, id, slot.member(), &mut self.out);
            self.children.cgroups().limit(id, &slot.cgroup());
            self.slots.insert(id, slot);
            self.changed.insert(id);
            self.change_checks(id);
        }
        let mut awaited = BTreeSet::new();
        for (slot, start) in fresh {
            let log = self.log_of(&slot, &mut logs);
            let id = self.adopt(slot, log);
            if start {
                awaited.insert(id);
            }
        }
        for id in obsolete {
            self.request(Request::Remove(id));
        }
        self.app.protect(opened.protection);
        self.config.programs = opened.config.programs;
        let (metrics, new) = (&mut self.config.metrics, opened.config.metrics);
        metrics.tls_cert = new.tls_cert;
        metrics.tls_key = new.tls_key;
        metrics.basic_auth_file = new.basic_auth_file;
        for id in &awaited {
            self.request(Request::Start(*id));
        }
        // The roll does not wait for what is down; whoever asked does.
        let is_down = |id: &&Id| {
            let view = self.fleet.view(**id);
            view.is_some_and(|v| matches!(v.state, State::Backoff | State::Failed))
        };
        awaited.extend(restart.iter().filter(is_down));
        self.request(Request::Roll(restart, Cause::Config));
        let message = summary(&reloaded);
        self.observer
            .tell(&DaemonEvent::ReloadSucceeded { message });
        self.reloads.open.push(Open {
            reloaded,
            awaited,
            failures: Vec::new(),
            reply,
        });
    }

    /// The log that was opened for a replica; where only its name changed the file is the same.
    fn log_of(&self, slot: &Slot, logs: &mut HashMap<String, OpenLog>) -> OpenLog {
        let opened = logs.remove(&slot.display_name());
        opened.unwrap_or_else(|| self.logs.later(slot.log_source()))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
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
        part("replicas:", &reloaded.resized),
        part("changed and not running:", &reloaded.not_running),
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
