//! Errands: what may take long (a user database, a file on a network) is done by helper threads,
//! each stuck with its own errand at worst. None waits while a helper is free or can be had.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

/// So many helpers at most: so many errands can be stuck before others have to wait.
const HELPERS: usize = 4;
/// A helper that has nothing to do for so long is let go.
const IDLE: Duration = Duration::from_secs(10);

/// Work for a helper; what it returns comes back by the channel.
type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Errands that are to be run, each with a key, and the helpers who run them.
#[derive(Debug)]
pub(super) struct Errands<K, T> {
    office: Arc<Office<K, T>>,
    answers: mpsc::UnboundedSender<(K, T)>,
}

struct Office<K, T> {
    desk: Mutex<Desk<K, T>>,
    work: Condvar,
}

impl<K, T> std::fmt::Debug for Office<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").finish_non_exhaustive()
    }
}

struct Desk<K, T> {
    queue: VecDeque<(K, Work<T>)>,
    helpers: usize,
    idle: usize,
}

impl<K: PartialEq + Send + 'static, T: Send + 'static> Errands<K, T> {
    /// Nobody is hired yet. Answers come out of the receiver.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<(K, T)>) {
        let (answers, receiver) = mpsc::unbounded_channel();
        let desk = Desk {
            queue: VecDeque::new(),
            helpers: 0,
            idle: 0,
        };
        let office = Arc::new(Office {
            desk: Mutex::new(desk),
            work: Condvar::new(),
        });
        (Self { office, answers }, receiver)
    }

    /// Has somebody run an errand, without waiting for it.
    ///
    /// # Errors
    ///
    /// The machine's, when there is no helper and none can be had; the errand is dropped then.
    pub fn send(&self, key: K, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<()> {
        let mut desk = self.office.desk();
        desk.queue.push_back((key, Box::new(work)));
        // An idle one may be on its way to an earlier errand.
        if desk.queue.len() <= desk.idle || desk.helpers == HELPERS {
            self.office.work.notify_one();
            return Ok(());
        }
        let (office, answers) = (Arc::clone(&self.office), self.answers.clone());
        let hired = thread::Builder::new()
            .name("look-up".to_owned())
            .spawn(move || office.help(&answers));
        match hired {
            Ok(_) => desk.helpers += 1,
            Err(error) if desk.helpers == 0 => {
                desk.queue.pop_back();
                return Err(error);
            }
            // One of the others will come to it.
            Err(_) => {}
        }
        Ok(())
    }

    /// Takes back an errand that nobody has begun; false when it is under way or done.
    pub fn take_back(&self, key: &K) -> bool {
        let mut desk = self.office.desk();
        let before = desk.queue.len();
        desk.queue.retain(|(of, _)| of != key);
        desk.queue.len() < before
    }
}

impl<K: PartialEq, T> Office<K, T> {
    fn desk(&self) -> MutexGuard<'_, Desk<K, T>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper.
    fn help(&self, answers: &mpsc::UnboundedSender<(K, T)>) {
        while let Some((key, work)) = self.next() {
            // One that panics has no answer, and no helper may be lost to it.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            if let Ok(answer) = done {
                let _ = answers.send((key, answer));
            }
        }
    }

    /// Waits for the next errand; `None`: there has been none for long.
    fn next(&self) -> Option<(K, Work<T>)> {
        let mut desk = self.desk();
        desk.idle += 1;
        let waited = self
            .work
            .wait_timeout_while(desk, IDLE, |desk| desk.queue.is_empty());
        (desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        desk.idle -= 1;
        let errand = desk.queue.pop_front();
        if errand.is_none() {
            desk.helpers -= 1;
        }
        errand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errands_that_are_stuck_keep_nobody_waiting_while_a_helper_can_be_had() {
        let (errands, mut answers) = Errands::new();
        let (let_go, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(Mutex::new(stuck));
        for key in 1..HELPERS {
            let stuck = Arc::clone(&stuck);
            let wait = move || {
                let _ = stuck.lock().expect("nobody panics").recv();
                key
            };
            errands.send(key, wait).expect("a thread");
        }
        for key in 10..20 {
            errands.send(key, move || key).expect("a thread");
            assert_eq!(answers.blocking_recv(), Some((key, key)));
        }
        drop(let_go);
        let mut late: Vec<_> = (1..HELPERS).map(|_| answers.blocking_recv()).collect();
        late.sort_unstable();
        assert_eq!(late, [Some((1, 1)), Some((2, 2)), Some((3, 3))]);
    }

    #[test]
    fn an_errand_that_nobody_has_begun_can_be_taken_back() {
        let (errands, mut answers) = Errands::new();
        let (let_go, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(Mutex::new(stuck));
        for key in 0..HELPERS {
            let stuck = Arc::clone(&stuck);
            let wait = move || {
                let _ = stuck.lock().expect("nobody panics").recv();
            };
            errands.send(key, wait).expect("a thread");
        }
        while !errands.office.desk().queue.is_empty() {
            std::thread::yield_now();
        }
        errands.send(100, || ()).expect("queued");
        assert!(errands.take_back(&100), "it waits for a helper");
        assert!(!errands.take_back(&0), "that one is under way");
        drop(let_go);
        for _ in 0..HELPERS {
            assert_ne!(answers.blocking_recv(), Some((100, ())));
        }
    }
}
