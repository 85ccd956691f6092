//! `eternal`: read the command line and hand over. The only place that ends the process.

use std::path::Path;
use std::process::ExitCode;

use eternal::cli::{self, ApiServerArgs, Holder, Invocation, Machine, RunArgs};
use eternal::daemon::{self, Start, inspection, questions};
use eternal::os::pid_file::{self, Standing};
use eternal::os::session;
use eternal::{api_server, config, text};

/// The command line or the config is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse() {
        Invocation::Run(arguments) => run(&arguments),
        Invocation::ApiServer(arguments) => serve(arguments),
        Invocation::Other(command) => cli::execute(*command, &MACHINE),
    }
}

/// What the command line may ask of the rooms below the daemon.
const MACHINE: Machine = Machine {
    terminal: session::terminal_size,
    holder,
    last: questions::last,
    crashes: questions::crashes,
    lines: questions::lines,
    inspect: inspection::inspect,
};

fn holder(pid_file: &Path) -> Holder {
    match pid_file::inspect(pid_file) {
        Ok(Standing::Absent) => Holder::Nobody,
        Ok(Standing::Stale(pid)) => Holder::Gone(pid),
        Ok(Standing::Held(pid)) => Holder::Lives(pid),
        Err(error) => Holder::Unknown(text::with_causes(&error)),
    }
}

fn run(arguments: &RunArgs) -> ExitCode {
    let sources = match arguments.sources.sources() {
        Ok(sources) => sources,
        Err(error) => return complain(&format!("cannot tell where we are: {error}")),
    };
    match config::load(&sources) {
        Ok(loaded) => {
            let words = std::env::args_os()
                .skip(1)
                .map(|word| word.to_string_lossy().into_owned());
            ExitCode::from(daemon::run(Start {
                sources,
                loaded,
                detached: arguments.detached,
                arguments: words.collect(),
            }))
        }
        Err(problems) => complain(&problems.to_string()),
    }
}

fn serve(arguments: ApiServerArgs) -> ExitCode {
    match options(arguments) {
        Ok(options) => api_server::run(options),
        Err(problem) => complain(&problem),
    }
}

fn options(arguments: ApiServerArgs) -> Result<api_server::Options, String> {
    let mut options = api_server::Options {
        listen: arguments.listen,
        chaos: arguments.chaos,
        ..Default::default()
    };
    match arguments.rate_limit.as_deref() {
        None => {}
        Some("off") => options.rate = None,
        Some(rate) => {
            options.rate = Some(
                rate.parse()
                    .map_err(|error| format!("--rate-limit {rate}: {error}"))?,
            )
        }
    }
    if let Some(burst) = arguments.burst {
        options.burst = burst
            .try_into()
            .map_err(|_| "--burst 0: it must be at least 1".to_owned())?;
    }
    for proxy in &arguments.trusted_proxy {
        options.trusted_proxies.push(
            proxy
                .parse()
                .map_err(|error| format!("--trusted-proxy {proxy}: {error}"))?,
        );
    }
    Ok(options)
}

fn complain(problem: &str) -> ExitCode {
    eprintln!("eternal: {problem}");
    ExitCode::from(USAGE)
}
