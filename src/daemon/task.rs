//! A task that ends with whoever waits for its news.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::os::threads;

/// A spawned task; dropping this ends it.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    /// Begins one. To be called inside the runtime.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }

    /// Begins one on another thread, for work that takes what others make of it.
    pub fn spawn_on(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime.spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes a panic of an attempt its failure: whoever waits for the outcome gets one.
///
/// # Errors
///
/// Those of the attempt, or what it said in its panic.
pub(super) async fn caught<T>(
    attempt: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut attempt = pin!(attempt);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| attempt.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(threads::words(&*panic))))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_panics_has_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let attempt = async { panic!("no thread to be had") };
        let outcome: Result<(), String> = runtime.block_on(caught(attempt));
        assert_eq!(outcome, Err("it panicked: no thread to be had".to_owned()));
    }
}
