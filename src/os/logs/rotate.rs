//! Rotated files: `log.1` is the newest, `log.N.gz` the oldest.
//!
//! Renames are quick and happen on the writer thread; compression happens on its own thread, at the
//! lowest priority. A file is compressed beside its place and renamed over it, so a crash leaves
//! either the plain file or the whole compressed one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use super::lock;

/// The rotated files of one log file.
#[derive(Debug)]
pub(super) struct Chain {
    path: PathBuf,
    keep: u32,
    /// Held for renames only, never while data is read or written.
    renames: Mutex<()>,
}

impl Chain {
    /// Takes over what an earlier daemon left: exactly `keep` files stay.
    pub fn new(path: &Path, keep: u32) -> Self {
        let chain = Self {
            path: path.to_owned(),
            keep,
            renames: Mutex::new(()),
        };
        chain.tidy();
        chain
    }

    fn name(&self, number: u32, compressed: bool) -> PathBuf {
        rotated_name(&self.path, number, compressed)
    }

    /// Moves the current file to number 1, every other one up, and the oldest away.
    pub fn shift(&self) -> io::Result<()> {
        let _renames = lock(&self.renames);
        for number in (1..=self.keep).rev() {
            let (plain, gz) = (self.name(number, false), self.name(number, true));
            if plain.exists() && gz.exists() {
                fs::remove_file(&plain)?;
            }
            for (name, compressed) in [(plain, false), (gz, true)] {
                let moved = if number == self.keep {
                    fs::remove_file(&name)
                } else {
                    fs::rename(&name, self.name(number + 1, compressed))
                };
                match moved {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        match fs::rename(&self.path, self.name(1, false)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn temporary(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".gz.tmp");
        self.path.with_file_name(name)
    }

    fn tidy(&self) {
        let _ = fs::remove_file(self.temporary());
        let (Some(directory), Some(own)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let (Some(name), Some(own)) = (name.to_str(), own.to_str()) else {
                continue;
            };
            let Some(tail) = name
                .strip_prefix(own)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let number = tail.strip_suffix(".gz").unwrap_or(tail).parse::<u32>();
            if number.is_ok_and(|number| number > self.keep) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn newest_plain(&self) -> Option<File> {
        let _renames = lock(&self.renames);
        (1..=self.keep).find_map(|number| File::open(self.name(number, false)).ok())
    }

    fn number_of(&self, inode: u64) -> Option<u32> {
        (1..=self.keep).find(|number| {
            fs::metadata(self.name(*number, false)).is_ok_and(|meta| meta.ino() == inode)
        })
    }

    /// Puts the compressed file where the plain one has got to by now.
    fn settle(&self, inode: u64) -> io::Result<()> {
        let _renames = lock(&self.renames);
        let number = self.number_of(inode).ok_or(io::ErrorKind::NotFound)?;
        fs::rename(self.temporary(), self.name(number, true))?;
        fs::remove_file(self.name(number, false))
    }
}

fn rotated_name(path: &Path, number: u32, compressed: bool) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{}", if compressed { ".gz" } else { "" }));
    name.into()
}

/// Returns the rotated files that exist, newest first. One that is both plain and compressed, as for
/// a moment each is, counts once.
pub(super) fn rotated(path: &Path, keep: u32) -> Vec<PathBuf> {
    (1..=keep)
        .filter_map(|number| {
            [false, true]
                .map(|compressed| rotated_name(path, number, compressed))
                .into_iter()
                .find(|name| name.exists())
        })
        .collect()
}

/// Compresses rotated files until nobody can ask any more.
pub(super) fn compress_all(jobs: &Receiver<Arc<Chain>>, stop: &AtomicBool) {
    lowest_priority();
    while let Ok(chain) = jobs.recv() {
        // The newest first: under a flood the older ones are deleted before their turn comes.
        while let Some(plain) = chain.newest_plain() {
            if compress(&chain, plain, stop).is_err() {
                let _ = fs::remove_file(chain.temporary());
                break;
            }
        }
    }
}

fn compress(chain: &Chain, mut plain: File, stop: &AtomicBool) -> io::Result<()> {
    let meta = plain.metadata()?;
    let temporary = File::create(chain.temporary())?;
    temporary.set_permissions(meta.permissions())?;
    let mut packed = flate2::write::GzEncoder::new(temporary, flate2::Compression::new(4));
    let mut block = vec![0; 256 * 1024];
    loop {
        if stop.load(Ordering::Relaxed) || chain.number_of(meta.ino()).is_none() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match plain.read(&mut block)? {
            0 => break,
            length => packed.write_all(&block[..length])?,
        }
    }
    packed.finish()?.sync_all()?;
    chain.settle(meta.ino())
}

#[expect(unsafe_code, reason = "nix has no setpriority")]
fn lowest_priority() {
    // SAFETY: plain system call without pointers; id 0 is the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_keep_rotated_files_stay_newest_first_and_compressed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        fs::write(directory.path().join("log.7.gz"), "old").expect("written");
        let chain = Arc::new(Chain::new(&path, 2));
        assert!(!directory.path().join("log.7.gz").exists());
        let (jobs, inbox) = std::sync::mpsc::channel();
        for round in ["one", "two", "three"] {
            fs::write(&path, round).expect("written");
            chain.shift().expect("shifted");
        }
        jobs.send(Arc::clone(&chain)).expect("open");
        drop(jobs);
        std::thread::spawn(move || compress_all(&inbox, &AtomicBool::new(false)))
            .join()
            .expect("no panic");
        assert_eq!(
            rotated(&path, 2),
            [chain.name(1, true), chain.name(2, true)]
        );
        let mut text = String::new();
        let packed = File::open(chain.name(2, true)).expect("there");
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .expect("whole");
        assert_eq!(text, "two");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 2);
    }
}
