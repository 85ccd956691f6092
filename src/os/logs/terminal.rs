//! The daemon's stderr, or stdout, as a place for lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sink::{Batch, Sink};

/// A slow reader shall be seen to make progress.
const STEP: usize = 4 * 1024;

/// One of the daemon's own streams.
#[derive(Debug)]
pub(super) struct Terminal {
    to: File,
}

impl Terminal {
    /// Writes to `to` from now on.
    pub fn new(to: OwnedFd) -> Self {
        Self { to: File::from(to) }
    }

    /// Writes a batch, however long that takes; what cannot be written is counted as lost.
    pub fn write(&mut self, batch: &Batch, own: &Sink) {
        let mut done = 0;
        while done < batch.bytes.len() {
            let end = batch.bytes.len().min(done + STEP);
            match self.to.write(&batch.bytes[done..end]) {
                Ok(length) => {
                    done += length;
                    own.progress();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll(
                        &mut [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)],
                        PollTimeout::NONE,
                    );
                }
                Err(_) => {
                    // Nobody reads any more: there is nowhere left to say so.
                    let _ = batch.lose_after(done);
                    return;
                }
            }
        }
    }
}
