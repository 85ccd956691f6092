//! The last numbers after a give-up, and the listener that cannot be had: section 5 of the contract.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{World, eventually, value, within};

/// A program that waits for the file `fall` and is then in a crash loop.
fn config(linger: &str) -> String {
    format!(
        r#"
        [metrics]
        listen = "unix:metrics.sock"
        linger = "{linger}"
        [programs.web]
        command = ["sh", "-c", 'while ! test -e fall; do sleep 0.01; done; exit 3']
        restart_delay = "10ms"
        crash_threshold = 2
        "#
    )
}

const FAILED: &str = "eternal_program_state{program=\"web\",replica=\"0\",state=\"failed\"}";

#[test]
fn a_daemon_that_was_scraped_serves_its_last_numbers_until_two_more_scrapes() {
    let world = World::new(&config("5m"));
    let mut daemon = world.run();
    world.pid("web");
    world.scrape().expect("a scrape");
    world.write("fall", "");
    world.logged(&["serving the final metrics for at most 5m"]);
    assert!(
        within(Duration::from_millis(100), || daemon
            .has_ended()
            .then_some(()))
        .is_none()
    );
    let last = world.scrape().expect("it still serves");
    assert_eq!(value(&last, FAILED), Some(1.0), "{last}");
    assert!(!daemon.has_ended(), "one scrape may have been cut short");
    let last = world.scrape().expect("it still serves");
    assert_eq!(
        value(
            &last,
            "eternal_program_gave_up_total{program=\"web\",replica=\"0\"}"
        ),
        Some(1.0)
    );
    assert_eq!(daemon.ends(), 1);
}

#[test]
fn a_daemon_that_nobody_scraped_does_not_wait() {
    let world = World::new(&config("5m"));
    world.write("fall", "");
    assert_eq!(world.launch(&["run"]).ends(), 1);
}

#[test]
fn linger_of_zero_turns_it_off() {
    let world = World::new(&config("0s"));
    let mut daemon = world.run();
    world.scrape().expect("a scrape");
    world.write("fall", "");
    assert_eq!(daemon.ends(), 1);
}

#[test]
fn the_wait_ends_at_its_limit() {
    let world = World::new(&config("500ms"));
    let mut daemon = world.run();
    world.scrape().expect("a scrape");
    world.write("fall", "");
    assert_eq!(daemon.ends(), 1);
    world.logged(&["serving the final metrics"]);
}

#[test]
fn a_signal_or_a_stop_ends_the_wait_and_the_code_is_1_all_the_same() {
    let world = World::new(&config("5m"));
    let mut daemon = world.run();
    world.scrape().expect("a scrape");
    world.write("fall", "");
    world.logged(&["serving the final metrics"]);
    assert_eq!(
        world.status().expect("status is answered").programs[0].state,
        "failed"
    );
    assert_eq!(daemon.is_stopped(), 1);

    let mut daemon = {
        std::fs::remove_file(world.path("fall")).expect("removed");
        world.run()
    };
    world.pid("web");
    world.scrape().expect("a scrape");
    let lingering = || world.log().matches("serving the final metrics").count();
    let before = lingering();
    world.write("fall", "");
    eventually("it lingers again", || (lingering() > before).then_some(()));
    let said = world.eternal(&["stop"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.ends(), 1);
}

#[test]
fn a_signal_that_does_not_end_the_daemon_does_not_end_the_wait() {
    let world = World::new(&config("5m"));
    let mut daemon = world.run();
    world.scrape().expect("a scrape");
    world.write("fall", "");
    world.logged(&["serving the final metrics"]);
    daemon.signal(Signal::SIGUSR2);
    world.logged(&["SIGUSR2"]);
    assert!(!daemon.has_ended());
}

#[test]
fn a_port_that_is_taken_is_an_error_before_anything_is_started() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let world = World::new(&format!(
        "[metrics]\nlisten = \"{address}\"\n[programs.web]\ncommand = [\"sh\", \"-c\", \"echo up > up\"]\n"
    ));
    let asked = Instant::now();
    for word in ["run", "start"] {
        let said = world.eternal(&[word]);
        assert_eq!(said.code, 2, "{word}: {said:?}");
        assert!(said.err.contains(&address.to_string()), "{said:?}");
        assert!(said.err.contains("in use"), "{said:?}");
    }
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert!(!world.path("up").exists());
    assert!(!world.path("daemon.pid").exists());
}
