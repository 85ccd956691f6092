//! The pidfds of all running programs in one private epoll instance.
//!
//! Nested: the runtime watches one descriptor however many programs run, and a burst of exits is
//! one wake-up.
#![expect(
    unsafe_code,
    reason = "nix has epoll behind a feature that brings more than this"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A set of pidfds, each with a key. Readable when one of the processes has ended.
#[derive(Debug)]
pub(super) struct Exits(OwnedFd);

const BATCH: usize = 256;

impl Exits {
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: takes a flag, returns a descriptor.
        let fd = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Hands the set to the runtime.
    pub(super) fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is owned by `self` and stays the same until that is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        watched.map_err(|error| error.into_parts().1)
    }

    pub(super) fn add(&self, pidfd: BorrowedFd<'_>, key: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: key,
        };
        self.control(libc::EPOLL_CTL_ADD, pidfd, &raw mut event)
    }

    /// Adds a file that calls out by an exceptional condition for what has changed since it was read.
    pub(super) fn watch(&self, file: BorrowedFd<'_>, key: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLPRI | libc::EPOLLET).cast_unsigned(),
            u64: key,
        };
        self.control(libc::EPOLL_CTL_ADD, file, &raw mut event)
    }

    /// Forgets a process: its pidfd stays readable for ever once it has ended.
    pub(super) fn remove(&self, pidfd: BorrowedFd<'_>) {
        // Can only fail for a descriptor that is not in the set, which is what is wanted.
        let _ = self.control(libc::EPOLL_CTL_DEL, pidfd, std::ptr::null_mut());
    }

    /// Returns the keys of some processes that have ended; none when there are no more.
    pub(super) fn ready(&self) -> Vec<u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: the kernel writes at most BATCH events into an array of BATCH.
        let wait = || unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), BATCH as i32, 0)
        };
        let count = uninterrupted(wait);
        events.iter().take(count).map(|event| event.u64).collect()
    }

    fn control(
        &self,
        operation: i32,
        pidfd: BorrowedFd<'_>,
        event: *mut libc::epoll_event,
    ) -> Result<(), Errno> {
        // SAFETY: both descriptors are open, and `event` is valid or, for DEL, ignored.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, pidfd.as_raw_fd(), event) };
        Errno::result(result).map(drop)
    }
}

/// Asks again when a signal came between, which is no answer. Any other error has no events.
fn uninterrupted(mut wait: impl FnMut() -> i32) -> usize {
    loop {
        match Errno::result(wait()) {
            Ok(count) => return usize::try_from(count).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(_) => return 0,
        }
    }
}

impl AsRawFd for Exits {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
