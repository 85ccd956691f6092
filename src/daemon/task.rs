//! A task that ends with whoever waits for its news.

use std::future::Future;

use tokio::task::AbortHandle;

/// A spawned task; dropping this ends it.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    /// Begins one. To be called inside the runtime.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
