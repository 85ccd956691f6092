//! Health checks and watchdogs: programs that live and do not work any more.

use eternal::control::api::LastExit;
use nix::sys::signal::Signal;

use crate::world::{World, dies, eventually, lives, send, value};

/// Answers 204, or 500 while there is a file `sick`; writes down each answer before it gives it. On
/// SIGUSR1 it closes its door and stays.
const SERVER: &str = r#"
import http.server, os, signal, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = 500 if os.path.exists("sick") else 204
        with open("answers", "a") as book: book.write(f"{code}\n")
        self.send_response(code)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 8000), Page)
def close(*_): server.socket.close(); signal.pause()
signal.signal(signal.SIGUSR1, close)
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
server.serve_forever()
"#;

/// Says WATCHDOG=1 ten times a second until there is a file `hang` or `give-up`.
const PINGER: &str = r#"
import os, socket, sys, time
room = os.environ["NOTIFY_SOCKET"]
room = "\0" + room[1:] if room[0] == "@" else room
door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(what): door.sendto(what, room)
open("pinger", "w").write(f"{os.getpid()} {os.environ['WATCHDOG_USEC']}\n")
while not os.path.exists("hang"):
    if os.path.exists("give-up"):
        os.remove("give-up")
        say(b"WATCHDOG=trigger")
    say(b"STATUS=busy\nWATCHDOG=1")
    open("pings", "a").write("ping\n")
    time.sleep(0.1)
time.sleep(1000)
"#;

/// After its end nothing happens any more: the counts are at rest.
const ONCE: &str = "restart_delay = \"1h\"\nrestart_delay_max = \"1h\"\n";

/// An address that no other test has.
fn address() -> String {
    let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
    format!("127.{a}.{b}.{c}")
}

/// A program `web` that serves at an address, with these keys besides.
fn server(address: &str, words: &str, keys: &str) -> World {
    let world = World::new(&serving(address, words, keys));
    world.write("server.py", SERVER);
    world
}

fn serving(address: &str, words: &str, keys: &str) -> String {
    format!(
        "[programs.web]\ncommand = [\"python3\", \"server.py\", \"{address}\"{words}]\n\
         ready = \"tcp://{address}:8000\"\nhealth_interval = \"50ms\"\n{keys}\n"
    )
}

/// A program `web` that sleeps and is checked by a script, with these keys besides.
fn asked(script: &str, keys: &str) -> World {
    let world = World::new(&sleeping(keys));
    world.write("check.sh", script);
    world
}

fn sleeping(keys: &str) -> String {
    format!("[programs.web]\ncommand = [\"sleep\", \"1000\"]\nhealth_interval = \"50ms\"\n{keys}\n")
}

/// Waits for the end of `web` and returns how it went.
fn end(world: &World) -> LastExit {
    world.program("web", "ends", |web| web.last_exit.clone())
}

/// Reads a family of `web` with a check of a kind.
fn counted(world: &World, family: &str, check: &str) -> Option<f64> {
    let labels = format!("{{program=\"web\",replica=\"0\",check=\"{check}\"}}");
    value(
        &world.scrape()?,
        &format!("eternal_program_health_{family}{labels}"),
    )
}

fn of_web(world: &World, family: &str, label: &str) -> Option<f64> {
    let labels = format!("{{program=\"web\",replica=\"0\"{label}}}");
    value(
        &world.scrape()?,
        &format!("eternal_program_{family}{labels}"),
    )
}

#[test]
fn a_server_that_answers_500_is_ended_and_every_check_is_counted() {
    let at = address();
    let keys = format!("health_check = \"http://{at}:8000/health\"\n{ONCE}");
    let world = server(&at, "", &keys);
    let mut daemon = world.run();
    eventually("it is checked", || {
        counted(&world, "checks_total", "http").filter(|checks| *checks >= 3.0)
    });
    assert_eq!(counted(&world, "check_up", "http"), Some(1.0));
    assert_eq!(counted(&world, "check_failures_total", "http"), Some(0.0));
    world.write("sick", "");
    let exit = end(&world);
    assert_eq!((exit.reason.as_str(), exit.crash), ("health", true));
    assert_eq!(exit.signal, Some(Signal::SIGTERM as i32), "its stop signal");
    assert_eq!(
        exit.description,
        format!(
            "SIGTERM (health check failed: http://{at}:8000/health answered 500 Internal Server Error)"
        )
    );
    world.is("web", "backoff");
    let answers = world.lines("answers");
    let failed = answers.iter().filter(|code| *code == "500").count();
    assert_eq!(failed, 3, "health_failures");
    let count = |family: &str| counted(&world, family, "http");
    assert_eq!(count("checks_total"), Some(answers.len() as f64));
    assert_eq!(count("check_failures_total"), Some(3.0));
    assert_eq!(count("check_up"), Some(0.0));
    let exits = of_web(&world, "exits_total", ",reason=\"health\"");
    assert_eq!(exits, Some(1.0));
    world.logged(&["WARN", "web: health check failed (1 of 3): http://"]);
    world.logged(&["WARN", "web: health check failed (3 of 3): http://"]);
    world.logged(&["INFO", "web: stopping: health check failed"]);
    world.logged(&["restart in 1h (health), crashes left: 4"]);
    assert!(!world.log().contains("(2 of 3)"), "at debug only");
    eventually("the crash is in the history", || {
        let said = world.eternal(&["crashes", "web", "--json"]);
        said.out.contains("\"reason\":\"health\"").then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_port_that_is_closed_again_fails_its_check() {
    let at = address();
    let keys = format!("health_check = \"tcp://{at}:8000\"\nhealth_failures = 1\n{ONCE}");
    let world = server(&at, "", &keys);
    let _daemon = world.run();
    let pid = world.pid("web");
    eventually("it passed", || {
        counted(&world, "checks_total", "tcp").filter(|checks| *checks >= 1.0)
    });
    send(pid, Signal::SIGUSR1);
    let exit = end(&world);
    assert_eq!(exit.reason, "health");
    let why = format!("connect to {at}:8000: Connection refused");
    assert!(exit.description.contains(&why), "{exit:?}");
    dies(pid);
}

#[test]
fn a_stopped_program_is_found_and_even_one_that_ignores_its_stop_signal_goes() {
    let at = address();
    let keys = format!(
        "health_check = \"http://{at}:8000/\"\nhealth_timeout = \"1s\"\nhealth_failures = 2\n\
         stop_timeout = \"200ms\"\n{ONCE}"
    );
    let world = server(&at, ", \"stubborn\"", &keys);
    let _daemon = world.run();
    let pid = world.pid("web");
    send(pid, Signal::SIGSTOP);
    let exit = end(&world);
    assert_eq!((exit.reason.as_str(), exit.signal), ("health", Some(9)));
    assert!(exit.description.contains("no answer in 1s"), "{exit:?}");
    assert_eq!(of_web(&world, "stop_escalations_total", ""), Some(1.0));
    assert!(!lives(pid));
}

#[test]
fn failed_checks_that_are_not_in_a_row_restart_nothing() {
    let script = "echo call >> calls; [ $(($(wc -l < calls) % 2)) -eq 1 ] || exit 7";
    let world = asked(script, "health_check = \"exec:sh check.sh\"");
    let _daemon = world.run();
    let series = |page: &str, family: &str| {
        let labels = "{program=\"web\",replica=\"0\",check=\"exec\"}";
        value(page, &format!("eternal_program_health_{family}{labels}")).expect("a series")
    };
    let page = eventually("it is checked often", || {
        let page = world.scrape()?;
        (series(&page, "checks_total") >= 10.0).then_some(page)
    });
    let checks = series(&page, "checks_total");
    assert_eq!(
        series(&page, "check_failures_total"),
        (checks / 2.0).floor()
    );
    assert_eq!(series(&page, "check_up"), checks % 2.0);
    let web = world.is("web", "running");
    assert_eq!((web.restarts, web.crashes), (0, 0));
    world.logged(&["WARN", "health check failed (1 of 3): sh: exit code 7"]);
    world.logged(&["INFO", "health check passed again after 1 failed"]);
}

#[test]
fn a_command_that_hangs_is_killed_with_its_family_and_has_failed() {
    let script = "echo $$ >> commands; sleep 1000 & echo $! >> sleepers; wait";
    let keys =
        "health_check = \"exec:sh check.sh\"\nhealth_timeout = \"1s\"\nhealth_failures = 2\n";
    let world = asked(script, &format!("{keys}{ONCE}"));
    let _daemon = world.run();
    let exit = end(&world);
    assert_eq!(exit.reason, "health");
    assert!(exit.description.contains("sh: not done in 1s"), "{exit:?}");
    assert_eq!(counted(&world, "check_failures_total", "exec"), Some(2.0));
    let pids = [world.lines("commands"), world.lines("sleepers")].concat();
    assert!(pids.len() >= 2, "{pids:?}");
    for pid in pids {
        dies(pid.parse().expect("a pid"));
    }
}

#[test]
fn a_command_under_way_goes_with_the_program() {
    let script =
        "echo \"[$NOTIFY_SOCKET$WATCHDOG_USEC]\" > told; echo $$ > command; exec sleep 1000";
    let keys = "health_check = \"exec:sh check.sh\"\nhealth_timeout = \"1h\"\nwatchdog = \"1h\"";
    let world = asked(script, keys);
    let _daemon = world.run();
    let command = world.pid_in("command");
    assert!(lives(command));
    assert_eq!(world.read("told"), "[]\n", "it has nothing to notify");
    assert_eq!(world.eternal(&["stop", "web"]).code, 0);
    dies(command);
    assert_eq!(
        counted(&world, "checks_total", "exec"),
        Some(0.0),
        "no answer"
    );
    assert_eq!(counted(&world, "check_up", "exec"), Some(1.0));
}

#[test]
fn a_command_that_cannot_be_started_has_failed() {
    let keys = "health_check = \"exec:./missing\"\nhealth_failures = 1\n";
    let world = asked("", &format!("{keys}{ONCE}"));
    let _daemon = world.run();
    let exit = end(&world);
    assert_eq!(exit.reason, "health");
    assert!(exit.description.contains("missing"), "{exit:?}");
}

#[test]
fn a_program_that_never_passes_its_check_is_given_up_as_a_crash_loop() {
    let keys = "health_check = \"exec:false\"\nhealth_failures = 1\ncrash_threshold = 3\n\
                restart_delay = \"10ms\"\nrestart_delay_max = \"20ms\"";
    // Another keeps the daemon, so that the numbers can be read.
    let config = sleeping(keys) + "[programs.other]\ncommand = [\"sleep\", \"1000\"]\n";
    let world = World::new(&config);
    let _daemon = world.run();
    let web = world.is("web", "failed");
    assert_eq!((web.crashes, web.crash_budget_remaining), (3, 0));
    assert_eq!(web.restarts_by_cause.get("health"), Some(&2));
    assert_eq!(web.restarts_by_cause.len(), 1, "no other cause");
    assert_eq!(web.exits.get("health"), Some(&3));
    assert!(web.why.contains("crash loop"), "{}", web.why);
    assert_eq!(counted(&world, "checks_total", "exec"), Some(3.0), "kept");
    let absent = "eternal_program_health_checks_total{program=\"other\"";
    assert!(!world.scrape().expect("a scrape").contains(absent));
}

#[test]
fn a_reload_adds_changes_and_removes_a_check_without_a_restart() {
    let clock = "[programs.clock]\ncommand = [\"sleep\", \"1000\"]\nhealth_interval = \"50ms\"\n\
                 health_check = \"exec:sh tick.sh\"\n";
    let world = World::new(&(sleeping("") + clock));
    world.write("tick.sh", "echo tick >> ticks");
    world.write("check.sh", "echo call >> calls");
    let _daemon = world.run();
    let pid = world.pid("web");
    assert_eq!(counted(&world, "checks_total", "exec"), None);
    let reload = |keys: &str| {
        world.configure(&(sleeping(keys) + clock));
        let said = world.eternal(&["reload"]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    reload("health_check = \"exec:sh check.sh\"");
    let checks = |least: f64| {
        eventually("it is checked", || {
            counted(&world, "checks_total", "exec").filter(|checks| *checks >= least)
        })
    };
    let before = checks(2.0);
    reload("health_check = \"exec:sh check.sh\"\nhealth_timeout = \"2s\"");
    let after = counted(&world, "checks_total", "exec").expect("a series");
    assert!(after >= before, "its counters go on: {after}");
    checks(after + 1.0);
    reload("");
    assert_eq!(counted(&world, "checks_total", "exec"), None);
    // One that was under way may just have written.
    let (calls, ticks) = (world.lines("calls").len(), world.lines("ticks").len());
    eventually("the clock goes on", || {
        (world.lines("ticks").len() >= ticks + 5).then_some(())
    });
    assert!(world.lines("calls").len() <= calls + 1, "nobody asks");
    assert_eq!(world.pid("web"), pid, "it was never restarted");
    reload("health_check = \"exec:false\"\nhealth_failures = 1\nrestart_delay = \"1h\"");
    assert_eq!(end(&world).reason, "health");
}

#[test]
fn nobody_asks_before_the_program_is_ready() {
    let keys = "ready = \"exec:test -e open\"\nhealth_check = \"exec:test -e open\"\n\
                health_failures = 1\nhealth_interval = \"20ms\"";
    let config = format!("[programs.web]\ncommand = [\"sleep\", \"1000\"]\n{keys}\n")
        + "[programs.clock]\ncommand = [\"sleep\", \"1000\"]\nhealth_interval = \"20ms\"\n\
           health_check = \"exec:sh tick.sh\"\n";
    let world = World::new(&config);
    world.write("tick.sh", "echo tick >> ticks");
    let _daemon = world.run();
    eventually("time passes", || {
        (world.lines("ticks").len() >= 5).then_some(())
    });
    assert_eq!(counted(&world, "checks_total", "exec"), Some(0.0));
    world.write("open", "");
    let web = world.is("web", "running");
    assert_eq!(web.crashes, 0);
    eventually("it is checked", || {
        counted(&world, "checks_total", "exec").filter(|checks| *checks >= 2.0)
    });
}

#[test]
fn a_program_that_falls_silent_fails_its_watchdog() {
    let config = "[programs.web]\ncommand = [\"python3\", \"pinger.py\"]\nwatchdog = \"3s\"\n\
                  restart_delay = \"10ms\"\n";
    let world = World::new(config);
    world.write("pinger.py", PINGER);
    let _daemon = world.run();
    let told = world.appears("pinger");
    assert_eq!(told, format!("{} 3000000\n", world.pid("web")));
    let web = world.program("web", "outlives its watchdog", |web| {
        web.uptime_seconds
            .filter(|up| *up > 3.5)
            .map(|_| web.clone())
    });
    assert_eq!(web.restarts, 0);
    world.write("hang", "");
    let exit = end(&world);
    assert_eq!((exit.reason.as_str(), exit.crash), ("watchdog", true));
    assert_eq!(exit.description, "SIGTERM (watchdog ran out)");
    // Silent from its first moment: the time counts from ready on.
    let web = world.program("web", "was restarted for it", |web| {
        web.restarts_by_cause.get("watchdog").map(|_| web.clone())
    });
    assert_eq!(web.restarts_by_cause.len(), 1, "{web:?}");
    world.logged(&["INFO", "web: stopping: watchdog ran out"]);
    world.logged(&["web: restarted (watchdog)"]);
}

#[test]
fn a_descendant_may_speak_for_the_program_and_may_give_up_for_it() {
    let config = "[programs.web]\ncommand = [\"sh\", \"-c\", \"python3 pinger.py & wait\"]\n\
                  watchdog = \"3s\"\n"
        .to_owned()
        + ONCE;
    let world = World::new(&config);
    world.write("pinger.py", PINGER);
    let _daemon = world.run();
    let web = world.program("web", "outlives its watchdog", |web| {
        web.uptime_seconds
            .filter(|up| *up > 3.5)
            .map(|_| web.clone())
    });
    assert_eq!(web.restarts, 0);
    assert_ne!(
        world.appears("pinger"),
        format!("{} 3000000\n", web.pid.expect("a pid"))
    );
    // It goes on saying that it lives: nothing but this can end it.
    world.write("give-up", "");
    assert_eq!(end(&world).reason, "watchdog");
}

#[test]
fn the_bundled_server_says_that_it_lives_until_it_hangs() {
    let at = address();
    let config = format!(
        "[programs.web]\ncommand = [{:?}, \"api-server\", \"--listen\", \"{at}:3000\", \"--chaos\"]\n\
         ready = \"notify\"\nwatchdog = \"3s\"\nstop_timeout = \"100ms\"\n{ONCE}",
        World::binary()
    );
    let world = World::new(&config);
    let _daemon = world.run();
    let web = world.program("web", "outlives its watchdog", |web| {
        web.uptime_seconds
            .filter(|up| *up > 3.5)
            .map(|_| web.clone())
    });
    assert_eq!((web.restarts, web.last_exit), (0, None));
    let mut server = std::net::TcpStream::connect((at.as_str(), 3000)).expect("it serves");
    let hang = "POST /chaos/hang HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    std::io::Write::write_all(&mut server, hang.as_bytes()).expect("asked");
    let exit = end(&world);
    assert_eq!((exit.reason.as_str(), exit.signal), ("watchdog", Some(9)));
}

#[test]
fn a_changed_watchdog_is_a_restart_and_none_means_no_socket() {
    let program = |keys: &str| {
        format!(
            "[programs.web]\ncommand = [\"sh\", \"-c\", 'echo \"${{NOTIFY_SOCKET:+there}} \
             $WATCHDOG_USEC.\" > told; exec sleep 1000']\n{keys}\n"
        )
    };
    let world = World::new(&program(""));
    let _daemon = world.run();
    assert_eq!(world.appears("told"), " .\n");
    let pid = world.pid("web");
    std::fs::remove_file(world.path("told")).expect("removed");
    world.configure(&program("watchdog = \"1h\""));
    assert_eq!(world.eternal(&["reload"]).code, 0);
    assert_ne!(world.pid("web"), pid);
    assert_eq!(world.appears("told"), "there 3600000000.\n");
    assert_eq!(world.is("web", "running").crashes, 0);
}
