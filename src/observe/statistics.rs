//! The statistics line: one for each program, from the same status as everything else.

use std::time::Duration;

use super::text;
use crate::control::api::{ProgramStatus, Status};

/// Logs one line for each program.
pub(super) fn log(status: &Status) {
    for program in &status.programs {
        log_program(program);
    }
}

fn log_program(program: &ProgramStatus) {
    let uptime = uptime(program.uptime_seconds);
    tracing::info!(
        target: "eternal",
        program = program.display_name,
        uptime,
        run_time = self::uptime(Some(program.run_time_seconds)),
        restarts = program.restarts,
        crashes = program.crashes,
        status = program.state,
        pid = program.pid,
        memory = program.memory_bytes.map(text::bytes),
        cpu = program.cpu_seconds.map(|seconds| format!("{seconds:.2}s")),
        crashes_left = program.crash_budget_remaining,
        "statistics"
    );
}

/// Returns a time in whole seconds: `3600s`; `0s` for none.
fn uptime(seconds: Option<f64>) -> String {
    format!(
        "{}s",
        Duration::from_secs_f64(seconds.unwrap_or(0.0).max(0.0)).as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_is_whole_seconds() {
        assert_eq!(uptime(Some(3600.9)), "3600s");
        assert_eq!(uptime(None), "0s");
    }
}
