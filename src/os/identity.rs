//! Who a process is: a number alone is not enough, since numbers are used again.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;

use super::procfs::Stat;

/// One process on one boot of the machine: boot id, pid and start time together are never reused.
///
/// Written as `BOOT/PID/START`, as in the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The kernel's random boot id.
    boot: u128,
    /// The process.
    pid: i32,
    /// Clock ticks from boot to its start.
    start: u64,
}

impl Identity {
    /// Returns who the process with this number is at this moment. A zombie still has an identity.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process; any other error of reading `/proc`.
    pub fn of(pid: i32) -> io::Result<Self> {
        Stat::read(pid).map(|stat| Self::from_stat(&stat))
    }

    /// Returns the identity that goes with a status that was just read.
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        Self {
            boot: boot_id(),
            pid: stat.pid,
            start: stat.start,
        }
    }

    /// Returns the process number, good for reading only: check [`Identity::is_alive`] with an
    /// open pidfd before signalling.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells whether this very process still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.is_running() && Self::from_stat(&stat) == *self)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{}/{}", self.boot, self.pid, self.start)
    }
}

/// A text that is not `BOOT/PID/START`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a process identity")]
pub struct NotAnIdentity;

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(NotAnIdentity);
        let (boot, pid, start) = (next()?, next()?, next()?);
        let identity = Self {
            boot: u128::from_str_radix(boot, 16).map_err(|_| NotAnIdentity)?,
            pid: pid.parse().map_err(|_| NotAnIdentity)?,
            start: start.parse().map_err(|_| NotAnIdentity)?,
        };
        if identity.pid <= 0 || parts.next().is_some() {
            return Err(NotAnIdentity);
        }
        Ok(identity)
    }
}

/// Returns the boot id; 0 where it cannot be read, which still tells processes of one boot apart.
fn boot_id() -> u128 {
    static BOOT: OnceLock<u128> = OnceLock::new();
    *BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
            .unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_identity_survives_being_written_and_read() {
        let ours = Identity::of(std::process::id() as i32).expect("we exist");
        assert_ne!(ours.boot, 0);
        assert_eq!(ours.to_string().parse(), Ok(ours));
        for garbage in ["", "1/2", "x/2/3", "1/-2/3", "1/0/3", "1/2/3/4", "1/2/"] {
            assert_eq!(garbage.parse::<Identity>(), Err(NotAnIdentity), "{garbage}");
        }
    }

    #[test]
    fn the_same_number_with_another_start_or_boot_is_another_process() {
        let ours = Identity::of(std::process::id() as i32).expect("we exist");
        assert!(ours.is_alive());
        assert!(
            !Identity {
                start: ours.start + 1,
                ..ours
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot: ours.boot ^ 1,
                ..ours
            }
            .is_alive()
        );
    }

    #[test]
    fn a_zombie_has_an_identity_but_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let identity = Identity::of(child.id() as i32).expect("it runs");
        assert!(identity.is_alive());
        child.kill().expect("kill");
        // WNOWAIT: it is dead, and stays a zombie.
        let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(identity.pid()));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(id, flags).expect("waitid");
        assert_eq!(Identity::of(identity.pid()).expect("zombie"), identity);
        assert!(!identity.is_alive());
        child.wait().expect("wait");
        assert!(Identity::of(identity.pid()).is_err());
    }
}
