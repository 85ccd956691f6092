//! Secrets that others could read: one in every place where somebody may have put one, and everything
//! that strangers, log readers and collectors get to see.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use nix::sys::signal::Signal;

use crate::exchange;
use crate::world::{Daemon, World, eventually};

/// Every secret begins with it.
const CANARY: &str = "hunter5";
const PASSWORD: &str = "hunter5-password";

const GOOD: &str = "environment = { TOKEN = \"hunter5-environment\" }";

/// Mistakes that hold a secret, as lines of the program `web`.
const MISTAKES: [&str; 8] = [
    "environment = { TOKEN = \"hunter5-line\", DB = 7x }",
    "environment = { TOKEN = \"hunter5-brace\" } }",
    "environment = { \"TOKEN=hunter5-name\" = \"x\" }",
    "environment = [\"TOKEN=hunter5-array\"]",
    "unknown = \"hunter5-unknown\"",
    "stop_signal = \"hunter5-signal\"",
    "nice = \"hunter5-nice\" # hunter5-behind",
    "health_check = \"https://user:hunter5-url@host/\"",
];

/// Keeps the bodies that exporters send, and is a sick server to whoever checks it.
fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let shelf = Arc::clone(&bodies);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // What has no body is a health check.
            let body = received(&stream).unwrap_or_default();
            let code = if body.is_empty() {
                "500 Sick"
            } else {
                "200 OK"
            };
            let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.extend(body);
            let _ = write!(&stream, "HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, bodies)
}

fn received(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// `line` is one of the program `web`; `format` is that of the log.
fn config(line: &str, format: &str, endpoint: SocketAddr) -> String {
    format!(
        "# hunter5-comment\n\
         [daemon]\nlog_level = 'trace'\nlog_format = '{format}'\n\
         [metrics]\nlisten = 'unix:metrics.sock'\nbasic_auth_file = 'users'\n\
         [tracing]\notlp_endpoint = 'http://{endpoint}'\n\
         [defaults]\nready = 'immediately'\nrestart_delay = '10ms'\ncrash_threshold = 2\n\
         [programs.web]\ncommand = ['sh', '-c', 'echo up; exec sleep 1000', '--password=hunter5-argv']\n\
         env_file = 'good.env'\n{line}\n\
         [programs.dies]\ncommand = ['sh', '-c', 'exit 3', 'hunter5-crash']\n\
         [programs.words]\ncommand = ['./none --token=hunter5-word']\n\
         [programs.lost]\ncommand = ['no-such-program', 'hunter5-lost']\nenvironment = {{ PATH = '/hunter5-path' }}\n\
         [programs.reads]\ncommand = ['true']\nenv_file = 'bad.env'\n\
         [programs.checked]\ncommand = ['sleep', '1000']\nhealth_check = 'exec:sh -c false hunter5-probe'\nhealth_interval = '20ms'\n\
         [programs.slow]\ncommand = ['sleep', '1000']\nhealth_check = 'exec:sh slow.sh hunter5-slow'\nhealth_interval = '20ms'\nhealth_timeout = '20ms'\n\
         [programs.late]\ncommand = ['sleep', '1000']\nready = 'exec:sh -c false hunter5-ready'\nstart_timeout = '100ms'\n\
         [programs.asked]\ncommand = ['sleep', '1000']\nhealth_check = 'http://{endpoint}/live?token=hunter5-query'\nhealth_interval = '20ms'\n"
    )
}

fn world(format: &str, endpoint: SocketAddr) -> World {
    let world = World::new(&config(GOOD, format, endpoint));
    world.write("good.env", "TOKEN=hunter5-file\n");
    world.write("bad.env", "TOKEN=hunter5-before\nhunter5-alone\n");
    let hash = bcrypt::hash(PASSWORD, 4).expect("a hash");
    world.write("slow.sh", "exec sleep 1000\n");
    world.write("users", &format!("# hunter5-users\nprom: {hash}\n"));
    world
}

fn started(world: &World) -> Daemon<'_> {
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env("SECRET", "hunter5-own")
        .env("ETERNAL_LOG_LEVEL", "hunter5-misspelt")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter5-header");
    let daemon = world.launch_as(command);
    daemon.answers();
    daemon
}

/// A page of the metrics listener, for somebody who knows the password.
fn page(world: &World, path: &str) -> String {
    let login = format!("prom:{PASSWORD}");
    let login = base64::engine::general_purpose::STANDARD.encode(login);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic {login}\r\nconnection: close\r\n\r\n"
    );
    let stream = UnixStream::connect(world.path("metrics.sock")).expect("a listener");
    let (head, body) = exchange(stream, request.as_bytes()).expect("an answer");
    assert!(!head.starts_with("http/1.1 401"), "{head}");
    format!("{head}\n{body}")
}

fn is_clean(place: &str, text: &str) {
    let at = text.find(CANARY);
    let around = at.map(|at| {
        let begin = text.floor_char_boundary(at.saturating_sub(200));
        &text[begin..text.ceil_char_boundary((at + 100).min(text.len()))]
    });
    assert!(
        at.is_none(),
        "a secret in {place}: …{}…",
        around.unwrap_or_default()
    );
}

fn pages_are_clean(world: &World) {
    for path in ["/", "/metrics", "/sd", "/-/ready", "/-/healthy"] {
        is_clean(path, &page(world, path));
    }
}

/// Sockets are for whoever they are for, and tell nothing by being there.
fn is_private(path: &Path) {
    let found = fs::symlink_metadata(path).expect("there");
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() {
        assert_eq!(mode & 0o177, 0, "{} has mode {mode:o}", path.display());
    } else if found.is_dir() {
        assert_eq!(mode & 0o022, 0, "{} has mode {mode:o}", path.display());
        for entry in fs::read_dir(path).expect("entries").flatten() {
            is_private(&entry.path());
        }
    }
}

fn no_secret_is_seen(format: &str) {
    let (endpoint, spans) = collector();
    let world = world(format, endpoint);
    let mut daemon = started(&world);
    for (program, words) in [
        ("dies", "exit code 3"),
        ("words", "cannot execute"),
        ("lost", "no such file"),
        ("reads", "bad.env"),
        ("late", "not ready"),
        ("checked", "health check failed"),
        ("asked", "/live answered 500"),
        ("slow", "health check failed"),
    ] {
        world.logged(&[program, words]);
    }
    world.is("web", "running");
    pages_are_clean(&world);
    for (count, line) in (1..).zip(MISTAKES) {
        world.write("eternal.toml", &config(line, format, endpoint));
        daemon.signal(Signal::SIGHUP);
        eventually(&format!("the reload of {line:?} is refused"), || {
            let refused = world
                .log()
                .matches("reload failed, nothing changed")
                .count();
            (refused >= count).then_some(())
        });
        let seen = page(&world, "/");
        assert!(seen.contains("The last reload"), "{seen}");
        pages_are_clean(&world);
    }
    let crashes = world.get("/v1/crashes").expect("an answer").1;
    assert!(crashes.contains("dies"), "{crashes}");
    is_clean("the crash records", &crashes);
    is_private(&world.path("state"));
    daemon.is_stopped();
    let spans = spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let spans = String::from_utf8_lossy(&spans).into_owned();
    assert!(spans.contains("eternal.program"), "spans have come");
    is_clean("the spans", &spans);
    is_clean("the log", &world.log());
    is_clean("standard output", &world.read("stdout"));
    is_clean("standard error", &world.read("stderr"));
}

#[test]
fn no_secret_is_seen_on_a_page_in_the_text_log_in_spans_or_in_crash_records() {
    no_secret_is_seen("text");
}

#[test]
fn no_secret_is_seen_where_the_log_is_json() {
    no_secret_is_seen("json");
}
