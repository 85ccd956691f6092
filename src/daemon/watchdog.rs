//! Watchdogs: a program that says WATCHDOG=1 in time does its work.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::readiness::Found;
use super::task::Task;
use super::voices::Heard;
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
}

struct Guarded {
    /// Counts the signs of life; its task sees each.
    signs: watch::Sender<u64>,
    _task: Task,
}

impl Watchdogs {
    pub fn new(found: mpsc::Sender<Found>) -> Self {
        Self {
            found,
            guarded: HashMap::new(),
        }
    }

    /// Begins to wait for signs of life of a run: each within `limit` of the one before.
    pub fn begin(&mut self, run: Run, limit: Duration) {
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
        self.guarded.insert(run, Guarded { signs, _task: task });
    }

    /// It is being stopped, or gone.
    pub fn forget(&mut self, run: Run) {
        self.guarded.remove(&run);
    }

    /// Tells whether a run has to say that it lives.
    pub fn waits_for_word_of(&self, run: Run) -> bool {
        self.guarded.contains_key(&run)
    }

    /// Takes what a run says; tells whether it says of itself that it cannot go on.
    pub fn hear(&mut self, heard: Heard, notification: &Notification) -> bool {
        let Some(guarded) = self.guarded.get(&heard.run) else {
            return false;
        };
        if notification.triggers_watchdog() {
            return !heard.gone;
        }
        if notification.is_sign_of_life() {
            guarded.signs.send_modify(|signs| *signs += 1);
        }
        false
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

    const LIVING: bool = false;
    const GONE: bool = true;

    /// What the watchdogs make of WATCHDOG=`value` from a run.
    fn says(watchdogs: &mut Watchdogs, (run, gone): (Run, bool), value: &str) -> bool {
        let notification = Notification {
            pid: 1,
            uid: 0,
            state: vec![("WATCHDOG".to_owned(), value.to_owned())],
        };
        watchdogs.hear(Heard { run, gone }, &notification)
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
            let run = Run::new(Id(0), 1);
            watchdogs.begin(run, Duration::from_millis(1));
            let Some(Found::Silent(first)) = news.recv().await else {
                panic!("it is silent");
            };
            assert_eq!(watchdogs.ran_out(&first), Some(run));
            assert!(!says(&mut watchdogs, (run, LIVING), "1"));
            assert_eq!(watchdogs.ran_out(&first), None, "it was heard of since");
            assert!(says(&mut watchdogs, (run, LIVING), "trigger"));
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
            assert!(!says(&mut watchdogs, (run, LIVING), "trigger"));
        });
    }

    #[test]
    fn a_speaker_who_is_gone_can_keep_a_program_alive_but_not_end_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _inside = runtime.enter();
        let (found, _news) = mpsc::channel(1);
        let mut watchdogs = Watchdogs::new(found);
        let run = Run::new(Id(0), 1);
        watchdogs.begin(run, Duration::from_secs(1000));
        assert!(!says(&mut watchdogs, (run, GONE), "trigger"));
        let silence = Silence { run, after: 0 };
        assert!(!says(&mut watchdogs, (run, GONE), "1"));
        assert_eq!(watchdogs.ran_out(&silence), None, "a sign of life");
    }
}
