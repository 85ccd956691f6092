//! A Procfile, as foreman runs it: one shell command a type, a port each, and the `.env` beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::command::{Command, Piece, has_shell_syntax, with_exec};
use super::draft::{Draft, Program, Table, texts, variables};
use super::names::Names;
use super::note::{At, Notes};
use super::source::{self, Places};
use super::{Failure, Request, finish};

/// From the port of one type to that of the next.
const STEP: u32 = 100;

/// One line.
struct Entry<'a> {
    name: &'a str,
    line: &'a str,
    at: At,
}

/// Translates the file.
pub(super) fn translate(
    request: &Request,
    (formation, port): (&BTreeMap<String, u32>, u16),
    draft: &mut Draft,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let text = source::read(&request.file)?;
    let places = Places::new(&request.file, &request.result);
    let entries = entries(&request.file, &text, notes);
    if entries.len() > finish::MOST {
        return Err(finish::too_many(request));
    }
    unknown_types(request, formation, &entries)?;
    let env = env_file(&request.file, &places, notes)?;
    let first = env.port.unwrap_or(u32::from(port));
    if let Some(path) = env.path {
        draft.defaults.set("env_file", path);
    }
    if places.fit(".") != "." {
        draft.defaults.set("working_directory", places.fit("."));
    }
    let mut names = Names::default();
    for (number, entry) in (0_u32..).zip(&entries) {
        let count = formation.get(entry.name).or_else(|| formation.get("all"));
        let count = count.copied().unwrap_or(u32::from(formation.is_empty()));
        if count == 0 {
            notes.lacks(
                "",
                &entry.at,
                "the formation has none of it, so it is left out",
            );
            continue;
        }
        let port = first.saturating_add(number.saturating_mul(STEP));
        let name = names.give(entry.name);
        if name != entry.name {
            let text = format!("it is called {name} here: {}", crate::config::NAME_RULE);
            notes.differs(&name, &entry.at, text);
        }
        let keys = keys(entry, &name, (count, port), notes);
        draft.programs.push(Program { name, keys });
    }
    if !draft.programs.is_empty() {
        general(request, draft, notes);
    }
    Ok(())
}

fn entries<'a>(file: &Path, text: &'a str, notes: &mut Notes) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = |name: &str, value: &str| At {
            line: Some(number + 1),
            key: name.to_owned(),
            value: value.to_owned(),
            ..At::file(file)
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let parts = line.split_once(':').filter(|(name, command)| {
            !name.is_empty() && name.bytes().all(valid) && !command.trim().is_empty()
        });
        let Some((name, command)) = parts else {
            let text = format!("{line:?} is no `type: command`, and foreman passes over it");
            notes.lacks("", &at("", ""), text);
            continue;
        };
        let command = command.trim();
        if let Some(known) = entries.iter().position(|entry| entry.name == name) {
            let earlier = entries.remove(known);
            let text = format!("line {} says {name} again, which wins", number + 1);
            notes.lacks("", &earlier.at, text);
        }
        if entries.len() > finish::MOST {
            break;
        }
        entries.push(Entry {
            name,
            line: command,
            at: at(name, command),
        });
    }
    entries
}

fn unknown_types(
    request: &Request,
    formation: &BTreeMap<String, u32>,
    entries: &[Entry<'_>],
) -> Result<(), Failure> {
    let known = |name: &String| name == "all" || entries.iter().any(|entry| entry.name == name);
    match formation.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::Source(format!(
            "{} has no type {name}, which the formation names; it has {}",
            request.file.display(),
            entries
                .iter()
                .map(|entry| entry.name)
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

fn keys(entry: &Entry<'_>, name: &str, (count, port): (u32, u32), notes: &mut Notes) -> Table {
    const MOST: u32 = 1_000;
    let mut keys = Table::default();
    let mut command = Command::default();
    let count = count.min(MOST);
    if count > 1 {
        keys.set("instances", i64::from(count));
        command
            .before
            .push(format!("PORT=$(({port} + ETERNAL_REPLICA)); export PORT"));
        let text = format!("PORT is {port} for {name}/0, {} for {name}/1, …", port + 1);
        notes.says(name, &entry.at, text);
    } else {
        let own = [("PORT".to_owned(), port.to_string())];
        keys.set("environment", variables(own.iter().map(|(k, v)| (k, v))));
    }
    let words = shlex::split(entry.line).filter(|_| !has_shell_syntax(entry.line));
    match words.filter(|words| words.first().is_some_and(|word| !word.is_empty())) {
        Some(words) => {
            let word = |word: String| vec![Piece::Text(word)];
            command.words = words.into_iter().map(word).collect();
            keys.set("command", texts(command.argv()));
        }
        None => {
            let line = with_exec(entry.line);
            let script: Vec<String> = command.before.into_iter().chain([line]).collect();
            keys.set("command", texts(["sh", "-c", &script.join("; ")]));
        }
    }
    if entry.line.contains("$PS") || entry.line.contains("${PS") {
        let text = "PS is not set; ETERNAL_PROGRAM and ETERNAL_REPLICA are";
        notes.lacks(name, &entry.at, text);
    }
    if entry.name == "release" {
        keys.set("restart", "never");
        let text = "Heroku runs it once before a deployment; here it runs once at the start, and \
                    nothing waits for it";
        notes.differs(name, &entry.at, text);
    }
    keys
}

/// What the `.env` beside the Procfile gives.
#[derive(Default)]
struct Env {
    path: Option<String>,
    port: Option<u32>,
}

/// Reads the `.env`, as far as it takes to know that `env_file` will read the same.
fn env_file(procfile: &Path, places: &Places, notes: &mut Notes) -> Result<Env, Failure> {
    let path = procfile.with_file_name(".env");
    if !path.is_file() {
        return Ok(Env::default());
    }
    let text = source::read(&path)?;
    let mut env = Env::default();
    let mut refused = false;
    let mut seen = BTreeSet::new();
    for (number, whole) in text.lines().enumerate() {
        let line = whole.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let (name, value) = (name.trim(), value.trim());
        let at = At {
            line: Some(number + 1),
            section: ".env".to_owned(),
            key: name.to_owned(),
            value: "…".to_owned(),
            ..At::file(&path)
        };
        if name.is_empty() || !line.contains('=') {
            let at = At {
                key: String::new(),
                ..at
            };
            let text = "it is not KEY=VALUE: env_file would refuse it at every start, so it is \
                        not used; correct the line, then add env_file to [defaults]";
            notes.lacks("defaults", &at, text);
            refused = true;
            continue;
        }
        if value.starts_with('"') && value.contains('\\') {
            let text = "env_file keeps backslashes as they are; foreman reads \\n as a line end";
            notes.differs("defaults", &at, text);
        }
        if !seen.insert(name.to_owned()) {
            notes.says("", &at, "it is set again; the last one wins");
        }
        if name == "PORT" {
            env.port = value.trim_matches(['"', '\'']).parse().ok();
        }
    }
    env.path = (!refused).then(|| places.fit(".env"));
    Ok(env)
}

/// What holds for every type, said once.
fn general(request: &Request, draft: &mut Draft, notes: &mut Notes) {
    draft.head.push(format!(
        "Made by `eternal import procfile {}`; read it before you rely on it.",
        request.file.display()
    ));
    let file = At::file(&request.file);
    notes.differs(
        "",
        &file,
        "foreman ends everything when one process ends; here it is started again. Each type gets \
         its PORT as foreman gives it: 100 apart, in the order of the file",
    );
}
