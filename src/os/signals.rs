//! The signals that the daemon itself obeys, as one stream, and those that it lives through.
#![expect(
    unsafe_code,
    reason = "nix knows no real-time signals, and std no signals at all"
)]

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::signal::unix::{self, SignalKind};

/// What a signal to the daemon means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop gracefully.
    Terminate,
    /// SIGINT: stop gracefully.
    Interrupt,
    /// SIGQUIT, which is Ctrl-\ on a terminal: stop gracefully.
    Quit,
    /// SIGHUP: read the config again and restart the programs.
    Hangup,
    /// SIGUSR1: reopen the log files.
    ReopenLogs,
    /// SIGUSR2: log the statistics line.
    Statistics,
}

impl Signal {
    /// Every signal that is obeyed. Where several wait, the first of these goes first.
    pub const ALL: [Self; 6] = [
        Self::Terminate,
        Self::Interrupt,
        Self::Quit,
        Self::Hangup,
        Self::ReopenLogs,
        Self::Statistics,
    ];

    /// Returns its name, as the metrics and the log have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
            Self::ReopenLogs => "SIGUSR1",
            Self::Statistics => "SIGUSR2",
        }
    }

    /// Tells whether it asks for the end of the daemon.
    #[must_use]
    pub const fn ends_the_daemon(self) -> bool {
        matches!(self, Self::Terminate | Self::Interrupt | Self::Quit)
    }

    const fn kind(self) -> SignalKind {
        match self {
            Self::Terminate => SignalKind::terminate(),
            Self::Interrupt => SignalKind::interrupt(),
            Self::Quit => SignalKind::quit(),
            Self::Hangup => SignalKind::hangup(),
            Self::ReopenLogs => SignalKind::user_defined1(),
            Self::Statistics => SignalKind::user_defined2(),
        }
    }
}

/// Signals that would end or stop the daemon, and leave its programs alone in the world, without
/// anybody having meant that. Limits that are reached show as errors instead: a file that is too
/// large as EFBIG.
///
/// What is left has its default for a reason: a fault (SIGSEGV, SIGSYS and their like) must end the
/// process, SIGSTOP and SIGTSTP are a person's wish, and the rest is ignored anyway.
const LIVED_THROUGH: [i32; 11] = [
    libc::SIGALRM,
    libc::SIGIO,
    libc::SIGPIPE,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGVTALRM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// The stream of signals to the daemon.
#[derive(Debug)]
pub struct Signals([(Signal, unix::Signal); Signal::ALL.len()]);

impl Signals {
    /// Installs the handlers, and ignores what is to be lived through; programs are born with
    /// every default. To be called before anything that takes time: without a handler PID 1 ignores
    /// these signals and any other process dies of them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a handler. Panics outside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        for number in LIVED_THROUGH.into_iter().chain(real_time) {
            ignore(number)?;
        }
        let [terminate, interrupt, quit, hangup, reopen, statistics] =
            Signal::ALL.map(|signal| Ok::<_, io::Error>((signal, unix::signal(signal.kind())?)));
        Ok(Self([
            terminate?,
            interrupt?,
            quit?,
            hangup?,
            reopen?,
            statistics?,
        ]))
    }

    /// Waits for the next signal; several of one kind may come as one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for one who waits for other things, too.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.0 {
            if stream.poll_recv(context).is_ready() {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    }
}

fn ignore(number: i32) -> Result<(), Errno> {
    // SAFETY: ignoring a signal runs no code of ours, and none of these is used by anybody here.
    let before = unsafe { libc::signal(number, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}
