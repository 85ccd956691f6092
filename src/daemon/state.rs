//! What this daemon inherits: whose processes are ours, and what the one before it has left.

use super::{Refusal, refuse, refuse_plainly};
use crate::config::Daemon;
use crate::os::installation::Installation;
use crate::os::journal::{Journal, Loaded};
use crate::os::pid_file::Found;
use crate::os::state_dir::StateDirError;

/// Opens the state directory, whose pid file is ours already; `found` is what was there instead.
///
/// # Errors
///
/// 1: another daemon has it. 2: others can write to it, or the pid file's directory is gone.
pub(super) fn open(
    daemon: &Daemon,
    found: Found,
) -> Result<(Installation, Journal, Loaded), Refusal> {
    let mut installation = Installation::of(&daemon.pid_file)
        .map_err(|error| refuse(2, "examine the directory of the pid file", &error))?;
    let say = |trouble: &str| tracing::warn!("{trouble}");
    let opened = Journal::open(&daemon.state_dir, installation.token(), say);
    let (journal, loaded) = opened.map_err(|error| match error {
        StateDirError::Held { .. } => refuse_plainly(1, &error),
        StateDirError::NotOurs { .. } | StateDirError::System { .. } => refuse_plainly(2, &error),
    })?;
    if let Some(earlier) = &loaded.earlier_token {
        installation.honour(earlier);
    }
    for problem in &loaded.problems {
        tracing::warn!("{problem}");
    }
    warn_of_a_bad_record(
        &loaded,
        matches!(found, Found::Stale(_) | Found::Unrelated(_)),
    );
    Ok((installation, journal, loaded))
}

/// What is not on record can still be found by its environment or its cgroup; who has cleared its
/// environment cannot. It matters only after a daemon that did not end by itself.
fn warn_of_a_bad_record(loaded: &Loaded, was_killed: bool) {
    const MEANS: &str =
        "a program of an earlier daemon that has cleared its environment may not be recognised";
    let damage = loaded.damage.as_deref();
    match (was_killed, damage) {
        (true, Some(damage)) => {
            tracing::warn!("the record of running programs is damaged ({damage}): {MEANS}");
        }
        (true, None) if !loaded.has_record => {
            tracing::warn!("an earlier daemon was killed and left no record: {MEANS}");
        }
        (true | false, _) => {}
    }
}
