//! The files of a cgroup's directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Reads a file of a cgroup.
pub(super) fn read(directory: &Path, file: &str) -> io::Result<String> {
    fs::read_to_string(directory.join(file))
}

/// Writes a setting; the kernel says with this very write whether it takes it.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(directory.join(file))?
        .write_all(value.as_bytes())
}

/// Returns the number after a word at the beginning of a line.
pub(super) fn number(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(word)?.strip_prefix(' ')?;
        rest.trim().parse().ok()
    })
}

/// Returns the processes of a cgroup itself; 0 is one that cannot be seen from here.
pub(super) fn members(directory: &Path) -> Vec<i32> {
    read(directory, "cgroup.procs")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// Returns the cgroups right below.
pub(super) fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Returns the processes of a cgroup and of all below it.
pub(super) fn all_members(directory: &Path) -> Vec<i32> {
    let mut found = members(directory);
    for child in below(directory) {
        found.extend(all_members(&child));
    }
    found
}

/// Removes a cgroup and all below it, as far as nobody lives there.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    for child in below(directory) {
        let _ = remove(&child);
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The kernel's words, with the name of the error as manuals have it.
pub(super) fn cause(error: &io::Error) -> String {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(number) => format!("{words} ({:?})", nix::errno::Errno::from_raw(number)),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_whole_word() {
        let text = "oom 3\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(number(text, "oom_kill"), Some(2));
        assert_eq!(number(text, "oom"), Some(3));
        assert_eq!(number(text, "kill"), None);
    }
}
