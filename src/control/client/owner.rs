//! Whose a socket is that we may not use.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Says whom a socket is of that we may not use, and how to: where even that is hidden, whose directory
/// hides it.
pub(super) fn whose(socket: &Path) -> String {
    let seen = socket.ancestors().find_map(|path| path.metadata().ok());
    let owner = seen.map_or(0, |found| found.uid());
    let whom = match nix::unistd::User::from_uid(owner.into()) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {owner}"),
    };
    let option = if owner == 0 {
        String::new()
    } else {
        format!(" -u {whom}")
    };
    format!("; it is {whom}'s: `sudo{option}` may use it")
}
