//! A threshold on a dashboard is where an alert begins, in the colour of its severity.

use std::collections::BTreeSet;

use promql_parser::parser::Expr;
use serde_json::Value;

use crate::alerts::Alert;
use crate::house::World;
use crate::model::{list, panels, text, title};
use crate::promql::{Comparison, comparisons, parse, sources};

const OK: &str = "#009E73";

/// Returns the thresholds that no alert of their panel accounts for.
pub fn check(dashboard: &Value, world: &World) -> Vec<String> {
    let mut complaints = Vec::new();
    for panel in panels(dashboard) {
        for ladder in ladders(panel) {
            let unexplained = ladder
                .steps()
                .filter(|step| explaining(panel, &ladder, *step, world).is_empty());
            complaints.extend(
                unexplained.map(|(value, colour)| format!("{}: {value} in {colour}", title(panel))),
            );
        }
    }
    complaints
}

/// Returns the alerts whose limits a dashboard draws.
pub fn drawn(dashboard: &Value, world: &World) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for panel in panels(dashboard) {
        for ladder in ladders(panel) {
            for step in ladder.steps() {
                names.extend(explaining(panel, &ladder, step, world));
            }
        }
    }
    names
}

/// The thresholds of a panel or of one of its columns, and the queries that they judge.
struct Ladder<'a> {
    thresholds: &'a Value,
    queries: Vec<Expr>,
    inverted: bool,
}

impl<'a> Ladder<'a> {
    fn new(thresholds: &'a Value, targets: impl Iterator<Item = &'a Value>) -> Self {
        let texts: Vec<&str> = targets.map(|target| text(&target["expr"])).collect();
        Self {
            thresholds,
            inverted: texts.iter().any(|query| query.starts_with("1 - ")),
            queries: texts.iter().filter_map(|query| parse(query).ok()).collect(),
        }
    }

    fn base(&self) -> &'a str {
        text(&self.thresholds["steps"][0]["color"])
    }

    fn steps(&self) -> impl Iterator<Item = (f64, &'a str)> {
        let steps = list(&self.thresholds["steps"]).iter().skip(1);
        steps.map(|s| (s["value"].as_f64().unwrap_or(f64::NAN), text(&s["color"])))
    }
}

fn ladders(panel: &Value) -> Vec<Ladder<'_>> {
    let targets = || list(&panel["targets"]).iter();
    let config = &panel["fieldConfig"];
    let mut found = vec![Ladder::new(&config["defaults"]["thresholds"], targets())];
    for field in list(&config["overrides"]) {
        let column = text(&field["matcher"]["options"]);
        for property in list(&field["properties"]) {
            if property["id"] == "thresholds" {
                let id = column_target(panel, column);
                let of_column = targets().filter(|target| target["refId"] == id);
                found.push(Ladder::new(&property["value"], of_column));
            }
        }
    }
    found
}

/// Returns the refId of the query that fills a renamed column.
fn column_target<'a>(panel: &'a Value, column: &str) -> &'a str {
    let renamed = list(&panel["transformations"])
        .iter()
        .filter_map(|t| t["options"]["renameByName"].as_object())
        .flatten();
    let original = renamed
        .filter(|(_, to)| *to == column)
        .map(|(from, _)| from);
    let mut original = original.filter_map(|from| from.strip_prefix("Value #"));
    original.next().unwrap_or_default()
}

fn explaining(panel: &Value, ladder: &Ladder<'_>, step: (f64, &str), world: &World) -> Vec<String> {
    let linked = list(&panel["links"]).iter().filter_map(|link| {
        let alerts = world.rules.alerts.iter();
        alerts
            .clone()
            .find(|alert| alert.runbook_url == text(&link["url"]))
    });
    let explains = |alert: &&Alert| {
        let mut limits = alert.limits.iter();
        limits.any(|limit| {
            wanted(limit, alert, ladder, world).is_some_and(|want| same(&want, ladder, step))
        })
    };
    linked
        .filter(explains)
        .map(|alert| alert.name.clone())
        .collect()
}

/// What a limit looks like as a threshold.
struct Wanted {
    value: f64,
    base: Option<&'static str>,
    colour: &'static str,
}

fn wanted(limit: &Comparison, alert: &Alert, ladder: &Ladder<'_>, world: &World) -> Option<Wanted> {
    let severity = match alert.severity.as_str() {
        "critical" => "#D55E00",
        "warning" => "#E69F00",
        _ => return None,
    };
    let looked_at: BTreeSet<_> = ladder.queries.iter().flat_map(sources).collect();
    if world
        .rules
        .look_through(&looked_at)
        .is_disjoint(&limit.sources)
    {
        return None;
    }
    let rising = |value| {
        Some(Wanted {
            value,
            base: None,
            colour: severity,
        })
    };
    let falling = |value| {
        Some(Wanted {
            value,
            base: Some(severity),
            colour: OK,
        })
    };
    // A panel that contains the alert's own condition counts those that meet it.
    let counts = ladder
        .queries
        .iter()
        .flat_map(comparisons)
        .any(|c| world.rules.expanded(c) == *limit);
    match limit.operator.as_str() {
        _ if counts => rising(1.0),
        ">" if ladder.inverted => falling(1.0 - limit.constant),
        ">" if limit.counts => rising(limit.constant + 1.0),
        ">" | ">=" => rising(limit.constant),
        "<" => falling(limit.constant),
        _ => None,
    }
}

fn same(want: &Wanted, ladder: &Ladder<'_>, (value, colour): (f64, &str)) -> bool {
    (want.value - value).abs() < 1e-9
        && want.colour == colour
        && want.base.unwrap_or(OK) == ladder.base()
}
