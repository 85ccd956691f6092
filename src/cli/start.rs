//! `eternal start`: a daemon in the background.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::arguments::SourcesArgs;
use super::machine::Machine;
use super::output::Output;
use super::{Complaint, DONE, FAILED, guard, place};
use crate::control::api::Progress;
use crate::control::client::Client;

/// Starts a daemon unless one runs; returns when every program is up, or has failed to come up.
pub(super) async fn execute(
    sources: &SourcesArgs,
    force: bool,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let loaded = place::load(sources)?;
    let client = Client::new(loaded.config.daemon.socket.clone());
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
                    code: None,
                },
                output,
            );
        }
        Err(error) if error.is_no_daemon() => {
            if let Some(last) = (machine.last)(&loaded.config) {
                guard::permit("start", &last.status.daemon, force)?;
            }
            for warning in &loaded.warnings {
                output.complain(&format!("warning: {warning}"));
            }
        }
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
    let mut daemon = Command::new(&executable);
    daemon
        .args(["run", "--detached"])
        .args(sources.to_arguments())
        .current_dir(directory);
    spawn_and_listen(daemon, output)
}

/// Starts the daemon and listens to its reports until one is an outcome or there are no more.
fn spawn_and_listen(mut command: Command, output: &mut Output) -> Result<u8, Complaint> {
    let mut daemon = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let program = command.get_program().display();
            Complaint::failed(format!("cannot start {program}: {error}"))
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
        let code = last.code.unwrap_or(FAILED);
        return Err(Complaint::new(code, last.message.clone()));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a shell play the daemon.
    fn start(script: &str) -> Result<u8, Complaint> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        spawn_and_listen(shell, &mut Output::new(false))
    }

    #[test]
    fn a_good_outcome_is_believed_while_the_daemon_lives_on() {
        let script = r#"echo '{"message":"web starts","outcome":null}'
            echo '{"message":"started with pid 1","outcome":true}'; exec >&-; sleep 0.2; exit 9"#;
        assert_eq!(start(script).expect("it started"), DONE);
    }

    #[test]
    fn a_bad_outcome_is_a_failure_with_the_daemons_own_words() {
        let script = r#"echo '{"message":"web: exit code 3","outcome":false}'"#;
        let complaint = start(script).expect_err("it failed");
        assert_eq!(
            (complaint.code, complaint.message.as_deref()),
            (FAILED, Some("web: exit code 3"))
        );
    }

    #[test]
    fn a_daemon_that_ends_without_an_outcome_lends_its_exit_code() {
        assert_eq!(start("exit 2").expect("a code"), 2);
        let complaint = start("kill -9 $$").expect_err("it was killed");
        assert!(
            complaint
                .message
                .is_some_and(|words| words.contains("signal 9"))
        );
    }
}
