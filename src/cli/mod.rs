//! The command line: one file per verb, each with one call and how to print the answer.
//!
//! It speaks to a running daemon only through its socket, and starts one only as a process.

mod arguments;
mod check;
mod completions;
mod config;
mod crashes;
mod guard;
mod healthcheck;
mod import;
mod logs;
mod machine;
mod man;
mod order;
mod output;
mod overview;
mod place;
mod process;
mod reload;
mod remains;
mod restart;
mod start;
mod status;
mod stop;
mod systemd_unit;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;

pub use arguments::{ApiServerArgs, RunArgs, SourcesArgs};
pub use machine::{Holder, Machine};

use crate::control::api::{Problem, Verb};
use crate::control::client::ClientError;
use crate::text::with_causes;
use arguments::{Arguments, Globals, Word};
use output::Output;

/// Done.
const DONE: u8 = 0;
/// It was tried and failed.
const FAILED: u8 = 1;
/// The command line or the config is wrong.
const USAGE: u8 = 2;
/// A daemon is needed and there is none.
const NO_DAEMON: u8 = 3;

/// What the command line asks for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once and taken apart at once"
)]
pub enum Invocation {
    /// Be the daemon.
    Run(RunArgs),
    /// Be the bundled API server.
    ApiServer(ApiServerArgs),
    /// A command with an end; for [`execute`].
    Other(Box<Other>),
}

/// A command with an end.
#[derive(Debug)]
pub struct Other {
    globals: Globals,
    word: Word,
}

/// Reads the command line; ends the process with 2 when it is wrong, with 0 after `--help` and
/// `--version`.
#[must_use]
pub fn parse() -> Invocation {
    interpret(Arguments::parse())
}

/// Reads a command line given without the program's own name, such as the one `status` reports.
///
/// # Errors
/// What clap has to say about it.
fn parse_from(arguments: &[String]) -> Result<Invocation, clap::Error> {
    let words = std::iter::once("eternal").chain(arguments.iter().map(String::as_str));
    Arguments::try_parse_from(words.map(OsString::from)).map(interpret)
}

fn interpret(arguments: Arguments) -> Invocation {
    let Arguments { globals, word } = arguments;
    match word {
        Word::Run(run) => Invocation::Run(RunArgs {
            sources: SourcesArgs::new(&globals, run.flags, run.command),
            detached: run.detached,
        }),
        Word::ApiServer(server) => Invocation::ApiServer(server),
        word @ (Word::Start(_)
        | Word::Stop(_)
        | Word::Restart(_)
        | Word::Status { .. }
        | Word::Reload { .. }
        | Word::Logs(_)
        | Word::Crashes { .. }
        | Word::Check { .. }
        | Word::Config { .. }
        | Word::SystemdUnit(_)
        | Word::Import(_)
        | Word::Healthcheck { .. }
        | Word::Completions { .. }
        | Word::Man) => Invocation::Other(Box::new(Other { globals, word })),
    }
}

/// Carries out a command and says how the process should end; prints whatever there is to print.
#[must_use]
pub fn execute(other: Other, machine: &Machine) -> ExitCode {
    let json = other.globals.json;
    let mut output = Output::new(json);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(other, machine, &mut output)),
        Err(error) => Err(Complaint::failed(format!(
            "cannot start the event loop: {error}"
        ))),
    };
    ExitCode::from(result.unwrap_or_else(|complaint| complaint.tell(&mut output)))
}

async fn dispatch(other: Other, machine: &Machine, output: &mut Output) -> Result<u8, Complaint> {
    let Other { globals, word } = other;
    let plain = SourcesArgs::new(&globals, arguments::Flags::default(), Vec::new());
    match word {
        // Both are answered before a command is executed.
        Word::Run(_) | Word::ApiServer(_) => Ok(USAGE),
        Word::Start(start) if start.names.is_empty() => {
            let sources = SourcesArgs::new(&globals, start.flags, start.command);
            start::execute(&sources, start.force, machine, output).await
        }
        Word::Start(start) => order::execute(Verb::Start, &start.names, &plain, output).await,
        Word::Stop(stop) if stop.names.is_empty() => {
            stop::execute(&plain, stop.force, machine, output).await
        }
        Word::Stop(stop) => order::execute(Verb::Stop, &stop.names, &plain, output).await,
        Word::Restart(restart) if restart.names.is_empty() => {
            restart::execute(&plain, restart.force, machine, output).await
        }
        Word::Restart(restart) => {
            order::execute(Verb::Restart, &restart.names, &plain, output).await
        }
        Word::Status { names, watch } => {
            let asked = status::Asked { names, watch };
            status::execute(&asked, &plain, machine, output).await
        }
        Word::Reload { restart } => reload::execute(restart, &plain, output).await,
        Word::Logs(logs) => logs::execute(&logs, &plain, machine, output).await,
        Word::Crashes { names } => crashes::execute(&names, &plain, machine, output).await,
        Word::Check { file, file_only } => {
            check::execute(check::Asked { file, file_only }, plain, machine, output)
        }
        Word::Config { file } => config::execute(file, &plain, output).await,
        Word::SystemdUnit(wanted) => systemd_unit::execute(&wanted, &plain, output),
        Word::Import(from) => import::execute(from, output),
        Word::Healthcheck { ready, timeout } => {
            healthcheck::execute(ready, timeout, &plain, output).await
        }
        Word::Completions { shell } => completions::execute(shell, output),
        Word::Man => man::execute(output),
    }
}

/// Why a command did not end well, and the exit code for it.
#[derive(Debug)]
struct Complaint {
    code: u8,
    /// `None`: there is nobody to tell, or everything has been said.
    message: Option<String>,
}

impl Complaint {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    /// Whether it says that there is no daemon, and not that it cannot be told.
    fn is_absence(&self) -> bool {
        self.code != status::UNKNOWN
    }

    /// Prints it, to stderr and, where JSON was asked for, as JSON to stdout.
    fn tell(self, output: &mut Output) -> u8 {
        if let Some(message) = self.message {
            output.complain(&message);
            if output.is_json() {
                let _ = output.json(&Problem { error: message });
            }
        }
        self.code
    }
}

impl From<ClientError> for Complaint {
    fn from(error: ClientError) -> Self {
        let code = if error.is_no_daemon() {
            NO_DAEMON
        } else {
            FAILED
        };
        Self::new(code, with_causes(&error))
    }
}

/// Errors of writing to stdout: a reader that has seen enough is no failure.
impl From<io::Error> for Complaint {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: DONE,
                message: None,
            };
        }
        Self::failed(format!("cannot write to standard output: {error}"))
    }
}
