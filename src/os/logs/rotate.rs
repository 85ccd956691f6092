//! Compression of rotated files, on a thread of its own at the lowest priority.
//!
//! A file is compressed beside its place and renamed over it, so a crash leaves either the plain
//! file or the whole compressed one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use super::chain::{Chain, temporary};
use crate::os::places::Directory;

/// Compresses rotated files until nobody can ask any more.
pub(super) fn compress_all(jobs: &Receiver<Arc<Chain>>, stop: &AtomicBool) {
    lowest_priority();
    while let Ok(chain) = jobs.recv() {
        // The newest first: under a flood the older ones are deleted before their turn comes.
        while let Some((directory, name, plain)) = chain.newest_plain() {
            if compress(&chain, (&directory, &name), plain, stop).is_err() {
                let _ = directory.remove(&temporary(&name));
                break;
            }
        }
    }
}

fn compress(
    chain: &Chain,
    (directory, name): (&Directory, &OsStr),
    mut plain: File,
    stop: &AtomicBool,
) -> io::Result<()> {
    let meta = plain.metadata()?;
    let inode = (meta.dev(), meta.ino());
    let temporary = temporary(name);
    directory.remove(&temporary)?;
    let packed = directory.create_file(&temporary, meta.mode() & 0o777)?;
    let _ = fchown(&packed, Some(meta.uid()), Some(meta.gid()));
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::new(4));
    let mut block = vec![0; 256 * 1024];
    loop {
        let moved = chain.number_of(directory, name, inode).is_none();
        if moved || stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match plain.read(&mut block)? {
            0 => break,
            length => packed.write_all(&block[..length])?,
        }
    }
    packed.finish()?.sync_all()?;
    chain.settle(directory, name, inode)
}

#[expect(unsafe_code, reason = "nix has no setpriority")]
fn lowest_priority() {
    // SAFETY: plain system call without pointers; id 0 is the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn exactly_keep_rotated_files_stay_newest_first_and_compressed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let chain = Arc::new(Chain::new(&path, 2));
        let (jobs, inbox) = std::sync::mpsc::channel();
        let mut live = chain.open().expect("opened");
        for round in ["one", "two", "three"] {
            live.file.write_all(round.as_bytes()).expect("written");
            live = chain.rotate(live.inode).expect("rotated");
        }
        jobs.send(Arc::clone(&chain)).expect("open");
        drop(jobs);
        std::thread::spawn(move || compress_all(&inbox, &AtomicBool::new(false)))
            .join()
            .expect("no panic");
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("there")
            .map(|entry| entry.expect("there").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1.gz", "log.2.gz"]);
        let mut text = String::new();
        let packed = File::open(directory.path().join("log.2.gz")).expect("there");
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .expect("whole");
        assert_eq!(text, "two");
    }
}
