//! `eternal start|stop|restart NAME…`: orders for programs of a running daemon.

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, FAILED, place};
use crate::control::api::{Done, Status, Verb};
use crate::control::names::no_such_program;
use crate::text::with_causes;

/// Gives the order for every name at once, after making sure that all exist; returns when all are
/// carried out or have failed.
pub(super) async fn execute(
    verb: Verb,
    names: &[String],
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let client = place::find(sources, output)?.client;
    let status = client.status().await?;
    must_exist(names, &status)?;
    let orders: Vec<_> = names
        .iter()
        .map(|name| {
            let (client, name) = (client.clone(), name.clone());
            tokio::spawn(async move { client.order(verb, &name).await })
        })
        .collect();
    let mut all = Done {
        ok: true,
        messages: Vec::new(),
    };
    for (name, order) in names.iter().zip(orders) {
        let answer = order.await.map_err(|error| {
            Complaint::failed(format!("cannot {} {name}: {error}", verb.as_str()))
        })?;
        match answer {
            Ok(done) => {
                all.ok &= done.ok;
                all.messages.extend(done.messages);
            }
            Err(error) => {
                all.ok = false;
                output.complain(&format!(
                    "cannot {} {name}: {}",
                    verb.as_str(),
                    with_causes(&error)
                ));
            }
        }
    }
    if output.is_json() {
        output.json(&all)?;
    } else {
        for message in &all.messages {
            output.line(message)?;
        }
    }
    Ok(if all.ok { DONE } else { FAILED })
}

/// Complains about names that no program of the daemon has.
pub(super) fn must_exist(names: &[String], status: &Status) -> Result<(), Complaint> {
    let unknown: Vec<&String> = names.iter().filter(|name| !exists(name, status)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let sentences: Vec<String> = unknown
        .into_iter()
        .map(|name| {
            let programs = status.programs.iter();
            missing(name, programs.map(|program| program.name.as_str()))
        })
        .collect();
    Err(Complaint::failed(sentences.join("\n")))
}

/// Whether a name is a program or one of its replicas.
pub(super) fn exists(name: &str, status: &Status) -> bool {
    status
        .programs
        .iter()
        .any(|program| program.is_called(name))
}

/// Says that there is no such program.
pub(super) fn missing<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    no_such_program(name, known)
}
