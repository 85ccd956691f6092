//! `eternal logs`: captured output.

use anstyle::AnsiColor;
use tokio::sync::mpsc;

use super::arguments::{Logs, SourcesArgs};
use super::output::{Output, paint};
use super::{Complaint, DONE, order, place};
use crate::control::api::LogLine;
use crate::control::client::{Client, ClientError, Stream};

/// Lines read ahead of a slow terminal.
const AHEAD: usize = 64;

/// Shows the last lines of every program named, or of all, and with `-f` those that follow.
pub(super) async fn execute(
    logs: &Logs,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let client = place::find(sources, output)?.client;
    if !logs.names.is_empty() {
        order::must_exist(&logs.names, &client.status().await?)?;
    }
    let mut streams = Vec::new();
    for stream in open(&client, logs).await? {
        streams.push(stream);
    }
    if logs.follow {
        follow(streams, output).await
    } else {
        show(streams, output).await
    }
}

async fn open(client: &Client, logs: &Logs) -> Result<Vec<Stream<LogLine>>, ClientError> {
    if logs.names.is_empty() {
        return Ok(vec![client.logs(None, logs.lines, logs.follow).await?]);
    }
    let mut streams = Vec::new();
    for name in &logs.names {
        streams.push(client.logs(Some(name), logs.lines, logs.follow).await?);
    }
    Ok(streams)
}

async fn show(streams: Vec<Stream<LogLine>>, output: &mut Output) -> Result<u8, Complaint> {
    let mut lines = Vec::new();
    for mut stream in streams {
        while let Some(line) = stream.next().await? {
            lines.push(line);
        }
    }
    // Timestamps of one form and one zone sort as text.
    lines.sort_by(|one, other| one.at.cmp(&other.at));
    for line in &lines {
        print(line, output)?;
    }
    Ok(DONE)
}

async fn follow(streams: Vec<Stream<LogLine>>, output: &mut Output) -> Result<u8, Complaint> {
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
        print(&line?, output)?;
    }
    Ok(DONE)
}

fn print(line: &LogLine, output: &mut Output) -> Result<(), Complaint> {
    if output.is_json() {
        output.json_line(line)?;
        return Ok(());
    }
    let color = if line.stream == "stderr" {
        AnsiColor::Red
    } else {
        AnsiColor::Cyan
    };
    let program = paint(color.on_default(), &line.program);
    output.line(&format!("{} {program} | {}", line.at, line.line))?;
    Ok(())
}
