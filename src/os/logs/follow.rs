//! Those who watch lines as they come.

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::Line;

/// Lines that may wait for a follower.
const QUEUE: usize = 1024;

#[derive(Debug)]
struct Follower {
    program: Option<String>,
    to: Sender<Line>,
    missed: u64,
}

/// Everybody who follows.
#[derive(Debug, Default)]
pub(super) struct Followers {
    all: Vec<Follower>,
}

/// Tells whether a query for `wanted` means the program called `name`: itself or all its replicas.
pub(super) fn means(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| {
        name.strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Creates the two ends of a follower's queue.
pub(super) fn queue() -> (Sender<Line>, Receiver<Line>) {
    channel(QUEUE)
}

impl Followers {
    /// Adds one and forgets those who left.
    pub fn add(&mut self, program: Option<String>, to: Sender<Line>) {
        self.all.retain(|follower| !follower.to.is_closed());
        self.all.push(Follower {
            program,
            to,
            missed: 0,
        });
    }

    /// Tells whether anybody follows this program.
    pub fn any(&self, name: &str) -> bool {
        self.all
            .iter()
            .any(|follower| means(follower.program.as_deref(), name))
    }

    /// Gives a line to all who want it. Who is too slow loses it and is told how many before the
    /// next one that fits.
    pub fn tell(&mut self, line: &Line) {
        for follower in self
            .all
            .iter_mut()
            .filter(|follower| means(follower.program.as_deref(), &line.program))
        {
            if follower.missed > 0 {
                let text = format!(
                    "[{} lines were not shown: the reader is too slow]",
                    follower.missed
                );
                // Two places, or the line itself would be missed again without a word.
                if follower.to.capacity() < 2
                    || follower
                        .to
                        .try_send(Line {
                            line: text,
                            ..line.clone()
                        })
                        .is_err()
                {
                    follower.missed += 1;
                    continue;
                }
                follower.missed = 0;
            }
            if let Err(TrySendError::Full(_)) = follower.to.try_send(line.clone()) {
                follower.missed += 1;
            }
        }
        self.all.retain(|follower| !follower.to.is_closed());
    }
}
