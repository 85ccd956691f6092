//! Threads whose end somebody notices: one that panics would leave the daemon blind or mute.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// A thread that has ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fall {
    /// What it is called.
    pub thread: &'static str,
    /// What ended it, fit for a log line.
    pub why: String,
    /// The daemon cannot do its work without it.
    pub vital: bool,
}

type Falls = UnboundedReceiver<Fall>;

/// For the whole process, as threads are.
static FALLS: LazyLock<(UnboundedSender<Fall>, Mutex<Option<Falls>>)> = LazyLock::new(|| {
    let (to, falls) = unbounded_channel();
    (to, Mutex::new(Some(falls)))
});

/// Starts a thread that the daemon cannot do without. A panic of it is a [`Fall`].
///
/// # Errors
///
/// When there is no thread to be had.
pub fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    watched(name, true, work)
}

/// Starts one that is only a help: its panic is told, and that is all.
///
/// # Errors
///
/// As [`spawn`].
pub fn spawn_helper(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    watched(name, false, work)
}

/// Does work that may wait for a disk on a thread that is there only for it.
///
/// # Errors
///
/// When there is no thread to be had, or the work panicked, which is told.
pub async fn aside<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    spawn_helper(name, move || drop(done.send(work())))?;
    result
        .await
        .map_err(|_| io::Error::other("the work was broken off"))
}

fn watched(
    name: &'static str,
    vital: bool,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            tell(name, words(&*panic), vital);
        }
    })
}

/// Says of a thread that the daemon cannot do without that it ends before its time.
pub fn fell(thread: &'static str, why: String) {
    tell(thread, why, true);
}

fn tell(thread: &'static str, why: String, vital: bool) {
    // Whoever would listen is gone only when everything is.
    let _ = FALLS.0.send(Fall { thread, why, vital });
}

/// Returns where the falls are told, also those before; `None` for whoever asks second.
#[must_use]
pub fn falls() -> Option<UnboundedReceiver<Fall>> {
    FALLS
        .1
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

/// What a panic says.
#[must_use]
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("nobody knows why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of_and_one_that_is_done_is_not() {
        let mut falls = falls().expect("the first to ask");
        let done = spawn("does-its-work", || {}).expect("a thread");
        done.join().expect("it ended well");
        let panics = spawn("breaks-off", || panic!("out of {}", "luck")).expect("a thread");
        panics.join().expect("its panic is caught");
        let helps = spawn_helper("helps", || panic!("of no use")).expect("a thread");
        helps.join().expect("its panic is caught, too");
        let told = [(); 2].map(|()| falls.blocking_recv().expect("told"));
        let fall = |thread, why: &str, vital| Fall {
            thread,
            why: why.to_owned(),
            vital,
        };
        let expected = [
            fall("breaks-off", "it panicked: out of luck", true),
            fall("helps", "it panicked: of no use", false),
        ];
        assert_eq!(told, expected);
        assert!(falls.try_recv().is_err(), "and no other");
    }
}
