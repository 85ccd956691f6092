//! The options that nothing stands for, and those that need nothing.

use super::options::Options;
use super::tree::{Kind, Node};
use crate::import::note::Notes;

/// Options that need nothing here: where it is said why, it is told.
const NOT_NEEDED: [(&[&str], &str); 9] = [
    (&["force"], ""),
    (&["vizion"], ""),
    (&["automation", "pmx"], ""),
    (&["windows_hide"], ""),
    (&["disable_trace"], ""),
    (&["namespace"], "there are no namespaces; it is left out"),
    (
        &["time", "log_date_format"],
        "lines in the daemon's log have a time; a log_file holds lines as the program wrote them",
    ),
    (
        &["source_map_support", "disable_source_map_support"],
        "say --enable-source-maps to node in `command`",
    ),
    (
        &["kill_retry_time"],
        "a process is watched by its pidfd, not asked again and again",
    ),
];

/// Options that have no equivalent, with what to do instead.
const LACKING: [(&[&str], &str); 16] = [
    (
        &["watch"],
        "files are not watched; let a tool such as nodemon or watchexec be the command, or say `eternal restart NAME` after a change",
    ),
    (&["ignore_watch"], "files are not watched"),
    (&["watch_options"], "files are not watched"),
    (&["watch_delay"], "files are not watched"),
    (&["max_memory_restart"], MEMORY),
    (
        &["cron_restart", "cron"],
        "there is no calendar; let cron or a timer of systemd say `eternal restart NAME`",
    ),
    (
        &["shutdown_with_message"],
        "there is no IPC channel; the program is told by stop_signal",
    ),
    (
        &["pid_file", "pid"],
        "there is one pid file, that of the daemon; `eternal status NAME --json` has each pid",
    ),
    (
        &["log_type"],
        "daemon.log_format = \"json\" makes the daemon's log JSON; a log_file holds lines as the program wrote them",
    ),
    (
        &["filter_env"],
        "a program gets the daemon's environment and its own; start the daemon with less (`env -i`)",
    ),
    (&["post_update"], "nothing is updated here"),
    (
        &[
            "trace",
            "deep_monitoring",
            "v8",
            "event_loop_inspector",
            "io",
        ],
        "the pm2.io agent is not there; /metrics says what the process uses",
    ),
    (&["install_url"], "nothing is installed here"),
    (&["append_env_to_name"], "write the name that is wanted"),
    (&["write"], "nothing writes the configuration"),
    (&["username"], "PM2 sets it; `user` says who runs it"),
];

/// The one place that says what `max_memory_restart` has become.
const MEMORY: &str = "nothing restarts a program when it grows; memory_max sets a hard limit \
                      where the daemon has a cgroup: over it the kernel kills, which is a crash";

/// Names every option that is left.
pub(super) fn translate(options: &mut Options<'_>, notes: &mut Notes) {
    let name = options.name.clone();
    for (names, text) in NOT_NEEDED {
        if let Some((at, _)) = options.raw(names).filter(|_| !text.is_empty()) {
            notes.says(&name, &at, text);
        }
        spare(options, names);
    }
    for (names, text) in LACKING {
        for one in names {
            let found = options.raw(&[one]).filter(|(_, node)| !is_off(node));
            if let Some((at, _)) = found {
                notes.lacks(&name, &at, text);
            }
        }
    }
    for (at, _) in options.leftovers() {
        notes.lacks(&name, &at, "PM2 has no such option and ignores it");
    }
}

/// Marks every spelling of an option as read.
fn spare(options: &mut Options<'_>, names: &[&str]) {
    for name in names {
        options.raw(&[name]);
    }
}

/// Says whether an option asks for nothing.
fn is_off(node: &Node) -> bool {
    match &node.kind {
        Kind::Null | Kind::Bool(false) | Kind::Integer(0) => true,
        Kind::Text(text) => matches!(text.as_str(), "" | "false" | "0"),
        Kind::List(items) => items.is_empty(),
        Kind::Map(members) => members.is_empty(),
        Kind::Bool(true) | Kind::Integer(_) | Kind::Float(_) => false,
    }
}
