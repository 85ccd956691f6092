//! Rules of two keys of one table: one that gives way to the other, two that exclude each other.

use std::time::Duration;

use super::Reader;
use crate::config::addresses;
use crate::config::model::{Program, Ready};
use crate::config::problem::Problem;
use crate::config::text::length;
use crate::config::values;
use crate::supervision::{Policy, Readiness, RestartMode};

/// When a program of which nothing is said is up; the table of keys says the same.
pub(super) const READY: Ready = Ready::Alive(Duration::from_secs(1));

/// Reads `ready`, which is silent about one that runs once: that is ready when it is done.
pub(super) fn readiness(r: &mut Reader<'_>, policy: &mut Policy, silent: &Ready) -> Ready {
    let given = r.read("ready", addresses::ready, silent.clone());
    let ready = match (r.explicit("ready"), policy.restart) {
        (None, RestartMode::Never) => Ready::Exit,
        (None, RestartMode::Always | RestartMode::OnFailure) => READY,
        (Some(_), _) => given,
    };
    policy.ready = match ready {
        Ready::Immediately => Readiness::Spawned,
        Ready::Alive(least) => Readiness::Alive(least),
        Ready::Exit => Readiness::Exit,
        Ready::Notify | Ready::Check(_) => Readiness::Shown,
    };
    ready
}

/// Refuses an explicit `restart_delay_max` below an explicit `restart_delay`, once: where the later
/// of the two was written.
pub(super) fn delays(r: &mut Reader<'_>) {
    let (delay, most) = ("restart_delay", "restart_delay_max");
    let own = r.keys.explicit(delay).is_some() || r.keys.explicit(most).is_some();
    let (true, Some(delay_place), Some(most_place)) = (own, r.explicit(delay), r.explicit(most))
    else {
        return;
    };
    let value = |key: &str| {
        let node = r.keys.get(key).or_else(|| r.inherited?.get(key))?;
        values::duration(node).ok()
    };
    let (Some(delay_value), Some(most_value)) = (value(delay), value(most)) else {
        return;
    };
    if most_value < delay_value {
        let title = format!("`{}.{most}` must not be below `{delay}`", r.path);
        let found = format!("this is {}", length(most_value));
        let also = format!("and this is {}", length(delay_value));
        r.problems
            .push(Problem::new(most_place.clone(), title, found).also(delay_place.clone(), also));
    }
}

/// Refuses a readiness that can never be: an end that is never the last, a time to live that is
/// longer than the time there is.
pub(super) fn never_ready(r: &mut Reader<'_>, program: &Program) {
    let Some(ready_place) = r.explicit("ready").or(r.explicit("start_timeout")) else {
        return;
    };
    let (policy, name) = (&program.policy, &program.name);
    match program.ready {
        Ready::Exit if policy.restart == RestartMode::Always => {
            let title =
                format!("`programs.{name}.ready` must not be \"exit\" with `restart` = \"always\"");
            r.problems.push(
                Problem::new(ready_place.clone(), title, "it would never be done")
                    .help("say restart = \"never\" or \"on-failure\""),
            );
        }
        Ready::Alive(least) if policy.start_timeout < least => {
            let Some(place) = r.explicit("start_timeout") else {
                return;
            };
            let title = format!(
                "`programs.{name}.start_timeout` must not be below the {} of `ready`",
                length(least)
            );
            let found = format!("this is {}", length(policy.start_timeout));
            let problem = Problem::new(place.clone(), title, found);
            r.problems.push(match r.explicit("ready") {
                Some(ready) => {
                    problem.also(ready.clone(), format!("and this is {}", length(least)))
                }
                None => problem.help(format!(
                    "the default is ready = \"alive:{}\"",
                    length(least)
                )),
            });
        }
        Ready::Immediately | Ready::Alive(_) | Ready::Exit | Ready::Notify | Ready::Check(_) => {}
    }
}

/// Lets a default give way to the explicit one of the pair.
pub(super) fn settle_delays(policy: &mut Policy, most_is_explicit: bool) {
    if policy.restart_delay <= policy.restart_delay_max {
        return;
    }
    if most_is_explicit {
        policy.restart_delay = policy.restart_delay_max;
    } else {
        policy.restart_delay_max = policy.restart_delay;
    }
}
