//! Where programs write, and how large the files grow.

use super::options::{Given, Options};
use crate::config;
use crate::import::command::Command;
use crate::import::draft::{Draft, Table};
use crate::import::note::{At, Notes};
use crate::import::source::Places;

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// `AUTO`, or nothing said.
    Automatic,
    /// `NONE`.
    Nowhere,
    Syslog,
    /// `/dev/stdout` and the like.
    Ours,
    File(String),
}

impl Target {
    fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Self::Automatic,
            "none" | "off" | "/dev/null" => Self::Nowhere,
            "syslog" => Self::Syslog,
            "/dev/stdout" | "/dev/stderr" | "/dev/fd/1" | "/dev/fd/2" | "/proc/self/fd/1"
            | "/proc/self/fd/2" | "/dev/tty" | "/proc/1/fd/1" | "/proc/1/fd/2" => Self::Ours,
            _ => Self::File(text.to_owned()),
        }
    }
}

/// What supervisord takes where a section is silent.
const USUAL_SIZE: u64 = 50 << 20;
const USUAL_KEPT: u64 = 10;

/// Limits of the log files of all sections; the daemon has one of each for all.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    bytes: Vec<(At, u64)>,
    backups: Vec<(At, u64)>,
    /// Some file has no limit of its own, and so supervisord's.
    silent_of_bytes: bool,
    silent_of_backups: bool,
}

impl Sizes {
    /// Takes down the limits of a file: its size in bytes, and the number of old ones.
    pub fn file(&mut self, bytes: Option<Given<u64>>, backups: Option<Given<u64>>) {
        self.silent_of_bytes |= bytes.is_none();
        self.silent_of_backups |= backups.is_none();
        self.bytes
            .extend(bytes.map(|given| (given.at, given.value)));
        self.backups
            .extend(backups.map(|given| (given.at, given.value)));
    }

    /// Sets the daemon's limits to the largest: nothing is lost that is kept there.
    pub fn settle(&self, draft: &mut Draft, notes: &mut Notes) {
        const MOST_KEPT: u64 = 10_000;
        for (at, _) in self.bytes.iter().filter(|(_, bytes)| *bytes == 0) {
            let text = "0 means without limit there; here every log file is rotated at \
                        daemon.log_max_size";
            notes.lacks("daemon", at, text);
        }
        let usual = |silent: bool, value: u64| if silent { value } else { 0 };
        let given = self.bytes.iter().map(|(_, bytes)| *bytes).max();
        let size = given
            .unwrap_or(0)
            .max(usual(self.silent_of_bytes, USUAL_SIZE));
        if size > 0 && size != USUAL_SIZE {
            draft.daemon.set("log_max_size", config::size(size));
        }
        for (at, bytes) in &self.bytes {
            if *bytes > 0 && *bytes != size {
                let whose = whose(given, size);
                let size = config::size(size);
                let text = format!("log_max_size is one for all log files: {size}, {whose}");
                notes.differs("daemon", at, text);
            }
        }
        let given = self.backups.iter().map(|(_, count)| *count).max();
        let kept = usual(self.silent_of_backups, USUAL_KEPT);
        let kept = given.map(|given| given.max(kept).min(MOST_KEPT));
        if let Some(kept) = kept.filter(|kept| *kept != USUAL_KEPT) {
            draft.daemon.set("log_keep", kept.cast_signed());
        }
        for (at, count) in &self.backups {
            if let Some(kept) = kept.filter(|kept| kept != count) {
                let whose = whose(given, kept);
                let text = format!("log_keep is one for all log files: {kept}, {whose}");
                notes.differs("daemon", at, text);
            }
        }
    }
}

/// Says where a limit comes from.
fn whose(given: Option<u64>, limit: u64) -> &'static str {
    if given.is_some_and(|given| given >= limit) {
        "the largest"
    } else {
        "which supervisord takes where nothing is said"
    }
}

/// Reads where a program writes.
pub(super) fn translate(
    options: &mut Options<'_>,
    (places, sizes): (&Places, &mut Sizes),
    command: &mut Command,
    keys: &mut Table,
    notes: &mut Notes,
) {
    let out = target("stdout_logfile", options, notes);
    let err = target("stderr_logfile", options, notes);
    let redirected = options.truth("redirect_stderr", notes);
    let joined = redirected.as_ref().is_some_and(|given| given.value);
    let of = |given: &Option<Given<Target>>| {
        given
            .as_ref()
            .map_or(Target::Automatic, |given| given.value.clone())
    };
    let (out_target, err_target) = (of(&out), if joined { of(&out) } else { of(&err) });
    limits("stdout", &out_target, options, sizes, notes);
    // Where it is redirected, it has no file of its own.
    let own_of_err = if joined {
        &Target::Nowhere
    } else {
        &err_target
    };
    limits("stderr", own_of_err, options, sizes, notes);
    streams("stdout", options, notes);
    streams("stderr", options, notes);
    match (&out_target, &err_target) {
        (Target::Nowhere, Target::Nowhere) => command.redirections.push(">/dev/null 2>&1"),
        (Target::Nowhere, _) => command.redirections.push(">/dev/null"),
        (_, Target::Nowhere) => command.redirections.push("2>/dev/null"),
        _ => {}
    }
    let file = match (&out_target, &err_target) {
        (Target::File(file), _) | (_, Target::File(file)) => Some(file),
        _ => None,
    };
    if let Some(file) = file {
        keys.set("log_file", places.fit(file));
    }
    if let (Target::File(_), Target::Automatic) | (Target::Automatic, Target::File(_)) =
        (&out_target, &err_target)
    {
        let text = "supervisord writes the stream that has no file into one of its own, in \
                    childlogdir; a program has one log here: it goes to its log_file too";
        notes.differs(&options.table, &super::place_of(options.section), text);
    }
    let whole = file.map_or("the daemon's log", |_| "this program's log_file");
    let table = options.table.clone();
    for (given, target, other) in [
        (&out, &out_target, &err_target),
        (&err, &err_target, &out_target),
    ] {
        let Some(given) = given else { continue };
        match target {
            Target::Syslog => {
                let text = "there is no syslog output; under systemd the daemon's log is in the \
                            journal, else let a log shipper read the file";
                notes.lacks(&table, &given.at, text);
            }
            Target::Ours => {
                let text = format!(
                    "the output goes to {whole}; `eternal run` writes the daemon's log to \
                     stderr as well, with the program's name before each line"
                );
                notes.differs(&table, &given.at, text);
            }
            Target::File(path) if matches!(other, Target::File(o) if o != path) => {
                if given.at.key == "stderr_logfile" {
                    let text = "a program has one log: its stderr goes to its log_file too";
                    notes.differs(&table, &given.at, text);
                }
            }
            Target::File(_) | Target::Automatic | Target::Nowhere => {}
        }
    }
    let ignored = err.filter(|given| joined && matches!(given.value, Target::File(_)));
    if let Some(given) = ignored {
        let text = "redirect_stderr = true makes supervisord ignore it as well";
        notes.says(&table, &given.at, text);
    }
    if let (Some(given), Target::Automatic, false) = (&out, &out_target, file.is_some()) {
        let text = "the output goes to the daemon's log, with the program's name before each line";
        notes.says(&table, &given.at, text);
    }
}

fn target<'a>(key: &'a str, options: &mut Options<'a>, notes: &mut Notes) -> Option<Given<Target>> {
    let given = options.text(key, notes)?;
    Some(Given {
        value: Target::of(&given.value),
        at: given.at,
    })
}

/// Reads how large the file of a stream grows; that matters for a file only.
fn limits(
    stream: &'static str,
    target: &Target,
    options: &mut Options<'_>,
    sizes: &mut Sizes,
    notes: &mut Notes,
) {
    let (bytes, backups) = match stream {
        "stdout" => ("stdout_logfile_maxbytes", "stdout_logfile_backups"),
        _ => ("stderr_logfile_maxbytes", "stderr_logfile_backups"),
    };
    let bytes = options.bytes(bytes, notes);
    let backups = options.bytes(backups, notes);
    if matches!(target, Target::File(_) | Target::Automatic) {
        sizes.file(bytes, backups);
    }
}

/// Names what supervisord does with a stream besides writing it.
fn streams(stream: &'static str, options: &mut Options<'_>, notes: &mut Notes) {
    let (capture, events, syslog) = match stream {
        "stdout" => (
            "stdout_capture_maxbytes",
            "stdout_events_enabled",
            "stdout_syslog",
        ),
        _ => (
            "stderr_capture_maxbytes",
            "stderr_events_enabled",
            "stderr_syslog",
        ),
    };
    let table = options.table.clone();
    if let Some(given) = options.bytes(capture, notes).filter(|g| g.value > 0) {
        let text = "there is no capture mode and no PROCESS_COMMUNICATION event";
        notes.lacks(&table, &given.at, text);
    }
    if let Some(given) = options.truth(events, notes).filter(|g| g.value) {
        let text = "there are no log events; `eternal logs -f` and GET /v1/logs?follow=true on \
                    the control socket give lines as they come";
        notes.lacks(&table, &given.at, text);
    }
    if let Some(given) = options.truth(syslog, notes).filter(|g| g.value) {
        let text = "there is no syslog output; under systemd the daemon's log is in the journal";
        notes.lacks(&table, &given.at, text);
    }
}
