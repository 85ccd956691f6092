//! What the command hears that started us in the background.
//!
//! On a thread of its own: that command may be stopped, or its terminal, and then a pipe to it is full
//! sooner or later. The loop does not wait for either.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::control::api::Progress;
use crate::os::{session, threads};

/// Takes reports to whoever started us. Dropping it lets go of what has not been heard.
pub(super) struct Herald {
    /// Two for each program at most, and the outcome.
    words: Sender<Progress>,
    done: Receiver<()>,
}

impl Herald {
    /// Begins to report.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start() -> io::Result<Self> {
        let (words, heard) = channel::<Progress>();
        let (over, done) = channel();
        threads::spawn_helper("starter", move || {
            for progress in heard {
                say(&progress);
                if progress.outcome.is_some() {
                    break;
                }
            }
            if let Err(error) = session::let_go_of_output() {
                tracing::warn!("cannot let go of the terminal: {error}");
            }
            // Nobody waits for it but at the end.
            let _ = over.send(());
        })?;
        Ok(Self { words, done })
    }

    /// Reports. The first outcome is the last report, and lets go of the starter's terminal.
    pub fn report(&self, progress: Progress) {
        // Whoever has heard an outcome listens to nothing else.
        let _ = self.words.send(progress);
    }

    /// Waits until everything has been heard, for so long at most. Blocks.
    pub fn finish(self, within: Duration) {
        drop(self.words);
        // What is not heard by then never will be.
        let _ = self.done.recv_timeout(within);
    }
}

/// Writes one report; whoever listened may be gone.
pub(super) fn say(progress: &Progress) {
    if let Ok(mut line) = serde_json::to_vec(progress) {
        line.push(b'\n');
        let _ = io::stdout().write_all(&line);
        let _ = io::stdout().flush();
    }
}
