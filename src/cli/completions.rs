//! `eternal completions SHELL`.

use clap::CommandFactory;

use super::arguments::Arguments;
use super::output::Output;
use super::{Complaint, DONE};

/// Prints the completion script of a shell.
pub(super) fn execute(shell: clap_complete::Shell, output: &mut Output) -> Result<u8, Complaint> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "eternal", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(DONE)
}
