//! The seventeen rules of Grafana's dashboard-linter, by its names, without exclusions. They hold for every
//! panel that is not a row, which is more than the linter asks.

use serde_json::Value;

use crate::model::{list, panels, selector_of, targets, text, title, variable_query, variables};
use crate::promql::{RATE_INTERVAL, parse, selectors};

/// A rule: what is wrong with a dashboard, in words; nothing when it is right.
pub type Rule = fn(&Value) -> Vec<String>;

/// Every rule with its name.
pub const RULES: [(&str, Rule); 17] = [
    ("template-datasource-rule", template_datasource),
    ("template-job-rule", |d| template(d, "job", "Job")),
    ("template-instance-rule", |d| {
        template(d, "instance", "Instance")
    }),
    ("template-label-promql-rule", template_label_promql),
    ("template-on-time-change-reload-rule", template_reload),
    ("panel-datasource-rule", panel_datasource),
    ("panel-title-description-rule", panel_title_description),
    ("panel-units-rule", panel_units),
    ("panel-no-targets-rule", panel_no_targets),
    ("target-logql-rule", target_logql),
    ("target-logql-auto-rule", target_logql_auto),
    ("target-promql-rule", target_promql),
    ("target-rate-interval-rule", target_rate_interval),
    ("target-job-rule", |d| target_matcher(d, "job")),
    ("target-instance-rule", |d| target_matcher(d, "instance")),
    ("target-counter-agg-rule", target_counter_agg),
    ("uneditable-dashboard", uneditable),
];

/// Units that Grafana knows, as far as they are used here.
pub const UNITS: [&str; 14] = [
    "none",
    "short",
    "percentunit",
    "bytes",
    "Bps",
    "s",
    "cps",
    "ops",
    "reqps",
    "suffix: lines/s",
    "dateTimeAsIso",
    "dateTimeFromNow",
    "bool",
    "bool_yes_no",
];

fn template_datasource(dashboard: &Value) -> Vec<String> {
    let of_type: Vec<&Value> = variables(dashboard)
        .iter()
        .filter(|v| text(&v["type"]).eq_ignore_ascii_case("datasource"))
        .collect();
    if of_type.is_empty() {
        return vec!["there is no data source to choose".to_owned()];
    }
    let allowed = |v: &&&Value| {
        v["query"] == "prometheus"
            && ((v["name"] == "datasource" && v["label"] == "Data source")
                || (v["name"] == "prometheus_datasource" && v["label"] == "Prometheus data source"))
    };
    let wrong = of_type.iter().filter(|v| !allowed(v));
    wrong
        .map(|v| format!("data source variable {} is misnamed", v["name"]))
        .collect()
}

fn template(dashboard: &Value, name: &str, label: &str) -> Vec<String> {
    let Some(variable) = variables(dashboard).iter().find(|v| v["name"] == name) else {
        return vec![format!("there is no {name} to choose")];
    };
    let datasource = text(&variable["datasource"]["uid"]);
    [
        (templated(datasource), "asks another data source"),
        (variable["type"] == "query", "is no query"),
        (variable["label"] == label, "has another label"),
        (variable["multi"] == true, "takes one value only"),
        (variable["allValue"] == ".+", "has another allValue"),
    ]
    .iter()
    .filter(|(right, _)| !right)
    .map(|(_, wrong)| format!("variable {name} {wrong}"))
    .collect()
}

fn templated(uid: &str) -> bool {
    ["$datasource", "${datasource}"].contains(&uid)
}

fn template_label_promql(dashboard: &Value) -> Vec<String> {
    let functions = ["label_names", "label_values", "metrics", "query_result"];
    let of_queries = variables(dashboard).iter().filter(|v| v["type"] == "query");
    of_queries
        .filter_map(|variable| {
            let query = variable_query(variable);
            let complaint = match selector_of(query) {
                None => "is no function call".to_owned(),
                Some((function, _)) if !functions.contains(&function) => {
                    format!("calls {function}")
                }
                Some((_, selector)) => parse(selector).err()?,
            };
            Some(format!(
                "variable {}: {query}: {complaint}",
                variable["name"]
            ))
        })
        .collect()
}

fn template_reload(dashboard: &Value) -> Vec<String> {
    let of_queries = variables(dashboard).iter().filter(|v| v["type"] == "query");
    of_queries
        .filter(|v| v["refresh"] != 2)
        .map(|v| {
            format!(
                "variable {} is not refreshed with the time range",
                v["name"]
            )
        })
        .collect()
}

fn panel_datasource(dashboard: &Value) -> Vec<String> {
    let uids = |value: &Value| text(&value["datasource"]["uid"]).to_owned();
    panels(dashboard)
        .filter(|panel| {
            !templated(&uids(panel)) || list(&panel["targets"]).iter().any(|t| !templated(&uids(t)))
        })
        .map(|panel| format!("{} asks another data source", title(panel)))
        .collect()
}

fn panel_title_description(dashboard: &Value) -> Vec<String> {
    panels(dashboard)
        .filter(|p| text(&p["title"]).is_empty() || text(&p["description"]).is_empty())
        .map(|p| format!("{} ({}) lacks a title or a description", title(p), p["id"]))
        .collect()
}

fn panel_units(dashboard: &Value) -> Vec<String> {
    let unit = |panel: &Value| panel["fieldConfig"]["defaults"]["unit"].clone();
    panels(dashboard)
        .filter(|panel| !UNITS.contains(&text(&unit(panel))))
        .map(|panel| format!("{} has the unit {}", title(panel), unit(panel)))
        .collect()
}

fn panel_no_targets(dashboard: &Value) -> Vec<String> {
    panels(dashboard)
        .filter(|panel| list(&panel["targets"]).is_empty())
        .map(|panel| format!("{} asks nothing", title(panel)))
        .collect()
}

/// A query in LogQL cannot be valid here: the only data source is Prometheus.
fn target_logql(dashboard: &Value) -> Vec<String> {
    of_loki(dashboard)
        .map(|(panel, _)| format!("{} asks Loki", title(panel)))
        .collect()
}

fn target_logql_auto(dashboard: &Value) -> Vec<String> {
    of_loki(dashboard)
        .filter(|(_, target)| {
            let expr = text(&target["expr"]);
            expr.contains('[') && !expr.contains("[$__auto]")
        })
        .map(|(panel, _)| format!("{} does not use $__auto", title(panel)))
        .collect()
}

fn of_loki(dashboard: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let everywhere = variables(dashboard)
        .iter()
        .any(|v| v["type"] == "datasource" && v["query"] == "loki");
    targets(dashboard).filter(move |(_, t)| everywhere || t["datasource"]["type"] == "loki")
}

fn target_promql(dashboard: &Value) -> Vec<String> {
    targets(dashboard)
        .filter_map(|(panel, target)| {
            let error = parse(text(&target["expr"])).err()?;
            Some(format!("{}: {}: {error}", title(panel), target["expr"]))
        })
        .collect()
}

fn target_rate_interval(dashboard: &Value) -> Vec<String> {
    each_selector(dashboard, |selector| {
        matches!(selector.call, Some("rate" | "irate"))
            && selector.range.is_some_and(|range| range != RATE_INTERVAL)
    })
}

fn target_matcher(dashboard: &Value, label: &str) -> Vec<String> {
    each_selector(dashboard, |s| !s.matches(label, &format!("${label}")))
}

fn target_counter_agg(dashboard: &Value) -> Vec<String> {
    each_selector(dashboard, |selector| {
        selector.metric().ends_with("_total")
            && !matches!(selector.call, Some("rate" | "irate" | "increase"))
    })
}

/// Returns the panels with a selector that is wrong. What does not parse is another rule's.
fn each_selector(
    dashboard: &Value,
    wrong: impl Fn(&crate::promql::Selector<'_>) -> bool,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (panel, target) in targets(dashboard) {
        if let Ok(expr) = parse(text(&target["expr"])) {
            let wrong = selectors(&expr).into_iter().filter(|s| wrong(s));
            complaints.extend(wrong.map(|s| format!("{}: {}", title(panel), s.metric())));
        }
    }
    complaints
}

fn uneditable(dashboard: &Value) -> Vec<String> {
    if dashboard["editable"] == false {
        Vec::new()
    } else {
        vec!["it can be edited".to_owned()]
    }
}
