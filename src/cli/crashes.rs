//! `eternal crashes`: when, why, how long it ran, and its last words.

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};

use super::arguments::SourcesArgs;
use super::machine::Machine;
use super::output::{Output, Page};
use super::{Complaint, DONE, order, place, remains};
use crate::control::api::{Crash, Crashes};
use crate::control::client::{Client, ClientError};
use crate::text;

/// Shows the crash history of the programs named, or of all, oldest first; from the state directory
/// when no daemon runs.
pub(super) async fn execute(
    names: &[String],
    sources: &SourcesArgs,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    let mut crashes = match ask(names, &place.client).await {
        Ok(crashes) => crashes,
        Err(Unanswered::Name(complaint)) => return Err(complaint),
        Err(Unanswered::Daemon(error)) => {
            let crashes = place.config.as_ref().and_then(machine.crashes);
            let Some(crashes) = crashes else {
                return Err(error.into());
            };
            let config = remains::instead(error, &place, machine, output)?;
            let configured: Vec<&str> = config.programs.iter().map(|p| p.name.as_str()).collect();
            known(names, &crashes, &configured)?;
            crashes
                .into_iter()
                .filter(|crash| is_meant(crash, names))
                .collect()
        }
    };
    // Timestamps of one form and one zone sort as text.
    crashes.sort_by(|one, other| one.at.cmp(&other.at));
    if output.is_json() {
        output.json(&Crashes { crashes })?;
    } else if crashes.is_empty() {
        output.line("no crashes")?;
    } else {
        output.page(&render(&crashes))?;
    }
    Ok(DONE)
}

/// Why there is no answer.
enum Unanswered {
    Daemon(ClientError),
    Name(Complaint),
}

async fn ask(names: &[String], client: &Client) -> Result<Vec<Crash>, Unanswered> {
    if names.is_empty() {
        let all = client.crashes(None).await.map_err(Unanswered::Daemon)?;
        return Ok(all.crashes);
    }
    let mut crashes = Vec::new();
    for name in names {
        match client.crashes(Some(name)).await {
            Ok(of_one) => crashes.extend(of_one.crashes),
            Err(error) if error.is_not_found() => {
                let status = client.status().await.map_err(Unanswered::Daemon)?;
                let known = order::must_exist(names, &status);
                return Err(known.map_or_else(Unanswered::Name, |()| Unanswered::Daemon(error)));
            }
            Err(error) => return Err(Unanswered::Daemon(error)),
        }
    }
    Ok(crashes)
}

fn is_meant(crash: &Crash, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| is_called(crash, name))
}

fn is_called(crash: &Crash, name: &str) -> bool {
    crash.program == name || format!("{}/{}", crash.program, crash.replica) == *name
}

/// Complains about names that neither the config nor the history has.
fn known(names: &[String], crashes: &[Crash], configured: &[&str]) -> Result<(), Complaint> {
    let exists = |name: &&String| {
        let program = name.split('/').next().unwrap_or_default();
        configured.contains(&program) || crashes.iter().any(|crash| is_called(crash, name))
    };
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| !exists(name))
        .map(|name| order::missing(name, configured.iter().copied()))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Complaint::failed(unknown.join("\n")))
}

fn render(crashes: &[Crash]) -> Page {
    let replicated: BTreeSet<&str> = crashes
        .iter()
        .filter(|crash| crash.replica > 0)
        .map(|crash| crash.program.as_str())
        .collect();
    let mut page = Page::default();
    for crash in crashes {
        let mut name = crash.program.clone();
        if replicated.contains(name.as_str()) {
            name = format!("{name}/{}", crash.replica);
        }
        page.piece(&format!("{} ", crash.at));
        page.paint(Style::new().bold(), &name);
        if let Some(pid) = crash.pid {
            page.piece(&format!(" (pid {pid})"));
        }
        page.piece(": ");
        page.paint(AnsiColor::Red.on_default(), &crash.description);
        if crash.pid.is_some() {
            page.piece(&format!(", ran {}", text::seconds(crash.ran_seconds)));
        }
        page.piece(&format!("; {}", crash.verdict));
        page.end();
        for line in &crash.last_output {
            page.piece(&format!("    | {line}"));
            page.end();
        }
    }
    page
}
