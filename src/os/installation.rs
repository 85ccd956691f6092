//! Which installation a process belongs to.
//!
//! Every program carries a token of its installation in its environment. The token is derived from
//! the place of the pid file, whose lock one daemon at a time holds: so it needs no memory, and a
//! lost, unwritable or shared state directory changes nothing about who is ours.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The token of this installation, and those of an earlier time that are still honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// 16 hexadecimal digits: 8 of the path and our user, 8 of the directory that it leads to.
    token: String,
    earlier: Vec<String>,
    /// Where the pid file is, without links; empty where nobody says.
    pid_file: PathBuf,
}

/// The digits of a token that tell the path and the user.
const OF_THE_PATH: usize = 8;

impl Installation {
    /// Derives the token from the place of the locked pid file.
    ///
    /// # Errors
    ///
    /// When the directory of the file is gone, or cannot be examined.
    pub fn of(pid_file: &Path) -> io::Result<Self> {
        let path = resolved(pid_file)?;
        let directory = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
        let user = geteuid().as_raw().to_ne_bytes();
        let of_path = fold(hash([&user, path.as_os_str().as_bytes()]));
        let [device, inode] = [directory.dev(), directory.ino()].map(u64::to_ne_bytes);
        let of_directory = fold(hash([&device[..], &inode]));
        Ok(Self {
            token: format!("{of_path:08x}{of_directory:08x}"),
            earlier: Vec::new(),
            pid_file: path,
        })
    }

    /// Takes any token, as those of earlier versions, which were random.
    #[must_use]
    pub fn from_token(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            earlier: Vec::new(),
            pid_file: PathBuf::new(),
        }
    }

    /// Honours a token of an earlier time beside our own.
    pub fn honour(&mut self, token: &str) {
        if token != self.token && !self.earlier.iter().any(|known| known == token) {
            self.earlier.push(token.to_owned());
        }
    }

    /// Returns the token that our programs carry.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Tells whether a process with this mark (`TOKEN:KEY:RUN`) in its environment is ours.
    #[must_use]
    pub fn owns(&self, pid: i32, mark: &str) -> bool {
        let Some((token, _)) = mark.split_once(':') else {
            return false;
        };
        token == self.token
            || self.earlier.iter().any(|earlier| earlier == token)
            || self.is_at_our_path(token) && shares_our_mounts(pid)
    }

    /// Tells whether a process has our pid file open, or one that was removed from its place: a daemon
    /// of this installation.
    #[must_use]
    pub fn is_daemon(&self, pid: i32) -> bool {
        let mut removed = self.pid_file.clone().into_os_string();
        removed.push(" (deleted)");
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten().any(|entry| {
            let leads_to = fs::read_link(entry.path()).unwrap_or_default();
            leads_to == self.pid_file || leads_to.as_os_str() == removed
        })
    }

    /// The same path with another directory behind it: ours, which was removed and made anew, or
    /// that of another container.
    fn is_at_our_path(&self, token: &str) -> bool {
        token.len() == self.token.len() && token.get(..OF_THE_PATH) == self.token.get(..OF_THE_PATH)
    }
}

/// Whether a path means the same to a process as to us.
fn shares_our_mounts(pid: i32) -> bool {
    let mounts = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    mounts("self").is_some_and(|ours| mounts(&pid.to_string()) == Some(ours))
}

/// Returns the path of a file that need not exist, without links on the way to it.
fn resolved(file: &Path) -> io::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    match (file.parent(), file.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        (None, _) | (_, None) => Ok(file),
    }
}

/// FNV-1a: the same in every version and build, which std's hasher does not promise.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // The end of a part counts too: `ab`, `c` is not `a`, `bc`.
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// Makes 32 bits of 64 so that each counts.
pub(super) const fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_that_of_the_place_however_it_is_reached() {
        let dir = tempfile::tempdir().expect("directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        let token = |path: PathBuf| Installation::of(&path).expect("there").token().to_owned();
        let ours = token(real.join("daemon.pid"));
        assert_eq!(ours.len(), 16);
        fs::write(real.join("daemon.pid"), "1\n").expect("written");
        assert_eq!(
            token(real.join("daemon.pid")),
            ours,
            "with the file or without"
        );
        assert_eq!(token(link.join("daemon.pid")), ours);
        assert_eq!(token(real.join("../real/./daemon.pid")), ours);
        assert_ne!(token(real.join("other.pid")), ours);
        assert_ne!(token(dir.path().join("daemon.pid")), ours);
        assert!(Installation::of(&real.join("gone/daemon.pid")).is_err());
    }

    #[test]
    fn a_directory_that_was_made_anew_is_ours_and_that_of_another_container_is_not() {
        let dir = tempfile::tempdir().expect("directory");
        let pid_file = dir.path().join("run/daemon.pid");
        let run = pid_file.parent().expect("a parent");
        fs::create_dir(run).expect("made");
        let before = Installation::of(&pid_file).expect("there");
        // Kept, so that the next directory cannot have its inode.
        fs::rename(run, dir.path().join("kept")).expect("moved");
        fs::create_dir(run).expect("made anew");
        let after = Installation::of(&pid_file).expect("there");
        assert_ne!(before.token(), after.token());
        let mark = format!("{}:1:2", before.token());
        let us = std::process::id() as i32;
        assert!(after.owns(us, &mark), "the same mounts");
        assert!(!after.owns(i32::MAX, &mark), "nobody we can look at");
    }

    #[test]
    fn only_whole_tokens_of_ours_and_of_earlier_times_are_believed() {
        let mut ours = Installation::from_token("0123456789abcdef");
        let us = std::process::id() as i32;
        assert!(ours.owns(us, "0123456789abcdef:1:2"));
        for foreign in [
            "",
            "0123456789abcdef",
            "0123456789abcde:1:2",
            "fedcba9876543210:1:2",
            ":",
        ] {
            assert!(!ours.owns(us, foreign), "{foreign:?}");
        }
        ours.honour("fedcba9876543210");
        assert!(ours.owns(us, "fedcba9876543210:1:2"));
        assert_eq!(ours.token(), "0123456789abcdef");
    }
}
