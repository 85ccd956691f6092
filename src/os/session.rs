//! Where we run: on a terminal, under the journal, or in the background.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::stat::fstat;
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};

/// What our standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardError {
    /// A person reads it.
    Terminal,
    /// The systemd journal reads it, and understands `<N>` priorities.
    Journal,
    /// A file or a pipe.
    Other,
}

/// Tells what our standard error is. `journal_stream` is the value of `$JOURNAL_STREAM`, which names
/// the journal's socket as `device:inode` (systemd.exec(5)).
#[must_use]
pub fn standard_error(journal_stream: Option<&str>) -> StandardError {
    if io::stderr().is_terminal() {
        return StandardError::Terminal;
    }
    let ours = fstat(io::stderr().as_fd()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    match (ours, journal_stream) {
        (Ok(ours), Some(journal)) if ours == journal => StandardError::Journal,
        _ => StandardError::Other,
    }
}

/// Returns columns and rows of the terminal on standard output; `None` when it is no terminal or does
/// not know.
#[must_use]
#[expect(unsafe_code, reason = "nix has no TIOCGWINSZ")]
pub fn terminal_size() -> Option<(usize, usize)> {
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let stdout = io::stdout().as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel writes one `winsize` where one is.
    let answer = unsafe { nix::libc::ioctl(stdout, nix::libc::TIOCGWINSZ, &raw mut size) };
    // One that does not know its rows has enough of them.
    let rows = match size.ws_row {
        0 => usize::MAX,
        rows => rows.into(),
    };
    (answer == 0 && size.ws_col > 0).then_some((size.ws_col.into(), rows))
}

/// Leaves the session and the controlling terminal of whoever started us.
///
/// # Errors
///
/// When we lead a process group already, which a freshly spawned process never does.
pub fn leave_terminal() -> io::Result<()> {
    setsid().map(drop).map_err(Into::into)
}

/// Closes standard output and error for whoever listens: what is written there from now on is for
/// nobody.
///
/// # Errors
///
/// When /dev/null cannot be opened.
pub fn let_go_of_output() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
