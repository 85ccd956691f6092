//! Every query, asked of a real Prometheus that scrapes the real daemon in a crash scenario.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::catalogue::Daemon;
use crate::model::{NAMES, dashboard, queries, read};

/// Empty when nothing is wrong, or when what they show cannot happen here.
const MAY_BE_EMPTY: [&str; 6] = [
    "panel “Alerts firing”",
    "panel “Out-of-memory kills”",
    "panel “Out-of-memory kills, 15 min”",
    "panel “Stop time”",
    "Refused reloads",
    "Restarts",
];

struct Prometheus {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes and evaluates each second; nothing if it is not installed.
    fn start(target: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let at = |name: &str| directory.path().join(name);
        let rules = read("alerts/eternal.rules.yml").replace("interval: 15s", "interval: 1s");
        std::fs::write(at("rules.yml"), rules).expect("the directory can be written");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             scrape_configs:\n- job_name: eternal\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        std::fs::write(at("prometheus.yml"), config).expect("the directory can be written");
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = free.local_addr().expect("it has an address").to_string();
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self {
            child,
            address,
            _directory: directory,
        })
    }

    fn ask(&self, query: &str) -> std::io::Result<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(std::io::Error::other)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn filled(query: &str) -> String {
    query
        .replace("$__rate_interval", "10s")
        .replace("$__range", "1m")
        .replace("\"$job\"", "\".+\"")
        .replace("\"$instance\"", "\".+\"")
        .replace("\"$program\"", "\".+\"")
}

#[test]
fn every_query_is_answered_by_a_real_prometheus_in_a_crash_scenario() {
    let daemon = Daemon::start();
    daemon.settled_exposition();
    let Some(prometheus) = Prometheus::start(&daemon.address()) else {
        eprintln!("skipped: prometheus is not installed");
        return;
    };
    let mut waiting: BTreeSet<(String, String)> = NAMES
        .iter()
        .flat_map(|name| queries(&dashboard(name)))
        .map(|(place, query)| (place, filled(&query)))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline && !waiting.is_empty() {
        waiting.retain(|(place, query)| {
            let Ok(answer) = prometheus.ask(query) else {
                return true;
            };
            // It answers 503 without a status while it starts.
            assert_ne!(answer["status"], "error", "{place}: {query}: {answer}");
            answer["data"]["result"]
                .as_array()
                .is_none_or(Vec::is_empty)
        });
        waiting.retain(|(place, _)| !(MAY_BE_EMPTY.contains(&place.as_str()) && waited(deadline)));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(
        waiting.is_empty(),
        "never answered with anything: {waiting:#?}"
    );
}

/// Gives what may be empty ten seconds to be found in error.
fn waited(deadline: Instant) -> bool {
    deadline.saturating_duration_since(Instant::now()) < Duration::from_secs(50)
}
