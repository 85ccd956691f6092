//! A daemon is killed, and the next one finds and ends what it left: real processes throughout.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eternal::os::cgroups::LeftOvers;
use eternal::os::identity::Identity;
use eternal::os::installation::Installation;
use eternal::os::survivors::{Clearing, Farewell, How, News, Search, Survivor};
use nix::libc;

/// A program as a daemon would start it, in a session of its own with the marker in its
/// environment. It has a descendant that left for another session, one that cleared its
/// environment, and one whose parent is gone.
const PROGRAM: &str = r#"
    trap '' HUP
    echo main $$
    setsid sh -c 'echo far $$; exec sleep 300' &
    env -i /bin/sh -c 'echo clean $$; exec /bin/sleep 300' &
    (env -i /bin/sh -c 'echo orphan $$; exec /bin/sleep 300' &)
    wait
"#;

/// Starts the program under a "daemon", kills that, and returns who is left, by name.
fn orphaned(marker: &str, program: &str, members: usize) -> BTreeMap<String, Identity> {
    let script = format!("ETERNAL_RUN={marker}:1:1 setsid sh -c \"$PROGRAM\" & wait");
    let mut daemon = Command::new("setsid")
        .args(["sh", "-c", &script])
        .env("PROGRAM", program)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("setsid");
    let mut lines = BufReader::new(daemon.stdout.take().expect("piped")).lines();
    let members = (0..members).map(|_| {
        let line = lines.next().expect("one more").expect("text");
        let (name, pid) = line.split_once(' ').expect("a name and a pid");
        (
            name.to_owned(),
            Identity::of(pid.parse().expect("number")).expect("alive"),
        )
    });
    let members = members.collect();
    kill_group(&mut daemon);
    members
}

/// `setsid` of a group leader forks, so the daemon is whoever is in its session; both go.
fn kill_group(daemon: &mut Child) {
    let children = format!("/proc/{0}/task/{0}/children", daemon.id());
    for pid in std::fs::read_to_string(children)
        .expect("children")
        .split_ascii_whitespace()
    {
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("number"));
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("kill");
    }
    daemon.wait().expect("wait");
}

fn identities(survivors: &[Survivor]) -> Vec<Identity> {
    let mut identities: Vec<_> = survivors.iter().map(|survivor| survivor.identity).collect();
    identities.sort_unstable();
    identities
}

fn sorted(members: &BTreeMap<String, Identity>) -> Vec<Identity> {
    let mut identities: Vec<_> = members.values().copied().collect();
    identities.sort_unstable();
    identities
}

/// A search for who carries this token, or is on record and proves to be one of ours.
fn search(marker: &str, recorded: &[(Identity, String)]) -> Search {
    let recorded = recorded.iter().cloned().collect();
    Search::new(
        Installation::from_token(marker),
        recorded,
        LeftOvers::default(),
    )
}

fn find(marker: &str, recorded: &[(Identity, String)]) -> Vec<Survivor> {
    loop {
        let found = search(marker, recorded).run();
        // Somebody, maybe of another test, is just executing a program.
        if found.unsure.is_empty() {
            return found.survivors;
        }
    }
}

/// How the end of survivors went.
#[derive(Debug, Default)]
struct Ended {
    count: usize,
    left: Vec<Survivor>,
    unproven: Vec<String>,
    took: Duration,
}

/// Ends what a search finds, as the daemon's loop does.
fn finish(search: Search, farewell: fn(&str) -> Farewell) -> Ended {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("runtime");
    runtime.block_on(async {
        let begun = Instant::now();
        let mut clearing = Clearing::new(search, farewell, begun).expect("epoll");
        let mut ended = Ended::default();
        loop {
            for news in clearing.advance(Instant::now()) {
                match news {
                    News::Found(_) | News::Hangs => {}
                    News::Unproven(_, name) => ended.unproven.push(name),
                    News::Left(survivor) => ended.left.push(survivor),
                    News::Rival(pid) => panic!("{pid} is no daemon"),
                    News::Over { count } => {
                        ended.count = count;
                        ended.took = begun.elapsed();
                        return ended;
                    }
                }
            }
            let deadline = clearing.deadline().expect("it is not over");
            tokio::select! {
                () = std::future::poll_fn(|context| clearing.poll_next(context)) => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    })
}

const fn patient(_: &str) -> Farewell {
    Farewell {
        signal: libc::SIGTERM,
        grace: Duration::from_secs(10),
    }
}

const fn brief(_: &str) -> Farewell {
    Farewell {
        signal: libc::SIGTERM,
        grace: Duration::from_millis(200),
    }
}

fn unique_marker(test: u32) -> String {
    format!("{test:08x}{:08x}", std::process::id())
}

#[test]
fn the_whole_family_of_a_killed_daemon_is_found_and_ended() {
    let marker = unique_marker(1);
    let members = orphaned(&marker, PROGRAM, 4);
    let recorded = [(members["main"], "web".to_owned())];
    let found = find(&marker, &recorded);
    assert_eq!(identities(&found), sorted(&members));
    let how = |name: &str| {
        found
            .iter()
            .find(|s| s.identity == members[name])
            .map(|s| s.how)
    };
    assert_eq!(how("main"), Some(How::Marked));
    assert_eq!(how("far"), Some(How::Marked));
    assert_eq!(how("clean"), Some(How::Family));
    assert_eq!(how("orphan"), Some(How::Family));
    assert!(
        found
            .iter()
            .filter(|s| s.how != How::Marked)
            .all(|s| s.name == "web")
    );
    let ended = finish(search(&marker, &recorded), patient);
    assert_eq!((ended.count, ended.left), (4, Vec::new()));
    assert!(
        ended.took < Duration::from_secs(10),
        "nobody had to be killed"
    );
    assert!(members.values().all(|identity| !identity.is_alive()));
}

#[test]
fn without_a_record_the_marker_is_enough() {
    let marker = unique_marker(2);
    let members = orphaned(&marker, PROGRAM, 4);
    assert_eq!(identities(&find(&marker, &[])), sorted(&members));
    assert_eq!(find("", &[]), []);
    assert_eq!(find(&unique_marker(99), &[]), []);
    let ended = finish(search(&marker, &[]), patient);
    assert_eq!((ended.count, ended.left), (4, Vec::new()));
}

/// A process as a daemon leaves it that has cleared its environment: it leads a session, and nobody
/// reads any more what it says.
fn wiped() -> Identity {
    let mut command = Command::new("env");
    command
        .args([
            "-i",
            "setsid",
            "--fork",
            "sh",
            "-c",
            "echo $$ >&2; exec sleep 300",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("env");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let pid = lines.next().expect("a line").expect("text");
    let who = Identity::of(pid.trim().parse().expect("a pid")).expect("alive");
    child.wait().expect("it has forked");
    who
}

#[test]
fn without_a_marker_a_record_needs_a_process_that_has_lost_its_daemon() {
    let marker = unique_marker(6);
    let ours = wiped();
    let recorded = [(ours, "web/1".to_owned())];
    // A process that another test is just making has copies of our descriptors until it executes.
    let begun = Instant::now();
    let found = loop {
        let found = find(&marker, &recorded);
        if !found.is_empty() || begun.elapsed() > Duration::from_secs(20) {
            break found;
        }
    };
    assert_eq!((found.len(), found[0].how), (1, How::Recorded), "{found:?}");
    let ended = finish(search(&marker, &recorded), patient);
    assert_eq!((ended.count, ended.unproven.len()), (1, 0));
    assert!(!ours.is_alive());
}

#[test]
fn a_forged_record_ends_nobody_and_is_said() {
    let marker = unique_marker(7);
    // A service that leads its session, but whose output goes elsewhere; and a plain process.
    let mut service = Command::new("setsid");
    service.args([
        "--fork",
        "sh",
        "-c",
        "echo $$; exec sleep 300 >/dev/null 2>&1",
    ]);
    service.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut service = service.spawn().expect("setsid");
    let mut line = String::new();
    let mut output = BufReader::new(service.stdout.take().expect("piped"));
    output.read_line(&mut line).expect("a line");
    service.wait().expect("it has forked");
    let service = Identity::of(line.trim().parse().expect("a pid")).expect("alive");
    let mut plain = Command::new("sleep");
    plain.arg("300").stdout(Stdio::piped());
    let mut plain = plain.spawn().expect("sleep");
    drop(plain.stdout.take());
    let innocent = Identity::of(plain.id() as i32).expect("alive");
    // Until it has executed `sleep` its output is still the pipe.
    while !std::fs::read_link(format!("/proc/{}/fd/1", service.pid()))
        .is_ok_and(|to| to.ends_with("null"))
    {
        std::thread::yield_now();
    }
    drop(output);
    let recorded = [
        (service, "sshd".to_owned()),
        (innocent, "innocent".to_owned()),
    ];
    let mut ended = finish(search(&marker, &recorded), brief);
    ended.unproven.sort();
    // The plain one is in our session, so it is not even looked at.
    assert_eq!((ended.count, ended.unproven), (0, vec!["sshd".to_owned()]));
    assert!(service.is_alive() && innocent.is_alive());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(service.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    plain.kill().expect("kill");
    plain.wait().expect("wait");
}

#[test]
fn each_program_gets_its_own_signal_and_its_own_grace_at_the_same_time() {
    let marker = unique_marker(8);
    // `slow` needs a second after SIGUSR1, which is its stop signal; the deaf ones use up theirs.
    let slow = "trap 'sleep 1; echo flushed; exit 0' USR1; trap '' TERM; echo main $$; \
                while :; do sleep 0.02; done";
    let mut recorded = Vec::new();
    let program = |name: &str, script: &str| {
        let members = orphaned(&format!("{marker}:{name}"), script, 1);
        (members["main"], name.to_owned())
    };
    recorded.push(program("slow", slow));
    for number in 0..5 {
        let deaf = "trap '' TERM; echo main $$; while :; do sleep 0.02; done";
        recorded.push(program(&format!("deaf-{number}"), deaf));
    }
    fn farewell(name: &str) -> Farewell {
        let (signal, grace) = match name {
            "slow" => (libc::SIGUSR1, 20),
            _ => (libc::SIGTERM, 2),
        };
        let grace = Duration::from_secs(grace);
        Farewell { signal, grace }
    }
    let ended = finish(search(&marker, &recorded), farewell);
    assert_eq!(ended.left, []);
    assert!(ended.count >= 6, "{ended:?}");
    assert!(
        ended.took >= Duration::from_secs(2),
        "each had its grace: {ended:?}"
    );
    assert!(
        ended.took < Duration::from_secs(8),
        "side by side: {ended:?}"
    );
}

#[test]
fn those_that_do_not_listen_and_those_that_are_stopped_are_killed() {
    let marker = unique_marker(3);
    let deaf = "trap '' TERM; echo main $$; sh -c 'echo child $$; kill -STOP $$' & wait; sleep 300";
    let members = orphaned(&marker, deaf, 2);
    let found = find(&marker, &[]);
    assert_eq!(identities(&found), sorted(&members));
    let ended = finish(search(&marker, &[]), brief);
    assert_eq!(ended.left, []);
    assert!(ended.count >= 2, "{ended:?}");
    assert_eq!(find(&marker, &[]), []);
}

#[test]
fn a_family_that_forks_when_asked_to_stop_is_ended_all_the_same() {
    let marker = unique_marker(4);
    let hydra = r#"
        trap 'env -i /bin/sh -c "exec /bin/sleep 300" & setsid sleep 300 & exit 0' TERM
        echo main $$
        while :; do sleep 300 & wait; done
    "#;
    let members = orphaned(&marker, hydra, 1);
    let session = members["main"].pid();
    let ended = finish(search(&marker, &[]), brief);
    assert_eq!(ended.left, []);
    assert!(ended.count >= 2, "{ended:?}");
    assert_eq!(find(&marker, &[]), []);
    let mut members = Command::new("ps");
    members
        .args(["-o", "stat=,pid=,args=", "-s", &session.to_string()])
        .stdout(Stdio::piped());
    let mut text = String::new();
    let mut ps = members.spawn().expect("ps");
    ps.stdout
        .take()
        .expect("piped")
        .read_to_string(&mut text)
        .expect("text");
    ps.wait().expect("wait");
    // Zombies wait for whoever adopted them, which is not us.
    let alive: Vec<&str> = text.lines().filter(|line| !line.starts_with('Z')).collect();
    assert!(alive.is_empty(), "left in the session: {alive:?}");
}

#[test]
fn a_recycled_number_is_never_signalled() {
    let mut bystander = Command::new("sleep").arg("300").spawn().expect("sleep");
    let truth = Identity::of(bystander.id() as i32).expect("alive");
    let text = truth.to_string();
    let (rest, start) = text.rsplit_once('/').expect("three parts");
    let start: u64 = start.parse().expect("number");
    let earlier: Identity = format!("{rest}/{}", start - 1).parse().expect("valid");
    let marker = unique_marker(5);
    let recorded = [(earlier, "web".to_owned())];
    assert_eq!(find(&marker, &recorded), []);
    let ended = finish(search(&marker, &recorded), brief);
    assert_eq!((ended.count, ended.left), (0, Vec::new()));
    assert!(truth.is_alive());
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
}
