//! `eternal check`: a summary, and what becomes of a program that keeps crashing.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::Loaded;
use super::model::{Config, Program};
use super::text::length;
use crate::supervision::{OnCrashLoop, RestartMode, Timeline, timeline};
use crate::text::duration;

/// Crashes that are printed before the rest is summed up.
const SHOWN: usize = 10;

/// Describes a valid configuration for people.
#[must_use]
pub fn check(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = String::new();
    let from = config.file.as_ref().map_or_else(
        || "the configuration without a file".to_owned(),
        |file| file.display().to_string(),
    );
    let instances: u64 = config
        .programs
        .iter()
        .map(|program| u64::from(program.instances))
        .sum();
    let _ = writeln!(
        text,
        "{from} is valid: {}, {}",
        plural(config.programs.len() as u64, "program"),
        plural(instances, "instance")
    );
    for (lines, programs) in by_policy(config) {
        text.push('\n');
        for program in &programs {
            let _ = writeln!(text, "{}: {}", program.name, program.command.join(" "));
        }
        let whoever = if programs.len() == 1 {
            "if it crashes"
        } else {
            "if one of them crashes"
        };
        let _ = writeln!(text, "  {whoever} at once, every time:");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// Returns each timeline once, with all the programs it is for, in the order of the config.
fn by_policy(config: &Config) -> Vec<(Vec<String>, Vec<&Program>)> {
    let mut groups: Vec<(Vec<String>, Vec<&Program>)> = Vec::new();
    for program in &config.programs {
        let lines = lines(program);
        match groups.iter_mut().find(|(same, _)| *same == lines) {
            Some((_, programs)) => programs.push(program),
            None => groups.push((lines, vec![program])),
        }
    }
    groups
}

/// Describes a valid configuration for machines: the same facts, times in seconds.
#[must_use]
pub fn check_json(loaded: &Loaded) -> Value {
    let programs = loaded.config.programs.iter().map(|program| {
        let timeline = timeline(&program.policy, Duration::ZERO);
        let crashes = timeline.crashes.iter().map(|step| {
            json!({ "at_seconds": step.at.as_secs_f64(), "restart_after_seconds": step.restart_after.map(|d| d.as_secs_f64()) })
        });
        json!({
            "name": program.name,
            "command": program.command,
            "instances": program.instances,
            "crashes": crashes.collect::<Vec<_>>(),
            "gives_up_at_seconds": timeline.gives_up_at.map(|at| at.as_secs_f64()),
            "never_trips_above_seconds": timeline.never_trips_above.map(|above| above.as_secs_f64()),
        })
    });
    json!({
        "valid": true,
        "file": loaded.config.file,
        "warnings": loaded.warnings,
        "programs": programs.collect::<Vec<_>>(),
    })
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// Returns the give-up timeline of a program, a line each.
fn lines(program: &Program) -> Vec<String> {
    let policy = &program.policy;
    let timeline = timeline(policy, Duration::ZERO);
    let mut lines: Vec<String> = timeline
        .crashes
        .iter()
        .filter_map(|step| {
            Some(format!(
                "crash at {}, restart after {}",
                duration(step.at),
                duration(step.restart_after?)
            ))
        })
        .collect();
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("… and {more} more"));
    }
    lines.extend(end(program, &timeline));
    lines.extend(policy.max_restarts.map(|most| {
        format!(
            "at most {} in all; one more is a give-up",
            plural(most.into(), "automatic restart")
        )
    }));
    lines.extend(timeline.never_trips_above.map(|above| {
        format!("a program that lives longer than {} each time never trips it; EternalProgramCrashLoopingSlow covers that", duration(above))
    }));
    lines
}

fn end(program: &Program, timeline: &Timeline) -> Vec<String> {
    let policy = &program.policy;
    let Some(at) = timeline.gives_up_at else {
        return vec!["never gives up".to_owned()];
    };
    if policy.restart == RestartMode::Never {
        return vec![format!(
            "crash at {}: failed, as restart = \"never\"",
            duration(at)
        )];
    }
    match policy.on_crash_loop {
        OnCrashLoop::GiveUp => vec![format!("gives up at {}", duration(at))],
        OnCrashLoop::Retry { after } => {
            vec![
                format!("gives up at {}", duration(at)),
                format!(
                    "tried again every {} after that, with the alert on",
                    length(after)
                ),
            ]
        }
    }
}
