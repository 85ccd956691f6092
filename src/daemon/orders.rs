//! Orders from people: each is answered when it is carried out, or has failed.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::core::Core;
use super::mode::Mode;
use super::outcomes::Standing;
use crate::control::api::{Done, Health, Verb};
use crate::control::names::no_such_program;
use crate::control::server::{Command, Refusal, Target};
use crate::supervision::{Cause, Id, Request, State, View};

/// Orders that are not answered yet.
#[derive(Default)]
pub(super) struct Orders {
    open: Vec<Order>,
    shutdown: Vec<oneshot::Sender<()>>,
}

struct Order {
    verb: Verb,
    waiting: BTreeSet<Id>,
    done: Done,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

impl Orders {
    /// Tells those who asked for the end that it has come.
    pub fn everything_is_gone(&mut self) {
        for reply in self.shutdown.drain(..) {
            // Nobody may be waiting any more.
            let _ = reply.send(());
        }
    }
}

impl Core {
    pub(super) fn command(&mut self, command: Command) {
        if let Mode::Recovering(recovery) = &mut self.mode
            && recovery.is_only_looking()
            && matches!(command, Command::Program { .. } | Command::Reload { .. })
        {
            // Whoever orders right after the start need not know of this moment.
            recovery.held.push(command);
            return;
        }
        match command {
            Command::Program {
                verb,
                target,
                reply,
            } => match self.has_no_ear() {
                Some(refusal) => refuse(reply, refusal),
                None => self.order(verb, &target, reply),
            },
            Command::Reload { restart, reply } => match self.has_no_ear() {
                Some(refusal) => refuse(reply, refusal),
                None => self.reload(restart, Some(reply)),
            },
            Command::Health { reply } => self.tell_health(reply),
            Command::Shutdown { reply } => {
                self.orders.shutdown.push(reply);
                self.asked_to_end("asked to stop through the control socket", false);
            }
        }
    }

    /// Answers from the snapshot that `/-/ready` shows, too.
    pub(super) fn tell_health(&self, reply: oneshot::Sender<Health>) {
        let published = self.observer.reader().published();
        let missing = published.missing().into_iter();
        let not_ready = missing.map(str::to_owned).collect();
        // Nobody may be waiting any more.
        let _ = reply.send(Health { not_ready });
    }

    fn order(
        &mut self,
        verb: Verb,
        target: &Target,
        reply: oneshot::Sender<Result<Done, Refusal>>,
    ) {
        let ids = match self.find(target) {
            Ok(ids) if !self.fleet.is_shutting_down() => ids,
            Ok(_) => return refuse(reply, Refusal::Conflict("the daemon is stopping".into())),
            Err(refusal) => return refuse(reply, refusal),
        };
        for id in &ids {
            self.request(match verb {
                Verb::Start => Request::Start(*id),
                Verb::Stop => Request::Stop(*id),
                Verb::Restart => Request::Restart(*id, Cause::Operator),
            });
        }
        let done = Done {
            ok: true,
            messages: Vec::new(),
        };
        self.orders.open.push(Order {
            verb,
            waiting: ids.into_iter().collect(),
            done,
            reply,
        });
    }

    fn find(&self, target: &Target) -> Result<Vec<Id>, Refusal> {
        let replicas = self.fleet.replicas(&target.name);
        if replicas.is_empty() {
            let known = self.slots.values();
            let known = known.map(|slot| slot.program.name.as_str());
            return Err(Refusal::NotFound(no_such_program(&target.name, known)));
        }
        let Some(replica) = target.replica else {
            return Ok(replicas.to_vec());
        };
        let of_that_number = |id: &&Id| {
            self.slots
                .get(id)
                .is_some_and(|slot| slot.replica == replica)
        };
        replicas
            .iter()
            .find(of_that_number)
            .map(|id| vec![*id])
            .ok_or_else(|| {
                let count = replicas.len();
                Refusal::NotFound(format!(
                    "{} has no replica {replica}: they are 0 to {}",
                    target.name,
                    count - 1
                ))
            })
    }

    /// Answers the orders that are through.
    pub(super) fn answer_orders(&mut self) {
        let mut open = std::mem::take(&mut self.orders.open);
        for order in &mut open {
            let waiting = order.waiting.clone().into_iter();
            let through: Vec<_> = waiting
                .filter_map(|id| Some((id, self.result(order.verb, id)?)))
                .collect();
            for (id, (ok, message)) in through {
                order.waiting.remove(&id);
                order.done.ok &= ok;
                order.done.messages.push(message);
            }
        }
        let (through, open): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|order| order.waiting.is_empty());
        self.orders.open = open;
        for order in through {
            let _ = order.reply.send(Ok(order.done));
        }
    }

    /// How an order ended for one replica; `None` while it is under way.
    fn result(&mut self, verb: Verb, id: Id) -> Option<(bool, String)> {
        let view = self.fleet.view(id);
        let name = self
            .slots
            .get(&id)
            .map(super::slots::Slot::display_name)
            .unwrap_or_default();
        let (ok, what) = match verb {
            Verb::Stop => match view {
                Some(view) => stopped(&view)?,
                None => (true, "it was removed from the config".into()),
            },
            Verb::Start | Verb::Restart => match self.standing(id) {
                Standing::Up(how) => (true, how),
                Standing::Down(why) => (false, why),
                Standing::Reading | Standing::UnderWay => return None,
            },
        };
        Some((ok, format!("{name}: {what}")))
    }
}

fn stopped(view: &View) -> Option<(bool, String)> {
    match view.state {
        State::Stopped | State::Completed | State::Failed => Some((true, "stopped".into())),
        // No deadline is left: it outlives SIGKILL.
        State::Stopping if view.deadline.is_none() => Some((false, view.why.into())),
        State::Stopping => None,
        State::Starting | State::Running | State::Backoff => {
            Some((false, "it was started again".into()))
        }
    }
}

fn refuse<T>(reply: oneshot::Sender<Result<T, Refusal>>, refusal: Refusal) {
    let _ = reply.send(Err(refusal));
}
