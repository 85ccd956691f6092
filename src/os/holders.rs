//! Who holds a lock: not always the process that took it, since a lock lives as long as any copy of
//! its descriptor.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use super::procfs::{Stat, pids};

/// Finds the living processes, other than ourselves, that hold a lock on this open file.
///
/// Looks through the descriptors of every process that we may look at: for the moment when somebody
/// has to be told why a lock cannot be had. Asks /proc alone: the file may be on a disk that hangs.
pub(super) fn holders(file: &File) -> Vec<i32> {
    let Ok(inode) = file.metadata().map(|metadata| metadata.ino()) else {
        return Vec::new();
    };
    let ours = std::process::id() as i32;
    pids()
        .filter(|pid| *pid != ours && Stat::read(*pid).is_ok_and(|stat| stat.is_running()))
        .filter(|pid| holds(*pid, inode))
        .collect()
}

fn holds(pid: i32, inode: u64) -> bool {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    infos.into_iter().flatten().flatten().any(|entry| {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        info.lines().any(|line| is_lock_on(line, inode))
    })
}

/// A line such as `lock: 1: FLOCK  ADVISORY  WRITE 117 fe:00:4711 0 EOF`. The pid in it is that of
/// the process that took the lock, which may be gone; the device is not always that of stat(2).
fn is_lock_on(line: &str, inode: u64) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let on = words.get(6).and_then(|file| file.rsplit(':').next());
    words.first() == Some(&"lock:")
        && words.get(2) == Some(&"FLOCK")
        && on.and_then(|number| number.parse().ok()) == Some(inode)
}

/// Names processes as a person looks for them: `pid 12 (sh), pid 13 (db)`; `None` for nobody.
pub(super) fn named(pids: &[i32]) -> Option<String> {
    let name = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name: String = name
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        format!("pid {pid} ({name})")
    };
    (!pids.is_empty()).then(|| pids.iter().map(name).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_its_kind_and_its_file() {
        let line = "lock:\t1: FLOCK  ADVISORY  WRITE 117 fe:00:4711 0 EOF";
        assert!(is_lock_on(line, 4711));
        assert!(!is_lock_on(line, 711));
        assert!(!is_lock_on(&line.replace("FLOCK", "POSIX"), 4711));
        assert!(!is_lock_on("ino:\t4711", 4711));
    }
}
