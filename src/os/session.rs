//! Where we run: on a terminal, under the journal, or in the background.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

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

/// The terminal that a daemon in the foreground was started on.
#[derive(Clone, Copy, Debug)]
pub struct Foreground {
    /// Whoever started us wants us to outlive it, as nohup(1) does.
    independent: bool,
}

impl Foreground {
    /// Finds the terminal that controls this process; `None` when none does. To be called before SIGHUP
    /// is handled: that it is ignored is how nohup(1) says what it wants.
    #[must_use]
    pub fn find() -> Option<Self> {
        /// SIGHUP in the masks of proc_pid_status(5).
        const SIGHUP: u64 = 1;
        if !terminal_controls_us() {
            return None;
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Some(Self {
            independent: ignored.is_some_and(|mask| mask & SIGHUP != 0),
        })
    }

    /// Tells whether that terminal is gone: the kernel takes it away from everyone before it sends
    /// SIGHUP.
    #[must_use]
    pub fn is_gone(self) -> bool {
        !terminal_controls_us()
    }

    /// Tells whether we are to go with it.
    #[must_use]
    pub const fn matters(self) -> bool {
        !self.independent
    }
}

fn terminal_controls_us() -> bool {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK)
        .open("/dev/tty")
        .is_ok()
}

/// Returns what `systemctl` calls the service that we are part of: the name of our cgroup ends with it.
#[must_use]
pub fn service_unit() -> Option<String> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    unit_in(&memberships)
}

fn unit_in(memberships: &str) -> Option<String> {
    let unit_of = |line: &str| {
        let path = line.splitn(3, ':').nth(2)?;
        let unit = path.split('/').rfind(|part| part.ends_with(".service"))?;
        // The services of a user's own manager are below that manager's.
        let of_user = path.contains("/user@") && !unit.starts_with("user@");
        Some(if of_user {
            format!("--user {unit}")
        } else {
            unit.to_owned()
        })
    };
    memberships.lines().find_map(unit_of)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_in_the_name_of_the_cgroup() {
        for (memberships, unit) in [
            (
                "0::/system.slice/eternal.service\n",
                Some("eternal.service"),
            ),
            (
                "0::/system.slice/eternal.service/supervisor\n",
                Some("eternal.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n",
                Some("--user web.service"),
            ),
            (
                "1:name=systemd:/system.slice/a.service\n0::/\n",
                Some("a.service"),
            ),
            ("0::/\n", None),
        ] {
            assert_eq!(unit_in(memberships).as_deref(), unit, "{memberships}");
        }
    }
}
