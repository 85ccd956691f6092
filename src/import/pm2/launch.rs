//! The command line of an app: interpreter, script and their arguments.

use std::io::Read;
use std::path::Path;

use super::options::Options;
use crate::import::command::Command;
use crate::import::note::{At, Notes};

/// What runs a file of this ending.
const INTERPRETERS: [(&str, &str); 12] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("sh", "bash"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("coffee", "coffee"),
    ("ls", "lsc"),
    ("ts", "bun"),
    ("tsx", "bun"),
];

/// Makes the command line: interpreter, its arguments, script, its arguments.
pub(super) fn command(
    (script, at): (&str, &At),
    directory: &Path,
    options: &mut Options<'_>,
    notes: &mut Notes,
) -> (Command, String) {
    let name = options.name.clone();
    let own = ["exec_interpreter", "interpreter"];
    let interpreter = options
        .text(&own, notes)
        .map(|given| (given.value, given.at));
    let its_arguments = options.words(&["node_args", "interpreter_args"], notes);
    let arguments = options.words(&["args"], notes);
    if script.trim().contains(' ') {
        if !arguments.is_empty() {
            notes.says(
                &name,
                at,
                "PM2 gives a script with spaces to bash, without its args",
            );
        }
        let words = ["bash", "-c", script].map(str::to_owned);
        return (Command::plain(words), "bash".to_owned());
    }
    let ending = Path::new(script).extension().and_then(|e| e.to_str());
    let usual = INTERPRETERS
        .iter()
        .find(|(known, _)| Some(*known) == ending)
        .map(|(_, interpreter)| (*interpreter).to_owned());
    let given = interpreter.is_some();
    let chosen = match interpreter {
        Some((own, at)) => match own.split_once('@') {
            Some((own, version)) => {
                let text = format!(
                    "versions are not chosen here: {own} is the one in the daemon's PATH; name \
                     the file of {version} in `command` if it matters"
                );
                notes.differs(&name, &at, text);
                Some(own.to_owned())
            }
            None => Some(own).filter(|own| own != "none"),
        },
        None => usual,
    };
    if chosen.as_deref() == Some("python3") {
        notes.says(
            &name,
            at,
            "python3 runs it; PM2 takes python where there is one",
        );
    }
    if chosen.as_deref() == Some("bun") && ending == Some("ts") {
        notes.says(
            &name,
            at,
            "bun runs it, as in PM2 where there is one; else say node or ts-node in `command`",
        );
    }
    let chosen = match chosen {
        None if ending.is_none() && !given => unnamed(script, at, (options, directory), notes),
        chosen => chosen,
    };
    let mut words: Vec<String> = chosen.iter().cloned().collect();
    if chosen.is_some() {
        words.extend(its_arguments);
        words.push(script.to_owned());
    } else {
        words.push(local(script, ending, directory));
    }
    words.extend(arguments);
    (Command::plain(words), chosen.unwrap_or_default())
}

/// Decides what runs a file whose name has no ending: as PM2, node unless it is a binary. A word
/// without a file is a command in `PATH`.
fn unnamed(
    script: &str,
    at: &At,
    (options, directory): (&Options<'_>, &Path),
    notes: &mut Notes,
) -> Option<String> {
    const START: usize = 1024;
    let file = std::fs::File::open(directory.join(script));
    let mut start = Vec::new();
    let read = file.and_then(|file| file.take(START as u64).read_to_end(&mut start));
    if read.is_err() && !script.contains('/') {
        return None;
    }
    if start.contains(&0) {
        return None;
    }
    let text = if read.is_err() {
        "the file cannot be read now: node is taken to run it, as PM2 does with what is no binary"
    } else {
        "node runs it, as PM2 does with what is no binary"
    };
    notes.says(&options.name, at, text);
    Some("node".to_owned())
}

/// A file beside the configuration is found by its path, not in `PATH`.
fn local(script: &str, ending: Option<&str>, directory: &Path) -> String {
    let beside = ending.is_some() || directory.join(script).is_file();
    if beside && !script.contains('/') {
        format!("./{script}")
    } else {
        script.to_owned()
    }
}
