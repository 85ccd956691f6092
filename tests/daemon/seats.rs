//! Seats: nobody who is slow, silent or stopped keeps a person or a scraper out.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use crate::world::{DEADLINE, World, ask, eventually, within};

const SLEEPER: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

#[test]
fn listeners_that_do_not_read_keep_no_order_out() {
    let world = World::new(SLEEPER);
    let mut daemon = world.run();
    let listens = |path: &str| {
        let mut stream = UnixStream::connect(world.path("daemon.sock")).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("asked");
        let mut code = [0; 12];
        stream.read_exact(&mut code).expect("answered");
        (stream, String::from_utf8_lossy(&code).into_owned())
    };
    let mut listeners: Vec<UnixStream> = Vec::new();
    let mut refused = 0;
    for number in 0..70 {
        let path = ["/v1/events", "/v1/logs?follow=true"][number % 2];
        let (stream, answer) = listens(path);
        match answer.as_str() {
            "HTTP/1.1 200" => listeners.push(stream),
            "HTTP/1.1 503" => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0 && listeners.len() >= 40, "{refused} refused");
    let before = world.pid("web");
    let said = world.eternal(&["restart", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_ne!(world.pid("web"), before);
    assert_eq!(world.eternal(&["status"]).code, 0);
    drop(listeners);
    eventually("their seats are free again", || {
        (listens("/v1/events").1 == "HTTP/1.1 200").then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_scraper_is_served_beside_readers_that_do_not_read() {
    let world = World::new(SLEEPER);
    let mut daemon = world.run();
    let unread = || {
        let mut stream = UnixStream::connect(world.path("metrics.sock")).expect("connected");
        stream
            .set_write_timeout(Some(Duration::from_millis(20)))
            .expect("set");
        // More answers than a socket holds; none is read.
        let asks = "GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n".repeat(100);
        let _ = stream.write_all(asks.as_bytes());
        stream
    };
    let readers: Vec<UnixStream> = (0..70).map(|_| unread()).collect();
    for _ in 0..10 {
        let scraped = ask(&world.path("metrics.sock"), "GET", "/metrics").expect("an answer");
        assert_eq!(scraped.0, 200, "{}", scraped.1);
    }
    drop(readers);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_starter_that_does_not_listen_delays_nothing_and_hears_the_outcome_later() {
    // Two lines for each make more than a pipe holds.
    let name = "a-name-".repeat(9);
    let world = World::new(&format!(
        "[programs.\"{name}\"]\ncommand = [\"sleep\", \"1000\"]\ninstances = 330\n"
    ));
    let mut command = world.command(World::binary());
    command.args(["run", "--detached"]).stdout(Stdio::piped());
    let mut starter = command
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let status = within(3 * DEADLINE, || {
        world
            .status()
            .filter(|status| status.programs.iter().all(|program| program.ready))
    });
    let pid = status.expect("all of them come up").daemon.pid;
    let healthy = ask(&world.path("metrics.sock"), "GET", "/-/healthy");
    assert_eq!(healthy, Some((200, "healthy\n".to_owned())));
    let out = BufReader::new(starter.stdout.take().expect("a pipe"));
    let lines: Vec<String> = out.lines().map_while(Result::ok).collect();
    let last = lines.last().expect("reports");
    assert!(
        last.contains("\"outcome\":true") && last.contains("330 programs up"),
        "{last}"
    );
    assert_eq!(lines.len(), 661, "nothing is lost");
    crate::world::send(
        i32::try_from(pid).expect("a pid"),
        nix::sys::signal::Signal::SIGTERM,
    );
    let ended = within(3 * DEADLINE, || starter.try_wait().expect("a status"));
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

#[test]
fn a_starter_that_never_listens_keeps_no_daemon_from_ending() {
    let name = "a-name-".repeat(9);
    let world = World::new(&format!(
        "[programs.\"{name}\"]\ncommand = [\"sleep\", \"1000\"]\ninstances = 330\n"
    ));
    let mut command = world.command(World::binary());
    command.args(["run", "--detached"]).stdout(Stdio::piped());
    let mut daemon = command
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let pid = i32::try_from(daemon.id()).expect("a pid");
    let up = within(3 * DEADLINE, || {
        let status = world.status()?;
        status
            .programs
            .iter()
            .all(|program| program.ready)
            .then_some(())
    });
    assert!(up.is_some(), "all of them come up");
    crate::world::send(pid, nix::sys::signal::Signal::SIGTERM);
    let ended = within(3 * DEADLINE, || daemon.try_wait().expect("a status"));
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

#[test]
fn orders_get_the_last_descriptors_whoever_listens_and_however_many_there_are() {
    let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    let sleeps = |name| format!("[programs.{name}]\ncommand = [\"sleep\", \"1000\"]\n");
    let config: String = names.iter().map(sleeps).collect();
    let world = World::new(&config);
    let mut command = world.command("prlimit");
    command.args(["--nofile=100:100", World::binary(), "run"]);
    let mut daemon = world.launch_as(command);
    for name in &names {
        world.pid(name);
    }
    let listen = |_| {
        let stream = UnixStream::connect(world.path("daemon.sock")).expect("connected");
        let ask = b"GET /v1/events HTTP/1.1\r\nhost: test\r\n\r\n";
        (&stream).write_all(ask).expect("asked");
        BufReader::new(stream)
    };
    let mut listeners: Vec<_> = (0..60).map(listen).collect();
    let mut said = String::new();
    let last = listeners.last_mut().expect("one");
    last.read_to_string(&mut said)
        .expect("an answer with an end");
    assert!(said.contains("its last descriptors"), "{said}");
    let stop: Vec<&str> = std::iter::once("stop")
        .chain(names.iter().map(String::as_str))
        .collect();
    let said = world.eternal(&stop);
    assert_eq!(said.code, 0, "{said:?}");
    // A start leaves the last ones alone: it is refused, and says why.
    let said = world.eternal(&["start", "p0"]);
    let refused = said.out.contains("its last descriptors");
    assert!(said.code == 0 || refused, "{said:?}");
    drop(listeners);
    eventually("there is room for a start", || {
        (world.eternal(&["start", "p1"]).code == 0).then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}
