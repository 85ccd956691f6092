//! A stand-in: the daemon is not part of this branch.

use std::process::ExitCode;

use eternal::cli::{self, Invocation};

fn main() -> ExitCode {
    match cli::parse() {
        Invocation::Other(other) => cli::execute(*other),
        Invocation::Run(_) | Invocation::ApiServer(_) => ExitCode::from(64),
    }
}
