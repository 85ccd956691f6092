//! Resource limits: their names, and the daemon's own descriptor limit.

use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::{Resource as Kernel, getrlimit, setrlimit};

/// A limit that the kernel keeps for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(usize);

/// A limit as `prlimit` takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) resource: Resource,
    pub(super) number: i32,
    pub(super) value: libc::rlimit64,
}

const NUMBERS: [i32; Resource::NAMES.len()] = [
    libc::RLIMIT_AS as i32,
    libc::RLIMIT_CORE as i32,
    libc::RLIMIT_CPU as i32,
    libc::RLIMIT_DATA as i32,
    libc::RLIMIT_FSIZE as i32,
    libc::RLIMIT_LOCKS as i32,
    libc::RLIMIT_MEMLOCK as i32,
    libc::RLIMIT_MSGQUEUE as i32,
    libc::RLIMIT_NICE as i32,
    libc::RLIMIT_NOFILE as i32,
    libc::RLIMIT_NPROC as i32,
    libc::RLIMIT_RSS as i32,
    libc::RLIMIT_RTPRIO as i32,
    libc::RLIMIT_RTTIME as i32,
    libc::RLIMIT_SIGPENDING as i32,
    libc::RLIMIT_STACK as i32,
];

impl Resource {
    /// Every name, as it stands in a config: `RLIMIT_*` in lower case without the prefix.
    pub const NAMES: [&'static str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    /// Finds a limit by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .position(|known| *known == name)
            .map(Self)
    }

    /// Returns the name as it stands in a config.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.0]
    }
}

/// The soft descriptor limit that the daemon was started with.
static INHERITED_NOFILE: OnceLock<u64> = OnceLock::new();

/// Raises the daemon's own soft descriptor limit to the hard one.
///
/// Remembers the old one: programs get that back unless their config says otherwise, because a
/// program that still uses `select` breaks above 1024. A second call does nothing.
///
/// # Errors
///
/// The kernel's, when the limit can be neither read nor set.
pub fn raise_nofile() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Kernel::RLIMIT_NOFILE)?;
    if INHERITED_NOFILE.set(soft).is_err() {
        return Ok(());
    }
    setrlimit(Kernel::RLIMIT_NOFILE, hard, hard)
}

/// Turns configured limits into what the kernel takes, giving a program the descriptor limit that
/// the daemon was started with unless one is configured.
pub(super) fn settings(configured: &[(Resource, Option<u64>, Option<u64>)]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = configured
        .iter()
        .map(|&(resource, soft, hard)| Setting::new(resource, soft, hard))
        .collect();
    let nofile = Resource::parse("nofile");
    let untouched = settings
        .iter()
        .all(|setting| Some(setting.resource) != nofile);
    if let (true, Some(resource), Some(&soft)) = (untouched, nofile, INHERITED_NOFILE.get())
        && let Ok((_, hard)) = getrlimit(Kernel::RLIMIT_NOFILE)
    {
        settings.push(Setting::new(resource, Some(soft.min(hard)), Some(hard)));
    }
    settings
}

impl Setting {
    fn new(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Self {
        let value = libc::rlimit64 {
            rlim_cur: soft.unwrap_or(libc::RLIM64_INFINITY),
            rlim_max: hard.unwrap_or(libc::RLIM64_INFINITY),
        };
        Self {
            resource,
            number: NUMBERS[resource.0],
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        for name in Resource::NAMES {
            assert_eq!(Resource::parse(name).map(Resource::name), Some(name));
        }
        assert_eq!(Resource::parse("NOFILE"), None);
        assert_eq!(Resource::parse("rlimit_nofile"), None);
    }

    #[test]
    fn names_and_numbers_stand_in_the_same_order() {
        let number = |name| Resource::parse(name).map(|resource| NUMBERS[resource.0]);
        assert_eq!(number("nofile"), Some(libc::RLIMIT_NOFILE as i32));
        assert_eq!(number("as"), Some(libc::RLIMIT_AS as i32));
        assert_eq!(number("stack"), Some(libc::RLIMIT_STACK as i32));
    }
}
