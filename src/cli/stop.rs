//! `eternal stop`: the end of the daemon and all its programs.

use super::arguments::SourcesArgs;
use super::machine::{Holder, Machine};
use super::output::Output;
use super::process::Life;
use super::{Complaint, DONE, guard, place};
use crate::control::api::{Done, Status};
use crate::control::client::{Client, ClientError};
use crate::text;

/// Stops the daemon; returns when its process is gone.
pub(super) async fn execute(
    sources: &SourcesArgs,
    force: bool,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    let status = place.client.status().await.map_err(|error| {
        let holder = place.pid_file().map(machine.holder);
        match holder.filter(|_| error.is_no_daemon()) {
            Some(Holder::Lives(Some(pid))) => Complaint::failed(format!(
                "the daemon (pid {pid}) lives and holds its pid file, but its socket {} is gone: \
                 `kill -TERM {pid}` stops it",
                place.client.socket().display()
            )),
            Some(Holder::Lives(None) | Holder::Nobody | Holder::Gone(_) | Holder::Unknown(_))
            | None => error.into(),
        }
    })?;
    guard::permit("stop", &status.daemon, force)?;
    stop(&place.client, &status, output).await?;
    let message = format!("stopped (pid {} is gone)", status.daemon.pid);
    if output.is_json() {
        output.json(&Done {
            ok: true,
            messages: vec![message],
        })?;
    } else {
        output.line(&message)?;
    }
    Ok(DONE)
}

/// Stops a daemon that has just answered and waits until its process is gone.
pub(super) async fn stop(
    client: &Client,
    status: &Status,
    output: &mut Output,
) -> Result<(), Complaint> {
    let pid = status.daemon.pid;
    let life = Life::of(pid);
    let alive = status
        .programs
        .iter()
        .filter(|program| program.pid.is_some())
        .count();
    if output.is_terminal() {
        output.progress(&format!("stopping {} …", text::count(alive, "program")))?;
    }
    let answer = client.shutdown().await;
    output.end_progress()?;
    match answer {
        Ok(_) => {}
        // It ended before it could say so: what counts is whether it is gone.
        Err(error) if error.is_no_daemon() => {}
        Err(ClientError::Broken { .. } | ClientError::Refused { status: 503, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match life {
        Some(life) if !life.end().await => Err(Complaint::failed(format!(
            "the daemon with pid {pid} was stopped but does not end"
        ))),
        Some(_) | None => Ok(()),
    }
}
