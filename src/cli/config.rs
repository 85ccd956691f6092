//! `eternal config`: the effective config and where each value comes from.

use serde::Serialize;

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, place};
use crate::config;

/// What `config --json` prints.
#[derive(Serialize)]
struct Effective {
    /// TOML with a comment on each value.
    config: String,
    warnings: Vec<String>,
}

/// Prints the config as a daemon started here would use it; needs no daemon.
pub(super) fn execute(sources: &SourcesArgs, output: &mut Output) -> Result<u8, Complaint> {
    let loaded = place::load(sources)?;
    let config = config::effective(&loaded);
    if output.is_json() {
        output.json(&Effective {
            config,
            warnings: loaded.warnings,
        })?;
        return Ok(DONE);
    }
    for warning in &loaded.warnings {
        output.complain(&format!("warning: {warning}"));
    }
    output.text(&config)?;
    Ok(DONE)
}
