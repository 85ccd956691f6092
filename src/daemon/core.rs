//! THE LOOP: reads the clock, performs what supervision decides, hands what it tells to observe,
//! turn by turn (see `turn`). It owns every decision by value; nobody else has any of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::births::Births;
use super::commands::{Commands, Purpose};
use super::crash_records::CrashRecords;
use super::environment::Inherited;
use super::health::Health;
use super::mode::Mode;
use super::orders::Orders;
use super::outcomes::Ends;
use super::progress::StartUp;
use super::readiness::{Found, Readiness};
use super::reload::Reloads;
use super::slots::Slot;
use super::voices::Voices;
use super::watchdog::Watchdogs;
use crate::config::{self, Check, Ready};
use crate::observe::{App, DaemonEvent, Observer, StreamCounts, Turns};
use crate::os::children::{Children, News};
use crate::os::journal::Journal;
use crate::os::logs::{Logs, OpenLog, Stream};
use crate::os::notify::{Notification, Systemd};
use crate::os::session::Foreground;
use crate::supervision::{
    Action, Ailment, Event, Fleet, Id, Input, Moment, Outbox, Request, Run, WaitStatus,
};

/// An event on its way to the observer, and when it happened.
type Happened = (Id, Event, (Instant, SystemTime));

/// Everything the loop is lent and owns.
pub(super) struct Core {
    pub mode: Mode,
    pub fleet: Fleet,
    /// That it ends, and why, has been told.
    pub ending: bool,
    /// A thread that it cannot do without has ended.
    pub maimed: bool,
    pub out: Outbox,
    /// What is to be done in the next turn: the time of this one is up.
    pub put_off: Outbox,
    /// Told when there is nothing left to do: a restart does not wait for its log lines.
    pub untold: VecDeque<Happened>,
    pub slots: BTreeMap<Id, Slot>,
    pub changed: BTreeSet<Id>,
    pub children: Children,
    pub observer: Observer,
    /// What the metrics listener serves.
    pub app: Arc<App>,
    pub logs: Logs,
    pub journal: Journal,
    pub readiness: Readiness,
    pub health: Health,
    pub watchdogs: Watchdogs,
    pub voices: Voices,
    pub births: Births,
    pub commands: Commands,
    pub orders: Orders,
    pub reloads: Reloads,
    pub start_up: StartUp,
    pub ends: Ends,
    pub crashes: CrashRecords,
    pub systemd: Systemd,
    /// The terminal we were started on, until it is gone.
    pub foreground: Option<Foreground>,
    /// What systemd was last told about how things are.
    pub status_line: String,
    pub config: config::Config,
    /// What children inherit of our environment.
    pub inherited: Inherited,
    /// How long its turns take.
    pub turns: Turns,
    pub statistics_due: Option<Instant>,
    pub watchdog_due: Option<Instant>,
}

impl Core {
    /// Adds a replica that nobody wants yet, with a place for its lines.
    pub fn adopt(&mut self, slot: Slot, log: OpenLog) -> Id {
        let id = self.fleet.add(slot.member());
        self.introduce(id, &slot, log);
        self.slots.insert(id, slot);
        self.changed.insert(id);
        id
    }

    /// Tells the log room and the observer about a replica, or that it has changed.
    pub fn introduce(&mut self, id: Id, slot: &Slot, log: OpenLog) {
        self.logs.adopt(id, log);
        let counters = self.logs.counters(id);
        let health = self.health.tally(id, &slot.program.health);
        let log_counters = Arc::new(move || {
            [Stream::Stdout, Stream::Stderr].map(|stream| {
                let of = counters.of(stream);
                StreamCounts {
                    lines: of.lines(),
                    bytes: of.bytes(),
                    dropped: of.dropped(),
                }
            })
        });
        self.observer.add(id, slot.about(log_counters, health));
    }

    /// Asks the fleet for something, and does what follows.
    pub fn request(&mut self, request: Request) {
        let at = self.moment();
        self.fleet.request(at, request, &mut self.out);
    }

    pub fn moment(&self) -> Moment {
        Moment {
            now: Instant::now(),
            chance: fastrand::f64(),
        }
    }

    // ---- what comes in ----------------------------------------------------------------------

    pub fn news(&mut self, news: News) {
        match news {
            News::Spawned { id, run, pid } => self.spawned(id, run, pid),
            News::SpawnFailed { id, run, failure } => self.not_spawned(id, run, failure),
            News::Exited {
                id, run, status, ..
            } if Commands::is_command(id) => self.command_ended(run, status),
            News::Exited {
                id,
                run,
                status,
                at,
                family,
            } => {
                let ended = Input::Exited {
                    run,
                    status,
                    family,
                };
                // It ended then, however long the news of it had to wait.
                let at = Moment {
                    now: at,
                    ..self.moment()
                };
                self.fleet.step(at, id, ended, &mut self.out);
            }
            News::FamilyGone { id, .. } if Commands::is_command(id) => {}
            News::FamilyGone { id, run } => self.step(id, Input::FamilyGone(run)),
            News::LeftAlone { .. } | News::OrphanReaped { .. } => {}
        }
    }

    /// Puts on record what ended. Before what follows from it is told, so that a crash has its last
    /// output and a new life is noted after the old one.
    pub fn file(&mut self, news: News) {
        match news {
            News::Spawned { .. } | News::SpawnFailed { .. } => {}
            News::Exited { id, .. } | News::FamilyGone { id, .. } if Commands::is_command(id) => {}
            News::Exited {
                id, run, family, ..
            } => {
                self.crashes.ended(id, self.logs.ended(id, run));
                self.forget_readiness(run);
                self.voices.forget(run);
                self.births.forget(run);
                if !family {
                    self.journal.ended(id.0);
                }
            }
            News::FamilyGone { id, .. } => self.journal.ended(id.0),
            News::LeftAlone { id, count } => {
                if let Some(slot) = self.slots.get(&id) {
                    let program = slot.display_name();
                    self.observer
                        .tell(&DaemonEvent::LeftAlone { program, count });
                }
            }
            News::OrphanReaped { pid, .. } => {
                self.observer.tell(&DaemonEvent::OrphanReaped { pid })
            }
        }
    }

    /// Begins the graceful end.
    pub fn stop_everything(&mut self, reason: &str) {
        self.ending = true;
        self.systemd_says(Systemd::stopping);
        self.start_up.interrupted();
        self.observer.tell(&DaemonEvent::Stopping {
            reason: reason.to_owned(),
        });
        self.request(Request::Shutdown);
    }

    pub fn notified(&mut self, notification: &Notification) {
        let (readiness, watchdogs) = (&self.readiness, &self.watchdogs);
        let heard = self.voices.place(notification, |run| {
            let ready = notification.is_ready() && readiness.waits_for_word_of(run);
            ready || (notification.is_sign_of_life() && watchdogs.waits_for_word_of(run))
        });
        if let Some(heard) = heard {
            let run = heard.run;
            if notification.is_ready() && self.readiness.waits_for_word_of(run) {
                self.probed(Found::Ready(run));
            }
            if self.watchdogs.hear(heard, notification) {
                self.step(run.id(), Input::Failing(run, Ailment::Watchdog));
            }
        } else if let Some(strangers) = self.voices.strangers() {
            self.observer.tell(&DaemonEvent::StrangersSpoke {
                count: strangers.count,
                pid: strangers.pid,
                uid: strangers.uid,
            });
        }
    }

    pub fn probed(&mut self, found: Found) {
        match found {
            Found::Ready(run) => self.step(run.id(), Input::Ready(run)),
            Found::TryAgain(run) => {
                let children = &mut self.children;
                self.readiness
                    .try_command(run, &mut self.commands, children);
            }
            Found::Looked(looked) => self.looked(*looked),
            // Whoever waits for that is answered in every turn.
            Found::LastWords(id) => self.crashes.give_up_on(id),
            Found::Health(report) => self.checked(report),
            Found::Silent(silence) => {
                if let Some(run) = self.watchdogs.ran_out(&silence) {
                    self.step(run.id(), Input::Failing(run, Ailment::Watchdog));
                }
            }
        }
    }

    fn command_ended(&mut self, command: Run, status: WaitStatus) {
        match self.commands.ended(command) {
            Some((Purpose::Readiness, of)) => {
                if let Some(found) = self.readiness.command_ended(of, status) {
                    self.probed(found);
                }
            }
            Some((Purpose::Health, of)) => self.check_ended((command, of), status),
            None => {}
        }
    }

    /// Begins to look after a run that is ready.
    fn look_after(&mut self, run: Run) {
        self.forget_readiness(run);
        if self.children.pid(run).is_none() {
            return;
        }
        self.children.remember(run);
        self.begin_checks(run);
        let slot = self.slots.get(&run.id());
        if let Some(limit) = slot.and_then(|slot| slot.program.watchdog) {
            self.watchdogs.begin(run, limit);
        }
    }

    /// A run is being ended, or gone: it may be silent.
    fn leave_alone(&mut self, run: Run) {
        self.end_checks(run);
        self.watchdogs.forget(run);
    }

    /// Nobody has to find out any more whether this run is ready.
    fn forget_readiness(&mut self, run: Run) {
        if let Some(command) = self.readiness.forget(run) {
            self.children.kill(command);
        }
    }

    pub fn step(&mut self, id: Id, input: Input) {
        let at = self.moment();
        self.fleet.step(at, id, input, &mut self.out);
    }

    // ---- what goes out ----------------------------------------------------------------------

    /// The fleet goes down by itself when a critical program has failed.
    pub fn report_critical_end(&mut self) {
        if self.fleet.is_shutting_down() && !self.ending {
            self.ending = true;
            self.systemd_says(Systemd::stopping);
            let reason = "a critical program failed".to_owned();
            self.observer.tell(&DaemonEvent::Stopping { reason });
        }
    }

    pub fn record(&mut self, id: Id, event: &Event, at: (Instant, SystemTime)) {
        self.changed.insert(id);
        if let Event::StartHangs { run } = event {
            let place = self.start_hangs(*run);
            self.observer.start_hangs(id, &place);
        }
        if let Some(crash) = self.observer.record_at(at, id, event) {
            self.crashes.judged(id, crash);
        }
        match event {
            Event::Started { run, pid, .. } => {
                self.attend(id, *run, *pid);
            }
            Event::Ready { run, .. } => {
                self.crashes.forget(id);
                self.look_after(*run);
            }
            Event::Stopping { run, .. } => self.leave_alone(*run),
            Event::Exited(exit) => self.leave_alone(exit.run),
            Event::Removed => {
                self.slots.remove(&id);
                self.children.cgroups().forget(id);
                self.observer.remove(id);
                self.logs.forget(id);
                self.health.remove(id);
                self.crashes.forget(id);
                self.changed.remove(&id);
            }
            Event::StartFailed { .. } => self.crashes.forget(id),
            Event::Waiting { .. }
            | Event::StartHangs { .. }
            | Event::StartDeferred { .. }
            | Event::StartTimedOut { .. }
            | Event::FamilyLeft { .. }
            | Event::StopEscalated { .. }
            | Event::Unkillable { .. }
            | Event::Stopped { .. }
            | Event::BackingOff { .. }
            | Event::GaveUp { .. }
            | Event::Failed { .. }
            | Event::Completed { .. } => {}
        }
        self.ends.hear(id, event);
        self.start_up.hear(id, event);
    }

    fn attend(&mut self, id: Id, run: Run, pid: i32) {
        let alive = self.fleet.view(id).and_then(|view| view.run);
        let (Some(slot), true) = (
            self.slots.get(&id).cloned(),
            alive.is_some_and(|(of, ..)| of == run),
        ) else {
            // Its end is known already, and was filed.
            return;
        };
        self.journal.running(id.0, pid, &slot.display_name());
        let lacking = self.children.cgroups().lacking(&slot.program.name);
        self.observer.lacks(id, lacking);
        let command = match &slot.program.ready {
            Ready::Check(Check::Exec(words)) => self.prepare_command(run, words),
            Ready::Immediately
            | Ready::Alive(_)
            | Ready::Exit
            | Ready::Notify
            | Ready::Check(Check::Tcp(_) | Check::Http { .. }) => None,
        };
        if slot.program.ready == Ready::Notify || slot.program.watchdog.is_some() {
            self.voices.expect(run, pid, slot.program.user.is_some());
        }
        if let Some(found) = self.readiness.begin(run, &slot.program.ready, command) {
            self.probed(found);
        }
    }

    pub fn act(&mut self, id: Id, action: Action) {
        match action {
            Action::Spawn(run) => self.spawn(id, run),
            Action::Stop(run) => {
                let signal = self
                    .slots
                    .get(&id)
                    .map_or(nix::libc::SIGTERM, |slot| slot.program.stop_signal);
                self.children.stop(run, signal);
            }
            Action::Kill(run) => self.kill_run(run),
        }
    }

    /// Publishes how those that changed stand.
    pub fn publish(&mut self) {
        // Not every change is told: what a run left behind may go without a word.
        self.changed.append(&mut self.fleet.take_touched());
        if self.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        let views: Vec<_> = changed
            .iter()
            .filter_map(|id| Some((*id, self.fleet.view(*id)?)))
            .collect();
        self.observer.publish(views);
        self.report_to_systemd();
    }
}
