//! A daemon is killed, and the next one finds and ends what it left: real processes throughout.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eternal::os::identity::Identity;
use eternal::os::survivors::{Ended, How, Survivor, end, find};

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

fn finish(marker: &str, list: Vec<Survivor>, grace: Duration) -> Ended {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("runtime");
    runtime.block_on(end(marker, list, nix::libc::SIGTERM, grace))
}

fn unique_marker(test: u32) -> String {
    format!("{:08x}{test:08x}", std::process::id())
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
    assert_eq!(how("main"), Some(How::Recorded));
    assert_eq!(how("far"), Some(How::Marked));
    assert_eq!(how("clean"), Some(How::Family));
    assert_eq!(how("orphan"), Some(How::Family));
    assert!(
        found
            .iter()
            .filter(|s| s.how != How::Marked)
            .all(|s| s.name == "web")
    );
    let ended = finish(&marker, found, Duration::from_secs(10));
    assert_eq!(
        ended,
        Ended {
            terminated: 4,
            killed: 0,
            left: Vec::new()
        }
    );
    assert!(members.values().all(|identity| !identity.is_alive()));
}

#[test]
fn without_a_record_the_marker_is_enough_and_without_a_marker_the_record() {
    let marker = unique_marker(2);
    let members = orphaned(&marker, PROGRAM, 4);
    assert_eq!(identities(&find(&marker, &[])), sorted(&members));
    let recorded = [(members["main"], "web".to_owned())];
    assert_eq!(identities(&find("", &recorded)), sorted(&members));
    assert_eq!(find("", &[]), []);
    assert_eq!(find(&unique_marker(99), &[]), []);
    let ended = finish(&marker, find(&marker, &[]), Duration::from_secs(10));
    assert_eq!((ended.terminated, ended.left), (4, Vec::new()));
}

#[test]
fn those_that_do_not_listen_and_those_that_are_stopped_are_killed() {
    let marker = unique_marker(3);
    let deaf = "trap '' TERM; echo main $$; sh -c 'echo child $$; kill -STOP $$' & wait; sleep 300";
    let members = orphaned(&marker, deaf, 2);
    let found = find(&marker, &[]);
    assert_eq!(identities(&found), sorted(&members));
    let ended = finish(&marker, found, Duration::from_millis(200));
    assert_eq!(ended.left, []);
    assert!(ended.killed >= 1, "{ended:?}");
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
    let ended = finish(&marker, find(&marker, &[]), Duration::from_secs(2));
    assert_eq!(ended.left, []);
    assert!(ended.killed >= 1, "{ended:?}");
    assert_eq!(find(&marker, &[]), []);
    let mut members = Command::new("ps");
    members
        .args(["-o", "stat=,pid=", "-s", &session.to_string()])
        .stdout(Stdio::piped());
    let mut text = String::new();
    let mut ps = members.spawn().expect("ps");
    ps.stdout
        .take()
        .expect("piped")
        .read_to_string(&mut text)
        .expect("text");
    ps.wait().expect("wait");
    // Whoever adopted the dead may be late to reap them.
    let alive: Vec<&str> = text.lines().filter(|line| !line.starts_with('Z')).collect();
    assert_eq!(alive, [""; 0], "the session is empty");
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
    let list = vec![Survivor {
        identity: earlier,
        name: "web".to_owned(),
        how: How::Recorded,
    }];
    assert_eq!(find(&marker, &[(earlier, "web".to_owned())]), []);
    let ended = finish(&marker, list, Duration::from_millis(100));
    assert_eq!((ended.killed, ended.left), (0, Vec::new()));
    assert!(truth.is_alive());
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
}
