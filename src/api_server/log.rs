//! The server's own lines on standard output: start, stop and server errors.

use std::fmt::Display;
use std::io::Write as _;

/// Writes one line. A closed standard output is no reason to stop serving.
pub(super) fn line(level: &str, message: impl Display) {
    let now = jiff::Timestamp::now();
    let _ = writeln!(
        std::io::stdout().lock(),
        "{now:.3} {level:<5} api-server: {message}"
    );
}
