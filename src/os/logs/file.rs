//! A log file: appends, rotates by size, survives a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::desk::{Batch, Desk, STALL, Sink};
use super::rotate::Chain;
use super::split::LINE_MAX;
use super::{LogError, clock};

/// One write, so that progress shows on a slow disk.
const STEP: usize = 256 * 1024;

/// How files are rotated, the same for every file.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// Bytes; 0 never rotates.
    pub max_size: u64,
    /// Rotated files kept.
    pub keep: u32,
    /// Where rotated files are compressed.
    pub compressor: Sender<Arc<Chain>>,
}

/// The disk does not take lines.
#[derive(Debug)]
struct Trouble {
    lost: u64,
    retry_at: Instant,
}

/// One open log file.
#[derive(Debug)]
pub(super) struct FileOutput {
    path: PathBuf,
    file: File,
    size: u64,
    /// The last byte was no line end.
    mid_line: bool,
    rotation: Rotation,
    chain: Arc<Chain>,
    /// A rotation failed; the next try is due then.
    rotate_after: Option<Instant>,
    trouble: Option<Trouble>,
}

impl FileOutput {
    /// Opens the file for appending and creates its directories.
    pub fn open(path: &Path, rotation: Rotation) -> Result<Self, LogError> {
        if let Some(directory) = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty())
        {
            fs::create_dir_all(directory).map_err(|source| LogError::Directory {
                path: directory.to_owned(),
                source,
            })?;
        }
        let (file, size) = open(path).map_err(|source| LogError::Open {
            path: path.to_owned(),
            source,
        })?;
        let chain = Arc::new(Chain::new(path, rotation.keep));
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            mid_line: false,
            rotation,
            chain,
            rotate_after: None,
            trouble: None,
        })
    }

    /// Closes the file and opens it by name; keeps the old one if that fails.
    pub fn reopen(&mut self, desk: &Desk) {
        let opened = match self.path.parent() {
            Some(directory) => fs::create_dir_all(directory).and_then(|()| open(&self.path)),
            None => open(&self.path),
        };
        match opened {
            Ok((file, size)) => {
                (self.file, self.size, self.mid_line) = (file, size, false);
                self.trouble = self.trouble.take().map(|trouble| Trouble {
                    retry_at: clock::ticks(),
                    ..trouble
                });
            }
            Err(error) => self.complain(
                desk,
                None,
                format!("cannot reopen {}: {error}", self.path.display()),
            ),
        }
    }

    /// Writes a batch; what the disk does not take is counted as lost.
    pub fn write(&mut self, batch: &Batch, desk: &Desk, own: &Arc<Sink>) {
        if batch.bytes.is_empty() {
            return;
        }
        if let Some(trouble) = &mut self.trouble
            && clock::ticks() < trouble.retry_at
        {
            trouble.lost += batch.lose_after(0);
            return;
        }
        let mut done = 0;
        let result = self.put(&batch.bytes, &mut done, desk);
        match (result, self.trouble.take()) {
            (Ok(()), None) => {}
            (Ok(()), Some(trouble)) => {
                desk.say_lost(trouble.lost, &self.path.display().to_string())
            }
            (Err(error), before) => {
                let lost =
                    batch.lose_after(done) + before.as_ref().map_or(0, |trouble| trouble.lost);
                self.trouble = Some(Trouble {
                    lost,
                    retry_at: clock::ticks() + STALL,
                });
                if before.is_none() {
                    let message = format!(
                        "cannot write {}: {error}; lines are dropped until it can",
                        self.path.display()
                    );
                    self.complain(desk, Some(own), message);
                }
            }
        }
    }

    fn complain(&self, desk: &Desk, except: Option<&Arc<Sink>>, message: String) {
        if let Some(log) = desk.log() {
            log.error(message, except);
        }
    }

    fn put(&mut self, bytes: &[u8], done: &mut usize, desk: &Desk) -> io::Result<()> {
        if self.trouble.is_some() && self.mid_line {
            self.file.write_all(b"\n")?;
            self.size += 1;
            self.mid_line = false;
        }
        while *done < bytes.len() {
            let rest = &bytes[*done..];
            let length = self.until_rotation(rest);
            if length == 0 {
                self.rotate(desk);
                continue;
            }
            match self.file.write(&rest[..length.min(STEP)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.size += written as u64;
                    self.mid_line = rest[written - 1] != b'\n';
                    *done += written;
                    desk.progress();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns how much goes into this file: up to a line end within the limit or, where a line is
    /// longer than what is left, with a bounded overrun.
    fn until_rotation(&self, bytes: &[u8]) -> usize {
        let wait = self.rotate_after.is_some_and(|at| clock::ticks() < at);
        if self.rotation.max_size == 0 || wait {
            return bytes.len();
        }
        let left = self.rotation.max_size.saturating_sub(self.size);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if room == bytes.len() {
            return room;
        }
        if let Some(end) = memchr::memrchr(b'\n', &bytes[..room]) {
            return end + 1;
        }
        let fresh = self.size == 0;
        let overrun = self.size >= self.rotation.max_size + LINE_MAX as u64;
        if !fresh && (!self.mid_line || overrun) {
            return 0;
        }
        let end = bytes.len().min(room + LINE_MAX);
        memchr::memchr(b'\n', &bytes[room..end]).map_or(end, |at| room + at + 1)
    }

    fn rotate(&mut self, desk: &Desk) {
        // Somebody else (logrotate's copytruncate) may have emptied the file meanwhile.
        let real = self.file.metadata().map_or(self.size, |meta| meta.len());
        if real < self.size {
            (self.size, self.mid_line) = (real, false);
            return;
        }
        let rotated = if self.rotation.keep == 0 {
            self.file.set_len(0).map(|()| self.size = 0)
        } else {
            self.chain
                .shift()
                .and_then(|()| open(&self.path))
                .map(|(file, size)| {
                    (self.file, self.size) = (file, size);
                    let _ = self.rotation.compressor.send(Arc::clone(&self.chain));
                })
        };
        match rotated {
            Ok(()) => (self.mid_line, self.rotate_after) = (false, None),
            Err(error) => {
                let again = self.rotate_after.replace(clock::ticks() + STALL).is_some();
                if !again {
                    self.complain(
                        desk,
                        None,
                        format!("cannot rotate {}: {error}", self.path.display()),
                    );
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}
