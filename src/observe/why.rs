//! Sentences: why a program is as it is, and what happens to it next.

use std::time::Instant;

use super::published::{Program, Published};
use super::{About, text};
use crate::supervision::State;

/// Says why a program is given up: "crash loop: 5 crashes within 1m of run time".
#[must_use]
pub fn given_up(about: &About, reason: &str, limit: u32) -> String {
    if reason.contains("restart") {
        return format!("{reason} ({limit})");
    }
    let window = text::duration(about.crash_window);
    let crashes = if limit == 1 { "crash" } else { "crashes" };
    format!("{reason}: {limit} {crashes} within {window} of run time")
}

/// Says why a program is in its state.
#[must_use]
pub fn why(program: &Program, among: &Published) -> String {
    let view = &program.view;
    if let Some(dependency) = view.waits_for {
        let name = among
            .program(dependency)
            .map_or("another program", |p| &p.about.display_name);
        return format!("waiting for {name} to be ready");
    }
    let ended = program.ledger.last_exit.as_ref();
    match (view.state, &program.ledger.given_up, ended) {
        (State::Failed, Some(sentence), _) => sentence.to_string(),
        (State::Failed | State::Backoff, None, Some(exit))
        | (State::Backoff, Some(_), Some(exit)) => {
            format!(
                "{}: {} after {}",
                view.why,
                exit.description,
                text::duration(exit.ran)
            )
        }
        (
            State::Stopped
            | State::Starting
            | State::Running
            | State::Stopping
            | State::Backoff
            | State::Failed
            | State::Completed,
            _,
            _,
        ) => view.why.to_owned(),
    }
}

/// Says what happens to a program next; `None` when nothing is due.
#[must_use]
pub fn next(program: &Program, now: Instant) -> Option<String> {
    let left = text::duration(program.view.deadline?.saturating_duration_since(now));
    match program.view.state {
        State::Backoff => {
            let (crashes, budget) = (program.recent_crashes(now), program.about.crash_budget);
            Some(match crashes {
                0 => format!("restart in {left}"),
                _ => format!("restart in {left} (crash {crashes} of {budget})"),
            })
        }
        State::Failed => Some(format!("tried again in {left}")),
        State::Starting => Some(format!("ended as not ready in {left}")),
        State::Stopping => Some(format!("SIGKILL in {left}")),
        State::Stopped | State::Running | State::Completed => None,
    }
}
