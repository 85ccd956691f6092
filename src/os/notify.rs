//! The `sd_notify` protocol, both ways: what children tell us, and what we tell systemd.

mod address;
mod systemd;

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::task::{Context, Poll, ready};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::procfs::Stat;

pub use address::Reach;
use address::SocketFile;
pub use systemd::{STRIPPED, Systemd};

/// As much as systemd itself takes; what is longer is dropped.
const MESSAGE_LIMIT: usize = 4096;
/// As many descriptors as the kernel lets a message carry.
const FD_LIMIT: usize = 253;

/// The socket on which children with `ready = "notify"` or a `watchdog` report.
///
/// The kernel vouches for the sender's process and user, so anyone may write to it, and the daemon
/// drops what does not come from a family of its own.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    address: String,
    /// Unless the address is abstract.
    _file: Option<SocketFile>,
}

/// What a child said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Which process, according to the kernel.
    pub pid: i32,
    /// Which user that was, according to the kernel.
    pub uid: u32,
    /// `READY=1`, `STATUS=…`, `STOPPING=1`, `RELOADING=1`, `WATCHDOG=1`, … in the order of the
    /// message. `MAINPID` is left out: who the main process is, is not a child's to say.
    pub state: Vec<(String, String)>,
}

impl NotifySocket {
    /// Opens the socket in a directory that is made for it, replacing one that an earlier daemon
    /// left there. Where no file will do, it gets an abstract address instead, which programs in
    /// another network namespace cannot reach. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When there is no socket to be had.
    pub fn bind(place: &Path, reach: Reach) -> io::Result<Self> {
        let (socket, address, file) = match address::bind(place, reach) {
            Ok((socket, address, file)) => (socket, address, Some(file)),
            Err(error) => {
                let place = place.display();
                tracing::debug!("notifications come to an abstract address: {place}: {error}");
                let (socket, address) = address::bind_abstract()?;
                (socket, address, None)
            }
        };
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        Ok(Self {
            socket,
            address,
            _file: file,
        })
    }

    /// Returns what belongs into `NOTIFY_SOCKET` of the children.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for the next notification; dropping the wait loses none.
    ///
    /// Descriptors that come along are closed; messages that are too long, not text, or from nobody
    /// are dropped.
    ///
    /// # Errors
    ///
    /// When the socket is broken: no later call will do better.
    pub async fn recv(&self) -> io::Result<Notification> {
        loop {
            if let Some(told) = poll_fn(|context| self.poll_recv(context)).await? {
                return Ok(told);
            }
        }
    }

    /// As [`Self::recv`], for one who waits for other things, too. `None` for a message that is
    /// dropped, so that a flood of those can be cut short.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`].
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Notification>>> {
        loop {
            ready!(self.socket.poll_recv_ready(context))?;
            let receive = || receive(self.socket.as_raw_fd());
            match self.socket.try_io(Interest::READABLE, receive) {
                // Waits for the next one when it is asked again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The message is still there, and so is the socket.
                Err(error) if passes(&error) => return Poll::Ready(Ok(None)),
                received => return Poll::Ready(received),
            }
        }
    }
}

impl Notification {
    /// Tells whether it says READY=1.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.says("READY", "1")
    }

    /// Tells whether it says WATCHDOG=1: the sender does its work.
    #[must_use]
    pub fn is_sign_of_life(&self) -> bool {
        self.says("WATCHDOG", "1")
    }

    /// Tells whether it says WATCHDOG=trigger: the sender finds itself unable to go on.
    #[must_use]
    pub fn triggers_watchdog(&self) -> bool {
        self.says("WATCHDOG", "trigger")
    }

    /// Tells whether it says something that has consequences.
    #[must_use]
    pub fn is_meant_for_us(&self) -> bool {
        self.is_ready() || self.is_sign_of_life() || self.triggers_watchdog()
    }

    fn says(&self, key: &str, value: &str) -> bool {
        self.state.iter().any(|(k, v)| k == key && v == value)
    }
}

/// Finds the family that `pid` belongs to: `known` says which processes are main processes. It is
/// one itself, a member of the session of one, or a descendant. `None` for a process that is gone
/// already.
pub fn family_of<T>(pid: i32, known: impl Fn(i32) -> Option<T>) -> Option<T> {
    let mut at = pid;
    // Deeper than any real family; a line of parents that changes while it is read may be endless.
    for _ in 0..1024 {
        if let Some(found) = known(at) {
            return Some(found);
        }
        let stat = Stat::read(at).ok()?;
        if let Some(found) = known(stat.session) {
            return Some(found);
        }
        at = Some(stat.parent).filter(|parent| *parent > 1)?;
    }
    None
}

/// Returns the user that a process runs as at this moment: its effective id.
///
/// # Errors
///
/// When there is no such process, or it is hidden from us.
pub fn user_of(pid: i32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = line.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    effective.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether the kernel only lacks something at this moment.
fn passes(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| [libc::ENOMEM, libc::ENOBUFS, libc::EINTR].contains(&errno))
}

/// Receives one message; `None` for one that says nothing to us.
fn receive(socket: RawFd) -> io::Result<Option<Notification>> {
    let mut text = [0; MESSAGE_LIMIT];
    // Room for descriptors nobody wants: where it lacks, the kernel flags the message as cut, and
    // whether the sender's credentials are whole can no longer be told.
    let mut control = cmsg_space!([RawFd; FD_LIMIT], UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    let (length, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    let mut sender = None;
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmCredentials(credentials) = part {
            sender = Some((credentials.pid(), credentials.uid()));
        } else if let ControlMessageOwned::ScmRights(descriptors) = part {
            close(descriptors);
        }
    }
    // Pid 0 is a sender outside of our pid namespace.
    let (Some((pid, uid)), false) = (sender.filter(|(pid, _)| *pid > 0), cut) else {
        return Ok(None);
    };
    Ok(parse(&text[..length]).map(|state| Notification { pid, uid, state }))
}

fn parse(text: &[u8]) -> Option<Vec<(String, String)>> {
    let assignments = std::str::from_utf8(text)
        .ok()?
        .lines()
        .filter_map(|l| l.split_once('='));
    let wanted = assignments.filter(|(name, _)| *name != "MAINPID");
    let state: Vec<_> = wanted.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    (!state.is_empty()).then_some(state)
}

#[expect(unsafe_code, reason = "received descriptors come as bare numbers")]
fn close(descriptors: Vec<RawFd>) {
    for descriptor in descriptors {
        // SAFETY: the kernel has just given us this descriptor; nobody else knows its number.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
}

#[cfg(test)]
mod tests;
