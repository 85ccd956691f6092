//! The signals that the daemon itself obeys, as one stream.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal to the daemon means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop gracefully.
    Terminate,
    /// SIGINT: stop gracefully.
    Interrupt,
    /// SIGHUP: read the config again and restart the programs.
    Hangup,
    /// SIGUSR1: reopen the log files.
    ReopenLogs,
    /// SIGUSR2: log the statistics line.
    Statistics,
}

impl Signal {
    /// Returns its name, as the metrics and the log have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Hangup => "SIGHUP",
            Self::ReopenLogs => "SIGUSR1",
            Self::Statistics => "SIGUSR2",
        }
    }

    /// Tells whether it asks for the end of the daemon.
    #[must_use]
    pub const fn ends_the_daemon(self) -> bool {
        matches!(self, Self::Terminate | Self::Interrupt)
    }
}

/// The stream of signals to the daemon.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    usr1: unix::Signal,
    usr2: unix::Signal,
}

impl Signals {
    /// Installs the handlers. To be called before anything that takes time: without a handler
    /// PID 1 ignores these signals and any other process dies of them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a handler. Panics outside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            usr1: unix::signal(SignalKind::user_defined1())?,
            usr2: unix::signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal; several of one kind may come as one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Hangup,
            _ = self.usr1.recv() => Signal::ReopenLogs,
            _ = self.usr2.recv() => Signal::Statistics,
        }
    }
}
