//! Who waits for whom: a program starts when those that it comes after are ready.

use super::{Fleet, Slot};
use crate::supervision::vocabulary::{Moment, Order, State};
use crate::supervision::{Id, Outbox};

impl Fleet {
    pub(super) fn wake_dependents(&mut self, at: Moment, name: &str, out: &mut Outbox) {
        let dependents: Vec<Id> = self
            .dependents
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in dependents {
            self.wake(at, id, out);
        }
    }

    /// One that waits goes on, or learns whom it waits for now.
    pub(super) fn wake(&mut self, at: Moment, id: Id, out: &mut Outbox) {
        let waits = |slot: &Slot| slot.program.waits_for();
        let Some(before) = self.slots.get(&id).and_then(waits) else {
            return;
        };
        match self.unready_dependency(id) {
            Some(dependency) if dependency == before => {}
            Some(dependency) => self.order(at, id, Order::Await(dependency), out),
            None => self.order(at, id, Order::Proceed, out),
        }
    }

    pub(super) fn index_dependencies(&mut self, id: Id, after: &[String]) {
        for name in after {
            self.dependents.entry(name.clone()).or_default().insert(id);
        }
    }

    /// The first replica it waits for that is not ready. One that ran to its end counts as ready:
    /// a migration before a server.
    pub(super) fn unready_dependency(&self, id: Id) -> Option<Id> {
        let after = &self.slots.get(&id)?.member.after;
        after
            .iter()
            .flat_map(|name| self.replicas(name))
            .copied()
            .find(|dependency| {
                self.slots
                    .get(dependency)
                    .is_none_or(|s| !matches!(s.program.state(), State::Running | State::Completed))
            })
    }
}
