//! `eternal check`: every problem of a config at once, what a start would meet on this machine, and when
//! a program would be given up.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::arguments::SourcesArgs;
use super::machine::Machine;
use super::output::Output;
use super::{Complaint, DONE, USAGE, place};
use crate::config::{self, Finding, Loaded, Problems, Weight};

/// What is to be checked.
pub(super) struct Asked {
    /// The config file, where it is named.
    pub file: Option<PathBuf>,
    /// Nothing but what the file says.
    pub file_only: bool,
}

/// Checks a config; needs no daemon. The code is that of a start: a configuration error where it would
/// refuse.
pub(super) fn execute(
    asked: Asked,
    mut sources: SourcesArgs,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    sources.config = asked.file.or(sources.config);
    let loaded = match place::try_load(&sources)? {
        Ok(loaded) => loaded,
        Err(problems) if output.is_json() => {
            output.json(&refused(&problems))?;
            return Ok(USAGE);
        }
        Err(problems) => return Err(Complaint::new(USAGE, problems.to_string())),
    };
    let findings = if asked.file_only {
        Vec::new()
    } else {
        (machine.inspect)(&loaded.config)
    };
    let fatal = findings.iter().any(|found| found.weight == Weight::Error);
    if output.is_json() {
        output.json(&checked(&loaded, &findings, !fatal))?;
    } else {
        output.text(&config::check(&loaded))?;
        for warning in &loaded.warnings {
            output.complain(&format!("warning: {warning}"));
        }
        for found in &findings {
            output.complain(&found.to_string());
        }
        if fatal {
            output.complain("the daemon would not start here with this configuration");
        }
    }
    Ok(if fatal { USAGE } else { DONE })
}

/// What a valid config is for machines: the timelines, and what was found.
fn checked(loaded: &Loaded, findings: &[Finding], ok: bool) -> Value {
    let mut document = config::check_json(loaded);
    document["ok"] = json!(ok);
    document["findings"] = json!(findings);
    document
}

fn refused(problems: &Problems) -> Value {
    json!({
        "ok": false,
        "valid": false,
        "problems": problems.details().collect::<Vec<_>>(),
    })
}
