//! `eternal systemd-unit`: a unit for a config, made from the paths, users and timeouts in it.

mod needs;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use super::arguments::{SourcesArgs, SystemdUnit};
use super::output::Output;
use super::{Complaint, DONE, USAGE};
use crate::config;
use needs::Needs;

/// What `systemd-unit --json` prints.
#[derive(Serialize)]
struct Printed {
    unit: String,
    warnings: Vec<String>,
}

/// Prints the unit; needs no daemon and no systemd.
pub(super) fn execute(
    wanted: &SystemdUnit,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let (loaded, executable) = load(sources)?;
    let needs = Needs::of(&loaded.config, &executable, wanted)?;
    let unit = text::unit(&needs);
    let mut warnings: Vec<String> = loaded.warnings.into_iter().chain(needs.warnings).collect();
    warnings.extend(needs.user.as_deref().and_then(absent));
    if output.is_json() {
        output.json(&Printed { unit, warnings })?;
        return Ok(DONE);
    }
    for warning in &warnings {
        output.complain(&format!("warning: {warning}"));
    }
    output.text(&unit)?;
    Ok(DONE)
}

/// Says what a service of a user that is not there comes to.
fn absent(user: &str) -> Option<String> {
    match nix::unistd::User::from_name(user) {
        Ok(None) => Some(format!(
            "there is no user {user} here: the service would fail with 217/USER until              `useradd --system {user}` or systemd-sysusers makes it, or --run-as names another"
        )),
        Ok(Some(_)) | Err(_) => None,
    }
}

/// Loads the file alone: a service has neither the variables nor the options of this command.
fn load(sources: &SourcesArgs) -> Result<(config::Loaded, std::path::PathBuf), Complaint> {
    if sources.flags.socket.is_some() {
        return Err(Complaint::new(
            USAGE,
            "--socket has no place in a unit: set `socket` in [daemon]",
        ));
    }
    let directory = std::env::current_dir().map_err(|error| {
        Complaint::failed(format!("cannot tell the current directory: {error}"))
    })?;
    let mut sources = sources
        .sources_in(directory)
        .map_err(|error| Complaint::failed(format!("cannot tell our own executable: {error}")))?;
    sources.environment.clear();
    let loaded =
        config::load(&sources).map_err(|problems| Complaint::new(USAGE, problems.to_string()))?;
    Ok((loaded, sources.own_executable))
}
