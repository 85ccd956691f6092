//! Lines that were captured by a room that is closed: from its files alone.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::format::Look;
use super::tail::{Files, Job};
use super::{Line, Query};

/// A log file, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastFile {
    /// The daemon log, as JSON or as text.
    Daemon {
        /// Where it is.
        path: PathBuf,
        /// One JSON object a line.
        json: bool,
    },
    /// The own file of this program.
    Own {
        /// Where it is.
        path: PathBuf,
        /// How people call the program.
        program: String,
    },
}

/// Answers with the last lines of files and of their rotated ones, oldest first; a file that cannot
/// be read has none.
#[must_use]
pub fn past(files: Vec<PastFile>, query: Query) -> oneshot::Receiver<Vec<Line>> {
    let files = files.into_iter().map(|file| match file {
        PastFile::Daemon { path, json } => {
            Files::Daemon(path, if json { Look::Json } else { Look::Text })
        }
        PastFile::Own { path, program } => Files::Own {
            path,
            label: program,
        },
    });
    let (reply, answer) = oneshot::channel();
    Job::of_files(query, files).answer(reply);
    answer
}
