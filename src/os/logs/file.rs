//! A log file: appends, rotates by size, survives a full disk and its own removal.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::chain::{Chain, Live};
use super::desk::STALL;
use super::sink::{Batch, Sink};
use super::split::LINE_MAX;
use super::{LogError, clock};

/// One write, so that progress shows on a slow disk.
const STEP: usize = 256 * 1024;
/// How often a file that is removed as often as it is made is made again for one batch.
const REMOVALS: u32 = 3;

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

/// One log file.
#[derive(Debug)]
pub(super) struct FileOutput {
    chain: Arc<Chain>,
    /// `None`: not opened yet, or gone with its directory.
    live: Option<Live>,
    /// The last byte was no line end.
    mid_line: bool,
    rotation: Rotation,
    /// What an earlier daemon left is looked after once.
    tidied: bool,
    /// A rotation failed; the next try is due then.
    rotate_after: Option<Instant>,
    trouble: Option<Trouble>,
}

/// How far a batch has got.
#[derive(Debug, Default)]
struct Done {
    /// Bytes that are in a file.
    bytes: usize,
    /// Those from here on are in the present one.
    since: usize,
}

impl FileOutput {
    /// Means a file that is opened when [`FileOutput::open`] or the first line asks for it.
    pub fn new(path: &Path, rotation: Rotation) -> Self {
        Self {
            chain: Arc::new(Chain::new(path, rotation.keep)),
            live: None,
            mid_line: false,
            rotation,
            tidied: false,
            rotate_after: None,
            trouble: None,
        }
    }

    /// Opens the file for appending, unless it is open, and creates its directories. Returns the
    /// names of rotated files that a smaller `log_keep` has deleted.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(&mut self) -> Result<Vec<String>, LogError> {
        if self.live.is_some() {
            return Ok(Vec::new());
        }
        (self.live, self.mid_line) = (Some(self.chain.open()?), false);
        if std::mem::replace(&mut self.tidied, true) {
            return Ok(Vec::new());
        }
        Ok(self.chain.tidy())
    }

    /// Closes the file and opens it by name; keeps the old one if that fails.
    pub fn reopen(&mut self, own: &Arc<Sink>) {
        match self.chain.open() {
            Ok(live) => {
                (self.live, self.mid_line) = (Some(live), false);
                if let Some(trouble) = &mut self.trouble {
                    trouble.retry_at = clock::ticks();
                }
            }
            Err(error) => own.complain(None, format!("cannot reopen: {}", error.with_cause())),
        }
    }

    /// Writes a batch; what the disk does not take is counted as lost.
    pub fn write(&mut self, batch: &Batch, own: &Arc<Sink>) {
        if batch.bytes.is_empty() {
            return;
        }
        if let Some(trouble) = &mut self.trouble
            && clock::ticks() < trouble.retry_at
        {
            trouble.lost += batch.lose_after(0);
            return;
        }
        let mut done = Done::default();
        let result = self.put(&batch.bytes, &mut done, own);
        match (result, self.trouble.take()) {
            (Ok(()), None) => {}
            (Ok(()), Some(trouble)) => own.say_lost(trouble.lost),
            (Err(message), before) => {
                let lost = batch.lose_after(done.bytes)
                    + before.as_ref().map_or(0, |trouble| trouble.lost);
                self.trouble = Some(Trouble {
                    lost,
                    retry_at: clock::ticks() + STALL,
                });
                if before.is_none() {
                    let message = format!("{message}; lines are dropped until it can");
                    own.complain(Some(own), message);
                }
            }
        }
    }

    /// Takes what was lost and not said yet, when nothing more will be written.
    pub fn unsaid(&mut self) -> u64 {
        self.trouble.take().map_or(0, |trouble| trouble.lost)
    }

    /// Puts a batch into files that are still there when it is done.
    fn put(&mut self, bytes: &[u8], done: &mut Done, own: &Arc<Sink>) -> Result<(), String> {
        for _ in 0..REMOVALS {
            if self.live.is_none() {
                let deleted = self.open().map_err(|error| error.with_cause())?;
                own.say_deleted(&deleted);
            }
            let written = self.append(bytes, done, own);
            written.map_err(|error| format!("cannot write {}: {error}", own.path().display()))?;
            if !self.is_removed() {
                return Ok(());
            }
            // What was written is gone with it.
            (self.live, done.bytes) = (None, done.since);
        }
        Err(format!(
            "cannot write {}: somebody removes it",
            own.path().display()
        ))
    }

    fn append(&mut self, bytes: &[u8], done: &mut Done, own: &Arc<Sink>) -> io::Result<()> {
        if self.trouble.is_some() && self.mid_line {
            self.write_some(b"\n")?;
        }
        while done.bytes < bytes.len() {
            let rest = &bytes[done.bytes..];
            let length = self.until_rotation(rest);
            if length == 0 {
                self.rotate(own);
                done.since = done.bytes;
                continue;
            }
            match self.write_some(&rest[..length.min(STEP)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done.bytes += written;
                    own.progress();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let live = self.live.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let written = live.file.write(bytes)?;
        live.size += written as u64;
        if written > 0 {
            self.mid_line = bytes[written - 1] != b'\n';
        }
        Ok(written)
    }

    /// Tells whether the file has no name any more, so that nobody will ever read it.
    fn is_removed(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let meta = self.live.as_ref().map(|live| live.file.metadata());
        meta.is_some_and(|meta| meta.is_ok_and(|meta| meta.nlink() == 0))
    }

    /// Returns how much goes into this file: up to a line end within the limit or, where a line is
    /// longer than what is left, with a bounded overrun.
    fn until_rotation(&self, bytes: &[u8]) -> usize {
        let wait = self.rotate_after.is_some_and(|at| clock::ticks() < at);
        if self.rotation.max_size == 0 || wait {
            return bytes.len();
        }
        let size = self.live.as_ref().map_or(0, |live| live.size);
        let left = self.rotation.max_size.saturating_sub(size);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if room == bytes.len() {
            return room;
        }
        if let Some(end) = memchr::memrchr(b'\n', &bytes[..room]) {
            return end + 1;
        }
        let overrun = size >= self.rotation.max_size + LINE_MAX as u64;
        if size > 0 && (!self.mid_line || overrun) {
            return 0;
        }
        let end = bytes.len().min(room + LINE_MAX);
        memchr::memchr(b'\n', &bytes[room..end]).map_or(end, |at| room + at + 1)
    }

    fn rotate(&mut self, own: &Arc<Sink>) {
        let Some(live) = &mut self.live else { return };
        // Somebody else (logrotate's copytruncate) may have emptied the file meanwhile.
        let real = live.file.metadata().map_or(live.size, |meta| meta.len());
        if real < live.size {
            (live.size, self.mid_line) = (real, false);
            return;
        }
        let rotated = if self.rotation.keep == 0 {
            live.file.set_len(0).map(|()| live.size = 0)
        } else {
            self.chain.rotate(live.inode).map(|fresh| {
                *live = fresh;
                let _ = self.rotation.compressor.send(Arc::clone(&self.chain));
            })
        };
        match rotated {
            Ok(()) => (self.mid_line, self.rotate_after) = (false, None),
            Err(error) => {
                let again = self.rotate_after.replace(clock::ticks() + STALL).is_some();
                if !again {
                    own.complain(
                        None,
                        format!("cannot rotate {}: {error}", own.path().display()),
                    );
                }
            }
        }
    }
}
