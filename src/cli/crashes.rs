//! `eternal crashes`: when, why, how long it ran, and its last words.

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};

use super::arguments::SourcesArgs;
use super::output::{Output, paint};
use super::{Complaint, DONE, human, place};
use crate::control::api::{Crash, Crashes};

/// Shows the crash history of the programs named, or of all, oldest first.
pub(super) async fn execute(
    names: &[String],
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let client = place::find(sources, output)?.client;
    let mut crashes = Vec::new();
    if names.is_empty() {
        crashes = client.crashes(None).await?.crashes;
    }
    for name in names {
        crashes.extend(client.crashes(Some(name)).await?.crashes);
    }
    // Timestamps of one form and one zone sort as text.
    crashes.sort_by(|one, other| one.at.cmp(&other.at));
    if output.is_json() {
        output.json(&Crashes { crashes })?;
    } else if crashes.is_empty() {
        output.line("no crashes")?;
    } else {
        output.text(&render(&crashes))?;
    }
    Ok(DONE)
}

fn render(crashes: &[Crash]) -> String {
    let replicated: BTreeSet<&str> = crashes
        .iter()
        .filter(|crash| crash.replica > 0)
        .map(|crash| crash.program.as_str())
        .collect();
    let mut text = String::new();
    for crash in crashes {
        let mut name = crash.program.clone();
        if replicated.contains(name.as_str()) {
            name = format!("{name}/{}", crash.replica);
        }
        let pid = crash
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        text.push_str(&format!(
            "{} {}{pid}: {} after {}; {}\n",
            crash.at,
            paint(Style::new().bold(), &name),
            paint(AnsiColor::Red.on_default(), &crash.description),
            human::duration(crash.ran_seconds),
            crash.verdict
        ));
        for line in &crash.last_output {
            text.push_str(&format!("    | {line}\n"));
        }
    }
    text
}
