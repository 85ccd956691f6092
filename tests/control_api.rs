//! The control API as seen from the other end of a real socket.

mod fake_daemon;

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use eternal::control::api::Verb;
use eternal::control::client::{Client, ClientError};
use eternal::control::server::{MAX_CONNECTIONS, MAX_LISTENERS};

use fake_daemon::FakeDaemon;

/// Every wait ends by then, one way or the other.
const DEADLINE: Duration = Duration::from_secs(10);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(DEADLINE, test)
            .await
            .expect("it ends in time")
    })
}

fn client(daemon: &FakeDaemon) -> Client {
    Client::new(daemon.socket())
}

fn connect(daemon: &FakeDaemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

/// Sends bytes as they are and returns everything that comes back.
fn raw(daemon: &FakeDaemon, request: &[u8]) -> String {
    let mut stream = connect(daemon);
    // A server that has heard enough may close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

fn request(daemon: &FakeDaemon, method: &str, path: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    raw(daemon, head.as_bytes())
}

#[track_caller]
fn assert_problem(answer: &str, status: u16, words: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.to_ascii_lowercase()
            .contains("content-type: application/json"),
        "{head}"
    );
    let problem: eternal::control::api::Problem = serde_json::from_str(body).expect("a problem");
    assert!(problem.error.contains(words), "{}", problem.error);
}

#[test]
fn status_and_crashes_arrive_as_they_were_sent() {
    let daemon = FakeDaemon::start();
    run(async {
        let status = client(&daemon).status().await.expect("a status");
        assert_eq!(status.programs.len(), 5);
        assert_eq!(status.programs[1].display_name, "web/1");
        let crashes = client(&daemon).crashes(Some("web")).await.expect("crashes");
        assert_eq!(crashes.crashes[0].last_output, ["the last word"]);
        let none = client(&daemon)
            .crashes(Some("hare"))
            .await
            .expect("a known program");
        assert!(none.crashes.is_empty());
        let error = client(&daemon)
            .crashes(Some("wbe"))
            .await
            .expect_err("unknown");
        assert!(error.is_not_found(), "{error}");
    });
}

#[test]
fn an_order_names_its_replica_in_the_path_or_in_the_query() {
    let daemon = FakeDaemon::start();
    run(async {
        for (name, message) in [("web", "restart web"), ("web/1", "restart web/1")] {
            let done = client(&daemon)
                .order(Verb::Restart, name)
                .await
                .expect("done");
            assert_eq!(done.messages, [message]);
        }
    });
    let answer = request(&daemon, "POST", "/v1/programs/web/stop?replica=0");
    assert!(answer.contains("stop web/0"), "{answer}");
    let answer = request(&daemon, "POST", "/v1/programs/web%2F1/stop?replica=0");
    assert_problem(&answer, 400, "contradicts");
    let answer = request(&daemon, "POST", "/v1/programs/web%2Fx/stop");
    assert_problem(&answer, 400, "PROGRAM/REPLICA");
}

#[test]
fn a_refusal_is_a_status_code_and_the_daemons_own_sentence() {
    let daemon = FakeDaemon::start();
    run(async {
        let client = client(&daemon);
        let refused = |error: ClientError| {
            let ClientError::Refused { status, error } = error else {
                panic!("{error}")
            };
            (status, error)
        };
        let failed = client
            .order(Verb::Start, "broken")
            .await
            .expect_err("it fails");
        assert_eq!(refused(failed), (500, "broken: exit code 3".to_owned()));
        let missing = client
            .order(Verb::Start, "nobody")
            .await
            .expect_err("it is unknown");
        assert_eq!(refused(missing), (404, "no nobody".to_owned()));
        let invalid = client.reload(true).await.expect_err("the config is bad");
        assert_eq!(
            refused(invalid),
            (422, "eternal.toml:3: no such key".to_owned())
        );
        assert_eq!(
            client.reload(false).await.expect("a good config").added,
            ["new"]
        );
    });
}

#[test]
fn an_order_waits_until_it_is_carried_out_and_holds_up_nobody() {
    let daemon = FakeDaemon::start();
    run(async {
        let slow = client(&daemon);
        let slow = tokio::spawn(async move { slow.order(Verb::Stop, "tortoise").await });
        for _ in 0..50 {
            client(&daemon)
                .order(Verb::Start, "web")
                .await
                .expect("not held up");
        }
        assert!(!slow.is_finished());
        // Whichever comes first, a later order for the hare sets the tortoise free.
        while !slow.is_finished() {
            client(&daemon)
                .order(Verb::Start, "hare")
                .await
                .expect("done");
            tokio::task::yield_now().await;
        }
        assert_eq!(
            slow.await.expect("no panic").expect("done").messages,
            ["stop tortoise"]
        );
    });
}

#[test]
fn an_order_without_waiting_is_accepted_at_once_unless_the_program_is_unknown() {
    let daemon = FakeDaemon::start();
    let answer = request(&daemon, "POST", "/v1/programs/tortoise/stop?wait=false");
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let answer = request(&daemon, "POST", "/v1/programs/nobody/stop?wait=false");
    assert_problem(&answer, 404, "nobody");
}

#[test]
fn a_wrong_path_method_or_parameter_is_named() {
    let daemon = FakeDaemon::start();
    assert_problem(&request(&daemon, "GET", "/v2/status"), 404, "/v2/status");
    assert_problem(
        &request(&daemon, "POST", "/v1/programs/web/explode"),
        404,
        "explode",
    );
    assert_problem(&request(&daemon, "GET", "/v1/status?watch=1"), 400, "watch");
    assert_problem(&request(&daemon, "GET", "/v1/logs?lines=-1"), 400, "lines");
    assert_problem(
        &request(&daemon, "POST", "/v1/reload?restart=yes"),
        400,
        "yes",
    );
    assert_problem(
        &request(&daemon, "POST", "/v1/programs/%zz/stop"),
        400,
        "percent",
    );
    for (method, path, allowed) in [
        ("POST", "/v1/status", "GET"),
        ("DELETE", "/v1/events", "GET"),
        ("POST", "/v1/health", "GET"),
        ("GET", "/v1/shutdown", "POST"),
        ("GET", "/v1/programs/web/stop", "POST"),
    ] {
        let answer = request(&daemon, method, path);
        assert_problem(&answer, 405, allowed);
        let allow = format!("allow: {}\r\n", allowed.to_ascii_lowercase());
        assert!(answer.to_ascii_lowercase().contains(&allow), "{answer}");
    }
}

#[test]
fn malformed_and_oversized_requests_end_their_own_connection_only() {
    let daemon = FakeDaemon::start();
    assert!(raw(&daemon, b"\x00\xff\x16\x03garbage\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(
        raw(&daemon, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").find("200 OK"),
        None
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200_000));
    assert!(raw(&daemon, long.as_bytes()).starts_with("HTTP/1.1 4"));
    let head = "POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let body = "x".repeat(70_000);
    let sized = format!("{head}Content-Length: 70000\r\n\r\n{body}");
    assert_problem(&raw(&daemon, sized.as_bytes()), 413, "65536 bytes");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n11170\r\n{body}\r\n0\r\n\r\n");
    assert_problem(&raw(&daemon, chunked.as_bytes()), 413, "65536 bytes");
    let kept = format!("{head}Content-Length: 2\r\n\r\n{{}}");
    assert!(raw(&daemon, kept.as_bytes()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn events_are_pushed_as_they_happen() {
    let daemon = FakeDaemon::start();
    let mut stream = connect(&daemon);
    stream
        .write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut seen = String::new();
    let mut read_until = |words: &str| {
        let mut bytes = [0; 4096];
        while !seen.contains(words) {
            let count = stream.read(&mut bytes).expect("in time");
            assert_ne!(count, 0, "ended after {seen}");
            seen.push_str(std::str::from_utf8(&bytes[..count]).expect("UTF-8"));
        }
        seen.clone()
    };
    let head = read_until("\r\n\r\n");
    assert!(
        head.to_ascii_lowercase()
            .contains("content-type: text/event-stream"),
        "{head}"
    );
    request(&daemon, "POST", "/v1/programs/hare/start");
    let event = read_until("\n\n");
    assert!(event.contains("event: ordered\ndata: {\"at\":"), "{event}");
    run(async {
        let mut events = client(&daemon).events().await.expect("a stream");
        client(&daemon)
            .order(Verb::Stop, "web/1")
            .await
            .expect("done");
        let event = events.next().await.expect("no error").expect("an event");
        assert_eq!(
            (event.kind.as_str(), event.message.as_str()),
            ("ordered", "stop web/1")
        );
    });
}

#[test]
fn logs_come_past_first_then_live_and_a_follower_who_leaves_is_noticed() {
    let daemon = FakeDaemon::start();
    run(async {
        let mut past = client(&daemon)
            .logs(Some("hare"), 2, false)
            .await
            .expect("logs");
        assert_eq!(
            past.next().await.expect("fine").expect("a line").line,
            "line 1"
        );
        assert_eq!(
            past.next().await.expect("fine").expect("a line").program,
            "hare"
        );
        assert!(past.next().await.expect("fine").is_none());

        let mut followers = daemon.followers();
        let mut live = client(&daemon).logs(None, 1, true).await.expect("logs");
        for expected in ["line 1", "line 10", "line 11", "line 12"] {
            assert_eq!(
                live.next().await.expect("fine").expect("a line").line,
                expected
            );
        }
        followers
            .wait_for(|followers| *followers == 1)
            .await
            .expect("it follows");
        drop(live);
        followers
            .wait_for(|followers| *followers == 0)
            .await
            .expect("it left");

        let error = client(&daemon)
            .logs(Some("nobody"), 1, false)
            .await
            .expect_err("unknown");
        assert!(error.is_not_found(), "{error}");
    });
}

#[test]
fn shutdown_is_confirmed_and_then_everything_ends() {
    let daemon = FakeDaemon::start();
    run(async {
        let client = client(&daemon);
        let mut events = client.events().await.expect("a stream");
        assert!(client.shutdown().await.expect("confirmed").ok);
        assert!(events.next().await.expect("a clean end").is_none());
        let error = loop {
            match client.status().await {
                // It may have got in before the end.
                Ok(_) | Err(ClientError::Broken { .. }) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert!(error.is_no_daemon(), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("no daemon is running (nobody answers at /")
        );
    });
}

#[test]
fn no_socket_and_nobody_behind_it_are_both_no_daemon() {
    run(async {
        let nowhere = Client::new("/nonexistent/daemon.sock".into());
        let error = nowhere.status().await.expect_err("nothing there");
        let words = "no daemon is running (no socket at /nonexistent/daemon.sock)";
        assert_eq!(error.to_string(), words);
        assert!(error.is_no_daemon());
    });
}

#[test]
fn one_connection_too_many_is_told_so() {
    let daemon = FakeDaemon::start();
    let busy: Vec<UnixStream> = (0..MAX_CONNECTIONS)
        .map(|number| {
            let mut stream = connect(&daemon);
            // As many listen as may, and the others stay when they have their answer.
            let path = ["/v1/events", "/v1/status"][usize::from(number >= MAX_LISTENERS)];
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            let mut first = [0; 12];
            stream.read_exact(&mut first).expect("an answer");
            assert_eq!(&first, b"HTTP/1.1 200");
            stream
        })
        .collect();
    assert_problem(
        &request(&daemon, "GET", "/v1/status"),
        503,
        "64 connections",
    );
    drop(busy);
    run(async {
        // The server notices the closed connections one after the other.
        while client(&daemon).status().await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}
