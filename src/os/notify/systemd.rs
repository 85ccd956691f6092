//! What we tell the service manager that started us.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// What systemd gives to us alone: to be left out of every child's environment, since a child that
/// finds them would speak in our name, or with our secrets.
pub const STRIPPED: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
];

/// The service manager, where there is one; otherwise everything here does nothing and succeeds.
///
/// The `sd-notify` crate words the messages. It cannot address an abstract socket (`@NAME`, as in
/// containers) and looks at the environment each time, so the sending is ours.
#[derive(Clone, Debug, Default)]
pub struct Systemd {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Remembers what the environment says at this moment.
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// Tells whether a service manager listens.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Returns how often [`Systemd::watchdog`] has to be called: half of the time systemd waits.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
            .map(|limit| limit / 2)
            .filter(|interval| !interval.is_zero())
    }

    /// Says that the start is complete, or a reload is.
    ///
    /// # Errors
    ///
    /// When the manager's socket cannot be reached; so for all messages.
    pub fn ready(&self) -> io::Result<()> {
        self.send(&[NotifyState::Ready])
    }

    /// Says in one line how things are.
    ///
    /// # Errors
    ///
    /// As [`Systemd::ready`].
    pub fn status(&self, line: &str) -> io::Result<()> {
        // A line break would begin another assignment.
        self.send(&[NotifyState::Status(&line.replace(['\n', '\r'], " "))])
    }

    /// Says that a reload has begun; [`Systemd::ready`] ends it.
    ///
    /// # Errors
    ///
    /// As [`Systemd::ready`].
    pub fn reloading(&self) -> io::Result<()> {
        self.send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
    }

    /// Says that the stop has begun.
    ///
    /// # Errors
    ///
    /// As [`Systemd::ready`].
    pub fn stopping(&self) -> io::Result<()> {
        self.send(&[NotifyState::Stopping])
    }

    /// Says that the loop turns.
    ///
    /// # Errors
    ///
    /// As [`Systemd::ready`].
    pub fn watchdog(&self) -> io::Result<()> {
        self.send(&[NotifyState::Watchdog])
    }

    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(address) = &self.socket else {
            return Ok(());
        };
        let mut text = String::new();
        for state in states {
            let _ = writeln!(text, "{state}");
        }
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        socket
            .send_to_addr(text.as_bytes(), &resolve(address)?)
            .map(drop)
    }
}

fn resolve(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(address),
    }
}

#[cfg(test)]
impl Systemd {
    /// As if the environment had said so.
    pub(super) fn at(socket: &str, watchdog: Option<Duration>) -> Self {
        Self {
            socket: Some(socket.into()),
            watchdog,
        }
    }
}
