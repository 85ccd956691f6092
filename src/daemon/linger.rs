//! Linger: giving up is exactly when the page is due, and the endpoint would vanish with us.

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::turn::Inbox;
use crate::control::server::{Command, Refusal};
use crate::observe::DaemonEvent;

/// Scrapes of the final numbers that are enough: one may be cut short.
const ENOUGH: u64 = 2;

impl Core {
    /// Serves the final numbers until they were scraped twice, at most `metrics.linger`; not at all
    /// when nobody ever scraped. A signal or a request to stop ends the wait.
    pub(super) async fn linger(&mut self, inbox: &mut Inbox, mut scrapes: watch::Receiver<u64>) {
        let limit = self.config.metrics.linger;
        let before = *scrapes.borrow_and_update();
        if before == 0 || limit.is_zero() {
            return;
        }
        self.observer.tell(&DaemonEvent::Lingering { limit });
        let over = Instant::now() + limit;
        loop {
            tokio::select! {
                () = sleep_until(over) => return,
                signal = inbox.signals.next() => {
                    self.observer.tell(&DaemonEvent::SignalReceived { name: signal.name() });
                    if signal.ends_the_daemon() {
                        return;
                    }
                }
                counted = scrapes.wait_for(|count| *count >= before + ENOUGH) => {
                    drop(counted);
                    return;
                }
                Some(ping) = inbox.pings.recv() => drop(ping.send(())),
                Some(command) = inbox.commands.recv() => match command {
                    Command::Program { reply, .. } => drop(reply.send(Err(too_late()))),
                    Command::Reload { reply, .. } => drop(reply.send(Err(too_late()))),
                    Command::Health { reply } => self.tell_health(reply),
                    Command::Shutdown { reply } => {
                        self.orders.expect_end(reply);
                        return;
                    }
                },
            }
        }
    }
}

fn too_late() -> Refusal {
    Refusal::Conflict("the daemon gave up and only serves its last numbers".into())
}
