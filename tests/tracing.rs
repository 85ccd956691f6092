//! Spans, as a collector gets them: the real daemon, a real socket, and collectors that fail.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "these enums are other people's, and grow"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// More than a loaded machine needs for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a collector does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Accepts,
    Fails,
    NeverAnswers,
}

struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let shelf = Arc::clone(&bodies);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                if manner == Manner::NeverAnswers {
                    held.push(stream);
                    continue;
                }
                let body = read_request(&stream);
                if manner == Manner::Accepts {
                    shelf
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(body);
                }
                let code = if manner == Manner::Accepts {
                    "200 OK"
                } else {
                    "500 Oops"
                };
                let _ = write!(&stream, "HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Self { address, bodies }
    }

    fn raw(&self) -> Vec<Vec<u8>> {
        self.bodies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let decode = |body: Vec<u8>| ExportTraceServiceRequest::decode(&*body).expect("OTLP");
        self.raw().into_iter().map(decode).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|r| r.resource_spans);
        let scopes = resources.flat_map(|r| r.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

fn read_request(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).expect("a request line");
    assert!(line.starts_with("POST /v1/traces HTTP/1.1"), "{line}");
    while line.trim() != "" {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    body
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        _ => None,
    };
    of.iter()
        .filter_map(|attribute| Some((attribute.key.clone(), text(attribute)?)))
        .collect()
}

fn failed(span: &Span) -> bool {
    span.status
        .as_ref()
        .is_some_and(|status| status.code() == StatusCode::Error)
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn eternal(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eternal"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_remove("ETERNAL_CONFIG")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn configured(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("eternal.toml"), text).expect("the file is written");
    directory
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, signal).expect("it is there");
}

#[test]
fn a_crash_loop_is_told_as_linked_spans_without_secrets() {
    let collector = Collector::start(Manner::Accepts);
    let directory = configured(&format!(
        "[daemon]\nlog_format = 'json'\n[metrics]\nlisten = ''\n\
         [tracing]\notlp_endpoint = 'http://{}'\n\
         [programs.web]\ncommand = ['sh', '-c', 'exit 3', '--password=hunter2']\n\
         environment = {{ TOKEN = 'hunter2' }}\nrestart_delay = '1ms'\ncrash_threshold = 3\n",
        collector.address
    ));
    let code = eternal(directory.path(), &["run"])
        .status()
        .expect("the daemon runs");
    assert_eq!(code.code(), Some(1));

    let spans = collector.spans();
    let exits = named(&spans, "exit");
    assert_eq!(exits.len(), 3);
    for exit in &exits {
        let facts = attributes(&exit.attributes);
        assert_eq!(facts["eternal.program"], "web");
        assert_eq!(facts["eternal.exit.reason"], "exit_code");
        assert_eq!(facts["process.exit.code"], "3");
        assert!(failed(exit));
    }
    assert_eq!(named(&spans, "start").len(), 1);
    let restarts = named(&spans, "restart");
    assert_eq!(restarts.len(), 2);
    for (restart, exit) in restarts.iter().zip(&exits) {
        assert_eq!(restart.links.len(), 1);
        assert_eq!(restart.links[0].span_id, exit.span_id, "linked to its exit");
        assert!(restart.start_time_unix_nano >= exit.end_time_unix_nano);
        assert_eq!(
            attributes(&restart.attributes)["eternal.restart.cause"],
            "crash"
        );
    }
    assert_eq!(named(&spans, "shutdown").len(), 1);

    let resource = collector.requests()[0].resource_spans[0].resource.clone();
    let resource = attributes(&resource.expect("a resource").attributes);
    assert_eq!(resource["service.name"], "eternal");
    for key in ["service.version", "service.instance.id", "host.name"] {
        assert!(!resource[key].is_empty(), "{key}");
    }
    for body in collector.raw() {
        let secret = body.windows(7).any(|window| window == b"hunter2");
        assert!(!secret, "neither arguments nor environment");
    }

    let log = fs::read_to_string(directory.path().join("logs/daemon.log")).expect("a log");
    let exited = log.lines().find(|line| line.contains("\"exited: "));
    let exited: serde_json::Value =
        serde_json::from_str(exited.expect("the exit was logged")).expect("JSON");
    assert_eq!(exited["trace_id"], hex(&exits[0].trace_id));
    assert_eq!(exited["span_id"], hex(&exits[0].span_id));
}

#[test]
fn a_program_finds_the_span_of_its_start_in_its_environment() {
    let collector = Collector::start(Manner::Accepts);
    let directory = configured(&format!(
        "[metrics]\nlisten = ''\n[tracing]\notlp_endpoint = 'http://{}'\n\
         [defaults]\ncommand = ['sh', '-c', \
         'echo $TRACEPARENT $TRACESTATE >>$ETERNAL_PROGRAM.found; exit 3']\n\
         restart_delay = '1ms'\ncrash_threshold = 3\n\
         [programs.web]\n[programs.own]\nenvironment = {{ TRACEPARENT = 'mine' }}\n",
        collector.address
    ));
    let code = eternal(directory.path(), &["run"])
        // Whoever started the daemon is not whoever starts its programs.
        .env("TRACEPARENT", "theirs")
        .env("TRACESTATE", "theirs")
        .status()
        .expect("the daemon runs");
    assert_eq!(code.code(), Some(1));

    let spans = collector.spans();
    let starts = spans.iter().filter(|span| {
        let of_web = attributes(&span.attributes).get("eternal.program") == Some(&"web".to_owned());
        of_web && ["start", "restart"].contains(&span.name.as_str())
    });
    let expected: Vec<String> = starts
        .map(|span| format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)))
        .collect();
    assert_eq!(expected.len(), 3);
    let found = |program: &str| {
        let file = directory.path().join(format!("{program}.found"));
        fs::read_to_string(file).expect("the program ran")
    };
    assert_eq!(found("web").lines().collect::<Vec<_>>(), expected);
    assert_eq!(found("own"), "mine\n".repeat(3), "the configuration wins");
}

#[test]
fn without_tracing_the_environment_is_left_alone() {
    let directory = configured(
        "[metrics]\nlisten = ''\n[programs.web]\nrestart = 'never'\n\
         command = ['sh', '-c', 'echo $TRACEPARENT >found']\n",
    );
    let code = eternal(directory.path(), &["run"])
        .env("TRACEPARENT", "theirs")
        .status()
        .expect("the daemon runs");
    assert_eq!(code.code(), Some(0));
    let found = fs::read_to_string(directory.path().join("found"));
    assert_eq!(found.expect("the program ran"), "theirs\n");
}

#[test]
fn a_stop_a_reload_and_the_end_are_told_with_what_belongs_to_them() {
    let collector = Collector::start(Manner::Accepts);
    let directory = configured(
        "[metrics]\nlisten = ''\n[programs.deaf]\n\
         command = ['sh', '-c', 'trap \"\" TERM; echo >started; while :; do sleep 1; done']\n\
         stop_timeout = '100ms'\n",
    );
    let child = eternal(directory.path(), &["run"])
        // The environment is enough.
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .spawn();
    let mut child = child.expect("the daemon starts");
    wait_for("the program runs", || {
        directory.path().join("started").exists()
    });
    let reload = eternal(directory.path(), &["reload"]).status();
    assert!(reload.expect("the command runs").success());
    let text = fs::read_to_string(directory.path().join("eternal.toml")).expect("the config");
    fs::write(directory.path().join("eternal.toml"), "nonsense").expect("it is written");
    signal(&child, nix::sys::signal::Signal::SIGHUP);
    let log = directory.path().join("logs/daemon.log");
    wait_for("the reload is refused", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("reload failed"))
    });
    fs::write(directory.path().join("eternal.toml"), text).expect("it is written");
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));

    let spans = collector.spans();
    let reloads: Vec<bool> = named(&spans, "reload").into_iter().map(failed).collect();
    assert_eq!(reloads, [false, true]);
    let only = |name: &str| {
        let found = named(&spans, name);
        assert_eq!(found.len(), 1, "{name}");
        found[0]
    };
    let (shutdown, stop, exit) = (only("shutdown"), only("stop"), only("exit"));
    assert_eq!(stop.parent_span_id, shutdown.span_id);
    assert_eq!(exit.parent_span_id, stop.span_id);
    assert_eq!(
        attributes(&stop.attributes)["eternal.stop.escalated"],
        "true"
    );
    for phase in [only("wait"), only("escalate")] {
        assert_eq!(phase.parent_span_id, stop.span_id);
    }
    assert!(only("wait").end_time_unix_nano <= only("escalate").start_time_unix_nano);
    assert_eq!(attributes(&exit.attributes)["eternal.exit.signal"], "9");
    assert!(!failed(exit), "an end that was asked for is no crash");
}

/// Scrapes the daemon; `None` while it does not answer.
fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0.0)
}

/// Restarts a program hundreds of times; returns the mean restart latency and how long the
/// daemon took to end.
fn busy(endpoint: &str, lossy: bool) -> (Duration, Duration) {
    const RESTARTS: f64 = 300.0;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let directory = configured(&format!(
        "[metrics]\nlisten = '{address}'\n[tracing]\notlp_endpoint = '{endpoint}'\n\
         [programs.a]\ncommand = ['true']\nrestart_delay = '1ms'\nrestart_delay_max = '1ms'\n"
    ));
    let child = eternal(directory.path(), &["run"])
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        .spawn();
    let mut child = child.expect("the daemon starts");
    let (count, sum) = (
        "eternal_program_restart_latency_seconds_count",
        "eternal_program_restart_latency_seconds_sum",
    );
    let mut page = String::new();
    wait_for("it restarts", || {
        std::thread::park_timeout(Duration::from_millis(50));
        page = scrape(address).unwrap_or_default();
        value(&page, count) >= RESTARTS
    });
    let mean = Duration::from_secs_f64(value(&page, sum) / value(&page, count));
    if lossy {
        wait_for("lost spans are counted", || {
            std::thread::park_timeout(Duration::from_millis(100));
            let page = scrape(address).unwrap_or_default();
            value(&page, "eternal_otlp_spans_dropped_total") > 0.0
        });
    }
    let began = Instant::now();
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    (mean, began.elapsed())
}

#[test]
fn no_collector_however_bad_holds_supervision_up() {
    let (without, _) = busy("", false);
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let failing = Collector::start(Manner::Fails);
    let silent = Collector::start(Manner::NeverAnswers);
    let good = Collector::start(Manner::Accepts);
    for (name, endpoint, lossy) in [
        ("good", format!("http://{}", good.address), false),
        ("dead", refused, true),
        ("failing", format!("http://{}", failing.address), true),
        ("silent", format!("http://{}", silent.address), true),
    ] {
        let (mean, end) = busy(&endpoint, lossy);
        println!("{name}: restart {mean:?} (without tracing {without:?}), end after {end:?}");
        // A queue that blocked would show as seconds; a machine that is busy elsewhere as this.
        let noise = Duration::from_millis(50);
        assert!(
            mean < without * 3 + noise,
            "{name}: {mean:?} and {without:?}"
        );
        assert!(end < Duration::from_secs(6), "{name}: {end:?}");
    }
}

#[test]
fn the_last_spans_are_waited_for_but_not_for_long() {
    let silent = Collector::start(Manner::NeverAnswers);
    let directory = configured(&format!(
        "[metrics]\nlisten = ''\n[tracing]\notlp_endpoint = 'http://{}'\n\
         [programs.a]\ncommand = ['false']\nrestart = 'never'\n",
        silent.address
    ));
    let began = Instant::now();
    let code = eternal(directory.path(), &["run"]).status();
    assert_eq!(code.expect("the daemon runs").code(), Some(1));
    // Three seconds, and what starting and ending take on a loaded machine.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    println!("ended after {:?}", began.elapsed());
    let log = fs::read_to_string(directory.path().join("logs/daemon.log")).expect("a log");
    // Start, exit and shutdown.
    assert!(log.contains("spans lost at the end: 3"), "{log}");
}

#[test]
fn an_endpoint_that_cannot_be_used_ends_the_start() {
    let directory = configured(
        "[metrics]\nlisten = ''\n[programs.a]\ncommand = ['sh', '-c', 'echo >started']\n",
    );
    let output = eternal(directory.path(), &["run"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
        .stderr(Stdio::piped())
        .output()
        .expect("the command runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("cannot export spans to collector:4318/v1/traces: "),
        "{message}"
    );
    assert!(!directory.path().join("started").exists());
}
