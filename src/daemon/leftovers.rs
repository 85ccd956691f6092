//! What an earlier daemon left: it is ended before anything is started, because a second copy
//! beside it would be worse than a late start.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use crate::observe::DaemonEvent;
use crate::os::identity::Identity;
use crate::os::journal;
use crate::os::signals::Signals;
use crate::os::survivors::{self, Ended, Survivor};

/// The grace of those whose program is not configured any more.
const GRACE: Duration = Duration::from_secs(5);

impl Core {
    /// Ends what an earlier daemon left. False when a signal asks for our own end meanwhile; a
    /// second one ends the grace.
    pub(super) async fn end_survivors(
        &mut self,
        found: &journal::Loaded,
        signals: &mut Signals,
    ) -> bool {
        let recorded = self.recorded(found);
        let survivors = survivors::find(&found.marker, &recorded);
        if survivors.is_empty() {
            self.children.cgroups().clear().await;
            return true;
        }
        self.observer.tell(&DaemonEvent::SurvivorsFound {
            count: survivors.len(),
        });
        let mut by_program: BTreeMap<String, Vec<Survivor>> = BTreeMap::new();
        for survivor in survivors {
            tracing::warn!(
                pid = survivor.identity.pid(),
                "an earlier daemon left {}",
                survivor.name
            );
            by_program
                .entry(survivor.name.clone())
                .or_default()
                .push(survivor);
        }
        let (mut count, mut asked_to_end) = (0, 0);
        for (name, list) in by_program {
            let list = (name.as_str(), list);
            let ended = self
                .end_program(&found.marker, list, signals, &mut asked_to_end)
                .await;
            count += ended.terminated + ended.killed;
            for left in ended.left {
                let message = format!("process {} of {name} outlives SIGKILL", left.identity.pid());
                self.observer.tell(&DaemonEvent::Trouble { message });
            }
        }
        self.children.cgroups().clear().await;
        self.observer.tell(&DaemonEvent::SurvivorsEnded { count });
        asked_to_end == 0
    }

    /// Those on record, and those who live in a cgroup that an earlier daemon made.
    fn recorded(&mut self, found: &journal::Loaded) -> Vec<(Identity, String)> {
        let mut recorded = found.running.clone();
        for left in self.children.cgroups().left_over() {
            let identities = left.pids.iter().filter_map(|pid| Identity::of(*pid).ok());
            recorded.extend(identities.map(|identity| (identity, left.program.clone())));
        }
        // The name on record tells replicas apart; the later one of two counts.
        recorded.reverse();
        recorded
    }

    async fn end_program(
        &mut self,
        marker: &str,
        (name, list): (&str, Vec<Survivor>),
        signals: &mut Signals,
        asked_to_end: &mut u32,
    ) -> Ended {
        let (signal, grace) = self.farewell(name);
        let polite = survivors::end(marker, list.clone(), signal, grace);
        tokio::pin!(polite);
        while *asked_to_end < 2 {
            tokio::select! {
                ended = &mut polite => return ended,
                signal = signals.next() => {
                    self.observer.tell(&DaemonEvent::SignalReceived { name: signal.name() });
                    *asked_to_end += u32::from(signal.ends_the_daemon());
                }
            }
        }
        survivors::end(marker, list, nix::libc::SIGKILL, Duration::ZERO).await
    }

    /// The stop signal and the grace of a program, by the name on record (`web`, `web/1`).
    fn farewell(&self, name: &str) -> (i32, Duration) {
        let program = name.split('/').next().unwrap_or(name);
        self.config
            .programs
            .iter()
            .find(|p| p.name == program)
            .map_or((nix::libc::SIGTERM, GRACE), |p| {
                (p.stop_signal, p.policy.stop_timeout)
            })
    }
}
