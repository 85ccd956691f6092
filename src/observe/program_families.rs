//! The catalogue of program metrics: name, help, type, and what goes in. Sorted by name.

use super::program_metrics::{Row, Series};
use super::text::unix_seconds;
use super::{HealthCounts, StreamCounts};
use crate::supervision::{Cause, ExitReason, FailureKind, State};
use crate::text::command_name;

/// What kind of metric a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One family.
pub(super) struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub fill: fn(&Row<'_>, &mut (dyn Series + '_)),
}

const fn counter(
    name: &'static str,
    help: &'static str,
    fill: fn(&Row<'_>, &mut (dyn Series + '_)),
) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        fill,
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    fill: fn(&Row<'_>, &mut (dyn Series + '_)),
) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        fill,
    }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    fill: fn(&Row<'_>, &mut (dyn Series + '_)),
) -> Family {
    Family {
        name,
        help,
        kind: Kind::Histogram,
        fill,
    }
}

/// Every family with a program label.
pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "eternal_program_backoff_seconds",
        "Delay in force before the next start, in seconds; 0 when none is.",
        |row, out| out.plain(row.program.view.backoff.map_or(0.0, |d| d.as_secs_f64())),
    ),
    counter(
        "eternal_program_cpu_seconds_total",
        "CPU time of the whole process tree over all runs, in seconds, by mode.",
        |row, out| {
            out.each(
                "mode",
                [
                    ("user", row.totals.cpu_user_seconds),
                    ("system", row.totals.cpu_system_seconds),
                ],
            )
        },
    ),
    gauge(
        "eternal_program_crash_budget",
        "Crashes within the crash window at which the program is given up.",
        |row, out| out.plain(f64::from(row.program.about.crash_budget)),
    ),
    gauge(
        "eternal_program_crash_budget_remaining",
        "Crashes left before the program is given up.",
        |row, out| out.plain(f64::from(row.program.crashes_left(row.now))),
    ),
    counter(
        "eternal_program_crashes_total",
        "Ends and failed starts that were crashes.",
        |row, out| out.plain(number(row.program.ledger.crashes)),
    ),
    gauge(
        "eternal_program_desired_running",
        "Whether somebody wants the program to run.",
        |row, out| out.plain(flag(row.program.view.desired)),
    ),
    counter(
        "eternal_program_exits_total",
        "Ends of runs and failed starts, by reason.",
        |row, out| {
            out.each(
                "reason",
                ExitReason::ALL
                    .iter()
                    .map(|r| r.label())
                    .zip(row.program.ledger.exits.map(number)),
            )
        },
    ),
    counter(
        "eternal_program_gave_up_total",
        "Times the program was given up.",
        |row, out| out.plain(number(row.program.ledger.gave_up)),
    ),
    counter(
        "eternal_program_health_check_failures_total",
        "Health checks that failed.",
        |row, out| health(row, out, |counts| number(counts.failures)),
    ),
    gauge(
        "eternal_program_health_check_up",
        "Whether the last health check passed; 1 before the first.",
        |row, out| health(row, out, |counts| flag(counts.up)),
    ),
    counter(
        "eternal_program_health_checks_total",
        "Health checks made.",
        |row, out| health(row, out, |counts| number(counts.checks)),
    ),
    gauge(
        "eternal_program_info",
        "What the program is; always 1.",
        info,
    ),
    gauge(
        "eternal_program_last_exit_code",
        "Exit code of the last run; absent when it did not exit with one.",
        |row, out| {
            out.optional(
                row.program
                    .ledger
                    .last_exit
                    .as_ref()
                    .and_then(|e| e.code())
                    .map(f64::from),
            )
        },
    ),
    gauge(
        "eternal_program_last_exit_reason",
        "Why the last run ended: 1 for its reason, 0 for the others.",
        last_exit_reason,
    ),
    gauge(
        "eternal_program_last_exit_signal",
        "Signal that ended the last run; absent when none did.",
        |row, out| {
            out.optional(
                row.program
                    .ledger
                    .last_exit
                    .as_ref()
                    .and_then(|e| e.signal())
                    .map(f64::from),
            )
        },
    ),
    gauge(
        "eternal_program_last_exit_timestamp_seconds",
        "When the last run ended, in seconds since 1970.",
        |row, out| {
            out.optional(
                row.program
                    .ledger
                    .last_exit
                    .as_ref()
                    .map(|e| unix_seconds(e.at)),
            )
        },
    ),
    counter(
        "eternal_program_log_bytes_total",
        "Bytes of output captured, by stream.",
        |row, out| streams(row, out, |s| s.bytes),
    ),
    counter(
        "eternal_program_log_dropped_lines_total",
        "Lines of output that could not be kept, by stream.",
        |row, out| streams(row, out, |s| s.dropped),
    ),
    counter(
        "eternal_program_log_lines_total",
        "Lines of output captured, by stream.",
        |row, out| streams(row, out, |s| s.lines),
    ),
    gauge(
        "eternal_program_max_fds",
        "Limit of open descriptors.",
        |row, out| {
            out.optional(
                row.usage
                    .filter(|u| u.max_fds > 0)
                    .map(|u| number(u.max_fds)),
            )
        },
    ),
    gauge(
        "eternal_program_next_restart_timestamp_seconds",
        "When the next automatic start is due, in seconds since 1970; absent when none is.",
        |row, out| out.optional(row.program.next_start.map(unix_seconds)),
    ),
    counter(
        "eternal_program_oom_kills_total",
        "Out-of-memory kills in the program's cgroup, where it has one.",
        |row, out| out.optional(row.totals.oom_kills.map(number)),
    ),
    gauge(
        "eternal_program_open_fds",
        "Open descriptors of the whole process tree.",
        |row, out| out.optional(row.usage.map(|u| number(u.open_fds))),
    ),
    gauge(
        "eternal_program_processes",
        "Processes of the whole process tree.",
        |row, out| out.optional(row.usage.map(|u| number(u.processes))),
    ),
    counter(
        "eternal_program_read_bytes_total",
        "Bytes read from storage by the whole process tree over all runs.",
        |row, out| out.plain(number(row.totals.read_bytes)),
    ),
    gauge(
        "eternal_program_ready",
        "Whether the program runs and passed its readiness check.",
        |row, out| out.plain(flag(row.program.view.ready)),
    ),
    gauge(
        "eternal_program_resident_memory_bytes",
        "Resident memory of the whole process tree, in bytes; of its cgroup, without idle page cache, where that is counted.",
        |row, out| out.optional(row.usage.map(|u| number(u.resident_bytes))),
    ),
    histogram(
        "eternal_program_restart_latency_seconds",
        "From the end of a run to the next process, without the configured delay, in seconds.",
        |row, out| out.histogram(&row.program.ledger.restart_latency),
    ),
    counter(
        "eternal_program_restarts_total",
        "Starts that were restarts, by cause.",
        |row, out| {
            out.each(
                "cause",
                Cause::ALL
                    .iter()
                    .map(|c| c.label())
                    .zip(row.program.ledger.restarts.map(number)),
            )
        },
    ),
    histogram(
        "eternal_program_run_duration_seconds",
        "How long runs lasted, in seconds.",
        |row, out| out.histogram(&row.program.ledger.run_duration),
    ),
    counter(
        "eternal_program_start_failures_total",
        "Starts that failed, by obstacle.",
        |row, out| {
            out.each(
                "reason",
                FailureKind::ALL
                    .iter()
                    .map(|k| k.label())
                    .zip(row.program.ledger.start_failures.map(number)),
            )
        },
    ),
    gauge(
        "eternal_program_start_hanging",
        "Whether a start has taken longer than a second so far.",
        |row, out| out.plain(flag(row.program.ledger.start_hangs.is_some())),
    ),
    gauge(
        "eternal_program_start_time_seconds",
        "When the present run began, in seconds since 1970; absent when down.",
        |row, out| {
            out.optional(
                row.program
                    .view
                    .run
                    .and(row.program.ledger.started_at)
                    .map(unix_seconds),
            )
        },
    ),
    counter(
        "eternal_program_starts_total",
        "Starts, successful or not.",
        |row, out| out.plain(number(row.program.ledger.starts)),
    ),
    histogram(
        "eternal_program_startup_duration_seconds",
        "From spawn to ready, in seconds.",
        |row, out| out.histogram(&row.program.ledger.startup),
    ),
    gauge(
        "eternal_program_state",
        "The program's state: 1 for the one it is in, 0 for the others.",
        |row, out| {
            out.each(
                "state",
                State::ALL
                    .iter()
                    .map(|s| (s.label(), flag(*s == row.program.view.state))),
            )
        },
    ),
    histogram(
        "eternal_program_stop_duration_seconds",
        "From the stop request to the end, in seconds.",
        |row, out| out.histogram(&row.program.ledger.stop),
    ),
    counter(
        "eternal_program_stop_escalations_total",
        "Stops that needed SIGKILL after the grace period.",
        |row, out| out.plain(number(row.program.ledger.escalations)),
    ),
    gauge(
        "eternal_program_threads",
        "Threads of the whole process tree.",
        |row, out| out.optional(row.usage.map(|u| number(u.threads))),
    ),
    gauge(
        "eternal_program_up",
        "Whether the program has a process.",
        |row, out| out.plain(flag(row.program.view.run.is_some())),
    ),
    counter(
        "eternal_program_uptime_seconds_total",
        "Accumulated run time, the present run included, in seconds.",
        |row, out| out.plain(row.run_time),
    ),
    gauge(
        "eternal_program_virtual_memory_bytes",
        "Virtual memory of the whole process tree, in bytes.",
        |row, out| out.optional(row.usage.map(|u| number(u.virtual_bytes))),
    ),
    counter(
        "eternal_program_written_bytes_total",
        "Bytes written to storage by the whole process tree over all runs.",
        |row, out| out.plain(number(row.totals.written_bytes)),
    ),
];

/// Returns a count as Prometheus stores it: exact up to 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition knows only doubles"
)]
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Only programs with a health check have a series.
fn health(row: &Row<'_>, out: &mut (dyn Series + '_), read: fn(&HealthCounts) -> f64) {
    if let Some((check, counts)) = &row.health {
        out.add(&[("check", check)], read(counts));
    }
}

fn info(row: &Row<'_>, out: &mut (dyn Series + '_)) {
    let about = &row.program.about;
    let labels = [
        ("command", command_name(&about.command)),
        ("restart_policy", about.restart_policy),
        ("user", &about.user),
        ("config_hash", &about.config_hash),
    ];
    out.add(&labels, 1.0);
}

fn last_exit_reason(row: &Row<'_>, out: &mut (dyn Series + '_)) {
    let last = row
        .program
        .ledger
        .last_exit
        .as_ref()
        .map(|exit| exit.reason);
    out.each(
        "reason",
        ExitReason::ALL
            .iter()
            .map(|r| (r.label(), flag(last == Some(*r)))),
    );
}

fn streams(row: &Row<'_>, out: &mut (dyn Series + '_), read: fn(&StreamCounts) -> u64) {
    let [stdout, stderr] = &row.logs;
    out.each(
        "stream",
        [
            ("stdout", number(read(stdout))),
            ("stderr", number(read(stderr))),
        ],
    );
}
