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

/// Says what a start hangs in: "its start hangs: executing /srv/app".
#[must_use]
pub fn start_hangs(place: &str) -> String {
    format!("its start hangs: {place}")
}

/// Says why a program is in its state.
#[must_use]
pub fn why(program: &Program, among: &Published) -> String {
    let view = &program.view;
    if let Some(dependency) = view.waits_for {
        return match among.program(dependency) {
            Some(other) => waiting(other, among),
            None => "waiting for another program to be ready".to_owned(),
        };
    }
    if let (State::Starting, Some(place)) = (view.state, &program.ledger.start_hangs) {
        return start_hangs(place);
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

/// Says for whom a program waits, and why that one is not ready.
fn waiting(other: &Program, among: &Published) -> String {
    let name = &other.about.display_name;
    // The end of the chain says more than the middle. The config has no circles.
    let mut last = other;
    while let Some(next) = last.view.waits_for.and_then(|id| among.program(id)) {
        last = next;
    }
    let chain = if last.id == other.id {
        String::new()
    } else {
        format!(", which waits for {}", last.about.display_name)
    };
    let end = last.ledger.last_exit.as_ref();
    let how = end.map(|exit| match exit.status {
        Some(_) => format!(" with {}", exit.description),
        None => format!(": {}", exit.description),
    });
    let how = how.unwrap_or_default();
    let what = match last.view.state {
        State::Failed => format!(", which failed{how}"),
        State::Backoff => format!(", which failed{how} and is tried again"),
        State::Starting if last.view.failed_starts > 0 => {
            format!(", which failed{how} and is being tried again")
        }
        State::Stopped if last.ledger.starts > 0 => ", which is stopped".to_owned(),
        State::Stopped if last.about.autostart => ", which is not started".to_owned(),
        State::Stopped => ", which is not started by itself (autostart = false)".to_owned(),
        State::Stopping => ", which is being stopped".to_owned(),
        State::Starting | State::Running | State::Completed => " to be ready".to_owned(),
    };
    format!("waiting for {name}{chain}{what}")
}

/// Says what happens to a program next, or what it takes; `None` when nothing is due.
#[must_use]
pub fn next(program: &Program, now: Instant) -> Option<String> {
    if let Some(at) = program.view.ready_at {
        let left = text::duration(at.saturating_duration_since(now));
        return Some(format!("up if it lives another {left}"));
    }
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
