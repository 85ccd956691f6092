//! The dashboards: Grafana's linter, our own rules, and a broken dashboard for each of them.

mod alerts;
mod catalogue;
mod house;
mod linter;
mod live;
mod model;
mod mutations;
mod promql;
mod thresholds;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use catalogue::Daemon;
use house::World;
use model::{NAMES, dashboard, list, panels, path, read, text, variables};
use serde_json::Value;

/// Alerts that no threshold can show: a missing target and a constant.
const WITHOUT_THRESHOLD: [&str; 2] = ["EternalSupervisorAbsent", "Watchdog"];

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let all = NAMES.map(dashboard);
    let mut colours = BTreeMap::new();
    for (name, colour) in all.iter().flat_map(house::named_colours) {
        colours.entry(name).or_insert(colour);
    }
    let uid_and_variables = |d: &Value| {
        let names = variables(d).iter().map(|v| text(&v["name"]).to_owned());
        (text(&d["uid"]).to_owned(), names.collect())
    };
    World {
        catalogue: catalogue::catalogue(&Daemon::start().settled_exposition()),
        rules: alerts::Rules::read(),
        colours,
        variables: all.iter().map(uid_and_variables).collect(),
    }
});

#[test]
fn the_seventeen_rules_of_the_linter_hold() {
    let mut complaints = Vec::new();
    for name in NAMES {
        let shipped = dashboard(name);
        for (rule, check) in linter::RULES {
            let found = check(&shipped).into_iter();
            complaints.extend(found.map(|c| format!("{name}: {rule}: {c}")));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn our_own_rules_hold() {
    let mut complaints = Vec::new();
    for name in NAMES {
        let shipped = dashboard(name);
        for (rule, check) in house::RULES {
            let found = check(&shipped, &WORLD).into_iter();
            complaints.extend(found.map(|c| format!("{name}: {rule}: {c}")));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_committed_json_is_what_the_generator_writes() {
    let out = Command::new("python3")
        .arg(path("grafana/generate.py"))
        .arg("--check")
        .output()
        .expect("python3 is there");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn no_two_dashboards_share_a_uid_or_a_title() {
    for key in ["uid", "title"] {
        let values: BTreeSet<String> = NAMES
            .iter()
            .map(|n| text(&dashboard(n)[key]).to_owned())
            .collect();
        assert_eq!(values.len(), NAMES.len(), "{key}: {values:?}");
    }
}

#[test]
fn every_alert_has_its_limit_drawn_and_its_runbook_linked_somewhere() {
    let all = NAMES.map(dashboard);
    let drawn: BTreeSet<String> = all
        .iter()
        .flat_map(|d| thresholds::drawn(d, &WORLD))
        .collect();
    let linked: BTreeSet<&str> = all
        .iter()
        .flat_map(panels)
        .flat_map(|panel| list(&panel["links"]))
        .map(|link| text(&link["url"]))
        .collect();
    let books = std::fs::read_dir(path("alerts/runbooks"))
        .expect("there are runbooks")
        .count();
    assert_eq!(
        WORLD.rules.alerts.len(),
        books,
        "one alert for each runbook"
    );
    for alert in &WORLD.rules.alerts {
        let exempt = WITHOUT_THRESHOLD.contains(&alert.name.as_str());
        assert!(
            exempt || drawn.contains(&alert.name),
            "no panel shows where {} begins",
            alert.name
        );
        assert!(
            linked.contains(alert.runbook_url.as_str()),
            "{}",
            alert.name
        );
    }
}

#[test]
fn every_panel_that_an_alert_sends_people_to_is_there() {
    let all = NAMES.map(dashboard);
    for alert in &WORLD.rules.alerts {
        let (title, wanted) = alert
            .dashboard
            .split_once(": ")
            .unwrap_or((&alert.dashboard, ""));
        let board = all.iter().find(|d| d["title"] == title);
        let board = board.unwrap_or_else(|| panic!("{}: no dashboard {title}", alert.name));
        let titles: Vec<String> = panels(board)
            .map(|p| text(&p["title"]).to_lowercase())
            .collect();
        for panel in wanted.split(", ") {
            let there = titles.iter().any(|t| t.contains(panel));
            assert!(there, "{}: no panel {panel} in {title}", alert.name);
        }
    }
}

#[test]
fn the_fleet_leads_to_the_program() {
    let fleet = dashboard("fleet");
    let links: Vec<String> = panels(&fleet)
        .flat_map(|p| house::data_links(&p["fieldConfig"]))
        .collect();
    assert!(
        links
            .iter()
            .any(|url| url.starts_with("/d/eternal-program?")),
        "{links:?}"
    );
}

#[test]
fn states_have_seven_different_colours() {
    let states = [
        "stopped",
        "starting",
        "running",
        "stopping",
        "backoff",
        "failed",
        "completed",
    ];
    let colours: BTreeSet<&String> = states
        .iter()
        .filter_map(|s| WORLD.colours.get(*s))
        .collect();
    assert_eq!(colours.len(), states.len(), "{colours:?}");
    let okabe_ito = [
        "#999999", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#D55E00", "#0072B2",
    ];
    assert!(
        colours.iter().all(|c| okabe_ito.contains(&c.as_str())),
        "{colours:?}"
    );
}

#[test]
fn provisioning_fixes_the_uid_and_the_scrape_interval() {
    let source = read("grafana/provisioning/datasources/prometheus.yml");
    for line in [
        "    uid: eternal-prometheus",
        "    type: prometheus",
        "      timeInterval: 15s",
    ] {
        assert!(source.lines().any(|l| l == line), "no line {line:?}");
    }
    let provider = read("grafana/provisioning/dashboards/eternal.yml");
    for line in ["    type: file", "    allowUiUpdates: false"] {
        assert!(provider.lines().any(|l| l == line), "no line {line:?}");
    }
}
