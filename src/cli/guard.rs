//! What only the service manager that started a daemon should do with it.

use super::{Complaint, FAILED};
use crate::control::api::DaemonStatus;

/// Refuses to start, stop or restart a whole daemon behind the back of its service manager, which would
/// start it again, or lose it; `force` does it all the same.
pub(super) fn permit(verb: &str, daemon: &DaemonStatus, force: bool) -> Result<(), Complaint> {
    if !daemon.service || force {
        return Ok(());
    }
    let pid = daemon.pid;
    let instead = command(verb, daemon);
    Err(Complaint::new(
        FAILED,
        format!(
            "the daemon (pid {pid}) was started by a service manager, which has to know: {instead}; \
             `eternal {verb} NAME` is for single programs, --force does it all the same"
        ),
    ))
}

/// Names the command that does it through the service manager.
pub(super) fn command(verb: &str, daemon: &DaemonStatus) -> String {
    match &daemon.unit {
        Some(unit) => format!("`systemctl {verb} {unit}`"),
        None if daemon.service => format!("let that {verb} it"),
        None => format!("`eternal {verb}`"),
    }
}
