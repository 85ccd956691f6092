//! Whose word a configuration file is: whoever can change it has anything run as root.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const BY_GROUP: u32 = 0o020;
const BY_EVERYBODY: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Tells who, beside root, can change a file or put another in its place, and how. Asked by
/// anybody but root, who runs nothing with more rights than they have, it is always `None`.
#[must_use]
pub fn stranger(file: &Path) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    // Where a link leads, and the way to the link.
    let real = fs::canonicalize(file).unwrap_or_else(|_| PathBuf::from(file));
    real.ancestors().chain(file.ancestors()).find_map(of_place)
}

fn of_place(path: &Path) -> Option<String> {
    let found = fs::symlink_metadata(path).ok()?;
    let path = path.display();
    if found.uid() != 0 {
        return Some(format!("{path} belongs to user {}", found.uid()));
    }
    if is_guarded(&found) {
        return None;
    }
    if found.mode() & BY_EVERYBODY != 0 {
        return Some(format!("everybody may write to {path}"));
    }
    (found.mode() & BY_GROUP != 0 && found.gid() != 0)
        .then(|| format!("group {} may write to {path}", found.gid()))
}

/// What a link leads to is judged for itself; in a sticky directory nobody can move what is root's.
fn is_guarded(found: &Metadata) -> bool {
    found.is_symlink() || (found.is_dir() && found.mode() & STICKY != 0)
}
