//! Processes that are watched on their way to their end, each by a pidfd.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

use super::Survivor;
use crate::os::exits::Exits;
use crate::os::identity::Identity;
use crate::os::pidfd;

/// Those who live, as far as is known.
pub(super) struct Watched {
    alive: HashMap<Identity, (Survivor, OwnedFd)>,
    /// Who is who in the set of pidfds: by number, which nobody else has as long as one is open.
    by_pid: HashMap<i32, Identity>,
    exits: AsyncFd<Exits>,
}

/// What came of the wish to watch a process.
pub(super) enum Taken {
    Watched,
    Gone,
    /// There is no descriptor to spare.
    NotNow,
}

impl Watched {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            alive: HashMap::new(),
            by_pid: HashMap::new(),
            exits: Exits::new()?.watched()?,
        })
    }

    pub fn watch(&mut self, survivor: &Survivor) -> Taken {
        let identity = survivor.identity;
        // Opened before it is checked: from there on the descriptor cannot change hands.
        let opened = pidfd::open(identity.pid());
        if !identity.is_alive() {
            return Taken::Gone;
        }
        let Ok(process) = opened else {
            return Taken::NotNow;
        };
        let key = identity.pid().cast_unsigned().into();
        if self.exits.get_ref().add(process.as_fd(), key).is_err() {
            return Taken::NotNow;
        }
        self.by_pid.insert(identity.pid(), identity);
        self.alive.insert(identity, (survivor.clone(), process));
        Taken::Watched
    }

    /// Ready when somebody may have ended.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut woken = Poll::Pending;
        while let Poll::Ready(Ok(mut ready)) = self.exits.poll_read_ready(context) {
            ready.clear_ready();
            woken = Poll::Ready(());
        }
        woken
    }

    /// Takes out those that have ended.
    pub fn take_ended(&mut self) -> Vec<Survivor> {
        let mut ended = Vec::new();
        loop {
            let ready = self.exits.get_ref().ready();
            if ready.is_empty() {
                return ended;
            }
            let pids = ready.into_iter().filter_map(|key| i32::try_from(key).ok());
            for pid in pids {
                let identity = self.by_pid.get(&pid).copied();
                ended.extend(identity.and_then(|identity| self.dismiss(&identity)));
            }
        }
    }

    /// Watches a process no longer.
    pub fn dismiss(&mut self, identity: &Identity) -> Option<Survivor> {
        let (survivor, process) = self.alive.remove(identity)?;
        self.by_pid.remove(&identity.pid());
        self.exits.get_ref().remove(process.as_fd());
        Some(survivor)
    }

    /// Sends a signal, and SIGCONT, so that one that is stopped can obey. Whether it worked shows
    /// later: whoever is not asked or does not listen is killed.
    pub fn tell(&self, identity: &Identity, signal: i32) {
        if let Some((_, process)) = self.alive.get(identity) {
            let _ = pidfd::send(process.as_fd(), signal);
            let _ = pidfd::send(process.as_fd(), libc::SIGCONT);
        }
    }

    pub fn contains(&self, identity: &Identity) -> bool {
        self.alive.contains_key(identity)
    }

    pub fn with_pid(&self, pid: i32) -> Option<&Survivor> {
        let identity = self.by_pid.get(&pid)?;
        self.alive.get(identity).map(|(survivor, _)| survivor)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Survivor> {
        self.alive.values().map(|(survivor, _)| survivor)
    }

    pub fn len(&self) -> usize {
        self.alive.len()
    }

    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// The names of their programs.
    pub fn names(&self) -> BTreeSet<&str> {
        self.iter().map(|survivor| survivor.name.as_str()).collect()
    }
}
