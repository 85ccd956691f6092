//! Watchdogs: a program that says WATCHDOG=1 in time does its work.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::readiness::Found;
use super::senders::Senders;
use super::task::Task;
use crate::os::notify::Notification;
use crate::supervision::Run;

/// A run has not been heard of for as long as it may be silent.
#[derive(Debug)]
pub(super) struct Silence {
    run: Run,
    /// How many signs of life the silence follows.
    after: u64,
}

/// Runs that have to say that they live.
pub(super) struct Watchdogs {
    found: mpsc::Sender<Found>,
    guarded: HashMap<Run, Guarded>,
    senders: Senders,
}

struct Guarded {
    pid: i32,
    /// Counts the signs of life; its task sees each.
    signs: watch::Sender<u64>,
    _task: Task,
}

impl Watchdogs {
    pub fn new(found: mpsc::Sender<Found>) -> Self {
        Self {
            found,
            guarded: HashMap::new(),
            senders: Senders::default(),
        }
    }

    /// Begins to wait for signs of life of a run: each within `limit` of the one before.
    pub fn begin(&mut self, run: Run, pid: i32, limit: Duration) {
        let (signs, mut seen) = watch::channel(0);
        let found = self.found.clone();
        let task = Task::spawn(async move {
            loop {
                match timeout(limit, seen.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => {
                        let after = *seen.borrow();
                        let silence = Found::Silent(Silence { run, after });
                        if found.send(silence).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        self.senders.expect(run, pid);
        self.guarded.insert(
            run,
            Guarded {
                pid,
                signs,
                _task: task,
            },
        );
    }

    /// It is being stopped, or gone.
    pub fn forget(&mut self, run: Run) {
        if let Some(guarded) = self.guarded.remove(&run) {
            self.senders.forget(run, guarded.pid);
        }
    }

    /// Takes a notification; returns the run that says of itself that it cannot go on.
    pub fn hear(&mut self, notification: &Notification) -> Option<Run> {
        if notification.triggers_watchdog() {
            return self.senders.speaks_for(notification.pid);
        }
        if notification.is_sign_of_life() {
            let sender = self.senders.speaks_for(notification.pid);
            let run = sender.or_else(|| self.senders.spoke_for(notification.pid))?;
            self.guarded
                .get(&run)?
                .signs
                .send_modify(|signs| *signs += 1);
        }
        None
    }

    /// Returns the run that a silence is about, unless it has been heard of since: a loop that was
    /// late may find both waiting.
    pub fn ran_out(&self, silence: &Silence) -> Option<Run> {
        let guarded = self.guarded.get(&silence.run)?;
        (*guarded.signs.borrow() == silence.after).then_some(silence.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervision::Id;

    fn says(pid: i32, value: &str) -> Notification {
        let state = vec![("WATCHDOG".to_owned(), value.to_owned())];
        Notification { pid, state }
    }

    #[test]
    fn a_silence_counts_only_if_nothing_was_heard_since_and_ends_with_the_run() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (found, mut news) = mpsc::channel(1);
            let mut watchdogs = Watchdogs::new(found);
            let (run, pid) = (Run::new(Id(0), 1), 1);
            watchdogs.begin(run, pid, Duration::from_millis(1));
            let Some(Found::Silent(first)) = news.recv().await else {
                panic!("it is silent");
            };
            assert_eq!(watchdogs.ran_out(&first), Some(run));
            assert_eq!(watchdogs.hear(&says(pid, "1")), None);
            assert_eq!(watchdogs.ran_out(&first), None, "it was heard of since");
            assert_eq!(watchdogs.hear(&says(pid, "trigger")), Some(run));
            // Its task may have sent the one it was about to.
            let second = loop {
                match news.recv().await {
                    Some(Found::Silent(silence)) if silence.after == 1 => break silence,
                    Some(_) => {}
                    None => panic!("it is silent again"),
                }
            };
            assert_eq!(watchdogs.ran_out(&second), Some(run));
            watchdogs.forget(run);
            assert_eq!(watchdogs.ran_out(&second), None);
            assert_eq!(watchdogs.hear(&says(pid, "trigger")), None);
        });
    }

    #[test]
    fn a_stranger_who_is_gone_can_keep_a_program_alive_but_not_end_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _inside = runtime.enter();
        let (found, _news) = mpsc::channel(1);
        let mut watchdogs = Watchdogs::new(found);
        let run = Run::new(Id(0), 1);
        watchdogs.begin(run, 1, Duration::from_secs(1000));
        // Above the kernel's greatest number.
        assert_eq!(watchdogs.hear(&says(i32::MAX, "trigger")), None);
        let silence = Silence { run, after: 0 };
        assert_eq!(watchdogs.hear(&says(i32::MAX, "1")), None);
        assert_eq!(watchdogs.ran_out(&silence), None, "a sign of life");
    }
}
