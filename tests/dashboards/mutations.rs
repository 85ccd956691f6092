//! For every rule, dashboards that break it: a rule that lets one pass is no rule.

use serde_json::{Value, json};

use crate::model::dashboard;
use crate::{WORLD, house, linter};

/// The rule, where to break the fleet dashboard, and with what.
type Mutation = (&'static str, &'static str, Value);

fn of_the_linter() -> Vec<Mutation> {
    let naked = r#"eternal_program_crashes_total{job=~"$job", instance=~"$instance"}"#;
    let fixed = format!("rate({naked}[5m])");
    let without_job = r#"up{instance=~"$instance"}"#;
    let without_instance = r#"up{job=~"$job"}"#;
    let equal = r#"up{job="$job", instance=~"$instance"}"#;
    vec![
        (
            "template-datasource-rule",
            "/templating/list/0/type",
            json!("query"),
        ),
        (
            "template-datasource-rule",
            "/templating/list/0/name",
            json!("ds"),
        ),
        (
            "template-datasource-rule",
            "/templating/list/0/label",
            json!("DS"),
        ),
        (
            "template-job-rule",
            "/templating/list/1/name",
            json!("task"),
        ),
        (
            "template-job-rule",
            "/templating/list/1/allValue",
            json!(".*"),
        ),
        (
            "template-job-rule",
            "/templating/list/1/datasource/uid",
            json!("eternal-prometheus"),
        ),
        (
            "template-instance-rule",
            "/templating/list/2/multi",
            json!(false),
        ),
        (
            "template-instance-rule",
            "/templating/list/2/label",
            json!("Host"),
        ),
        (
            "template-instance-rule",
            "/templating/list/2/type",
            json!("custom"),
        ),
        (
            "template-label-promql-rule",
            "/templating/list/1/query/query",
            json!("up"),
        ),
        (
            "template-label-promql-rule",
            "/templating/list/1/query/query",
            json!("label_value(up, job)"),
        ),
        (
            "template-label-promql-rule",
            "/templating/list/1/query/query",
            json!("label_values(up{, job)"),
        ),
        (
            "template-on-time-change-reload-rule",
            "/templating/list/3/refresh",
            json!(1),
        ),
        (
            "panel-datasource-rule",
            "/panels/1/datasource/uid",
            json!("eternal-prometheus"),
        ),
        (
            "panel-datasource-rule",
            "/panels/1/targets/0/datasource/uid",
            json!("other"),
        ),
        (
            "panel-title-description-rule",
            "/panels/1/description",
            json!(""),
        ),
        (
            "panel-title-description-rule",
            "/panels/1/title",
            Value::Null,
        ),
        (
            "panel-units-rule",
            "/panels/1/fieldConfig/defaults/unit",
            Value::Null,
        ),
        (
            "panel-units-rule",
            "/panels/1/fieldConfig/defaults/unit",
            json!("seconds"),
        ),
        ("panel-no-targets-rule", "/panels/1/targets", json!([])),
        (
            "target-logql-rule",
            "/panels/1/targets/0/datasource/type",
            json!("loki"),
        ),
        (
            "target-logql-rule",
            "/templating/list/0/query",
            json!("loki"),
        ),
        (
            "target-logql-auto-rule",
            "/panels/2/targets/0/datasource/type",
            json!("loki"),
        ),
        (
            "target-promql-rule",
            "/panels/1/targets/0/expr",
            json!("sum(up"),
        ),
        ("target-promql-rule", "/panels/1/targets/0/expr", json!("")),
        (
            "target-rate-interval-rule",
            "/panels/1/targets/0/expr",
            json!(fixed),
        ),
        (
            "target-job-rule",
            "/panels/1/targets/0/expr",
            json!(without_job),
        ),
        ("target-job-rule", "/panels/1/targets/0/expr", json!(equal)),
        (
            "target-instance-rule",
            "/panels/1/targets/0/expr",
            json!(without_instance),
        ),
        (
            "target-counter-agg-rule",
            "/panels/1/targets/0/expr",
            json!(naked),
        ),
        ("uneditable-dashboard", "/editable", json!(true)),
    ]
}

fn of_the_house() -> Vec<Mutation> {
    let here = r#"job=~"$job", instance=~"$instance""#;
    let programs = format!(r#"{here}, program=~"$program""#);
    let exits =
        format!(r#"increase(eternal_program_exits_total{{{programs}, reason="boom"}}[5m])"#);
    vec![
        ("layout", "/panels/2/gridPos/x", json!(2)),
        ("layout", "/panels/2/gridPos/w", json!(25)),
        ("identity", "/panels/2/id", json!(1)),
        ("identity", "/panels/2/id", Value::Null),
        ("identity", "/panels/2/title", json!("Supervisors up")),
        ("header", "/schemaVersion", json!(41)),
        ("header", "/uid", json!("")),
        ("header", "/tags", json!([])),
        (
            "selectors-everywhere",
            "/annotations/list/0/expr",
            json!(r#"up{job=~"$job"}"#),
        ),
        (
            "selectors-everywhere",
            "/panels/1/targets/0/expr",
            json!(format!("eternal_program_up{{{here}}}")),
        ),
        (
            "selectors-everywhere",
            "/templating/list/2/query/query",
            json!("label_values(up, instance)"),
        ),
        (
            "metrics-exist",
            "/panels/1/targets/0/expr",
            json!(format!("eternal_supervisor_up{{{here}}}")),
        ),
        (
            "metrics-exist",
            "/annotations/list/0/expr",
            json!(format!("eternal_reload{{{here}}}")),
        ),
        (
            "labels-exist",
            "/panels/1/targets/0/expr",
            json!(format!("sum by (host) (up{{{here}}})")),
        ),
        (
            "labels-exist",
            "/panels/1/targets/0/expr",
            json!(format!(r#"up{{{here}, state="failed"}}"#)),
        ),
        ("labels-exist", "/panels/1/targets/0/expr", json!(exits)),
        (
            "counters-are-rated",
            "/panels/1/targets/0/expr",
            json!(format!(
                "eternal_program_run_duration_seconds_count{{{programs}}}"
            )),
        ),
        (
            "counters-are-rated",
            "/panels/1/targets/0/expr",
            json!(format!(
                "rate(eternal_program_up{{{programs}}}[$__rate_interval])"
            )),
        ),
        (
            "thresholds",
            "/panels/2/fieldConfig/defaults/thresholds/steps/1/value",
            json!(2),
        ),
        (
            "thresholds",
            "/panels/2/fieldConfig/defaults/thresholds/steps/1/color",
            json!("#E69F00"),
        ),
        ("thresholds", "/panels/2/links", json!([])),
        (
            "links",
            "/panels/2/links/0/url",
            json!("https://runbooks.example.com/eternal/Nothing"),
        ),
        ("variables", "/templating/list/3/name", json!("service")),
        ("variables", "/templating/list/3/includeAll", json!(false)),
        ("annotations", "/annotations/list/0/enable", json!(false)),
        ("annotations", "/annotations/list", json!([])),
    ]
}

/// Mutations of places that have no fixed number: found by what is there.
fn by_search() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    vec![
        ("thresholds", "crashes", r#""value":5.0"#, r#""value":6.0"#),
        ("thresholds", "program", r#""value":0.8"#, r#""value":0.9"#),
        (
            "thresholds",
            "program",
            r#""value":0.9856"#,
            r#""value":0.99"#,
        ),
        (
            "thresholds",
            "supervisor",
            r#""value":0.5"#,
            r#""value":0.6"#,
        ),
        (
            "thresholds",
            "supervisor",
            "process_start_time_seconds{job=~\\\"$job\\\", instance=~\\\"$instance\\\"}[30m]",
            "up{job=~\\\"$job\\\", instance=~\\\"$instance\\\"}[30m]",
        ),
        (
            "colours",
            "program",
            r##""color":"#D55E00","index":5"##,
            r##""color":"#E69F00","index":5"##,
        ),
        ("colours", "crashes", "#CC6677", "#CC6678"),
        ("links", "fleet", "/d/eternal-program?", "/d/program?"),
        ("links", "crashes", "&var-program=", "&var-service="),
        (
            "variables",
            "program",
            r#"program=~\"$program\""#,
            r#"program=~\"$job\""#,
        ),
    ]
}

fn complains(rule: &str, broken: &Value) -> bool {
    let ours = house::RULES.iter().find(|(name, _)| *name == rule);
    if let Some((_, check)) = ours {
        return !check(broken, &WORLD).is_empty();
    }
    let theirs = linter::RULES.iter().find(|(name, _)| *name == rule);
    let (_, check) = theirs.unwrap_or_else(|| panic!("there is no rule {rule}"));
    !check(broken).is_empty()
}

#[test]
fn every_rule_catches_a_dashboard_that_breaks_it() {
    let whole = dashboard("fleet");
    let mut caught = std::collections::BTreeSet::new();
    for (rule, place, value) in of_the_linter().into_iter().chain(of_the_house()) {
        let mut broken = whole.clone();
        let at = broken.pointer_mut(place);
        *at.unwrap_or_else(|| panic!("{rule}: nothing at {place}")) = value.clone();
        assert!(
            complains(rule, &broken),
            "{rule} lets {place} = {value} pass"
        );
        caught.insert(rule);
    }
    for (rule, name, from, to) in by_search() {
        let whole = whole_numbers_as_floats(&dashboard(name).to_string());
        let broken = whole.replace(from, to);
        assert_ne!(whole, broken, "{rule}: {name} has no {from}");
        let broken = serde_json::from_str(&broken).expect("it is still JSON");
        assert!(complains(rule, &broken), "{rule} lets {to} pass in {name}");
        caught.insert(rule);
    }
    let all = linter::RULES
        .iter()
        .map(|(n, _)| *n)
        .chain(house::RULES.iter().map(|(n, _)| *n));
    let never: Vec<&str> = all.filter(|rule| !caught.contains(rule)).collect();
    assert!(never.is_empty(), "never broken: {never:?}");
}

/// Writes the 5 of a threshold as 5.0, so that it can be told from a 5 elsewhere.
fn whole_numbers_as_floats(text: &str) -> String {
    text.replace(
        r##""color":"#D55E00","value":5"##,
        r##""color":"#D55E00","value":5.0"##,
    )
}
