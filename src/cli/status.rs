//! `eternal status`: how everything is, why, and what happens next.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};

use super::arguments::SourcesArgs;
use super::output::{Output, paint, state_style};
use super::place::Place;
use super::{Complaint, DONE, NO_DAEMON, human, order, place, process, with_causes};
use crate::control::api::{ProgramStatus, Status};
use crate::control::client::ClientError;

/// LSB: dead, and the pid file is there.
const DEAD_WITH_PID_FILE: u8 = 1;
/// LSB: it cannot be told.
const UNKNOWN: u8 = 4;
/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows the daemon and its programs, or only those named; the code follows LSB.
pub(super) async fn execute(
    names: &[String],
    watch: bool,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    if watch {
        return follow(names, &place, output).await;
    }
    let status = ask(names, &place).await?;
    let every_one_runs = status
        .programs
        .iter()
        .all(|program| program.state == "running");
    if output.is_json() {
        output.json(&status)?;
    } else {
        output.text(&render(&status))?;
    }
    Ok(if names.is_empty() || every_one_runs {
        DONE
    } else {
        NO_DAEMON
    })
}

/// Asks, and keeps only the programs that are named.
async fn ask(names: &[String], place: &Place) -> Result<Status, Complaint> {
    let mut status = place
        .client
        .status()
        .await
        .map_err(|error| absent(&error, place))?;
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
fn absent(error: &ClientError, place: &Place) -> Complaint {
    let message = with_causes(error);
    if !error.is_no_daemon() {
        return Complaint::new(UNKNOWN, message);
    }
    let Some(pid_file) = place.pid_file.as_deref().filter(|path| path.exists()) else {
        return Complaint::new(NO_DAEMON, message);
    };
    let file = pid_file.display();
    match process::holder_of(pid_file) {
        Some(pid) => Complaint::new(
            UNKNOWN,
            format!("{message}, but process {pid} of the pid file {file} lives"),
        ),
        None => Complaint::new(
            DEAD_WITH_PID_FILE,
            format!("{message}; it died without removing its pid file {file}"),
        ),
    }
}

/// Shows it again and again: every second on a terminal, elsewhere when something changed.
async fn follow(names: &[String], place: &Place, output: &mut Output) -> Result<u8, Complaint> {
    let redraw = output.is_terminal() && !output.is_json();
    let mut shown = None;
    loop {
        let answer = ask(names, place).await;
        let essence = essence(&answer);
        if redraw {
            let page = match &answer {
                Ok(status) => render(status),
                Err(complaint) => format!("{}\n", complaint.message.as_deref().unwrap_or_default()),
            };
            output.text(&format!("\x1b[H\x1b[2J{page}"))?;
        } else if shown.as_ref() != Some(&essence) {
            match answer {
                Ok(status) if output.is_json() => output.json_line(&status)?,
                Ok(status) => output.text(&render(&status))?,
                Err(complaint) => {
                    complaint.tell(output);
                }
            }
            shown = Some(essence);
        }
        tokio::time::sleep(PERIOD).await;
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

/// Writes a status for people.
fn render(status: &Status) -> String {
    let mut text = header(status);
    if status.programs.is_empty() {
        text.push_str("no programs\n");
        return text;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "NAME",
        "STATE",
        "PID",
        "UPTIME",
        "RESTARTS",
        "CRASHES",
        "MEMORY",
        "WHY / NEXT",
    ]);
    for program in &status.programs {
        table.add_row(row(program));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // The table counts colour codes as letters, so it is coloured when its columns stand.
    let widths = table.column_max_content_widths();
    let state_column = widths.first().map_or(0, |width| usize::from(*width)) + 2;
    let mut lines = table.lines();
    if let Some(head) = lines.next() {
        text.push_str(&paint(Style::new().bold(), head.trim_end()));
        text.push('\n');
    }
    for (line, program) in lines.zip(&status.programs) {
        text.push_str(&colored(line.trim_end(), state_column, &program.state));
        text.push('\n');
    }
    text
}

fn header(status: &Status) -> String {
    let daemon = &status.daemon;
    let mut text = format!(
        "eternal {}, pid {}, up {}",
        daemon.version,
        daemon.pid,
        human::duration(daemon.uptime_seconds)
    );
    if daemon.stopping {
        text.push_str(", stopping");
    }
    if let Some(file) = &daemon.config_file {
        text.push_str(&format!(", config {file}"));
    }
    if let Some(address) = &daemon.metrics_address {
        text.push_str(&format!(", metrics on {address}"));
    }
    text.push('\n');
    if let Some(reload) = daemon
        .last_reload
        .as_ref()
        .filter(|reload| !reload.successful)
    {
        let words = format!("the reload at {} failed: {}", reload.at, reload.message);
        text.push_str(&paint(AnsiColor::Red.on_default(), &words));
        text.push('\n');
    }
    text
}

fn row(program: &ProgramStatus) -> [String; 8] {
    let dash = || "-".to_owned();
    let why = match &program.next {
        Some(next) => format!("{}; {next}", program.why),
        None => program.why.clone(),
    };
    [
        program.display_name.clone(),
        program.state.clone(),
        program.pid.map_or_else(dash, |pid| pid.to_string()),
        program.uptime_seconds.map_or_else(dash, human::duration),
        program.restarts.to_string(),
        program.crashes.to_string(),
        program.memory_bytes.map_or_else(dash, human::bytes),
        // A line break would tear the table apart.
        why.replace(char::is_control, " "),
    ]
}

fn colored(line: &str, column: usize, state: &str) -> String {
    let parts = line
        .split_at_checked(column)
        .and_then(|(before, rest)| Some((before, rest.strip_prefix(state)?)));
    match parts {
        Some((before, after)) => format!("{before}{}{after}", paint(state_style(state), state)),
        None => line.to_owned(),
    }
}
