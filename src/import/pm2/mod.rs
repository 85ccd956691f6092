//! PM2: its ecosystem file, in JSON, YAML or JavaScript.
//!
//! What PM2 does where an app is silent goes to `[defaults]`, so that a program's table holds what
//! its app said.

mod app;
mod behaviour;
mod environment;
mod javascript;
mod launch;
mod logs;
mod options;
mod rest;
mod tree;
mod yaml;

use super::draft::Draft;
use super::names::Names;
use super::note::{At, Notes};
use super::source::{self, Places};
use super::{Failure, Request, finish};
use tree::{Kind, Node};

/// What all apps share.
struct Shared<'a> {
    pub request: &'a Request,
    pub places: Places,
    /// `--env`.
    pub environment: Option<&'a str>,
    pub names: Names,
}

/// Translates the file.
pub(super) fn translate(
    request: &Request,
    (environment, trusted): (Option<&str>, bool),
    draft: &mut Draft,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let places = Places::new(&request.file, &request.result);
    let root = load((request, trusted), &places, notes)?;
    let mut shared = Shared {
        request,
        places,
        environment,
        names: Names::default(),
    };
    let apps = apps(&root).ok_or_else(|| {
        Failure::Source(format!(
            "{} has neither `apps` nor an app",
            request.file.display()
        ))
    })?;
    if root.get("apps").is_some() || root.get("pm2").is_some() {
        others(&root, request, notes);
    }
    if apps.items().len() > finish::MOST {
        return Err(finish::too_many(request));
    }
    for app in apps.items() {
        let made = app::translate(app, &mut shared, notes);
        draft.programs.extend(made);
    }
    if !draft.programs.is_empty() {
        general(request, draft, notes);
    }
    Ok(())
}

/// Finds the apps where PM2 does: in `apps`, in `pm2`, or the file itself.
fn apps(root: &Node) -> Option<&Node> {
    let found = root.get("apps").or_else(|| root.get("pm2")).unwrap_or(root);
    let maps = |node: &Node| matches!(node.kind, Kind::Map(_));
    (!found.items().is_empty() && found.items().iter().all(maps)).then_some(found)
}

fn load(
    (request, trusted): (&Request, bool),
    places: &Places,
    notes: &mut Notes,
) -> Result<Node, Failure> {
    let file = &request.file;
    let ending = file.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    let text = source::read(file)?;
    let bad = |bad: tree::Bad| Failure::at(file, bad.line.max(1), bad.what);
    match ending.as_str() {
        "yml" | "yaml" => yaml::read(&text).map_err(bad),
        "js" | "cjs" | "mjs" => {
            if !trusted {
                javascript::refuse_of_others(file, places.source())?;
            }
            let text_of_note = "it is JavaScript: it was run with node to be read, with this \
                                environment; what it computed is written as it was just now";
            notes.says("", &At::file(file), text_of_note);
            let mut node = javascript::run(file, places.source())?;
            javascript::find_lines(&mut node, &text);
            Ok(node)
        }
        _ => tree::json(&text).map_err(|problem| {
            let hint = "if it is JavaScript, let its name end in .js";
            Failure::at(
                file,
                problem.line.max(1),
                format!("{}; {hint}", problem.what),
            )
        }),
    }
}

/// Means a member of the file's outermost object.
fn at(request: &Request, name: &str, node: &Node) -> At {
    At {
        file: request.file.clone(),
        line: node.line,
        section: String::new(),
        key: name.to_owned(),
        value: brief(node),
    }
}

/// Writes a value for a note; an object may hold secrets.
fn brief(node: &Node) -> String {
    match node.kind {
        Kind::Map(_) => "{…}".to_owned(),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Integer(_)
        | Kind::Float(_)
        | Kind::Text(_)
        | Kind::List(_) => shown(node),
    }
}

/// Writes a value as an environment would hold it: what is no scalar, as JSON.
fn shown(node: &Node) -> String {
    node.scalar().unwrap_or_else(|| node.json().to_string())
}

fn others(root: &Node, request: &Request, notes: &mut Notes) {
    for (name, node) in root.members() {
        let at = at(request, name, node);
        match name.as_str() {
            "apps" | "pm2" => {}
            "deploy" => notes.lacks(
                "",
                &at,
                "this supervises, it does not deploy: keep `pm2 deploy`, or let a pipeline copy \
                 the files and say `eternal restart NAME`",
            ),
            _ => notes.says("", &at, "PM2 does not know it beside `apps` either"),
        }
    }
}

/// What holds for every app, said once.
fn general(request: &Request, draft: &mut Draft, notes: &mut Notes) {
    draft.head.push(format!(
        "Made by `eternal import pm2 {}`; read it before you rely on it.",
        request.file.display()
    ));
    let keys = &mut draft.defaults;
    keys.set_because("stop_signal", "SIGINT", "PM2_KILL_SIGNAL, if you set it");
    keys.set_because("stop_timeout", "1s 600ms", "kill_timeout = 1600");
    options::Unstable::default().write(keys);
    let file = At::file(&request.file);
    notes.differs(
        "defaults",
        &file,
        "PM2 starts an app again at once; here restarts wait 1 s and then twice as long each \
         time, up to 30 s. PM2 counts every end within min_uptime, also a clean one; here only \
         crashes count. PM2 ends an app's children at a stop; here they are ended before a \
         restart too",
    );
    notes.differs(
        "",
        &file,
        "PM2 keeps a log per app under ~/.pm2/logs; here an app without log_file writes into the \
         daemon's log. An app without cwd runs in the directory of the ecosystem file. \
         This daemon ends when nothing is left that runs or will run, with 1 if a \
         program failed; PM2 goes on. Of the variables that PM2 makes of an app's options (name, \
         pm_id, …) only NODE_APP_INSTANCE is set; ETERNAL_PROGRAM and ETERNAL_REPLICA are there. \
         Node's IPC channel (process.send) and the pm2.io agent are \
         not there",
    );
}
