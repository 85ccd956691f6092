//! Where in the tree of cgroups this process is.

use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup of version 2 that can be seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its directory.
    pub directory: PathBuf,
    /// Its name as `/proc/PID/cgroup` has it.
    pub path: PathBuf,
}

impl Place {
    /// Finds the cgroup of this process, or says why it cannot be seen.
    pub(super) fn own() -> Result<Self, String> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
        };
        Self::from(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    fn from(mounts: &str, memberships: &str) -> Result<Self, String> {
        let path = of_version_2(memberships).ok_or("the kernel has no cgroups of version 2")?;
        let outside = format!("its cgroup {} is not mounted here", path.display());
        // A place above the root of its namespace begins with `/..`.
        if path.starts_with("/..") {
            return Err(outside);
        }
        let directory = mounts
            .lines()
            .filter_map(mount)
            .find_map(|(root, point)| Some(point.join(path.strip_prefix(root).ok()?)))
            .ok_or(outside)?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    pub(super) fn child(&self, name: &str) -> Self {
        Self {
            directory: self.directory.join(name),
            path: self.path.join(name),
        }
    }

    pub(super) fn parent(&self) -> Option<Self> {
        Some(Self {
            path: self.path.parent()?.to_owned(),
            directory: self.directory.parent()?.to_owned(),
        })
    }

    /// Tells whether it is the root of the machine's tree, which belongs to no group at all.
    pub(super) fn is_root(&self) -> bool {
        !self.directory.join("cgroup.type").exists()
    }
}

/// Returns the name after `0::`, which is that of version 2.
pub(super) fn of_version_2(memberships: &str) -> Option<&Path> {
    let name = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(name))
}

/// Reads a line of mountinfo, if it is about cgroups of version 2: which cgroup is mounted where.
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    Some((unescaped(fields.next()?), unescaped(fields.next()?)))
}

/// The kernel writes spaces, tabs, newlines and backslashes as `\` and three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => text.push(char::from(code)),
            None => text.push('\\'),
        }
        rest = if code.is_some() { &after[3..] } else { after };
    }
    text.push_str(rest);
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    const HYBRID: &str = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
         38 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn found(mounts: &str, memberships: &str) -> Result<String, String> {
        Place::from(mounts, memberships).map(|place| place.directory.display().to_string())
    }

    #[test]
    fn it_is_found_below_the_mount_of_version_2() {
        let own = "4:memory:/other\n0::/system.slice/eternal.service\n";
        let place = found(UNIFIED, own);
        assert_eq!(
            place.as_deref(),
            Ok("/sys/fs/cgroup/system.slice/eternal.service")
        );
        let place = found(HYBRID, own);
        assert_eq!(
            place.as_deref(),
            Ok("/sys/fs/cgroup/unified/system.slice/eternal.service")
        );
        assert_eq!(
            found(UNIFIED, "0::/\n").as_deref(),
            Ok("/sys/fs/cgroup/"),
            "the root of a namespace"
        );
    }

    #[test]
    fn a_mount_of_a_part_counts_only_for_what_is_below_it() {
        let part = "30 24 0:26 /docker/1 /sys/fs/cg\\040roup ro - cgroup2 cgroup2 rw\n";
        let inside = found(part, "0::/docker/1/app\n");
        assert_eq!(inside.as_deref(), Ok("/sys/fs/cg roup/app"));
        for outside in ["0::/docker/12\n", "0::/../1\n", "0::/\n"] {
            assert!(found(part, outside).is_err(), "{outside}");
        }
        assert!(found("", "0::/\n").is_err(), "not mounted");
        assert!(found(UNIFIED, "4:memory:/x\n").is_err(), "version 1 alone");
    }
}
