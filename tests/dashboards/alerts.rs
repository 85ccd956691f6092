//! The rules of `alerts/eternal.rules.yml`: what each alert compares with what.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::read;
use crate::promql::{Comparison, Source, comparisons, parse, sources};

/// Every rule of the file.
pub struct Rules {
    pub alerts: Vec<Alert>,
    /// What each recording rule looks at.
    recorded: BTreeMap<String, BTreeSet<Source>>,
}

/// An alert.
pub struct Alert {
    pub name: String,
    pub severity: String,
    pub runbook_url: String,
    /// The dashboard and the panels that its annotation names.
    pub dashboard: String,
    pub limits: Vec<Comparison>,
}

impl Rules {
    /// Reads the file. It knows the layout of that file, not YAML at large.
    pub fn read() -> Self {
        let text = read("alerts/eternal.rules.yml");
        let mut rules = Self {
            alerts: Vec::new(),
            recorded: BTreeMap::new(),
        };
        let mut raw = Vec::new();
        for rule in text.split("\n      - ").skip(1) {
            let (kind, name) = first_field(rule);
            let expr = parse(&expression(rule)).unwrap_or_else(|e| panic!("{name}: {e}"));
            match kind {
                "record" => {
                    rules.recorded.insert(name.to_owned(), sources(&expr));
                }
                "alert" => raw.push((name, rule, comparisons(&expr))),
                _ => {}
            }
        }
        for (name, rule, limits) in raw {
            let limits = limits.into_iter().map(|limit| rules.expanded(limit));
            let limits = limits.collect();
            rules.alerts.push(Alert {
                name: name.to_owned(),
                severity: field(rule, "severity"),
                runbook_url: field(rule, "runbook_url"),
                dashboard: field(rule, "dashboard"),
                limits,
            });
        }
        rules
    }

    /// Tells whether a metric is the result of a recording rule.
    pub fn records(&self, metric: &str) -> bool {
        self.recorded.contains_key(metric)
    }

    /// Replaces the results of recording rules by what those look at.
    pub fn look_through(&self, sources: &BTreeSet<Source>) -> BTreeSet<Source> {
        let look = |source: &Source| match self.recorded.get(&source.0) {
            Some(inner) => inner.clone(),
            None => BTreeSet::from([source.clone()]),
        };
        sources.iter().flat_map(look).collect()
    }

    /// Returns a comparison with its sources looked through.
    pub fn expanded(&self, comparison: Comparison) -> Comparison {
        let sources = self.look_through(&comparison.sources);
        let recorded_count = comparison
            .sources
            .iter()
            .any(|(m, _)| m.contains(":increase"));
        Comparison {
            sources,
            counts: comparison.counts || recorded_count,
            ..comparison
        }
    }
}

fn first_field(rule: &str) -> (&str, &str) {
    let line = rule.lines().next().unwrap_or_default();
    line.split_once(": ").unwrap_or((line, ""))
}

fn field(rule: &str, key: &str) -> String {
    let start = format!("{key}: ");
    let mut lines = rule.lines().map(str::trim);
    let line = lines.find_map(|line| line.strip_prefix(start.as_str()));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// Returns the `expr`, on one line or as an indented block.
fn expression(rule: &str) -> String {
    let (_, rest) = rule.split_once("expr: ").expect("every rule has an expr");
    if !rest.starts_with('|') {
        return rest.lines().next().unwrap_or_default().to_owned();
    }
    let block = rest.lines().skip(1);
    let block = block.take_while(|line| line.starts_with("          "));
    block.collect::<Vec<_>>().join("\n")
}
