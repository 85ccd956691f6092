//! Where an app writes.

use std::path::Path;

use super::Shared;
use super::options::{Given, Options};
use crate::import::command::Command;
use crate::import::draft::Table;
use crate::import::note::Notes;

pub(super) fn translate(
    options: &mut Options<'_>,
    (shared, cwd): (&Shared<'_>, &str),
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    let name = options.name.clone();
    let out = options.text(&["out_file", "out", "output", "out_log"], notes);
    let err = options.text(
        &["error_file", "error", "err", "err_file", "err_log"],
        notes,
    );
    let both = options.text(&["log_file", "log"], notes);
    let merged = options.truth(&["merge_logs", "combine_logs"], notes);
    let path = |given: &Option<Given<String>>| given.as_ref().map(|given| given.value.clone());
    let none = options
        .truth(&["disable_logs"], notes)
        .is_some_and(|given| given.value);
    if none {
        command.redirections.push(">/dev/null 2>&1");
        return;
    }
    let nowhere = |path: &String| matches!(path.as_str(), "/dev/null" | "NULL");
    let (out_path, err_path) = (path(&out), path(&err));
    // PM2's own file for both is /dev/null unless it is asked for one.
    let both = both.filter(|given| !nowhere(&given.value) && given.value != "false");
    let whole = match both.as_ref().map(|given| given.value.as_str()) {
        Some("true") | None => None,
        Some(path) => Some(path.to_owned()),
    };
    match (
        out_path.as_ref().is_some_and(nowhere),
        err_path.as_ref().is_some_and(nowhere),
    ) {
        (true, true) if whole.is_none() => command.redirections.push(">/dev/null 2>&1"),
        (true, false) if whole.is_none() => command.redirections.push(">/dev/null"),
        (false, true) if whole.is_none() => command.redirections.push("2>/dev/null"),
        _ => {}
    }
    let files = [&whole, &out_path, &err_path];
    let file = files.into_iter().flatten().find(|path| !nowhere(path));
    if let Some(file) = file {
        keys.set("log_file", place(file, cwd, shared));
    }
    let named = |path: &Option<String>| path.as_ref().is_some_and(|path| !nowhere(path));
    let (only, stream) = match (named(&out_path), named(&err_path)) {
        (true, false) if err_path.is_none() && whole.is_none() => (&out, "stderr"),
        (false, true) if out_path.is_none() && whole.is_none() => (&err, "stdout"),
        _ => (&None, ""),
    };
    if let Some(given) = only {
        let text = format!(
            "a program has one log_file: its {stream}, which PM2 writes into a file under \
             ~/.pm2/logs, goes there too"
        );
        notes.differs(&name, &given.at, text);
    }
    for (given, other) in [(&both, ""), (&out, ""), (&err, "its stderr goes there too")] {
        let Some(given) = given else { continue };
        if Some(&given.value) == file || nowhere(&given.value) || given.value == "true" {
            continue;
        }
        let text = format!("a program has one log_file; {other}");
        let text = text.trim_end_matches("; ");
        notes.differs(&name, &given.at, text);
    }
    if keys.get("instances").is_some() && file.is_some() && !merged.is_some_and(|g| g.value) {
        let at = out.or(err).or(both);
        if let Some(given) = at {
            let text = "the replicas write into one file; PM2 gives each its own unless \
                        merge_logs is set";
            notes.differs(&name, &given.at, text);
        }
    }
}

/// Writes the path of a log, which starts at the home directory where it begins with `~`, and at
/// the directory of the app else.
fn place(path: &str, cwd: &str, shared: &Shared<'_>) -> String {
    let home = shared.request.environment.get("HOME");
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ if path.starts_with('/') || cwd.is_empty() => shared.places.fit(path),
        _ => {
            let below = Path::new(cwd).join(path.trim_start_matches("./"));
            shared.places.fit(&below.to_string_lossy())
        }
    }
}
