//! `eternal healthcheck`: asks whatever the config offers, and answers with 0 or 1.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use nix::sys::signal::Signal;

use crate::world::{Said, World};

/// One program that is ready at once, one that never is.
const PROGRAMS: &str = r#"
    [programs.web]
    command = ["sleep", "1000"]
    [programs.slow]
    command = ["sleep", "1000"]
    ready = "exec:test -e slow.ready"
    start_timeout = "10m"
"#;

/// Where the daemon listens, by a name for messages.
fn listeners(world: &World) -> Vec<(&'static str, String)> {
    let port = || {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("an address").port()
    };
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["far.example".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    world.write("tls.crt", &certificate.pem());
    world.write("tls.key", &key.serialize_pem());
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    world.write("accounts", &format!("somebody: {hash}\n"));
    let tls = "tls_cert = \"tls.crt\"\ntls_key = \"tls.key\"";
    let tcp = |address: &str| format!("listen = \"{address}:{}\"", port());
    vec![
        ("an address", tcp("127.0.0.1")),
        ("every address", tcp("0.0.0.0")),
        ("a socket", "listen = \"unix:metrics.sock\"".to_owned()),
        ("TLS", format!("{}\n{tls}", tcp("127.0.0.1"))),
        (
            "TLS on a socket",
            format!("listen = \"unix:metrics.sock\"\n{tls}"),
        ),
        (
            "a password",
            format!("{}\nbasic_auth_file = \"accounts\"", tcp("127.0.0.1")),
        ),
        (
            "a port of the system's choice",
            "listen = \"127.0.0.1:0\"".to_owned(),
        ),
        ("nothing", "listen = \"\"".to_owned()),
    ]
}

fn is(said: &Said, code: i32, words: &str) -> bool {
    said.code == code && format!("{}{}", said.out, said.err).contains(words)
}

#[test]
fn every_kind_of_listener_is_asked() {
    let world = World::new("");
    for (what, listener) in listeners(&world) {
        let _ = fs::remove_file(world.path("slow.ready"));
        world.configure(&format!("[metrics]\n{listener}\n{PROGRAMS}"));
        let mut daemon = world.run();
        world.pid("web");
        let said = world.eternal(&["healthcheck"]);
        assert!(is(&said, 0, "healthy"), "{what}: {said:?}");
        let said = world.eternal(&["healthcheck", "--ready"]);
        assert!(
            is(&said, 1, "unhealthy: not ready: slow"),
            "{what}: {said:?}"
        );
        world.write("slow.ready", "");
        world.program("slow", "is ready", |program| program.ready.then_some(()));
        let said = world.eternal(&["healthcheck", "--ready"]);
        assert!(is(&said, 0, "ready"), "{what}: {said:?}");
        assert_eq!(daemon.is_stopped(), 0);
        let said = world.eternal(&["healthcheck"]);
        assert!(is(&said, 1, "no daemon is running"), "{what}: {said:?}");
    }
}

#[test]
fn a_daemon_that_is_stuck_is_unhealthy_in_time() {
    for listener in ["unix:metrics.sock", ""] {
        let world = World::new(&format!("[metrics]\nlisten = \"{listener}\"\n{PROGRAMS}"));
        let daemon = world.run();
        daemon.signal(Signal::SIGSTOP);
        let said = world.eternal(&["healthcheck", "--timeout", "1"]);
        assert!(is(&said, 1, "unhealthy: no answer within 1 s"), "{said:?}");
        daemon.signal(Signal::SIGCONT);
        let said = world.eternal(&["healthcheck", "--timeout", "60"]);
        assert!(is(&said, 0, "healthy"), "{said:?}");
    }
}

#[test]
fn an_edit_of_the_config_does_not_make_it_unhealthy() {
    let world = World::new(PROGRAMS);
    let _daemon = world.run();
    world.configure(&format!(
        "[metrics]\nlisten = \"unix:elsewhere.sock\"\n{PROGRAMS}"
    ));
    let said = world.eternal(&["healthcheck"]);
    assert!(is(&said, 0, "healthy"), "another listener: {said:?}");
    world.configure("nonsense = 1");
    let said = world.eternal(&["healthcheck"]);
    assert!(is(&said, 0, "healthy"), "nonsense: {said:?}");
}

#[test]
fn a_daemon_that_gave_up_and_lingers_is_healthy_but_not_ready() {
    let world = World::new(
        "[metrics]\nlisten = \"unix:metrics.sock\"\nlinger = \"10m\"\n\
         [programs.web]\ncommand = [\"sh\", \"-c\", \"test -e scraped && exit 3; sleep 0.01\"]\n\
         restart_delay = \"10ms\"\nrestart_delay_max = \"10ms\"\ncrash_threshold = 2\n",
    );
    let mut daemon = world.run();
    world.scrape().expect("somebody scrapes");
    world.write("scraped", "");
    world.logged(&["serving the final metrics"]);
    let said = world.eternal(&["healthcheck"]);
    assert!(is(&said, 0, "healthy"), "{said:?}");
    let said = world.eternal(&["healthcheck", "--ready"]);
    assert!(is(&said, 1, "not ready: web"), "{said:?}");
    assert_eq!(daemon.is_stopped(), 1);
}

/// A server that is not ours, where the config says that ours is: it takes every guest and gives
/// this answer to each; with an empty one it is silent.
fn stranger(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let mut guests = Vec::new();
        for mut guest in listener.incoming().flatten() {
            let _ = guest.read(&mut [0; 4096]);
            let _ = guest.write_all(answer.as_bytes());
            guests.push(guest);
        }
    });
    port
}

#[test]
fn whoever_else_answers_at_the_address_does_not_make_it_unhealthy() {
    let world = World::new(PROGRAMS);
    let daemon = world.run();
    world.pid("web");
    let answers = [
        ("silence", ""),
        (
            "another server",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
        ),
        // What our own listener says to one guest too many.
        (
            "a crowd",
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nfull",
        ),
    ];
    for (what, answer) in answers {
        let port = stranger(answer);
        world.configure(&format!(
            "[metrics]\nlisten = \"127.0.0.1:{port}\"\n{PROGRAMS}"
        ));
        let said = world.eternal(&["healthcheck", "--timeout", "4"]);
        assert!(is(&said, 0, "healthy"), "{what}: {said:?}");
        let said = world.eternal(&["healthcheck", "--ready", "--timeout", "4"]);
        assert!(is(&said, 1, "not ready: slow"), "{what}: {said:?}");
    }
    daemon.signal(Signal::SIGSTOP);
    let said = world.eternal(&["healthcheck", "--timeout", "1"]);
    assert!(is(&said, 1, "no answer within 1 s"), "{said:?}");
    daemon.signal(Signal::SIGCONT);
}
