//! The README says what the program does: its tables and examples are held to the code, the rules
//! and a live exposition, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eternal::config::{Section, reference};

const DEADLINE: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// Returns the cells of every table row below a heading, up to the next heading.
fn table(readme: &str, heading: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in readme.lines() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
        } else if inside && line.starts_with("| `") {
            rows.push(cells(line));
        }
    }
    assert!(!rows.is_empty(), "there is a table under {heading:?}");
    rows
}

/// Splits a row; `\|` is a bar in a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{1}");
    line.trim()
        .trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().replace('\u{1}', "|"))
        .collect()
}

fn bare(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// Returns the fenced blocks of a language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in readme.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(word)) => open = Some((word == language, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, text)) = open.take() {
                    found.push(text);
                }
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(!found.is_empty(), "there is a ```{language} block");
    found
}

fn eternal(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eternal"));
    command.args(words).current_dir(directory);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETERNAL_")) {
        command.env_remove(name);
    }
    command
}

#[test]
fn every_configuration_key_is_listed_with_its_default() {
    let readme = readme();
    let mut differences = Vec::new();
    for (section, heading) in [
        (Section::Daemon, "`[daemon]`"),
        (Section::Metrics, "`[metrics]`"),
        (Section::Tracing, "`[tracing]`"),
        (Section::Program, "`[programs.NAME]` and `[defaults]`"),
    ] {
        let written: BTreeMap<String, String> = table(&readme, heading)
            .iter()
            .map(|row| (bare(&row[0]), bare(&row[1])))
            .collect();
        let real: BTreeMap<String, String> = reference()
            .iter()
            .filter(|key| key.section == section)
            .map(|key| {
                let default = match key.default {
                    "" => "unset",
                    text => text,
                };
                (key.name.to_owned(), default.to_owned())
            })
            .collect();
        differences.extend(compare(heading, &written, &real));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Says where two tables differ.
fn compare(
    what: &str,
    written: &BTreeMap<String, String>,
    real: &BTreeMap<String, String>,
) -> Vec<String> {
    let names: BTreeSet<&String> = written.keys().chain(real.keys()).collect();
    names
        .into_iter()
        .filter(|name| written.get(*name) != real.get(*name))
        .map(|name| {
            let (written, real) = (written.get(name), real.get(name));
            format!("{what}: {name}: the README says {written:?}, it is {real:?}")
        })
        .collect()
}

#[test]
fn a_difference_is_found() {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let real = map(&[("a", "1"), ("b", "2")]);
    assert!(compare("t", &real, &real).is_empty());
    assert_eq!(compare("t", &map(&[("a", "1")]), &real).len(), 1);
    assert_eq!(
        compare("t", &map(&[("a", "1"), ("b", "3")]), &real).len(),
        1
    );
    let more = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(compare("t", &more, &real).len(), 1);
}

#[test]
fn every_alert_is_listed_with_its_severity_and_a_runbook() {
    let rules = fs::read_to_string(root().join("alerts/eternal.rules.yml")).expect("the rules");
    let mut real = BTreeMap::new();
    let mut name = String::new();
    for line in rules.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            name = alert.to_owned();
        } else if let Some(severity) = line.strip_prefix("severity: ") {
            real.insert(name.clone(), severity.to_owned());
        }
    }
    let mut written = BTreeMap::new();
    for row in table(&readme(), "Alerts").iter().filter(|r| r.len() == 4) {
        let name = bare(&row[0]);
        let link = format!("[runbook](alerts/runbooks/{name}.md)");
        assert_eq!(row[3], link, "the runbook of {name}");
        let file = root().join(format!("alerts/runbooks/{name}.md"));
        assert!(file.is_file(), "{} exists", file.display());
        written.insert(name, row[1].clone());
    }
    let differences = compare("alerts", &written, &real);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_example_of_a_configuration_is_valid() {
    for block in blocks(&readme(), "toml") {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("eternal.toml"), &block).expect("a file");
        let output = eternal(directory.path(), &["check", "--file-only"])
            .output()
            .expect("it runs");
        let problems = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{problems}");
    }
}

#[test]
fn every_command_of_the_examples_exists() {
    let readme = readme();
    let directory = tempfile::tempdir().expect("a directory");
    let help = eternal(directory.path(), &["--help"])
        .output()
        .expect("help");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let verbs: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains("run"), "the help lists the verbs: {help}");

    for block in blocks(&readme, "console") {
        for line in block.lines() {
            let Some(words) = line.strip_prefix("$ eternal ") else {
                continue;
            };
            let verb = words
                .split_whitespace()
                .find(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .filter(|word| !word.starts_with('-'));
            assert!(verb.is_none_or(|v| verbs.contains(v)), "{line}");
        }
    }
    let listed: BTreeSet<String> = table(&readme, "Commands")
        .iter()
        .filter_map(|row| bare(&row[0]).split_whitespace().nth(1).map(str::to_owned))
        .collect();
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(listed, verbs, "the table of commands and the help");
}

#[test]
fn every_link_into_the_repository_leads_somewhere() {
    let readme = readme();
    for target in readme.split("](").skip(1) {
        let target = target.split(')').next().unwrap_or_default();
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || path.contains("://") {
            continue;
        }
        assert!(root().join(path).exists(), "{target} exists");
    }
}

/// Three ways to be, so that every family has a sample: up, ended with a code, ended by a signal.
/// The wait after the first crash is an hour.
const SCENE: &str = r#"
[daemon]
log_file = ""
[metrics]
listen = "unix:metrics.sock"
[defaults]
restart_delay = "1h"
[programs.up]
command = ["sleep", "3600"]
health_check = "exec:true"
[programs.code]
command = ["sh", "-c", "exit 3"]
[programs.signal]
command = ["sh", "-c", "kill -9 $$"]
"#;

struct Daemon {
    process: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("eternal.toml"), SCENE).expect("a config");
        let process = eternal(directory.path(), &["run"])
            .stderr(Stdio::null())
            .spawn()
            .expect("a daemon");
        Self { process, directory }
    }

    fn scrape(&self) -> Option<String> {
        let mut stream = UnixStream::connect(self.directory.path().join("metrics.sock")).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Scrapes until the page holds all of `wanted`. The first answer also lets the HTTP families
    /// have a sample in the next.
    fn scrape_until(&self, wanted: &[&str]) -> String {
        let began = Instant::now();
        let mut page = String::new();
        while began.elapsed() < DEADLINE {
            page = self.scrape().unwrap_or_default();
            if wanted.iter().all(|sample| page.contains(sample)) {
                return page;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no scrape with {wanted:?}:\n{page}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}

/// Returns of every family: type, labels beyond `program` and `replica`, help.
fn families(page: &str) -> BTreeMap<String, String> {
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            helps.insert(name.to_owned(), help.to_owned());
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            kinds.insert(name.to_owned(), kind.to_owned());
            current = name.to_owned();
        } else if line.starts_with(&current) && !current.is_empty() {
            let names = line.split("=\"").filter_map(|part| {
                let name = part.rsplit(['{', ',']).next()?;
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_')
                    .then(|| name.to_owned())
            });
            let known = labels.entry(current.clone()).or_default();
            known.extend(names.filter(|name| {
                !name.is_empty() && !matches!(name.as_str(), "program" | "replica" | "le")
            }));
        }
    }
    kinds
        .into_iter()
        .map(|(name, kind)| {
            let labels: Vec<String> = labels.remove(&name).into_iter().flatten().collect();
            let help = helps.remove(&name).unwrap_or_default();
            let row = format!("{kind} | {} | {help}", labels.join(", "));
            (name, row)
        })
        .collect()
}

#[test]
fn every_exported_metric_is_listed_with_its_type_labels_and_meaning() {
    let daemon = Daemon::start();
    let page = daemon.scrape_until(&[
        "eternal_program_last_exit_code{program=\"code\",replica=\"0\"} 3",
        "eternal_http_requests_total{",
        "eternal_http_request_duration_seconds_bucket{",
        "eternal_event_loop_lag_seconds_bucket{",
        "eternal_program_last_exit_signal{program=\"signal\",replica=\"0\"} 9",
        "eternal_http_requests_total{",
        "eternal_program_next_restart_timestamp_seconds{",
        "eternal_program_start_time_seconds{program=\"up\"",
    ]);
    let readme = readme();
    let mut written = BTreeMap::new();
    for heading in ["Of each program", "Of the daemon"] {
        for row in table(&readme, heading) {
            let labels: BTreeSet<String> = row[2]
                .split(',')
                .map(|label| bare(label.trim()))
                .filter(|label| !label.is_empty())
                .collect();
            let labels: Vec<String> = labels.into_iter().collect();
            let text = format!("{} | {} | {}", row[1], labels.join(", "), row[3]);
            written.insert(bare(&row[0]), text);
        }
    }
    let differences = compare("metrics", &written, &families(&page));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
