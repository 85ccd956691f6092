//! Dashboards as they are committed, and the parts of them that the rules ask for.

use std::path::PathBuf;

use serde_json::Value;

/// The files under `grafana/dashboards/`, without their extension.
pub const NAMES: [&str; 4] = ["fleet", "program", "crashes", "supervisor"];

/// Returns the path of something in the repository.
pub fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// Reads a file of the repository.
pub fn read(below: &str) -> String {
    std::fs::read_to_string(path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
}

/// Reads a dashboard.
pub fn dashboard(name: &str) -> Value {
    let text = read(&format!("grafana/dashboards/{name}.json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the elements of a list, or nothing.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a text, or an empty one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns every panel except rows.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    every_panel(dashboard).filter(|panel| panel["type"] != "row")
}

/// Returns every panel, rows and what is in them included.
pub fn every_panel(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"])
        .iter()
        .flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])))
}

/// Returns every target with its panel.
pub fn targets(dashboard: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    panels(dashboard).flat_map(|panel| list(&panel["targets"]).iter().map(move |t| (panel, t)))
}

/// Returns the template variables.
pub fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"]["list"])
}

/// Returns the query of a variable.
pub fn variable_query(variable: &Value) -> &str {
    variable["query"]
        .as_str()
        .unwrap_or_else(|| text(&variable["query"]["query"]))
}

/// Returns the selector of a `label_values(SELECTOR, LABEL)`.
pub fn selector_of(query: &str) -> Option<(&str, &str)> {
    let (function, rest) = query.split_once('(')?;
    let inside = rest.strip_suffix(')')?;
    let selector = inside.rsplit_once(',').map_or(inside, |(first, _)| first);
    Some((function, selector))
}

/// Returns every query of panels, annotations and variables, each with where it stands.
pub fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of_panels =
        targets(dashboard).map(|(panel, target)| (title(panel), text(&target["expr"]).to_owned()));
    let of_annotations = list(&dashboard["annotations"]["list"]).iter().map(|note| {
        (
            text(&note["name"]).to_owned(),
            text(&note["expr"]).to_owned(),
        )
    });
    let of_variables = variables(dashboard).iter().filter_map(|variable| {
        let (_, selector) = selector_of(variable_query(variable))?;
        Some((text(&variable["name"]).to_owned(), selector.to_owned()))
    });
    of_panels
        .chain(of_annotations)
        .chain(of_variables)
        .collect()
}

/// Returns the title of a panel.
pub fn title(panel: &Value) -> String {
    format!("panel “{}”", text(&panel["title"]))
}
