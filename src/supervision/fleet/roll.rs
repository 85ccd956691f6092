//! The rolling restart: one program after the other, each ready before the next goes.

use std::collections::{BTreeSet, VecDeque};

use super::Fleet;
use crate::supervision::vocabulary::{Cause, Moment, State};
use crate::supervision::{Id, Outbox};

/// A rolling restart under way.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    pub current: Id,
    pub left: VecDeque<Id>,
    pub cause: Cause,
}

impl Fleet {
    pub(super) fn begin_roll(&mut self, at: Moment, ids: Vec<Id>, cause: Cause, out: &mut Outbox) {
        let mut left: VecDeque<Id> = self.in_start_order(ids).into();
        // A second roll takes up what the first had left, once each.
        if let Some(roll) = self.roll.take() {
            let rest: Vec<Id> = roll
                .left
                .into_iter()
                .filter(|id| !left.contains(id))
                .collect();
            left.extend(rest);
        }
        self.next_of_roll(at, left, cause, out);
    }

    pub(super) fn next_of_roll(
        &mut self,
        at: Moment,
        mut left: VecDeque<Id>,
        cause: Cause,
        out: &mut Outbox,
    ) {
        self.roll = None;
        while let Some(id) = left.pop_front() {
            let Some(program) = self.slots.get(&id).map(|slot| &slot.program) else {
                continue;
            };
            match program.state() {
                // Those that a person stopped (or is stopping), or that are through, stay so.
                _ if !program.is_desired() => {}
                State::Stopped | State::Completed => {}
                // What is down has no readiness to wait for, and may never have any.
                State::Backoff | State::Failed => self.restart(at, id, cause, out),
                State::Starting if program.is_waiting() => {}
                State::Starting | State::Running | State::Stopping => {
                    self.roll = Some(Roll {
                        current: id,
                        left,
                        cause,
                    });
                    return self.restart(at, id, cause, out);
                }
            }
        }
    }

    /// Dependencies first; otherwise as given.
    pub(super) fn in_start_order(&self, ids: Vec<Id>) -> Vec<Id> {
        let mut ordered = Vec::with_capacity(ids.len());
        let mut seen = BTreeSet::new();
        let mut stack: Vec<(Id, bool)> = ids.iter().rev().map(|id| (*id, false)).collect();
        let wanted: BTreeSet<Id> = ids.into_iter().collect();
        while let Some((id, dependencies_done)) = stack.pop() {
            if dependencies_done {
                ordered.push(id);
            } else if wanted.contains(&id) && seen.insert(id) {
                stack.push((id, true));
                let after = self
                    .slots
                    .get(&id)
                    .map_or(&[][..], |slot| &slot.member.after);
                stack.extend(
                    after
                        .iter()
                        .flat_map(|name| self.replicas(name))
                        .map(|id| (*id, false)),
                );
            }
        }
        ordered
    }

    pub(super) fn go_on_rolling(&mut self, at: Moment, id: Id, is: State, out: &mut Outbox) {
        let Some(roll) = self.roll.take_if(|roll| roll.current == id) else {
            return;
        };
        let failed = self
            .slots
            .get(&id)
            .is_some_and(|slot| slot.program.did_not_come_up());
        match is {
            State::Running | State::Completed | State::Stopped => {
                self.next_of_roll(at, roll.left, roll.cause, out)
            }
            // It does not come up: the rest keeps running as it is.
            State::Starting | State::Stopping | State::Backoff | State::Failed if failed => {
                self.halted_roll = Some((id, roll.left.into()));
            }
            State::Starting | State::Stopping | State::Backoff | State::Failed => {
                self.roll = Some(roll);
            }
        }
    }
}
