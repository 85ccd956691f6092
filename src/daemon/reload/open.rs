//! Everything about a reload that may fail or wait, on a thread of its own: the file is read, what it
//! names is looked at, and log files are opened. No program has changed when this is over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use crate::config::{self, Config, Problems, Program, Sources};
use crate::control::server::Refusal;
use crate::daemon::environment::Inherited;
use crate::daemon::outside;
use crate::daemon::slots::Slot;
use crate::observe::Protection;
use crate::os::logs::{Logs, OpenLog};
use crate::os::rehearsal::{Rehearsed, rehearse};
use crate::text::with_causes;

/// What a reload needs to know to look at everything.
pub(super) struct Question {
    pub sources: Sources,
    /// The configuration in force. It stays that until this question is answered.
    pub old: Config,
    /// Every program is restarted: those that are up must be able to come back.
    pub restart_all: bool,
    /// Programs of which a replica is up.
    pub up: BTreeSet<String>,
    pub inherited: Inherited,
    pub notify: String,
    pub logs: Logs,
}

/// A configuration that can be put in force.
pub(in crate::daemon) struct Opened {
    pub config: Config,
    pub protection: Protection,
    /// The logs of what is new or runs something else, by display name.
    pub logs: HashMap<String, OpenLog>,
}

/// Why there will be no reload.
pub(in crate::daemon) struct Refused {
    /// For the person who asked, quoted lines included.
    pub answer: Refusal,
    /// For everybody else: a line of the file may be a secret.
    pub told: String,
}

impl Refused {
    fn invalid(message: String) -> Self {
        Self {
            told: message.replace('\n', "; "),
            answer: Refusal::Invalid(message),
        }
    }

    fn because(error: &dyn Error) -> Self {
        Self::invalid(with_causes(error))
    }

    fn problems(problems: &Problems) -> Self {
        Self {
            told: problems.in_one_line(),
            answer: Refusal::Invalid(problems.to_string()),
        }
    }

    /// Something is in the way that may pass.
    pub fn conflict(message: String) -> Self {
        Self {
            told: message.clone(),
            answer: Refusal::Conflict(message),
        }
    }

    /// It could not be found out.
    pub fn failed(message: String) -> Self {
        Self {
            told: message.clone(),
            answer: Refusal::Failed(message),
        }
    }
}

/// Reads the configuration and opens what it takes to put it in force.
pub(super) fn open(question: &Question) -> Result<Opened, Refused> {
    let loaded = config::load(&question.sources).map_err(|p| Refused::problems(&p))?;
    let config = loaded.config;
    let protection =
        outside::protection(&config.metrics).map_err(|error| Refused::because(&error))?;
    let diff = config::diff(&question.old, &config);
    let runs_other: HashSet<&String> = diff.added.iter().chain(&diff.restarted).collect();
    let of = |program: &&Program| runs_other.contains(&program.name);
    let back = |program: &&Program| question.restart_all && question.up.contains(&program.name);
    let all = || config.programs.iter();
    let mut obstacles = Vec::new();
    for program in all().filter(|program| of(program) || back(program)) {
        obstacles.extend(obstacle(program, question));
    }
    if !obstacles.is_empty() {
        return Err(Refused::invalid(obstacles.join("\n")));
    }
    let mut logs = HashMap::new();
    let resized: HashSet<&String> = diff.instances.iter().map(|i| &i.name).collect();
    let resized = |program: &&Program| resized.contains(&program.name);
    for program in all().filter(|program| of(program) || resized(program)) {
        for slot in slots(program) {
            let log = question
                .logs
                .open_file(slot.log_source())
                .map_err(|error| {
                    Refused::invalid(format!("{}: {}", program.name, with_causes(&error)))
                })?;
            logs.insert(slot.display_name(), log);
        }
    }
    Ok(Opened {
        config,
        protection,
        logs,
    })
}

fn slots(program: &Program) -> impl Iterator<Item = Slot> {
    let shared = Arc::new(program.clone());
    (0..program.instances).map(move |replica| Slot {
        program: Arc::clone(&shared),
        replica,
    })
}

/// What is known in advance to stop a start. A want of the machine may have passed by then, and what
/// cannot be seen from here may be fine.
fn obstacle(program: &Program, question: &Question) -> Option<String> {
    let slot = slots(program).next()?;
    let failure = match slot.launch(&question.inherited, &question.notify, None) {
        Ok(launch) => match rehearse(&launch) {
            Rehearsed::Fails(failure) => failure,
            Rehearsed::Fine | Rehearsed::Untold(_) => return None,
        },
        Err(failure) => failure,
    };
    (!failure.transient).then(|| format!("{}: {}", program.name, failure.message))
}
