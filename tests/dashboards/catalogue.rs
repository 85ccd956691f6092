//! What the exporter exports, from a scrape of the real daemon with programs in several states.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A family and its labels, each with the values seen.
pub struct Family {
    pub kind: String,
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// Families by the name of the series, so a histogram is there three times.
pub type Catalogue = BTreeMap<String, Family>;

/// A running daemon with a program that runs, and others that crash, are killed, or cannot start:
/// slowly enough that a Prometheus started after it sees them do so.
pub struct Daemon {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

const CONFIG: &str = r#"
[defaults]
restart_delay = "100ms"
restart_delay_max = "1s"
crash_threshold = 4
stop_timeout = "1s"
[programs.steady]
command = ["sh", "-c", "echo hello; exec sleep 600"]
[programs.checked]
command = ["sleep", "600"]
health_check = "exec:false"
health_interval = "300ms"
health_failures = 1000000
[programs.crashing]
command = ["sh", "-c", "sleep 2; exit 3"]
[programs.killed]
command = ["sh", "-c", "sleep 2; kill -SEGV $$"]
[programs.looping]
command = ["sh", "-c", "sleep 0.3; exit 3"]
crash_threshold = 100000
[programs.waiting]
command = ["sh", "-c", "exit 3"]
restart_delay = "1h"
restart_delay_max = "1h"
[programs.missing]
command = ["/nonexistent"]
restart_delay = "1s"
restart_delay_max = "4s"
"#;

impl Daemon {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let config = directory.path().join("eternal.toml");
        let text = format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n{CONFIG}");
        std::fs::write(&config, text).expect("the directory can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_eternal"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    /// Returns where it is scraped.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Scrapes until everything that needs an event is there.
    pub fn settled_exposition(&self) -> String {
        let awaited = [
            "eternal_http_request_duration_seconds_bucket",
            "eternal_event_loop_lag_seconds_bucket",
            "eternal_program_last_exit_code",
            "eternal_program_last_exit_signal",
            "eternal_program_resident_memory_bytes",
            "eternal_program_start_time_seconds",
            "eternal_program_next_restart_timestamp_seconds",
        ];
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.scrape().unwrap_or_default();
            let missing: Vec<_> = awaited
                .iter()
                .filter(|name| !text.contains(*name))
                .collect();
            if missing.is_empty() {
                return text;
            }
            assert!(
                Instant::now() < deadline,
                "never exported: {missing:?}\n{text}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn scrape(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        drop(Command::new("kill").arg(pid).status());
        drop(self.child.wait());
    }
}

/// Reads an exposition, and adds the one family that is absent where no cgroup can be had.
pub fn catalogue(exposition: &str) -> Catalogue {
    let mut kinds = BTreeMap::new();
    let mut found = Catalogue::new();
    for line in exposition.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            kinds.extend(kind.split_once(' '));
        } else if let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|base| kinds.get(base) == Some(&"histogram"));
            let Some(kind) = kinds.get(base.unwrap_or(name)) else {
                continue;
            };
            let family = found.entry(name.to_owned()).or_insert_with(|| Family {
                kind: (*kind).to_owned(),
                labels: BTreeMap::new(),
            });
            for (label, value) in pairs(labels.trim_end_matches('}')) {
                family.labels.entry(label).or_default().insert(value);
            }
        }
    }
    let labels = ["program", "replica"].map(|label| (label.to_owned(), BTreeSet::new()));
    let of_cgroups = Family {
        kind: "counter".to_owned(),
        labels: labels.into(),
    };
    let name = "eternal_program_oom_kills_total".to_owned();
    found.entry(name).or_insert(of_cgroups);
    found
}

/// Splits `a="1",b="2"`. The programs here have no quotes or commas in their names.
fn pairs(labels: &str) -> impl Iterator<Item = (String, String)> {
    labels.split("\",").filter_map(|pair| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    })
}
