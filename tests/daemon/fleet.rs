//! Many programs: replicas, order, readiness of every kind.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{World, eventually, within};

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn every_replica_knows_its_number_and_can_be_addressed_alone() {
    let world = World::new(
        "[programs.web]\ncommand = [\"sh\", \"-c\", \"echo $ETERNAL_REPLICA >> replicas; exec sleep 1000\"]\ninstances = 3\n",
    );
    let mut daemon = world.run();
    let pids: Vec<i32> = (0..3).map(|n| world.pid(&format!("web/{n}"))).collect();
    let mut numbers = eventually("three lines", || {
        Some(world.lines("replicas")).filter(|lines| lines.len() == 3)
    });
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2"]);
    assert_eq!(world.eternal(&["restart", "web/1"]).code, 0);
    assert_eq!(world.pid("web/0"), pids[0]);
    assert_ne!(world.pid("web/1"), pids[1]);
    assert_eq!(world.pid("web/2"), pids[2]);
    let metrics = world.scrape().expect("a scrape");
    for replica in 0..3 {
        let series = format!("eternal_program_up{{program=\"web\",replica=\"{replica}\"}} 1");
        assert!(metrics.contains(&series), "{series}");
    }
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    for replica in 0..3 {
        world.is(&format!("web/{replica}"), "stopped");
    }
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn programs_start_in_order_and_stop_in_reverse() {
    let program = |name: &str, after: &str| {
        let script = format!(
            "trap \"echo stop {name} >> order; exit\" TERM; echo start {name} >> order; while :; do sleep 0.02; done"
        );
        format!(
            "[programs.{name}]\ncommand = [\"sh\", \"-c\", '''{script}''']\nready = \"exec:grep -q 'start {name}' order\"\nafter = {after}\n"
        )
    };
    let world = World::new(
        &(program("web", "[\"app\"]") + &program("db", "[]") + &program("app", "[\"db\"]")),
    );
    let mut daemon = world.run();
    world.pid("web");
    assert_eq!(daemon.is_stopped(), 0);
    let expected = [
        "start db",
        "start app",
        "start web",
        "stop web",
        "stop app",
        "stop db",
    ];
    assert_eq!(world.lines("order"), expected);
}

#[test]
fn who_comes_after_waits_until_the_other_is_ready_whatever_shows_it() {
    let server = World::binary();
    for kind in ["notify", "tcp", "http", "exec"] {
        let port = free_port();
        let ready = match kind {
            "tcp" => format!("tcp://127.0.0.1:{port}"),
            "http" => format!("http://127.0.0.1:{port}/health"),
            "exec" => "exec:test -e serving".to_owned(),
            notify => notify.to_owned(),
        };
        let script = format!(
            "while ! test -e go; do sleep 0.01; done; echo > serving; exec {server} api-server --listen 127.0.0.1:{port}"
        );
        let world = World::new(&format!(
            r#"
            [programs.db]
            command = ["sh", "-c", '''{script}''']
            ready = "{ready}"
            [programs.web]
            command = ["sh", "-c", "echo up > up; exec sleep 1000"]
            after = ["db"]
            "#
        ));
        let mut daemon = world.run();
        world.program("db", "has a process", |p| p.pid);
        let web = world.is("web", "starting");
        assert!(web.why.contains("waiting for db"), "{kind}: {}", web.why);
        let (code, body) =
            crate::world::ask(&world.path("metrics.sock"), "GET", "/-/ready").expect("an answer");
        assert_eq!(code, 503, "{kind}");
        assert!(
            body.contains("db") && body.contains("web"),
            "{kind}: {body}"
        );
        assert!(!world.path("up").exists(), "{kind}: db is not ready");
        world.write("go", "");
        world.pid("web");
        assert!(world.is("db", "running").ready);
        let (code, _) =
            crate::world::ask(&world.path("metrics.sock"), "GET", "/-/ready").expect("an answer");
        assert_eq!(code, 200, "{kind}");
        assert_eq!(daemon.is_stopped(), 0, "{kind}");
    }
}

#[test]
fn any_program_can_say_that_it_is_ready() {
    let script = r#"
        use Socket;
        my $to = $ENV{NOTIFY_SOCKET}; $to =~ s/^@/\0/;
        socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
        sub say_it { send($s, $_[0], 0, pack_sockaddr_un($to)) or die "send: $!" }
        say_it("STATUS=warming up\n");
        select(undef, undef, undef, 0.01) until -e "go";
        say_it("READY=1\nSTATUS=serving\n");
        sleep 1000;
    "#;
    let world = World::new(&format!(
        "[programs.web]\ncommand = [\"perl\", \"-e\", '''{script}''']\nready = \"notify\"\n"
    ));
    let mut daemon = world.run();
    world.program("web", "has a process", |p| {
        (p.state == "starting").then_some(p.pid?)
    });
    assert!(!world.is("web", "starting").ready);
    world.write("go", "");
    assert!(world.is("web", "running").ready);
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn what_is_not_ready_in_start_timeout_is_ended_and_counts_as_a_crash() {
    let world = World::new(
        r#"
        [programs.db]
        command = ["sh", "-c", "echo $$ >> pids; exec sleep 1000"]
        ready = "exec:false"
        start_timeout = "200ms"
        restart_delay = "10ms"
        crash_threshold = 2
        [programs.web]
        command = ["sh", "-c", "echo up > up; exec sleep 1000"]
        after = ["db"]
        "#,
    );
    let mut daemon = world.launch(&["run"]);
    assert_eq!(daemon.ends(), 1, "db failed and web can never start");
    assert_eq!(world.lines("pids").len(), 2);
    assert!(!world.path("up").exists());
    world.logged(&["db", "not ready within 200ms"]);
    world.logged(&["db", "gave up"]);
}

#[test]
fn a_dependency_that_comes_up_late_lets_the_waiting_start() {
    let world = World::new(
        r#"
        [programs.db]
        command = ["sh", "-c", "test -e good && exec sleep 1000; exit 3"]
        restart_delay = "20ms"
        restart_delay_max = "20ms"
        crash_threshold = 100000
        ready = "exec:test -e good"
        [programs.web]
        command = ["sleep", "1000"]
        after = ["db"]
        "#,
    );
    let _daemon = world.run();
    world.program("db", "crashed often", |p| (p.crashes >= 3).then_some(()));
    assert_eq!(world.is("web", "starting").pid, None);
    world.write("good", "");
    world.pid("web");
}

#[test]
fn a_crash_of_a_dependency_leaves_those_after_it_running() {
    let world = World::new(
        "[programs.db]\ncommand = [\"sleep\", \"1000\"]\nrestart_delay = \"10ms\"\n[programs.web]\ncommand = [\"sleep\", \"1000\"]\nafter = [\"db\"]\n",
    );
    let _daemon = world.run();
    let (db, web) = (world.pid("db"), world.pid("web"));
    crate::world::send(db, Signal::SIGKILL);
    world.program("db", "is back", |p| {
        (p.restarts == 1 && p.state == "running").then_some(())
    });
    assert_eq!(world.pid("web"), web);
}

#[test]
fn two_hundred_programs_come_up_and_go_down() {
    let world = World::new("[programs.web]\ncommand = [\"sleep\", \"1000\"]\ninstances = 200\n");
    let mut daemon = world.run();
    world.until("all are up", |s| {
        (s.programs.iter().filter(|p| p.state == "running").count() == 200).then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
    let left = within(Duration::from_secs(1), || {
        world.processes().is_empty().then_some(())
    });
    assert!(left.is_some());
    assert!(fs::read_dir(world.path("state")).is_ok());
}
