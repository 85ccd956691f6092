//! Who is connected: a bounded number, of whom whoever has nothing under way makes room.
//!
//! ```text
//! silent ─▶ asking ─▶ answered ─▶ idle ─▶ asking …
//! ```
//!
//! A full house turns somebody out: first those that never sent a whole request, then those that
//! sent none after their last answer, each time the one that came first; then the one that has
//! been slowest to read its answer. So neither those that say nothing nor those that do not read, however
//! many, keep a scraper out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::{Duration, Instant};

use tokio::sync::Notify;

const SILENT: u8 = 0;
const ASKING: u8 = 1;
const ANSWERED: u8 = 2;
const IDLE: u8 = 3;

/// An answer that is not read by then may have to make room, where room is short.
pub(super) const SLOW: Duration = Duration::from_millis(250);

/// The connections that are served.
pub(super) struct Crowd {
    most: usize,
    present: Arc<Mutex<Present>>,
}

#[derive(Default)]
struct Present {
    next: u64,
    /// In the order in which they came.
    guests: BTreeMap<u64, Arc<Guest>>,
}

/// One of them, as the others see it.
#[derive(Default)]
pub(super) struct Guest {
    standing: AtomicU8,
    /// When its answer was made.
    answered: Mutex<Option<Instant>>,
    leave: Notify,
}

/// A place among them; given back when it is dropped.
pub(super) struct Seat {
    number: u64,
    guest: Arc<Guest>,
    present: Arc<Mutex<Present>>,
}

impl Crowd {
    /// Makes room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            present: Arc::default(),
        }
    }

    /// Takes a place, somebody else's if need be; `None` when all are being answered. `instead`: only
    /// somebody else's, unless nobody is there.
    pub(super) fn enter(&self, instead: bool) -> Option<Seat> {
        let mut present = lock(&self.present);
        let full = present.guests.len() >= self.most;
        if full || (instead && !present.guests.is_empty()) {
            let first = |standing| {
                let mut guests = present.guests.iter();
                guests.find(|(_, guest)| guest.standing.load(Ordering::Relaxed) == standing)
            };
            let (&number, _) = first(SILENT)
                .or_else(|| first(IDLE))
                .or_else(|| present.slowest())?;
            if let Some(guest) = present.guests.remove(&number) {
                guest.leave.notify_one();
            }
        }
        let number = present.next;
        present.next += 1;
        let guest = Arc::<Guest>::default();
        present.guests.insert(number, Arc::clone(&guest));
        Some(Seat {
            number,
            guest,
            present: Arc::clone(&self.present),
        })
    }
}

impl Present {
    /// Finds who has been reading its answer for longest, and for longer than anybody needs.
    fn slowest(&self) -> Option<(&u64, &Arc<Guest>)> {
        let reading = self.guests.iter().filter_map(|entry| {
            let reads = entry.1.standing.load(Ordering::Relaxed) == ANSWERED;
            let answered = *lock(&entry.1.answered);
            Some((answered.filter(|_| reads)?, entry))
        });
        let (since, entry) = reading.min_by_key(|(since, _)| *since)?;
        (since.elapsed() >= SLOW).then_some(entry)
    }
}

impl Seat {
    /// Returns who sits there.
    pub(super) fn guest(&self) -> Arc<Guest> {
        Arc::clone(&self.guest)
    }

    /// Waits until the place is somebody else's.
    pub(super) async fn lost(&self) {
        self.guest.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.present).guests.remove(&self.number);
    }
}

impl Guest {
    /// A whole request has come.
    pub(super) fn asks(&self) {
        self.standing.store(ASKING, Ordering::Relaxed);
    }

    /// Its answer is made, and has to be sent.
    pub(super) fn is_answered(&self) {
        *lock(&self.answered) = Some(Instant::now());
        self.standing.store(ANSWERED, Ordering::Relaxed);
    }

    /// Everything that was written is sent.
    pub(super) fn has_all(&self) {
        let (answered, relaxed) = (ANSWERED, Ordering::Relaxed);
        // Anything else is a flush in the middle of something, or long before it.
        let _ = self
            .standing
            .compare_exchange(answered, IDLE, relaxed, relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_go_before_the_idle_and_the_busy_stay() {
        let crowd = Crowd::new(3);
        let enter = || crowd.enter(false).expect("there is room");
        let (idle, silent, busy) = (enter(), enter(), enter());
        idle.guest.asks();
        idle.guest.is_answered();
        idle.guest.has_all();
        busy.guest.asks();
        // Nothing was answered yet.
        busy.guest.has_all();
        let is_in = |seat: &Seat| lock(&crowd.present).guests.contains_key(&seat.number);

        let first = enter();
        assert!(!is_in(&silent) && is_in(&idle));
        first.guest.asks();
        let second = enter();
        assert!(!is_in(&idle) && is_in(&busy));
        second.guest.asks();
        second.guest.is_answered();
        assert!(
            crowd.enter(false).is_none(),
            "an answer on its way is not idle"
        );
        let long_ago = Instant::now().checked_sub(2 * SLOW);
        *lock(&second.guest.answered) = long_ago;
        let third = crowd.enter(false).expect("nobody reads for so long");
        assert!(!is_in(&second) && is_in(&busy) && is_in(&first));
        third.guest.asks();
        drop(busy);
        assert!(crowd.enter(false).is_some());
    }
}
