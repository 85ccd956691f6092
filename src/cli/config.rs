//! `eternal config`: the effective config and where each value comes from.

use serde::Serialize;

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, place};
use crate::config;

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

/// Prints the config as a daemon started here would use it; needs no daemon.
pub(super) fn execute(sources: &SourcesArgs, output: &mut Output) -> Result<u8, Complaint> {
    let loaded = place::load(sources)?;
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
