//! `eternal start`: a daemon in the background.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, FAILED, place};
use crate::control::api::Progress;
use crate::control::client::Client;

/// Starts a daemon unless one runs; returns when every program is up, or has failed to come up.
pub(super) async fn execute(sources: &SourcesArgs, output: &mut Output) -> Result<u8, Complaint> {
    let loaded = place::load(sources)?;
    let client = Client::new(loaded.config.daemon.socket);
    match client.status().await {
        Ok(status) if status.daemon.stopping => {
            let pid = status.daemon.pid;
            return Err(Complaint::failed(format!(
                "the daemon with pid {pid} is stopping: try again when it is gone"
            )));
        }
        Ok(status) => {
            let message = format!("already running with pid {}", status.daemon.pid);
            return told(
                &Progress {
                    message,
                    outcome: Some(true),
                },
                output,
            );
        }
        Err(error) if error.is_no_daemon() => {}
        Err(error) => return Err(error.into()),
    }
    let directory = std::env::current_dir().map_err(|error| {
        Complaint::failed(format!("cannot tell the current directory: {error}"))
    })?;
    launch(sources, &directory, output)
}

/// Starts a daemon in a directory and shows its progress until it knows how it went.
pub(super) fn launch(
    sources: &SourcesArgs,
    directory: &Path,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let executable = std::env::current_exe()
        .map_err(|error| Complaint::failed(format!("cannot tell our own executable: {error}")))?;
    let mut daemon = Command::new(&executable)
        .args(["run", "--detached"])
        .args(sources.to_arguments())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Complaint::failed(format!("cannot start {}: {error}", executable.display()))
        })?;
    let Some(reports) = daemon.stdout.take() else {
        return ended(daemon);
    };
    // A pipe that breaks ends the reports just as a closed one does.
    for line in BufReader::new(reports).lines().map_while(Result::ok) {
        match serde_json::from_str::<Progress>(&line) {
            Ok(progress) if progress.outcome.is_some() => {
                output.end_progress()?;
                return told(&progress, output);
            }
            Ok(progress) => output.progress(&progress.message)?,
            Err(_) => output.complain(&line),
        }
    }
    output.end_progress()?;
    ended(daemon)
}

fn told(last: &Progress, output: &mut Output) -> Result<u8, Complaint> {
    if last.outcome != Some(true) {
        return Err(Complaint::new(FAILED, last.message.clone()));
    }
    if output.is_json() {
        output.json(last)?;
    } else {
        output.line(&last.message)?;
    }
    Ok(DONE)
}

/// A daemon that ended without a word here has said why on its standard error.
fn ended(mut daemon: Child) -> Result<u8, Complaint> {
    let status = daemon
        .wait()
        .map_err(|error| Complaint::failed(format!("cannot wait for the daemon: {error}")))?;
    if let Some(signal) = status.signal() {
        let message = format!("the daemon was killed by signal {signal} while it started");
        return Err(Complaint::failed(message));
    }
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(FAILED))
}
