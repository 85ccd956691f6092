//! The cgroups that an earlier daemon has left in our part of the tree.

use std::path::PathBuf;

use super::files;

/// A cgroup of a program that an earlier daemon has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// The program's name in the config of that time.
    pub program: String,
    /// Who lives there.
    pub pids: Vec<i32>,
    directory: PathBuf,
}

impl LeftOver {
    /// Kills all of it at once, where the kernel (5.14) can.
    pub(in crate::os) fn kill(&self) {
        // Whoever is left is killed one by one.
        let _ = files::write(&self.directory, "cgroup.kill", "1");
    }
}

/// Looks for them. A handle, good for another thread; it finds none where there are no cgroups.
#[derive(Clone, Debug, Default)]
pub struct LeftOvers {
    pub(super) base: Option<PathBuf>,
}

impl LeftOvers {
    /// Finds those that there are.
    #[must_use]
    pub fn list(&self) -> Vec<LeftOver> {
        let below = self.base.iter().flat_map(|base| files::below(base));
        below
            .filter_map(|directory| {
                Some(LeftOver {
                    program: program(directory.file_name()?.to_str()?)?,
                    pids: files::all_members(&directory),
                    directory,
                })
            })
            .collect()
    }

    /// Removes those in which nobody lives.
    pub fn remove(&self) {
        for left in self.list() {
            // Whoever lives there keeps it: the next daemon finds it, or systemd removes it.
            let _ = files::remove(&left.directory);
        }
    }
}

/// Returns the program that a cgroup of this name (`program-NAME-REPLICA`) was made for.
fn program(name: &str) -> Option<String> {
    let (program, replica) = name.strip_prefix("program-")?.rsplit_once('-')?;
    let counted = !replica.is_empty() && replica.bytes().all(|b| b.is_ascii_digit());
    counted.then(|| program.to_owned())
}
