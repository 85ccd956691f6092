//! Names, both ways: what alerts, dashboards and the README speak of is exported, and what is
//! exported is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use eternal::observe::{Described, catalogue, read_off};

/// Only where a program has a cgroup of its own.
const SOMETIMES: &[&str] = &["eternal_program_oom_kills_total"];
/// Labels that Prometheus puts there itself, or the rules.
const FOREIGN: &[&str] = &["job", "instance", "le", "alertname", "severity", "handler"];

/// Compares a live scrape with the catalogue.
pub fn check_live(text: &str) {
    let known = catalogue().expect("the catalogue can be made");
    let live = read_off(text);
    for (name, family) in &live {
        assert_eq!(known.get(name), Some(family), "{name} in the catalogue");
    }
    let missing: Vec<_> = known
        .keys()
        .filter(|name| !live.contains_key(*name) && !SOMETIMES.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in a live scrape: {missing:?}");
}

#[test]
fn the_catalogue_is_whole_and_every_family_has_help() {
    let known = catalogue().expect("the catalogue can be made");
    assert!(known.len() > 50, "{}", known.len());
    for (name, family) in &known {
        assert!(
            family.help.ends_with('.') && !family.kind.is_empty(),
            "{name}: {family:?}"
        );
        let of_a_program = name.starts_with("eternal_program_");
        assert_eq!(family.labels.contains("program"), of_a_program, "{name}");
    }
}

#[test]
fn alerts_and_dashboards_speak_of_what_there_is() {
    let known = catalogue().expect("the catalogue can be made");
    let mut wrong = Vec::new();
    let mut files = files("alerts", "rules.yml");
    files.extend(self::files("grafana/dashboards", "json"));
    assert!(!files.is_empty());
    for file in files {
        // In JSON the quotes of a query are escaped.
        let text = fs::read_to_string(&file)
            .expect("readable")
            .replace("\\\"", "\"");
        wrong.extend(
            strangers(&text, &known)
                .into_iter()
                .map(|stranger| format!("{}: {stranger}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_documents_every_family_and_no_other() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else {
        eprintln!("skipped: there is no README.md");
        return;
    };
    let known = catalogue().expect("the catalogue can be made");
    let mut wrong: Vec<String> = strangers(&readme, &known).into_iter().collect();
    for (name, family) in &known {
        // The daemon's own are Prometheus' standard ones.
        if name.starts_with("process_") || SOMETIMES.contains(&name.as_str()) {
            continue;
        }
        let row = format!("| `{name}` | {} |", family.kind);
        match readme.lines().find(|line| line.starts_with(&row)) {
            None => wrong.push(format!("no row {row}")),
            Some(line) => wrong.extend(
                family
                    .labels
                    .iter()
                    .filter(|label| !["program", "replica"].contains(&label.as_str()))
                    .filter(|label| !line.contains(&format!("`{label}`")))
                    .map(|label| format!("{name}: no label {label}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the names of metrics, and the labels beside them, that the catalogue does not have.
fn strangers(text: &str, known: &BTreeMap<String, Described>) -> BTreeSet<String> {
    let mut strangers = BTreeSet::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let ours = ["eternal_", "process_"].iter().any(|p| name.starts_with(p));
        // A colon makes it a recorded one, a star a group of names, a dot a file.
        let other = name.contains(':') || name.ends_with('_');
        let other = other || after.starts_with('*') || after.starts_with(".rs");
        if !ours || other {
            continue;
        }
        let Some(family) = family_of(name, known) else {
            strangers.insert(name.to_owned());
            continue;
        };
        for label in matchers(after) {
            if !family.labels.contains(label) && !FOREIGN.contains(&label) {
                strangers.insert(format!("{name}{{{label}}}"));
            }
        }
    }
    strangers
}

fn family_of<'a>(name: &str, known: &'a BTreeMap<String, Described>) -> Option<&'a Described> {
    known.get(name).or_else(|| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| known.get(name.strip_suffix(suffix)?))
            .filter(|family| family.kind == "histogram")
    })
}

/// Returns the labels of the selector that a text begins with.
fn matchers(text: &str) -> Vec<&str> {
    let inside = text
        .strip_prefix('{')
        .and_then(|text| text.split_once('}'))
        .map_or("", |(inside, _)| inside);
    inside
        .split(',')
        .filter_map(|matcher| Some(matcher.split_once(['=', '!'])?.0.trim()))
        .collect()
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
