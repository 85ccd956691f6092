//! A TURN OF THE LOOP: every source is looked at once, and each has a budget.
//!
//! ```text
//! deaths ─▶ (survivors, scrapes) ─▶ signals ─▶ notifications ─▶ probes, look-ups ─▶ timers ─▶ orders ─▶ pings
//!     ─▶ settle ─▶ (others' tasks)
//! ```
//!
//! However much there is of one kind, the next kind has its turn after milliseconds: a flood of
//! deaths keeps no SIGTERM waiting, a flood of notifications no death.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{coop::unconstrained, yield_now};
use tokio::time::Sleep;

use super::Refusal;
use super::births::LookedUp;
use super::core::Core;
use super::mode::Mode;
use super::readiness::Found;
use crate::control::server::Command;
use crate::observe::DaemonEvent;
use crate::os::children::News;
use crate::os::notify::{Notification, NotifySocket, Systemd};
use crate::os::signals::{Signal, Signals};
use crate::os::threads::Fall;
use crate::supervision::{Event, Outcome, Output};

/// Deaths, and what follows from a turn, are each dealt with for so long before others have their
/// turn. Long enough for the restarts of a burst, short beside what a person or a probe waits.
const SLICE: Duration = Duration::from_millis(10);

/// What has happened and is not told waits up to this number: a program that fails as fast as it
/// is started may not fill the memory.
const UNTOLD: usize = 4096;

/// Of everything else, so many at most.
const PORTION: usize = 64;

/// Timers of the runtime are this coarse: waking that much late is no lag.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// Where news from outside comes in.
pub(super) struct Inbox {
    pub signals: Signals,
    pub commands: mpsc::Receiver<Command>,
    pub notifications: NotifySocket,
    /// What came in there and waits for older news to be dealt with.
    pub heard: Vec<Notification>,
    /// That socket is broken.
    pub deaf: bool,
    pub probed: mpsc::Receiver<Found>,
    pub looked_up: mpsc::UnboundedReceiver<LookedUp>,
    pub pings: mpsc::Receiver<oneshot::Sender<()>>,
    pub falls: Option<mpsc::UnboundedReceiver<Fall>>,
    pub alarm: Alarm,
}

/// Wakes the loop when a deadline has come.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Tells whether the deadline is over; wakes the loop when it is.
    fn is_due(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        if deadline <= Instant::now() {
            return true;
        }
        let at = deadline.into();
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context).is_ready()
    }
}

impl Core {
    /// Runs until there is nothing left to do.
    ///
    /// # Errors
    ///
    /// When it must not begin.
    pub async fn run(&mut self, inbox: &mut Inbox) -> Result<Outcome, Refusal> {
        self.settle();
        loop {
            // What is left to do may be what there is to tell of the end.
            if self.put_off.is_empty()
                && matches!(self.mode, Mode::Supervising)
                && let Some(outcome) = self.fleet.outcome()
            {
                self.wind_up(outcome).await;
            }
            self.see_off();
            if let Mode::Over(_) = self.mode
                && let Mode::Over(end) = std::mem::replace(&mut self.mode, Mode::Supervising)
            {
                return end;
            }
            // The budgets here are the measure; the runtime's own would make sources look empty.
            unconstrained(std::future::poll_fn(|context| self.turn(inbox, context))).await;
            // The other tasks of this thread have their turn, too, however much is waiting here.
            yield_now().await;
        }
    }

    /// Does what there is to do, a portion of each kind. Pending when there was nothing: whatever
    /// comes next wakes the loop.
    fn turn(&mut self, inbox: &mut Inbox, context: &mut Context<'_>) -> Poll<()> {
        self.turns.begin();
        // Left over from a turn whose time was up.
        let mut worked = !self.put_off.is_empty();
        worked |= self.take_deaths(context);
        worked |= self.take_own(context);
        worked |= portion(
            || inbox.signals.poll_next(context),
            |signal| self.obey(signal),
        );
        worked |= portion(
            || match &mut inbox.falls {
                Some(falls) => some(falls.poll_recv(context)),
                None => Poll::Pending,
            },
            |fall| self.fallen(fall),
        );
        worked |= self.take_notifications(inbox, context);
        // After the notifications: one of those may have just been in time.
        worked |= portion(
            || some(inbox.probed.poll_recv(context)),
            |found| self.probed(found),
        );
        worked |= portion(
            || some(inbox.looked_up.poll_recv(context)),
            |looked_up| self.looked_up(looked_up),
        );
        worked |= self.take_timers(inbox, context);
        worked |= portion(
            || some(inbox.commands.poll_recv(context)),
            |command| self.command(command),
        );
        worked |= portion(
            || some(inbox.pings.poll_recv(context)),
            |ping| {
                // Whoever asked may have lost patience. Without an answer it is not healthy.
                let _ = (!self.maimed).then(|| ping.send(()));
            },
        );
        if !worked {
            self.turns.was_none();
            return Poll::Pending;
        }
        self.settle();
        self.turns.end();
        Poll::Ready(())
    }

    /// Answers the deaths that are known, for one slice of time. Each is answered before the next
    /// is looked at: the first of a burst does not wait for the last, and none for the paperwork.
    fn take_deaths(&mut self, context: &mut Context<'_>) -> bool {
        let Poll::Ready(first) = self.children.poll_next(context) else {
            return false;
        };
        self.answer(first);
        true
    }

    fn answer(&mut self, first: News) {
        let until = Instant::now() + SLICE;
        let mut answered = Vec::new();
        let mut next = Some(first);
        while let Some(news) = next {
            self.news(news.clone());
            self.act_all(until);
            answered.push(news);
            // Who dies meanwhile is seen now, so that its time does not count as run time.
            self.children.glance();
            // Only those of the same look: no program ends twice before its papers are filed.
            next = (Instant::now() < until)
                .then(|| self.children.drain())
                .flatten();
        }
        for news in answered {
            self.file(news);
        }
    }

    /// Does and tells everything there is, then publishes how things stand.
    pub fn settle(&mut self) {
        // Whoever fails as fast as it is started would never let go.
        let until = Instant::now() + SLICE;
        self.put_off.append(&mut self.out);
        std::mem::swap(&mut self.put_off, &mut self.out);
        loop {
            self.perform(until);
            self.publish();
            self.answer_orders();
            self.answer_reloads();
            self.report_start_up();
            self.report_critical_end();
            // An answer may have led to orders, as a finished reload does.
            if self.out.is_empty() {
                break;
            }
        }
    }

    fn perform(&mut self, until: Instant) {
        loop {
            self.act_all(until);
            let Some((id, event, at)) = self.untold.pop_front() else {
                break;
            };
            self.record(id, &event, at);
        }
    }

    /// Does what there is to do, and keeps what there is to tell, in order. When the time is up what is
    /// to be done waits for the next turn. What has happened does not: counters would be behind what
    /// is published of the programs.
    fn act_all(&mut self, until: Instant) {
        while self.untold.len() < UNTOLD
            && let Some(output) = self.out.pop_front()
        {
            match output {
                Output::Event(id, event) => {
                    let at = happened(&event);
                    self.untold.push_back((id, event, at));
                }
                Output::Action(id, action) if Instant::now() < until => self.act(id, action),
                Output::Action(..) => self.put_off.push_back(output),
            }
        }
    }

    fn obey(&mut self, signal: Signal) {
        self.observer.tell(&DaemonEvent::SignalReceived {
            name: signal.name(),
        });
        match signal {
            Signal::Terminate | Signal::Interrupt | Signal::Quit => {
                self.asked_to_end(signal.name(), true);
            }
            Signal::Hangup => self.hung_up(),
            Signal::ReopenLogs => {
                self.logs.reopen();
                self.observer.tell(&DaemonEvent::LogsReopened);
            }
            Signal::Statistics => self.observer.tell(&DaemonEvent::Statistics),
        }
    }

    /// The signal asks for a reload, unless it is the news that the terminal is gone: that ends a
    /// daemon in the foreground, as it would end any program, and is nothing to one that was told to
    /// outlive it.
    fn hung_up(&mut self) {
        match self.foreground.take_if(|foreground| foreground.is_gone()) {
            None => self.reload_by_signal(),
            Some(gone) if gone.matters() && !self.fleet.is_shutting_down() => {
                self.asked_to_end("its terminal is gone", false);
            }
            Some(_) => {}
        }
    }

    fn take_notifications(&mut self, inbox: &mut Inbox, context: &mut Context<'_>) -> bool {
        if inbox.deaf {
            return false;
        }
        if inbox.heard.is_empty() {
            let worked = self.receive(inbox, context);
            if inbox.heard.is_empty() {
                return worked;
            }
            // Whoever speaks executes its program, but that may not be known here yet: news that is
            // older than its words comes first.
            if self.children.bears() {
                self.children.look();
            }
        }
        if let Some(news) = self.children.drain() {
            self.answer(news);
        }
        // A run is listened to once its start is told of.
        self.perform(Instant::now() + SLICE);
        if !self.children.has_news() {
            for notification in std::mem::take(&mut inbox.heard) {
                self.notified(&notification);
            }
        }
        true
    }

    fn receive(&mut self, inbox: &mut Inbox, context: &mut Context<'_>) -> bool {
        for taken in 0..PORTION {
            match inbox.notifications.poll_recv(context) {
                // One that says nothing to us was work all the same.
                Poll::Ready(Ok(heard)) => inbox.heard.extend(heard),
                // A broken socket is not asked again: that would only spin.
                Poll::Ready(Err(error)) => {
                    tracing::error!("cannot receive READY=1 any more: {error}");
                    inbox.deaf = true;
                    return true;
                }
                Poll::Pending => return taken > 0,
            }
        }
        true
    }

    fn take_timers(&mut self, inbox: &mut Inbox, context: &mut Context<'_>) -> bool {
        let due = self
            .deadline()
            .filter(|deadline| inbox.alarm.is_due(*deadline, context));
        if let Some(deadline) = due {
            self.timer(deadline);
        }
        due.is_some()
    }

    fn timer(&mut self, deadline: Instant) {
        let now = Instant::now();
        let late = now
            .saturating_duration_since(deadline)
            .saturating_sub(TIMER_GRAIN);
        self.observer.tell(&DaemonEvent::LoopLag { late });
        if self.statistics_due.is_some_and(|due| due <= now) {
            self.observer.tell(&DaemonEvent::Statistics);
            self.statistics_due = self.config.daemon.stats_interval.map(|every| now + every);
        }
        if self.watchdog_due.is_some_and(|due| due <= now) {
            self.systemd_says(Systemd::watchdog);
            self.watchdog_due = self.systemd.watchdog_interval().map(|within| now + within);
        }
        self.mode_is_due(now);
        let at = self.moment();
        self.fleet.tick(at, &mut self.out);
    }

    fn deadline(&self) -> Option<Instant> {
        [
            self.fleet.deadline(),
            self.mode.deadline(),
            self.statistics_due,
            self.watchdog_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Takes a portion of what a source has; tells whether it had anything.
fn portion<T>(mut poll: impl FnMut() -> Poll<T>, mut take: impl FnMut(T)) -> bool {
    for taken in 0..PORTION {
        match poll() {
            Poll::Ready(news) => take(news),
            Poll::Pending => return taken > 0,
        }
    }
    true
}

/// A channel whose senders are gone has nothing to say, as one that is empty.
fn some<T>(polled: Poll<Option<T>>) -> Poll<T> {
    match polled {
        Poll::Ready(Some(news)) => Poll::Ready(news),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    }
}

/// When something is told to have happened: an end when it was seen, all else at this moment.
fn happened(event: &Event) -> (Instant, SystemTime) {
    let (now, wall) = (Instant::now(), SystemTime::now());
    match event {
        Event::Exited(exit) => {
            let ago = now.saturating_duration_since(exit.at);
            (exit.at, wall.checked_sub(ago).unwrap_or(wall))
        }
        Event::Waiting { .. }
        | Event::Started { .. }
        | Event::StartFailed { .. }
        | Event::StartDeferred { .. }
        | Event::StartHangs { .. }
        | Event::Ready { .. }
        | Event::StartTimedOut { .. }
        | Event::FamilyLeft { .. }
        | Event::Stopping { .. }
        | Event::StopEscalated { .. }
        | Event::Unkillable { .. }
        | Event::Stopped { .. }
        | Event::BackingOff { .. }
        | Event::GaveUp { .. }
        | Event::Failed { .. }
        | Event::Completed { .. }
        | Event::Removed => (now, wall),
    }
}
