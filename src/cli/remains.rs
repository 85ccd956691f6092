//! What a daemon that is gone has left: the answers to questions that nobody answers any more.

use serde::Serialize;

use super::machine::{Holder, Machine};
use super::output::{Output, Page};
use super::place::Place;
use super::status::only;
use super::{Complaint, overview};
use crate::config::Config;
use crate::control::api::Last;
use crate::control::client::ClientError;
use crate::text::with_causes;

/// What `status --json` prints without a daemon.
#[derive(Serialize)]
struct Absent<'a> {
    error: &'a str,
    /// `null` when the daemon left nothing.
    last: Option<&'a Last>,
}

/// Shows how the last daemon ended and how its programs stood; the code is that of the complaint.
pub(super) fn status(
    names: &[String],
    (place, machine): (&Place, &Machine),
    complaint: Complaint,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let last = place.config.as_ref().filter(|_| complaint.is_absence());
    let Some(mut last) = last.and_then(|config| (machine.last)(config)) else {
        return Err(complaint);
    };
    last.status = only(names, last.status)?;
    let Complaint { code, message } = complaint;
    let message = message.unwrap_or_default();
    output.complain(&message);
    if output.is_json() {
        output.json(&Absent {
            error: &message,
            last: Some(&last),
        })?;
        return Ok(code);
    }
    let mut page = Page::default();
    page.text(&epitaph(&last));
    page.end();
    let width = (machine.terminal)().map(|(width, _)| width);
    overview::programs(&last.status.programs, width, &mut page);
    output.page(&page)?;
    Ok(code)
}

/// Says how a daemon ended.
pub(super) fn epitaph(last: &Last) -> String {
    let pid = last.status.daemon.pid;
    match &last.ended {
        Some(ended) => format!(
            "the daemon (pid {pid}) ended at {} with exit code {}: {}",
            ended.at, ended.code, ended.reason
        ),
        None => format!(
            "the daemon (pid {pid}) ended without a word after {}: it was killed, or the machine went \
             down; its programs stood like this:",
            last.written_at
        ),
    }
}

/// Says that an answer comes from files, and returns the config that names them; any other failure than
/// that there is no daemon stays one, and a daemon that lives without its socket is one.
pub(super) fn instead<'a>(
    error: ClientError,
    place: &'a Place,
    machine: &Machine,
    output: &mut Output,
) -> Result<&'a Config, Complaint> {
    let config = place.config.as_ref().filter(|_| error.is_no_daemon());
    let Some(config) = config else {
        return Err(error.into());
    };
    if let Holder::Lives(_) = (machine.holder)(&config.daemon.pid_file) {
        return Err(error.into());
    }
    let mut words = format!("{}: this is from its files", with_causes(&error));
    if let Some(last) = (machine.last)(config).filter(|last| last.ended.is_some()) {
        words = format!("{words}; {}", epitaph(&last));
    }
    output.complain(&words);
    Ok(config)
}
