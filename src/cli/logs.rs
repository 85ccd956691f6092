//! `eternal logs`: captured output.

use anstyle::AnsiColor;
use tokio::sync::mpsc;

use super::arguments::{Logs, SourcesArgs};
use super::machine::Machine;
use super::output::{Output, Page};
use super::{Complaint, DONE, order, place, remains};
use crate::config::Config;
use crate::control::api::LogLine;
use crate::control::client::{Client, ClientError, Stream};

/// Lines read ahead of a slow terminal.
const AHEAD: usize = 64;

/// Shows the last lines of every program named, or of all, and with `-f` those that follow; from the
/// log files when no daemon runs.
pub(super) async fn execute(
    logs: &Logs,
    sources: &SourcesArgs,
    machine: &Machine,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let place = place::find(sources, output)?;
    let streams = match open(&place.client, logs).await {
        Ok(streams) => streams?,
        Err(error) if logs.follow => return Err(error.into()),
        Err(error) => {
            let lines = match &place.config {
                Some(config) if error.is_no_daemon() => from_files(logs, config, machine)?,
                Some(_) | None => None,
            };
            let Some(lines) = lines else {
                return Err(error.into());
            };
            remains::instead(error, &place, machine, output)?;
            return print_all(lines, logs, output);
        }
    };
    if logs.follow {
        follow(streams, logs, output).await
    } else {
        show(streams, logs, output).await
    }
}

type Streams = Vec<Stream<LogLine>>;

/// Asks the daemon; the inner error is a name that it does not have.
async fn open(client: &Client, logs: &Logs) -> Result<Result<Streams, Complaint>, ClientError> {
    if logs.names.is_empty() {
        let all = client.logs(None, logs.lines, logs.follow).await?;
        return Ok(Ok(vec![all]));
    }
    if let Err(unknown) = order::must_exist(&logs.names, &client.status().await?) {
        return Ok(Err(unknown));
    }
    let mut streams = Vec::new();
    for name in &logs.names {
        streams.push(client.logs(Some(name), logs.lines, logs.follow).await?);
    }
    Ok(Ok(streams))
}

/// Reads what the daemon left; `None`: nothing.
fn from_files(
    logs: &Logs,
    config: &Config,
    machine: &Machine,
) -> Result<Option<Vec<Vec<LogLine>>>, Complaint> {
    let count = usize::try_from(logs.lines).unwrap_or(usize::MAX);
    if logs.names.is_empty() {
        return Ok((machine.lines)(config, None, count).map(|lines| vec![lines]));
    }
    let programs = || config.programs.iter().map(|program| program.name.as_str());
    let mut found: Option<Vec<Vec<LogLine>>> = None;
    for name in &logs.names {
        let program = name.split('/').next().unwrap_or_default();
        if !programs().any(|known| known == program) {
            return Err(Complaint::failed(order::missing(name, programs())));
        }
        if let Some(lines) = (machine.lines)(config, Some(name), count) {
            found.get_or_insert_default().push(lines);
        }
    }
    Ok(found)
}

async fn show(streams: Streams, logs: &Logs, output: &mut Output) -> Result<u8, Complaint> {
    let mut all = Vec::new();
    for mut stream in streams {
        let mut lines = Vec::new();
        while let Some(line) = stream.next().await? {
            lines.push(line);
        }
        all.push(lines);
    }
    print_all(all, logs, output)
}

fn print_all(all: Vec<Vec<LogLine>>, logs: &Logs, output: &mut Output) -> Result<u8, Complaint> {
    let mut lines = Vec::new();
    for answer in all {
        let mut after = None;
        for line in answer {
            // A line without a time came after those before it.
            after = line.at.clone().or(after);
            lines.push((after.clone(), line));
        }
    }
    // Timestamps of one form and one zone sort as text.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (_, line) in &lines {
        print(line, logs, output)?;
    }
    Ok(DONE)
}

async fn follow(streams: Streams, logs: &Logs, output: &mut Output) -> Result<u8, Complaint> {
    let (sender, mut lines) = mpsc::channel(AHEAD);
    for mut stream in streams {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(item) = stream.next().await.transpose() {
                let broken = item.is_err();
                if sender.send(item).await.is_err() || broken {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some(line) = lines.recv().await {
        print(&line?, logs, output)?;
    }
    output.complain("the daemon has ended: no more lines will come");
    Ok(DONE)
}

fn print(line: &LogLine, logs: &Logs, output: &mut Output) -> Result<(), Complaint> {
    if output.is_json() {
        output.json_line(line)?;
        return Ok(());
    }
    if logs.raw {
        output.raw(&line.line)?;
        return Ok(());
    }
    let color = if line.stream == "stderr" {
        AnsiColor::Red
    } else {
        AnsiColor::Cyan
    };
    let mut page = Page::default();
    // A program's own file does not say when its lines came.
    if let Some(at) = &line.at {
        page.piece(&format!("{at} "));
    }
    page.paint(color.on_default(), &line.program);
    page.piece(&format!(" | {}", line.line));
    page.end();
    output.page(&page)?;
    Ok(())
}
