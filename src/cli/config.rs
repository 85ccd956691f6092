//! `eternal config`: every value of the config and where it comes from, with the options and in the
//! directory of the running daemon, or of one that would be started here.

use std::path::PathBuf;

use serde::Serialize;

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, USAGE, place, restart};
use crate::config;
use crate::control::client::Client;

/// What `config --json` prints.
#[derive(Serialize)]
struct Effective {
    /// Every value in force.
    config: Vec<Value>,
    warnings: Vec<String>,
}

/// One value in force.
#[derive(Serialize)]
struct Value {
    table: String,
    key: &'static str,
    /// As TOML; `null`: unset.
    value: Option<String>,
    origin: String,
}

/// Prints the config as the running daemon reads it, with the options it was started with; with `file`
/// only, or without a daemon, as one started here would.
pub(super) async fn execute(
    file_only: bool,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let here = place::try_load(sources)?;
    let socket = here
        .as_ref()
        .ok()
        .map(|loaded| loaded.config.daemon.socket.clone());
    let running = match socket.filter(|_| !file_only) {
        Some(socket) => Client::new(socket).status().await.ok(),
        None => None,
    };
    let loaded = match (running, here) {
        (Some(status), _) => {
            let pid = status.daemon.pid;
            output.complain(&format!(
                "as the running daemon (pid {pid}) reads it, with the options it was started with; \
                 --file leaves them out"
            ));
            if let Some(reload) = status.daemon.last_reload.as_ref().filter(|r| !r.successful) {
                output.complain(&format!(
                    "its last reload failed, an earlier one is in force: {}",
                    reload.message
                ));
            }
            let directory = PathBuf::from(&status.daemon.directory);
            place::load_in(&restart::as_started(&status)?, directory)?
        }
        (None, Ok(loaded)) => loaded,
        (None, Err(problems)) => return Err(Complaint::new(USAGE, problems.to_string())),
    };
    if output.is_json() {
        output.json(&Effective {
            config: config::effective(&loaded).into_iter().map(value).collect(),
            warnings: loaded.warnings,
        })?;
        return Ok(DONE);
    }
    for warning in &loaded.warnings {
        output.complain(&format!("warning: {warning}"));
    }
    output.text(&config::effective_toml(&loaded))?;
    Ok(DONE)
}

fn value(setting: config::Setting) -> Value {
    let config::Setting {
        table,
        key,
        value,
        origin,
    } = setting;
    Value {
        table,
        key,
        value,
        origin: origin.to_string(),
    }
}
