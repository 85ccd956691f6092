//! The variables of an app.

use std::collections::BTreeMap;

use super::options::Options;
use super::tree::{Kind, Node};
use super::{Shared, shown};
use crate::import::draft::{Table, variables};
use crate::import::note::{At, Notes};

/// Reads `env`, and that of `--env`.
pub(super) fn translate(
    options: &mut Options<'_>,
    shared: &Shared<'_>,
    interpreter: &str,
    keys: &mut Table,
    notes: &mut Notes,
) {
    let name = options.name.clone();
    let mut all = BTreeMap::new();
    if interpreter.contains("python") {
        all.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    }
    if let Some((at, node)) = options.raw(&["env"]) {
        add_variables(node, &at, &name, &mut all, notes);
    }
    let chosen = shared
        .environment
        .map(|environment| format!("env_{environment}"));
    let mut found = false;
    for (key, node) in options.app.members() {
        if !key.starts_with("env_") || node.kind == Kind::Null {
            continue;
        }
        let Some((at, node)) = options.raw(&[key]) else {
            continue;
        };
        if Some(key) == chosen.as_ref() {
            found = true;
            add_variables(node, &at, &name, &mut all, notes);
        } else {
            let environment = key.trim_start_matches("env_");
            let text = format!(
                "one configuration has one environment; import with --env {environment} to get \
                 this one"
            );
            notes.lacks(&name, &at, text);
        }
    }
    if let (Some(chosen), false) = (chosen, found) {
        let text = format!("it has no {chosen}, which --env asks for; it gets its env");
        notes.differs(&name, &options.whole(), text);
    }
    if let Some(given) = options.text(&["port"], notes) {
        all.insert("PORT".to_owned(), given.value);
    }
    if !all.is_empty() {
        keys.set("environment", variables(&all));
    }
}

fn add_variables(
    node: &Node,
    at: &At,
    name: &str,
    all: &mut BTreeMap<String, String>,
    notes: &mut Notes,
) {
    if !matches!(node.kind, Kind::Map(_)) {
        notes.lacks(name, at, "it must be an object of variables");
        return;
    }
    for (key, value) in node.members() {
        let valid = !key.is_empty() && !key.contains(['=', '\0']);
        // JavaScript writes what is not there as these words.
        let text = match value.kind {
            Kind::Null => "null".to_owned(),
            Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Map(_) => shown(value),
        };
        if valid && !text.contains('\0') {
            all.insert(key.clone(), text);
        } else {
            notes.lacks(
                name,
                at,
                format!("{key:?} cannot be the name of a variable"),
            );
        }
    }
}
