//! `eternal reload`: the config again.

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, USAGE, guard, place};
use crate::control::api::Reloaded;
use crate::control::client::ClientError;
use crate::text;

/// Has the daemon read its config again and prints what it did.
pub(super) async fn execute(
    restart: bool,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let client = place::find(sources, output)?.client;
    let reloaded = match client.reload(restart).await {
        // The daemon's config is bad: the code of a configuration error.
        Err(ClientError::Refused { status: 422, error }) => {
            return Err(Complaint::new(USAGE, error));
        }
        answer => answer?,
    };
    if output.is_json() {
        output.json(&reloaded)?;
    } else {
        output.text(&render(&reloaded))?;
        if !reloaded.needs_daemon_restart.is_empty() {
            let keys = reloaded.needs_daemon_restart.join(", ");
            let how = guard::command("restart", &client.status().await?.daemon);
            output.line(&format!("takes effect only after {how}: {keys}"))?;
        }
    }
    Ok(DONE)
}

fn render(reloaded: &Reloaded) -> String {
    let mut lines = String::new();
    let lists = [
        ("added", &reloaded.added),
        ("stopped and removed", &reloaded.removed),
        ("restarted", &reloaded.restarted),
        ("policy changed", &reloaded.updated),
        ("number of replicas changed", &reloaded.resized),
        ("changed, and not running", &reloaded.not_running),
    ];
    for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        lines.push_str(&format!("{what}: {}\n", names.join(", ")));
    }
    if reloaded.unchanged > 0 || lines.is_empty() {
        lines.push_str(&format!(
            "unchanged: {}\n",
            text::count(reloaded.unchanged, "program")
        ));
    }
    lines
}
