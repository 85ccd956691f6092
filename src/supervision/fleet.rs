//! Many programs: their order, what they wait for, and when the daemon has nothing left to do.

mod roll;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use self::roll::Roll;
use super::program::Program;
use super::vocabulary::{Cause, Event, Input, Moment, Order, State, View};
use super::{Id, Outbox, Output, Policy};

/// A replica of a program, as the fleet needs to know it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The program's name: what others name in `after`.
    pub name: String,
    /// Names of programs that must be ready first.
    pub after: Vec<String>,
    /// When and whether it is started again.
    pub policy: Policy,
}

/// What can be asked of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start it when what it waits for is ready.
    Start(Id),
    /// Stop it; what comes after it stays.
    Stop(Id),
    /// Stop it and start it again.
    Restart(Id, Cause),
    /// Stop it and forget it.
    Remove(Id),
    /// Restart these one after the other, each ready before the next goes.
    Roll(Vec<Id>, Cause),
    /// Stop everything, what comes after others first.
    Shutdown,
    /// SIGKILL everything, now.
    Kill,
}

/// How the daemon's work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A person asked for it: exit 0.
    Stopped,
    /// Everything ran to its end: exit 0.
    Completed,
    /// Nothing is left to run and a program failed or, wanted, was never started; or a critical one
    /// failed: exit 1.
    Failed,
    /// Stopped, but something outlives SIGKILL: exit 1.
    Unkillable,
}

/// Why everything is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Supervising,
    /// `failed`: because a critical program failed.
    ShuttingDown {
        failed: bool,
    },
}

#[derive(Clone, Debug)]
struct Slot {
    member: Member,
    program: Program,
    /// A person stopped it and may want to start it again: the daemon stays for that.
    held: bool,
    /// Its entry in `Fleet::deadlines`.
    deadline: Option<Instant>,
}

/// All programs, and what holds between them.
#[derive(Clone, Debug)]
pub struct Fleet {
    slots: BTreeMap<Id, Slot>,
    /// Replicas by program name.
    names: HashMap<String, Vec<Id>>,
    /// Who comes after the program of this name.
    dependents: HashMap<String, BTreeSet<Id>>,
    /// Every slot's deadline in order of time: an index of what the programs say themselves.
    deadlines: BTreeSet<(Instant, Id)>,
    /// How many are alive or will be without anybody asking.
    active: usize,
    /// Whom a step has reached since somebody asked: their views may have changed.
    touched: BTreeSet<Id>,
    next_id: u32,
    mode: Mode,
    roll: Option<Roll>,
    /// A roll that ended early, until somebody asks: whose failure, and who was left.
    halted_roll: Option<(Id, Vec<Id>)>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            names: HashMap::new(),
            dependents: HashMap::new(),
            deadlines: BTreeSet::new(),
            active: 0,
            touched: BTreeSet::new(),
            next_id: 0,
            mode: Mode::Supervising,
            roll: None,
            halted_roll: None,
        }
    }
}

impl Fleet {
    /// Adds a replica that nobody wants yet.
    pub fn add(&mut self, member: Member) -> Id {
        let id = Id(self.next_id);
        self.next_id += 1;
        let program = Program::new(id, member.policy.clone());
        self.names.entry(member.name.clone()).or_default().push(id);
        self.index_dependencies(id, &member.after);
        self.slots.insert(
            id,
            Slot {
                member,
                program,
                held: false,
                deadline: None,
            },
        );
        id
    }

    /// Replaces what is known of a replica; it holds from the next decision on. One that waits asks
    /// again whom it waits for.
    pub fn update(&mut self, at: Moment, id: Id, member: Member, out: &mut Outbox) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        debug_assert_eq!(slot.member.name, member.name, "a slot keeps its name");
        for name in &slot.member.after {
            if let Some(after) = self.dependents.get_mut(name) {
                after.remove(&id);
            }
        }
        slot.program.set_policy(member.policy.clone());
        let after = member.after.clone();
        slot.member = member;
        self.index_dependencies(id, &after);
        self.wake(at, id, out);
    }

    /// Carries out a request.
    pub fn request(&mut self, at: Moment, request: Request, out: &mut Outbox) {
        match request {
            Request::Start(id) => self.start(at, id, out),
            Request::Stop(id) => {
                self.hold(id, true);
                self.order(at, id, Order::Stop, out);
            }
            Request::Restart(id, cause) => self.restart(at, id, cause, out),
            Request::Remove(id) => self.order(at, id, Order::Remove, out),
            Request::Roll(ids, cause) => self.begin_roll(at, ids, cause, out),
            Request::Shutdown => self.shut_down(at, false, out),
            Request::Kill => {
                self.begin_shutdown(false);
                for id in self.ids() {
                    if self
                        .slots
                        .get(&id)
                        .is_some_and(|slot| slot.program.is_active())
                    {
                        self.order(at, id, Order::Kill, out);
                    }
                }
            }
        }
    }

    /// Takes news of one program.
    pub fn step(&mut self, at: Moment, id: Id, input: Input, out: &mut Outbox) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        self.touched.insert(id);
        let was = (slot.program.state(), slot.program.is_active());
        let told = out.len();
        slot.program.step(at, input, out);
        let is_active = slot.program.is_active();
        let deadline = slot.program.deadline();
        let before = std::mem::replace(&mut slot.deadline, deadline);
        self.active = self.active + usize::from(is_active) - usize::from(was.1);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, id));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, id));
            }
        }
        let critical_failed = self.is_critical(id) && failed_for_good(out.iter().skip(told), id);
        self.follow_up(at, id, was.0, out);
        if critical_failed {
            self.shut_down(at, true, out);
        }
    }

    /// Tells every program whose deadline has come that it has.
    pub fn tick(&mut self, at: Moment, out: &mut Outbox) {
        let due: Vec<Id> = self
            .deadlines
            .iter()
            .take_while(|(when, _)| *when <= at.now)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.step(at, id, Input::Tick, out);
        }
    }

    /// When time alone will change something.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(when, _)| *when)
    }

    /// How the daemon's work ended; `None` while there is some.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.mode {
            Mode::Supervising => self.natural_end(),
            Mode::ShuttingDown { failed } => {
                let mut alive = self
                    .slots
                    .values()
                    .filter(|s| s.program.has_process())
                    .peekable();
                match (
                    alive.peek().is_some(),
                    alive.all(|s| s.program.is_unkillable()),
                ) {
                    (false, _) => Some(if failed {
                        Outcome::Failed
                    } else {
                        Outcome::Stopped
                    }),
                    (true, true) => Some(Outcome::Unkillable),
                    (true, false) => None,
                }
            }
        }
    }

    /// The daemon is on its way out.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.mode != Mode::Supervising
    }

    /// A rolling restart is under way.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.roll.is_some()
    }

    /// Returns, once, that a rolling restart ended early: the program that did not come back, and
    /// those that were left alone for it.
    pub fn take_halted_roll(&mut self) -> Option<(Id, Vec<Id>)> {
        self.halted_roll.take()
    }

    /// Returns, once, every slot whose view may have changed.
    pub fn take_touched(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.touched)
    }

    /// Every slot, in the order they were added.
    #[must_use]
    pub fn ids(&self) -> Vec<Id> {
        self.slots.keys().copied().collect()
    }

    /// The replicas of a program, in order.
    #[must_use]
    pub fn replicas(&self, name: &str) -> &[Id] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// A person stopped it and has not started it again.
    #[must_use]
    pub fn is_held(&self, id: Id) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.held)
    }

    /// A program as it stands; `None` when it was removed.
    #[must_use]
    pub fn view(&self, id: Id) -> Option<View> {
        self.slots.get(&id).map(|slot| slot.program.view())
    }

    // ---- requests ---------------------------------------------------------------------------

    fn start(&mut self, at: Moment, id: Id, out: &mut Outbox) {
        if self.is_shutting_down() {
            return;
        }
        self.hold(id, false);
        let order = self
            .unready_dependency(id)
            .map_or(Order::Start, Order::Await);
        self.order(at, id, order, out);
    }

    fn restart(&mut self, at: Moment, id: Id, cause: Cause, out: &mut Outbox) {
        if self.is_shutting_down() {
            return;
        }
        match self.slots.get(&id).map(|slot| slot.program.state()) {
            Some(State::Stopped | State::Completed) => self.start(at, id, out),
            Some(
                State::Starting | State::Running | State::Stopping | State::Backoff | State::Failed,
            ) => {
                self.hold(id, false);
                self.order(at, id, Order::Restart(cause), out);
            }
            None => {}
        }
    }

    fn order(&mut self, at: Moment, id: Id, order: Order, out: &mut Outbox) {
        self.step(at, id, Input::Order(order), out);
    }

    fn hold(&mut self, id: Id, held: bool) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.held = held;
        }
    }

    fn begin_shutdown(&mut self, failed: bool) {
        self.roll = None;
        let failed = failed || self.mode == Mode::ShuttingDown { failed: true };
        self.mode = Mode::ShuttingDown { failed };
    }

    /// Stops what nothing alive comes after; `follow_up` goes on as they go down.
    fn shut_down(&mut self, at: Moment, failed: bool, out: &mut Outbox) {
        self.begin_shutdown(failed);
        for id in self.ids() {
            self.stop_if_last(at, id, out);
        }
    }

    fn stop_if_last(&mut self, at: Moment, id: Id, out: &mut Outbox) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let alive = |id: &Id| {
            self.slots
                .get(id)
                .is_some_and(|s| s.program.has_process() && !s.program.is_unkillable())
        };
        let needed = slot.program.has_process()
            && self
                .dependents
                .get(&slot.member.name)
                .is_some_and(|after| after.iter().any(alive));
        let failed_for_good = slot.program.state() == State::Failed && !slot.program.is_active();
        let settled = failed_for_good || !slot.program.is_desired();
        if !needed && !settled {
            self.order(at, id, Order::Stop, out);
        }
    }

    // ---- what one program's news means for the others ---------------------------------------

    fn follow_up(&mut self, at: Moment, id: Id, was: State, out: &mut Outbox) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let is = slot.program.state();
        let name = slot.member.name.clone();
        let after = slot.member.after.clone();
        // What cannot be killed is not waited for.
        let down = !slot.program.has_process() || slot.program.is_unkillable();
        let removed = slot.program.is_removed();
        if removed {
            self.forget(id);
        }
        match self.mode {
            Mode::Supervising => {
                let up = is != was && matches!(is, State::Running | State::Completed);
                if up || removed {
                    self.wake_dependents(at, &name, out);
                }
                self.go_on_rolling(at, id, is, out);
            }
            // Whoever it came after may be the last now. Same state, different life: still asks.
            Mode::ShuttingDown { .. } if down || is != was => {
                // It may have ended by itself while others still needed it.
                if down {
                    self.stop_if_last(at, id, out);
                }
                for id in after
                    .iter()
                    .flat_map(|name| self.replicas(name).to_vec())
                    .collect::<Vec<_>>()
                {
                    self.stop_if_last(at, id, out);
                }
            }
            Mode::ShuttingDown { .. } => {}
        }
    }

    fn forget(&mut self, id: Id) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        if let Some(replicas) = self.names.get_mut(&slot.member.name) {
            replicas.retain(|other| *other != id);
        }
        for name in &slot.member.after {
            if let Some(after) = self.dependents.get_mut(name) {
                after.remove(&id);
            }
        }
    }

    // ---- facts ------------------------------------------------------------------------------

    fn is_critical(&self, id: Id) -> bool {
        self.slots
            .get(&id)
            .is_some_and(|slot| slot.member.policy.critical)
    }

    /// Nothing runs, nothing will, and nobody has put anything aside to be started again. One that
    /// waits then never ran, though it was wanted.
    fn natural_end(&self) -> Option<Outcome> {
        if self.active > 0 || self.slots.values().any(|slot| slot.held) {
            return None;
        }
        let any = |state| {
            self.slots
                .values()
                .any(|slot| slot.program.state() == state)
        };
        match (any(State::Failed), any(State::Completed)) {
            (false, false) => None,
            (false, true) if !any(State::Starting) => Some(Outcome::Completed),
            (true, _) | (false, true) => Some(Outcome::Failed),
        }
    }
}

/// Whether these outputs tell that the program failed and will not be tried again.
fn failed_for_good<'a>(told: impl Iterator<Item = &'a Output>, id: Id) -> bool {
    let mut failed = false;
    for output in told {
        match output {
            Output::Event(of, Event::GaveUp { retry: Some(_), .. }) if *of == id => return false,
            Output::Event(of, Event::Failed { .. }) if *of == id => failed = true,
            Output::Event(..) | Output::Action(..) => {}
        }
    }
    failed
}
