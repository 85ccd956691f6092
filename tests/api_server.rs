//! The bundled API server over real sockets, as a real process with real signals.
//!
//! The process is this test binary itself, started again to run only `serves_as_a_child`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use eternal::api_server::{Options, run};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
#[ignore = "the server process of the other tests, not a test"]
fn serves_as_a_child() {
    let Ok(settings) = std::env::var("API_SERVER_TEST") else {
        return;
    };
    let mut options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        rate: None,
        ..Options::default()
    };
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').expect("key=value");
        match key {
            "listen" => options.listen = value.parse().expect("address"),
            "chaos" => options.chaos = true,
            "rate" => options.rate = Some(value.parse().expect("rate")),
            "burst" => options.burst = value.parse::<NonZeroU32>().expect("burst"),
            "proxy" => options
                .trusted_proxies
                .push(value.parse().expect("network")),
            "timeout_ms" => {
                options.read_timeout = Duration::from_millis(value.parse().expect("ms"));
            }
            _ => panic!("unknown setting {key}"),
        }
    }
    let ended_well = run(options) == std::process::ExitCode::SUCCESS;
    std::process::exit(if ended_well { 0 } else { 1 });
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    output: BufReader<std::process::ChildStdout>,
}

fn command(settings: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args([
            "--exact",
            "serves_as_a_child",
            "--ignored",
            "--nocapture",
            "--quiet",
        ])
        .env("API_SERVER_TEST", settings)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    fn start(settings: &str) -> Self {
        Self::spawn(command(settings).stderr(Stdio::null()))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("spawn the server");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let line = line_with(&mut output, "listening on http://");
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        let address = address
            .and_then(|text| text.parse().ok())
            .expect("an address");
        Self {
            child,
            address,
            output,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream
    }

    /// Sends raw bytes and reads one answer.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses early may close before it has everything.
        let _ = stream.write_all(bytes);
        Answer::read(&mut BufReader::new(stream), false)
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let mut stream = self.connect();
        let _ = write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        Answer::read(&mut BufReader::new(stream), method == "HEAD")
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    fn post(&self, path: &str) -> Answer {
        self.send("POST", path, "", "")
    }

    fn health(&self) -> Value {
        self.get("/health").json()
    }

    /// Waits until so many requests are in progress, the one that asks included.
    fn until_active(&self, requests: u64) {
        let started = Instant::now();
        while self.health()["requests"]["inProgress"] != requests {
            assert!(
                started.elapsed() < DEADLINE,
                "{requests} requests were never active"
            );
        }
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).expect("pid")),
            signal,
        )
        .expect("kill");
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pid"));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = tell.send(ended);
    });
    told.recv_timeout(DEADLINE)
        .expect("the server ends in time")
        .expect("waitid");
    child.wait().expect("wait")
}

fn line_with(output: &mut impl BufRead, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        let read = output.read_line(&mut line).expect("read the output");
        assert!(read > 0, "the output ended without {text:?}: {seen}");
        if line.contains(text) {
            return line;
        }
        seen.push_str(&line);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut impl BufRead, is_head: bool) -> Self {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = stream.read_line(&mut head).expect("read the head");
            assert!(read > 0, "the connection closed after {head:?}");
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("status");
        let mut answer = Self {
            status,
            head: head.to_lowercase(),
            body: String::new(),
        };
        if !is_head {
            let length = answer.header("content-length").expect("content-length");
            let mut body = vec![0; length.parse().expect("a length")];
            stream.read_exact(&mut body).expect("read the body");
            answer.body = String::from_utf8(body).expect("utf-8");
        }
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    #[track_caller]
    fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}{}", self.head, self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        let error = &self.json()["error"];
        assert_eq!(error["status"], status);
        assert_eq!(error["code"], code);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{error}"
        );
    }
}

#[test]
fn health_tells_what_the_contract_names() {
    let server = Server::start("");
    server.get("/nowhere").assert_error(404, "not_found");
    let answer = server.get("/health");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let health = answer.json();
    assert_eq!(
        (&health["status"], &health["service"]),
        (&"ok".into(), &"api-server".into())
    );
    let timestamp: jiff::Timestamp = health["timestamp"]
        .as_str()
        .expect("text")
        .parse()
        .expect("RFC 3339");
    assert!(timestamp.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    assert!(
        health["uptime"].as_u64().is_some_and(|uptime| uptime < 60),
        "{health}"
    );
    let memory = |key: &str| health["memory"][key].as_u64().expect("bytes");
    assert!(
        memory("rss") > 1 << 20 && memory("virtual") > memory("rss"),
        "{health}"
    );
    assert_eq!(
        health["errors"],
        serde_json::json!({"total":0,"lastHour":0,"lastMinute":0})
    );
    let requests = serde_json::json!({"total":1,"inProgress":1,"byStatus":{"404":1}});
    assert_eq!(health["requests"], requests);
}

#[test]
fn the_index_the_time_and_the_echo_answer_and_head_has_no_body() {
    let server = Server::start("");
    let index = server.get("/").json();
    assert!(
        index["routes"]
            .as_array()
            .is_some_and(|routes| routes.len() == 5),
        "{index}"
    );
    assert!(server.get("/api/time").json()["time"].as_str().is_some());
    let json = "content-type: application/json\r\n";
    let echo = server
        .send("POST", "/api/echo", json, r#"{"a":[1]}"#)
        .json();
    assert_eq!(
        (&echo["body"]["a"][0], &echo["bytes"]),
        (&1.into(), &9.into())
    );
    assert_eq!(
        server.send("POST", "/api/echo", "", "plain").json()["body"],
        "plain"
    );
    server
        .send("POST", "/api/echo", json, "{")
        .assert_error(400, "bad_request");
    for path in ["/", "/health", "/metrics", "/api/time"] {
        let mut stream = server.connect();
        write!(
            stream,
            "HEAD {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
        )
        .expect("send");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        assert!(
            text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        assert!(!text.contains("content-length: 0"), "{text}");
    }
}

#[test]
fn metrics_count_by_route_and_never_by_raw_path() {
    let server = Server::start("");
    for id in 0..20 {
        server.get(&format!("/user/{id}"));
    }
    server
        .send("BREW", "/health", "", "")
        .assert_error(405, "method_not_allowed");
    server.get("/api/time?x=1");
    let answer = server.get("/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for series in [
        r#"http_requests_total{method="GET",path="other",status="404"} 20"#,
        r#"http_requests_total{method="other",path="/health",status="405"} 1"#,
        r#"http_requests_total{method="GET",path="/api/time",status="200"} 1"#,
        r#"http_requests_total{method="POST",path="/api/echo",status="200"} 0"#,
        r#"http_request_duration_seconds_count{method="GET",path="/api/time"} 1"#,
        r#"http_response_size_bytes_count{method="GET",path="/api/time"} 1"#,
        "http_requests_in_progress 1",
        "http_errors_total 0",
    ] {
        assert!(
            answer.body.lines().any(|line| line == series),
            "no {series} in {}",
            answer.body
        );
    }
    assert!(!answer.body.contains("/user"), "{}", answer.body);
}

#[test]
fn a_client_over_its_limit_gets_429_and_probes_never_do() {
    let server = Server::start("rate=1/h burst=2");
    let first = server.get("/api/time");
    assert_eq!(first.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("1"));
    assert_eq!(
        server.get("/nowhere").header("x-ratelimit-remaining"),
        Some("0")
    );
    let refused = server.get("/api/time");
    refused.assert_error(429, "rate_limited");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let seconds = refused
        .header("retry-after")
        .and_then(|text| text.parse::<u64>().ok());
    assert!(
        seconds.is_some_and(|seconds| (3500..=3600).contains(&seconds)),
        "{}",
        refused.head
    );
    for path in ["/health", "/metrics"] {
        let answer = server.get(path);
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-limit")),
            (200, None),
            "{path}"
        );
    }
    // A stranger cannot pick its own bucket.
    let forged = server.send("GET", "/api/time", "x-forwarded-for: 192.0.2.7\r\n", "");
    forged.assert_error(429, "rate_limited");
}

#[test]
fn clients_behind_a_trusted_proxy_have_their_own_buckets() {
    let server = Server::start("rate=1/h burst=1 proxy=127.0.0.0/8");
    let get = |forwarded: &str| {
        server
            .send(
                "GET",
                "/api/time",
                &format!("x-forwarded-for: {forwarded}\r\n"),
                "",
            )
            .status
    };
    assert_eq!(
        [get("192.0.2.1"), get("192.0.2.2"), get("192.0.2.1")],
        [200, 200, 429]
    );
    assert_eq!(
        get("203.0.113.9, 192.0.2.1"),
        429,
        "what the client wrote itself is not believed"
    );
}

#[test]
fn wrong_methods_get_405_with_allow() {
    let server = Server::start("chaos=on");
    for (method, path, allow) in [
        ("POST", "/health", "get, head"),
        ("DELETE", "/", "get, head"),
        ("GET", "/api/echo", "post"),
        ("GET", "/chaos/exit", "post"),
    ] {
        let answer = server.send(method, path, "", "");
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn a_body_over_a_mebibyte_is_413_by_length_and_in_chunks() {
    let server = Server::start("");
    let limit = 1 << 20;
    let fits = server.send("POST", "/api/echo", "", &"x".repeat(limit));
    assert_eq!(fits.json()["bytes"], limit);
    let large = server.send("POST", "/api/echo", "", &"x".repeat(limit + 1));
    large.assert_error(413, "payload_too_large");
    let head = "POST /api/echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!("{head}{}0\r\n\r\n", chunk.repeat(17));
    server
        .raw(chunked.as_bytes())
        .assert_error(413, "payload_too_large");
    let announced = format!(
        "{}\r\n",
        "POST /api/echo HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n"
    );
    server
        .raw(announced.as_bytes())
        .assert_error(413, "payload_too_large");
}

#[test]
fn malformed_requests_get_400_as_json() {
    let server = Server::start("");
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: t\r\n\r\n",
        "POST /api/echo HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "POST /api/echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.status, 400, "{request:?}");
        answer.assert_error(400, "bad_request");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(70_000));
    server
        .raw(long.as_bytes())
        .assert_error(414, "uri_too_long");
    let fields = "x: y\r\n".repeat(200);
    let many = format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
    server
        .raw(many.as_bytes())
        .assert_error(431, "headers_too_large");
    let health = server.health();
    assert_eq!(health["requests"]["byStatus"]["400"], 6, "{health}");
    assert_eq!(health["requests"]["inProgress"], 1, "{health}");
}

#[test]
fn slow_clients_get_408_and_idle_ones_are_closed_in_silence() {
    let server = Server::start("timeout_ms=200");
    server
        .raw(b"GET / HTTP/1.1\r\nhost:")
        .assert_error(408, "request_timeout");
    let half = b"POST /api/echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf";
    server.raw(half).assert_error(408, "request_timeout");
    let mut idle = server.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        .expect("send");
    let mut reader = BufReader::new(idle);
    assert_eq!(Answer::read(&mut reader, false).status, 200);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("closed");
    assert_eq!(rest, "");
}

#[test]
fn a_panic_is_a_500_and_an_error_counted_not_a_crash() {
    let mut server = Server::start("chaos=on");
    server
        .post("/chaos/panic")
        .assert_error(500, "internal_error");
    let health = server.health();
    assert_eq!(
        health["errors"],
        serde_json::json!({"total":1,"lastHour":1,"lastMinute":1})
    );
    assert_eq!(health["requests"]["inProgress"], 1, "{health}");
    let line = line_with(&mut server.output, "ERROR");
    assert!(line.contains("POST /chaos/panic answered 500"), "{line}");
}

#[test]
fn without_the_flag_chaos_does_not_exist() {
    let server = Server::start("");
    for path in [
        "exit",
        "abort",
        "segfault",
        "hang",
        "leak",
        "slow?seconds=9",
        "panic",
    ] {
        server
            .post(&format!("/chaos/{path}"))
            .assert_error(404, "not_found");
    }
}

#[test]
fn every_death_on_request_is_the_death_that_was_asked_for() {
    let died = |path: &str| {
        let mut server = Server::start("chaos=on");
        assert_eq!(server.post(path).status, 202, "{path}");
        let status = server.wait();
        (status.code(), status.signal())
    };
    assert_eq!(died("/chaos/exit"), (Some(1), None));
    assert_eq!(died("/chaos/exit?code=42"), (Some(42), None));
    assert_eq!(died("/chaos/exit?code=0"), (Some(0), None));
    assert_eq!(died("/chaos/abort"), (None, Some(Signal::SIGABRT as i32)));
    assert_eq!(
        died("/chaos/segfault"),
        (None, Some(Signal::SIGSEGV as i32))
    );
}

#[test]
fn senseless_chaos_is_refused() {
    let server = Server::start("chaos=on");
    for path in [
        "exit?code=256",
        "exit?code=x",
        "leak?mib=99999999",
        "slow?seconds=-1",
        "slow?seconds=NaN",
    ] {
        server
            .post(&format!("/chaos/{path}"))
            .assert_error(400, "bad_request");
    }
}

#[test]
fn a_hung_server_lives_answers_nothing_and_ignores_sigterm() {
    let mut server = Server::start("chaos=on");
    assert_eq!(server.post("/chaos/hang").status, 202);
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < DEADLINE, "the server still answers");
        let mut stream = server.connect();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("timeout");
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n")
            .expect("send");
        if stream.read(&mut [0; 16]).is_err() {
            break;
        }
    }
    server.signal(Signal::SIGTERM);
    assert!(server.child.try_wait().expect("wait").is_none());
    server.signal(Signal::SIGKILL);
    assert_eq!(server.wait().signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn leaked_memory_shows_in_health() {
    let server = Server::start("chaos=on");
    let rss = || server.health()["memory"]["rss"].as_u64().expect("bytes");
    let before = rss();
    assert_eq!(server.post("/chaos/leak?mib=32").json()["leakedMib"], 32);
    assert!(rss() >= before + (31 << 20), "{before} to {}", rss());
}

#[test]
fn sigterm_lets_an_active_request_finish_and_refuses_new_ones() {
    let mut server = Server::start("chaos=on");
    let mut active = server.connect();
    active
        .write_all(b"POST /chaos/slow?seconds=1 HTTP/1.1\r\nhost: t\r\n\r\n")
        .expect("send");
    server.until_active(2);
    server.signal(Signal::SIGTERM);
    line_with(&mut server.output, "stopping on SIGTERM");
    assert!(
        TcpStream::connect(server.address).is_err(),
        "still accepting"
    );
    assert_eq!(Answer::read(&mut BufReader::new(active), false).status, 200);
    let last = line_with(&mut server.output, "stopped, every request finished");
    assert!(
        last.contains("requests=") && last.contains("200="),
        "{last}"
    );
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn sigterm_cuts_off_what_takes_longer_than_two_seconds() {
    let mut server = Server::start("chaos=on");
    let mut active = server.connect();
    active
        .write_all(b"POST /chaos/slow?seconds=60 HTTP/1.1\r\nhost: t\r\n\r\n")
        .expect("send");
    server.until_active(2);
    let started = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(
        (Duration::from_millis(1900)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn sigint_stops_at_once_when_only_idle_connections_are_left() {
    let mut server = Server::start("");
    let never_used = server.connect();
    let mut kept_alive = server.connect();
    kept_alive
        .write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        .expect("send");
    let mut kept_alive = BufReader::new(kept_alive);
    assert_eq!(Answer::read(&mut kept_alive, false).status, 200);
    let started = Instant::now();
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    never_used.shutdown(Shutdown::Both).ok();
}

#[test]
fn the_supervisor_is_told_when_it_listens_and_when_it_stops() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let told = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut server = Server::spawn(
        command("")
            .env("NOTIFY_SOCKET", &path)
            .stderr(Stdio::null()),
    );
    assert_eq!(told(), "READY=1\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_taken_port_is_a_clear_error_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let mut child = command(&format!("listen={address}"))
        .spawn()
        .expect("spawn");
    assert_eq!(wait(&mut child).code(), Some(1));
    let mut error = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut error)
        .expect("read");
    assert!(
        error.contains(&format!("error: cannot listen on {address}: ")),
        "{error}"
    );
    assert!(error.contains("in use"), "{error}");
}
