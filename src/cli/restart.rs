//! `eternal restart`: the daemon again, with the same options.

use std::path::{Path, PathBuf};

use super::arguments::SourcesArgs;
use super::machine::Machine;
use super::output::Output;
use super::{Complaint, Invocation, guard, parse_from, place, start, stop};
use crate::control::api::Status;

/// Stops the daemon and starts it in the background as it was started; starts one where none runs.
pub(super) async fn execute(
    sources: &SourcesArgs,
    force: bool,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    let status = match place.client.status().await {
        Ok(status) => status,
        Err(error) if error.is_no_daemon() => {
            output.complain("no daemon was running: starting one");
            return start::execute(sources, force, machine, output).await;
        }
        Err(error) => return Err(error.into()),
    };
    guard::permit("restart", &status.daemon, force)?;
    let again = as_started(&status)?;
    let directory = Path::new(&status.daemon.directory);
    // A daemon that would not come up again is better left alone.
    place::load_in(&again, PathBuf::from(directory)).map_err(|complaint| Complaint {
        message: complaint
            .message
            .map(|problems| format!("nothing was stopped: {problems}")),
        ..complaint
    })?;
    stop::stop(&place.client, &status, output).await?;
    start::launch(&again, directory, output)
}

/// Reads the arguments a daemon was started with.
pub(super) fn as_started(status: &Status) -> Result<SourcesArgs, Complaint> {
    let arguments = &status.daemon.arguments;
    match parse_from(arguments) {
        Ok(Invocation::Run(run)) => Ok(run.sources.or_config(status.daemon.config_file.as_deref())),
        Ok(Invocation::ApiServer(_) | Invocation::Other(_)) | Err(_) => {
            Err(Complaint::failed(format!(
                "the daemon's own arguments are not understood: {}",
                arguments.join(" ")
            )))
        }
    }
}
