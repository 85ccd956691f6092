//! Our own rules, beyond the linter's: layout, identity, what exists, colours, links, variables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::alerts::Rules;
use crate::catalogue::Catalogue;
use crate::model::{every_panel, list, panels, path, queries, text, title, variables};
use crate::promql::{Selector, grouped_by, parse, selectors};
use crate::thresholds;

/// What a dashboard is held against.
pub struct World {
    pub catalogue: Catalogue,
    pub rules: Rules,
    /// The colour of each state, reason and result.
    pub colours: BTreeMap<String, String>,
    /// The variables of each dashboard, by uid.
    pub variables: BTreeMap<String, BTreeSet<String>>,
}

/// A rule: what is wrong with a dashboard, in words; nothing when it is right.
pub type Rule = fn(&Value, &World) -> Vec<String>;

/// Every rule with its name.
pub const RULES: [(&str, Rule); 12] = [
    ("layout", layout),
    ("identity", identity),
    ("header", header),
    ("selectors-everywhere", selectors_everywhere),
    ("metrics-exist", metrics_exist),
    ("labels-exist", labels_exist),
    ("counters-are-rated", counters_are_rated),
    ("thresholds", thresholds::check),
    ("colours", colours),
    ("links", links),
    ("variables", chained),
    ("annotations", annotations),
];

/// What Prometheus itself adds to every target, and the labels of it.
const OF_PROMETHEUS: [(&str, &[&str]); 4] = [
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("scrape_samples_scraped", &[]),
    ("ALERTS", &["alertname", "alertstate", "program"]),
];

fn layout(dashboard: &Value, _: &World) -> Vec<String> {
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let mut complaints = Vec::new();
    for panel in every_panel(dashboard) {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(u64::MAX);
        let (x, y, width, height) = (at("x"), at("y"), at("w"), at("h"));
        if x.saturating_add(width) > 24 || height > 40 || width == 0 || height == 0 {
            complaints.push(format!("{} is outside of the 24 columns", title(panel)));
            continue;
        }
        let cells = (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y)));
        let over: BTreeSet<String> = cells
            .filter_map(|cell| taken.insert(cell, title(panel)))
            .collect();
        complaints.extend(
            over.iter()
                .map(|other| format!("{} lies on {other}", title(panel))),
        );
    }
    complaints
}

fn identity(dashboard: &Value, _: &World) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let keys = every_panel(dashboard).flat_map(|p| {
        let id = p["id"]
            .as_u64()
            .map_or_else(|| "no id".to_owned(), |id| format!("id {id}"));
        [id, title(p)]
    });
    let twice = keys.filter(|key| key == "no id" || !seen.insert(key.clone()));
    let mut complaints: Vec<String> = twice.map(|key| format!("{key} is there twice")).collect();
    for panel in panels(dashboard) {
        let ids = list(&panel["targets"]).iter().map(|t| text(&t["refId"]));
        let ids: Vec<&str> = ids.collect();
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            complaints.push(format!("{} has a refId twice", title(panel)));
        }
    }
    complaints
}

fn header(dashboard: &Value, _: &World) -> Vec<String> {
    [
        ("schemaVersion is 42", dashboard["schemaVersion"] == 42),
        (
            "uid is ours",
            text(&dashboard["uid"]).starts_with("eternal-"),
        ),
        ("uid fits Grafana", text(&dashboard["uid"]).len() <= 40),
        (
            "title is ours",
            text(&dashboard["title"]).starts_with("Eternal / "),
        ),
        ("there is no database id", dashboard.get("id").is_none()),
        (
            "tag is eternal",
            list(&dashboard["tags"]).contains(&"eternal".into()),
        ),
        (
            "has a description",
            !text(&dashboard["description"]).is_empty(),
        ),
    ]
    .iter()
    .filter(|(_, holds)| !holds)
    .map(|(promise, _)| format!("not so: {promise}"))
    .collect()
}

/// Panels, annotations and the variables that come later in the chain.
fn selectors_everywhere(dashboard: &Value, _: &World) -> Vec<String> {
    each_selector(dashboard, |place, selector| {
        let needs: &[&str] = match place {
            "job" => &[],
            "instance" => &["job"],
            _ => &["job", "instance"],
        };
        let of_programs = selector.metric().contains("eternal_program_") && place != "program";
        let needs = needs.iter().chain(of_programs.then_some(&"program"));
        needs
            .filter(|label| !selector.matches(label, &format!("${label}")))
            .map(|label| format!("{} lacks {label}", selector.metric()))
            .collect()
    })
}

fn metrics_exist(dashboard: &Value, world: &World) -> Vec<String> {
    each_selector(dashboard, |_, selector| {
        let metric = selector.metric();
        let known = world.catalogue.contains_key(metric)
            || world.rules.records(metric)
            || OF_PROMETHEUS.iter().any(|(name, _)| *name == metric);
        if known {
            Vec::new()
        } else {
            vec![format!("{metric} is not exported")]
        }
    })
}

fn labels_exist(dashboard: &Value, world: &World) -> Vec<String> {
    let mut complaints = each_selector(dashboard, |_, selector| wrong_matchers(selector, world));
    for (place, query) in queries(dashboard) {
        let Ok(expr) = parse(&query) else { continue };
        let there: BTreeSet<String> = selectors(&expr)
            .iter()
            .flat_map(|s| labels_of(s.metric(), world))
            .collect();
        let missing = grouped_by(&expr)
            .into_iter()
            .filter(|label| !there.contains(label));
        complaints.extend(missing.map(|label| format!("{place}: nothing has the label {label}")));
    }
    complaints
}

fn labels_of(metric: &str, world: &World) -> Vec<String> {
    let mut labels = vec!["job".to_owned(), "instance".to_owned()];
    if let Some(family) = world.catalogue.get(metric) {
        labels.extend(family.labels.keys().cloned());
    }
    if world.rules.records(metric) {
        labels.extend(["program".to_owned(), "replica".to_owned()]);
    }
    let added = OF_PROMETHEUS.iter().filter(|(name, _)| *name == metric);
    labels.extend(added.flat_map(|(_, labels)| labels.iter().map(|l| (*l).to_owned())));
    labels
}

fn wrong_matchers(selector: &Selector<'_>, world: &World) -> Vec<String> {
    let metric = selector.metric();
    let there = labels_of(metric, world);
    let mut complaints = Vec::new();
    for matcher in &selector.vector.matchers.matchers {
        if !there.contains(&matcher.name) {
            complaints.push(format!("{metric} has no label {}", matcher.name));
        }
        let family = world.catalogue.get(metric);
        let Some(seen) = family.and_then(|f| f.labels.get(&matcher.name)) else {
            continue;
        };
        let asked = matcher
            .value
            .split('|')
            .filter(|value| !value.starts_with('$'));
        let unknown = asked.filter(|value| !seen.contains(*value));
        complaints.extend(unknown.map(|value| format!("{metric} has no {}={value}", matcher.name)));
    }
    complaints
}

/// By type, not by name: the buckets, sums and counts of histograms included.
fn counters_are_rated(dashboard: &Value, world: &World) -> Vec<String> {
    each_selector(dashboard, |place, selector| {
        let family = world.catalogue.get(selector.metric());
        let counts = family.is_some_and(|f| f.kind == "counter" || f.kind == "histogram");
        let rated = matches!(selector.call, Some("rate" | "irate" | "increase"));
        if counts != rated {
            vec![format!(
                "{place}: {} and {:?}",
                selector.metric(),
                selector.call
            )]
        } else {
            Vec::new()
        }
    })
}

fn each_selector(
    dashboard: &Value,
    check: impl Fn(&str, &Selector<'_>) -> Vec<String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (place, query) in queries(dashboard) {
        match parse(&query) {
            Ok(expr) => {
                complaints.extend(selectors(&expr).iter().flat_map(|s| check(&place, s)));
            }
            Err(error) => complaints.push(format!("{place}: {query}: {error}")),
        }
    }
    complaints
}

/// What has a colour here has it everywhere.
fn colours(dashboard: &Value, world: &World) -> Vec<String> {
    let differs = named_colours(dashboard)
        .into_iter()
        .filter(|(name, colour)| world.colours.get(name) != Some(colour));
    let mut complaints: Vec<String> = differs
        .map(|(name, colour)| format!("{name} is {colour} here"))
        .collect();
    for panel in panels(dashboard) {
        let by = ["{{state}}", "{{reason}}"];
        let split = list(&panel["targets"]).iter().any(|t| {
            by.contains(&text(&t["legendFormat"])) && !text(&t["expr"]).contains("start_failures")
        });
        if split && list(&panel["fieldConfig"]["overrides"]).len() < 7 {
            complaints.push(format!("{} leaves colours to chance", title(panel)));
        }
    }
    complaints
}

/// Returns every colour that is bound to a name: by an override, or by a value mapping.
pub fn named_colours(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        let config = &panel["fieldConfig"];
        for field in list(&config["overrides"]) {
            let name = text(&field["matcher"]["options"]).to_owned();
            let properties = list(&field["properties"]).iter();
            let colour = properties.filter(|property| property["id"] == "color");
            found
                .extend(colour.map(|c| (name.clone(), text(&c["value"]["fixedColor"]).to_owned())));
        }
        for mapping in list(&config["defaults"]["mappings"]) {
            let texts = mapping["options"].as_object().into_iter().flatten();
            found.extend(
                texts.map(|(_, to)| (text(&to["text"]).to_owned(), text(&to["color"]).to_owned())),
            );
        }
    }
    found
}

fn links(dashboard: &Value, world: &World) -> Vec<String> {
    let mut complaints = Vec::new();
    for panel in panels(dashboard) {
        for link in list(&panel["links"]) {
            let url = text(&link["url"]);
            let alert = world
                .rules
                .alerts
                .iter()
                .find(|alert| alert.runbook_url == url);
            let named = alert.is_some_and(|a| text(&link["title"]).ends_with(&a.name));
            let there =
                alert.is_some_and(|a| path(&format!("alerts/runbooks/{}.md", a.name)).exists());
            if !named || !there {
                complaints.push(format!("{}: {url} is no alert's runbook", title(panel)));
            }
        }
        for url in data_links(&panel["fieldConfig"]) {
            complaints
                .extend(wrong_data_link(&url, world).map(|w| format!("{}: {w}", title(panel))));
        }
    }
    complaints
}

/// Returns the address of every data link, wherever it hangs.
pub fn data_links(config: &Value) -> Vec<String> {
    let overrides = list(&config["overrides"]).iter();
    let of_overrides = overrides.flat_map(|field| list(&field["properties"]));
    let of_overrides = of_overrides.filter(|property| property["id"] == "links");
    let of_overrides = of_overrides.flat_map(|property| list(&property["value"]));
    let all = list(&config["defaults"]["links"])
        .iter()
        .chain(of_overrides);
    all.map(|link| text(&link["url"]).to_owned()).collect()
}

fn wrong_data_link(url: &str, world: &World) -> Option<String> {
    let base = "https://runbooks.example.com/eternal/";
    if url.strip_prefix(base) == Some("${__value.raw}") {
        return None;
    }
    let known = url
        .strip_prefix("/d/")
        .and_then(|rest| rest.split_once('?'))
        .and_then(|(uid, query)| Some((world.variables.get(uid)?, query)));
    let Some((variables, query)) = known else {
        return Some(format!("{url} leads nowhere"));
    };
    let unknown = query.split('&').find(|part| {
        let name = part
            .strip_prefix("var-")
            .and_then(|rest| rest.split_once('='));
        name.is_some_and(|(name, _)| !variables.contains(name))
    });
    unknown.map(|part| format!("{url}: the dashboard there knows no {part}"))
}

/// datasource → job → instance → program: each asks only for what the ones before it left.
fn chained(dashboard: &Value, _: &World) -> Vec<String> {
    let names: Vec<&str> = variables(dashboard)
        .iter()
        .map(|v| text(&v["name"]))
        .collect();
    let chain = ["datasource", "job", "instance", "program"];
    let mut complaints = Vec::new();
    if names.len() < 3 || names != chain[..names.len().min(4)] {
        complaints.push(format!("the variables are {names:?}"));
    }
    for variable in variables(dashboard).iter().skip(1) {
        let name = &variable["name"];
        let all = variable["includeAll"] == true && variable["current"]["value"][0] == "$__all";
        if !all
            || variable["multi"] != true
            || variable["allValue"] != ".+"
            || variable["refresh"] != 2
        {
            complaints.push(format!("variable {name} does not offer all of several"));
        }
        let user = format!("=~\"${}\"", text(name));
        if !queries(dashboard)
            .iter()
            .any(|(_, query)| query.contains(&user))
        {
            complaints.push(format!("variable {name} is used by nothing"));
        }
    }
    complaints
}

fn annotations(dashboard: &Value, _: &World) -> Vec<String> {
    let notes = list(&dashboard["annotations"]["list"]);
    let mut needed = vec![
        "process_start_time_seconds",
        "reload_success_timestamp",
        "reloads_total",
    ];
    if variables(dashboard).iter().any(|v| v["name"] == "program") {
        needed.push("eternal_program_restarts_total");
    }
    let missing = needed.into_iter().filter(|metric| {
        !notes.iter().any(|note| {
            let shown = note["enable"] == true && note["datasource"]["uid"] == "${datasource}";
            shown && text(&note["expr"]).contains(metric)
        })
    });
    missing
        .map(|metric| format!("nothing marks {metric}"))
        .collect()
}
