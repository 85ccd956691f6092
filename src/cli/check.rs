//! `eternal check`: every problem of a config at once, then when it would give up.

use std::path::PathBuf;

use serde::Serialize;

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, USAGE, place};
use crate::config;

/// What `check --json` prints.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    /// The summary and timeline, or every problem.
    report: String,
    warnings: Vec<String>,
}

/// Checks a config; needs no daemon.
pub(super) fn execute(
    file: Option<PathBuf>,
    mut sources: SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    sources.config = file.or(sources.config);
    match place::load(&sources) {
        Ok(loaded) => {
            let report = config::check(&loaded);
            if output.is_json() {
                output.json(&Checked {
                    ok: true,
                    report,
                    warnings: loaded.warnings,
                })?;
                return Ok(DONE);
            }
            for warning in &loaded.warnings {
                output.complain(&format!("warning: {warning}"));
            }
            output.text(&report)?;
            Ok(DONE)
        }
        Err(Complaint {
            code: USAGE,
            message: Some(report),
        }) if output.is_json() => {
            output.json(&Checked {
                ok: false,
                report,
                warnings: Vec::new(),
            })?;
            Ok(USAGE)
        }
        Err(complaint) => Err(complaint),
    }
}
