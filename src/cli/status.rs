//! `eternal status`: how everything is, why, and what happens next.

use std::time::Duration;

use super::arguments::SourcesArgs;
use super::machine::{Holder, Machine};
use super::output::{Output, Page};
use super::place::Place;
use super::{Complaint, DONE, NO_DAEMON, order, overview, place, remains};
use crate::control::api::Status;
use crate::control::client::ClientError;
use crate::text::with_causes;

/// LSB: dead, and the pid file is there.
const DEAD_WITH_PID_FILE: u8 = 1;
/// LSB: it cannot be told.
pub(super) const UNKNOWN: u8 = 4;
/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What is asked.
pub(super) struct Asked {
    pub names: Vec<String>,
    pub watch: bool,
}

/// Shows the daemon and its programs, or only those named; the code follows LSB. Without a daemon it
/// shows how the last one ended.
pub(super) async fn execute(
    asked: &Asked,
    sources: &SourcesArgs,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    if asked.watch {
        return follow(&asked.names, (&place, machine), output).await;
    }
    let names = &asked.names;
    let status = match place.client.status().await {
        Ok(status) => only(names, status)?,
        Err(error) => {
            let complaint = absent(&error, &place, machine);
            return remains::status(names, (&place, machine), complaint, output);
        }
    };
    let every_one_runs = status
        .programs
        .iter()
        .all(|program| program.state == "running");
    if output.is_json() {
        output.json(&status)?;
    } else {
        let width = (machine.terminal)().map(|(width, _)| width);
        output.page(&overview::page(&status, width))?;
    }
    Ok(if names.is_empty() || every_one_runs {
        DONE
    } else {
        NO_DAEMON
    })
}

/// Keeps only the programs that are named.
pub(super) fn only(names: &[String], mut status: Status) -> Result<Status, Complaint> {
    order::must_exist(names, &status).map_err(|complaint| Complaint {
        code: UNKNOWN,
        ..complaint
    })?;
    if !names.is_empty() {
        status
            .programs
            .retain(|program| names.iter().any(|name| program.is_called(name)));
    }
    Ok(status)
}

/// Tells dead from unknown.
fn absent(error: &ClientError, place: &Place, machine: &Machine) -> Complaint {
    let message = with_causes(error);
    if !error.is_no_daemon() {
        return Complaint::new(UNKNOWN, message);
    }
    let Some(pid_file) = place.pid_file() else {
        return Complaint::new(NO_DAEMON, message);
    };
    let file = pid_file.display();
    match (machine.holder)(pid_file) {
        Holder::Nobody => Complaint::new(NO_DAEMON, message),
        Holder::Lives(pid) => {
            let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            Complaint::new(
                UNKNOWN,
                format!("{message}, but {who} holds the pid file {file}"),
            )
        }
        Holder::Gone(_) => Complaint::new(
            DEAD_WITH_PID_FILE,
            format!("{message}; it died without removing its pid file {file}"),
        ),
        Holder::Unknown(why) => Complaint::new(UNKNOWN, format!("{message}, and {why}")),
    }
}

/// Shows it again and again: every second on a terminal, elsewhere when something changed, until the
/// daemon or the reader is gone.
async fn follow(
    names: &[String],
    (place, machine): (&Place, &Machine),
    output: &mut Output,
) -> Result<u8, Complaint> {
    let mut shown = None;
    loop {
        let answer = place.client.status().await;
        let gone = answer.as_ref().is_err_and(ClientError::is_no_daemon);
        let answer = answer
            .map_err(|error| absent(&error, place, machine))
            .and_then(|status| only(names, status));
        let essence = essence(&answer);
        if output.is_terminal() && !output.is_json() {
            output.redraw(&fitting(&answer, (machine.terminal)()))?;
        } else if shown.as_ref() != Some(&essence) {
            match answer {
                Ok(status) if output.is_json() => output.json_line(&status)?,
                Ok(status) => output.page(&overview::page(&status, None))?,
                // Nobody is there to tell that it is over: the end of what is shown is the end.
                Err(complaint) if gone => return Err(complaint),
                Err(complaint) => {
                    complaint.tell(output);
                }
            }
            shown = Some(essence);
        }
        if output.reader_is_gone() {
            return Ok(DONE);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Fills the terminal and not more: where there are too many programs, those that need attention stay.
fn fitting(answer: &Result<Status, Complaint>, terminal: Option<(usize, usize)>) -> Page {
    let (width, height) = terminal.map_or((None, usize::MAX), |(w, h)| (Some(w), h));
    let status = match answer {
        Ok(status) => status,
        Err(complaint) => {
            let mut page = Page::default();
            page.text(complaint.message.as_deref().unwrap_or_default());
            page.end();
            return page;
        }
    };
    let whole = overview::page(status, width);
    if whole.lines() < height {
        return whole;
    }
    let mut fewer = status.clone();
    // Stable: in each class the order of the config stays.
    fewer
        .programs
        .sort_by_key(|program| match program.state.as_str() {
            "failed" => 0,
            "backoff" | "stopping" | "starting" => 1,
            "running" => 2,
            _ => 3,
        });
    loop {
        fewer.programs.pop();
        let hidden = status.programs.len() - fewer.programs.len();
        let mut page = overview::page(&fewer, width);
        page.text(&format!("… and {hidden} more"));
        page.end();
        if page.lines() < height || fewer.programs.len() <= 1 {
            return page;
        }
    }
}

/// What counts as a change: not the clock and not the memory.
fn essence(answer: &Result<Status, Complaint>) -> String {
    match answer {
        Err(complaint) => complaint.message.clone().unwrap_or_default(),
        Ok(status) => {
            let mut text = format!("{} {}", status.daemon.pid, status.daemon.stopping);
            for program in &status.programs {
                text.push_str(&format!(
                    "\n{} {} {:?} {} {} {}",
                    program.display_name,
                    program.state,
                    program.pid,
                    program.starts,
                    program.crashes,
                    program.ready
                ));
            }
            text
        }
    }
}
