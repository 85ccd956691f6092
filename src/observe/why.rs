//! Sentences: why a program is as it is, and what happens to it next.

use std::time::Instant;

use super::ledger::LastExit;
use super::published::{Program, Published};
use super::{About, text};
use crate::supervision::{Rule, State};

/// Says why a program is given up: "crash loop: 5 crashes within 1m of run time".
#[must_use]
pub fn given_up(about: &About, rule: Rule, limit: u32) -> String {
    let name = rule.label();
    match rule {
        Rule::MaxRestarts => format!("{name} ({limit})"),
        Rule::CrashLoop => {
            let window = text::duration(about.crash_window);
            let crashes = if limit == 1 { "crash" } else { "crashes" };
            format!("{name}: {limit} {crashes} within {window} of run time")
        }
    }
}

/// Says how the last run ended and how long it was: "SIGKILL, ran 141ms". A program that could not be
/// started did not run.
#[must_use]
pub fn ended(exit: &LastExit) -> String {
    match exit.status {
        None => exit.description.to_string(),
        Some(_) => format!("{}, ran {}", exit.description, text::duration(exit.ran)),
    }
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
    let last = program.ledger.last_exit.as_ref().map(ended);
    match (view.state, &program.ledger.given_up, last) {
        (State::Failed, Some(sentence), Some(last)) => format!("{sentence}; last: {last}"),
        (State::Failed, Some(sentence), None) => sentence.to_string(),
        (State::Failed | State::Backoff, _, Some(last)) => format!("{}: {last}", view.why),
        (State::Running, _, _) => running(program),
        (
            State::Stopped
            | State::Starting
            | State::Stopping
            | State::Backoff
            | State::Failed
            | State::Completed,
            _,
            _,
        ) => view.why.to_owned(),
    }
}

/// Says whether a program that runs is as it should be.
fn running(program: &Program) -> String {
    let mut words = match &program.failing {
        Some(failing) => failing.to_string(),
        None if program.view.ready => "ready".to_owned(),
        None => program.view.why.to_owned(),
    };
    if let Some(lacking) = &program.lacking {
        words = format!("{words}; {lacking}");
    }
    words
}

/// Says what happens to a program next, or what it takes; `None` when nothing is due.
#[must_use]
pub fn next(program: &Program, now: Instant) -> Option<String> {
    let Some(deadline) = program.view.deadline else {
        let name = &program.about.display_name;
        let given_up = program.view.state == State::Failed;
        return given_up.then(|| format!("`eternal start {name}` tries it again"));
    };
    let left = text::duration(deadline.saturating_duration_since(now));
    match program.view.state {
        State::Backoff => {
            let (crashes, budget) = (program.recent_crashes(now), program.about.crash_budget);
            Some(match crashes {
                0 => format!("restart in {left}"),
                _ => format!("restart in {left} (crash {crashes} of {budget})"),
            })
        }
        State::Failed => Some(format!("next try in {left}")),
        State::Starting => Some(format!("it has {left} left to get ready")),
        State::Stopping => Some(format!("SIGKILL in {left}")),
        State::Stopped | State::Running | State::Completed => None,
    }
}
