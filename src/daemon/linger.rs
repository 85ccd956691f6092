//! Linger: giving up is exactly when the page is due, and the endpoint would vanish with us.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::control::server::Refusal;

/// Scrapes of the final numbers that are enough: one may be cut short.
const ENOUGH: u64 = 2;

/// Serves the final numbers until they were scraped twice, at most `metrics.linger`. A signal or a
/// request to stop ends the wait.
pub(super) struct Linger {
    pub until: Instant,
    /// Is ready when they were scraped often enough.
    pub scraped: Pin<Box<dyn Future<Output = ()>>>,
}

impl Linger {
    /// Begins to wait at most this long; not at all when nobody ever scraped.
    pub fn new(limit: Duration, mut scrapes: watch::Receiver<u64>) -> Option<Self> {
        let before = *scrapes.borrow_and_update();
        if before == 0 || limit.is_zero() {
            return None;
        }
        let scraped = async move {
            // Whoever counted them may be gone: then there will be no more.
            let _ = scrapes.wait_for(|count| *count >= before + ENOUGH).await;
        };
        Some(Self {
            until: Instant::now() + limit,
            scraped: Box::pin(scraped),
        })
    }
}

/// Answers an order that comes when there is nothing to supervise any more.
pub(super) fn too_late() -> Refusal {
    Refusal::Conflict("the daemon gave up and only serves its last numbers".into())
}
