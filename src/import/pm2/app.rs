//! One app, one program.

use std::path::Path;

use super::options::Options;
use super::tree::Node;
use super::{Shared, behaviour, environment, launch, logs, rest};
use crate::import::draft::{Program, Table, texts};
use crate::import::note::Notes;

/// Translates an app.
pub(super) fn translate(app: &Node, shared: &mut Shared<'_>, notes: &mut Notes) -> Option<Program> {
    let mut options = Options::new(app, &shared.request.file, String::new());
    let script = options.raw(&["script", "exec", "cmd", "command"]);
    let given = options.raw(&["name"]).and_then(|(_, node)| node.scalar());
    let prefix = options.raw(&["name_prefix"]).and_then(|(_, n)| n.scalar());
    let script = script.and_then(|(at, node)| Some((at, node.scalar()?)));
    let of_script = || {
        let script = script.as_ref().map_or("", |(_, script)| script.as_str());
        let stem = Path::new(script).file_stem();
        stem.map_or(String::new(), |stem| stem.to_string_lossy().into_owned())
    };
    let wanted = prefix.unwrap_or_default() + &given.unwrap_or_else(of_script);
    options.name.clone_from(&wanted);
    let Some((at, script)) = script else {
        let text = "it has no script, so there is no such program here; PM2 refuses it too";
        notes.lacks("", &options.whole(), text);
        return None;
    };
    if script == "serve" {
        let text = "it is PM2's own server of static files, so there is no such program here; let \
                    one of yours be the command";
        notes.lacks("", &at, text);
        return None;
    }
    let name = shared.names.give(&wanted);
    options.name.clone_from(&name);
    if name != wanted {
        let at = options.raw(&["name"]).map_or(at.clone(), |(at, _)| at);
        let text = format!("it is called {name} here: {}", crate::config::NAME_RULE);
        notes.differs(&name, &at, text);
    }
    let mut keys = Table::default();
    let cwd = options.text(&["cwd"], notes);
    let directory = cwd.as_ref().map_or("", |given| given.value.as_str());
    let directory = shared.places.source().join(directory);
    let (mut command, interpreter) =
        launch::command((&script, &at), &directory, &mut options, notes);
    if let Some(given) = &cwd {
        keys.set("working_directory", shared.places.fit(&given.value));
    } else if shared.places.fit(".") != "." {
        keys.set("working_directory", shared.places.fit("."));
    }
    environment::translate(&mut options, shared, &interpreter, &mut keys, notes);
    behaviour::replicas(&mut options, &interpreter, (&mut command, &mut keys), notes);
    behaviour::restarts(&mut options, &mut keys, notes);
    behaviour::stopping(&mut options, &mut keys, notes);
    let cwd = cwd.as_ref().map_or("", |given| given.value.as_str());
    logs::translate(
        &mut options,
        (shared, cwd),
        (&mut command, &mut keys),
        notes,
    );
    rest::translate(&mut options, notes);
    if command.needs_shell() {
        let text = "sh gives it its variables and redirections, then becomes it (exec)";
        notes.says(&name, &options.whole(), text);
    }
    keys.set("command", texts(command.argv()));
    Some(Program { name, keys })
}
