//! Real families of processes.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::super::seconds;
use super::*;
use crate::os::environ::{self, Environment};

/// A shell that does one line at a time, and says when it has.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn start() -> Self {
        let mut command = Command::new("setsid");
        command.args([
            "sh",
            "-c",
            "while read -r line; do eval \"$line\"; echo done; done",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self {
            child,
            input,
            output,
        };
        shell.run(":");
        shell
    }

    /// Runs a line and returns what it printed.
    fn run(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("write");
        let mut all = String::new();
        while !all.ends_with("done\n") {
            assert_ne!(
                self.output.read_line(&mut all).expect("read"),
                0,
                "the shell ended"
            );
        }
        all.trim_end_matches("done\n").to_owned()
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(self.pid()),
            nix::sys::signal::SIGKILL,
        );
        let _ = self.child.wait();
    }
}

fn cpu(usage: &Usage) -> f64 {
    usage.cpu_user_seconds + usage.cpu_system_seconds
}

fn one(sampler: &mut Sampler, pid: i32) -> Usage {
    sampler.sample(&[(7, pid)], "none")[0].1
}

/// Burns about a tenth of a second.
const BURN: &str = "sh -c 'i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done'";

#[test]
fn cpu_time_never_goes_back_and_nothing_is_counted_twice() {
    let mut sampler = Sampler::default();
    let mut shell = Shell::start();
    let mut last = 0.0;
    // Seen alive and then reaped; never seen alive; nested.
    for line in [
        format!("{BURN} & child=$!"),
        "wait $child".to_owned(),
        BURN.to_owned(),
        format!("(  {BURN}; {BURN} ) & child=$!"),
        "wait $child".to_owned(),
    ] {
        shell.run(&line);
        for _ in 0..20 {
            let now = cpu(&one(&mut sampler, shell.pid()));
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    }
    let stat = Stat::read(shell.pid()).expect("alive");
    let truth = seconds(stat.own_time.iter().sum::<u64>() + stat.reaped_time.iter().sum::<u64>());
    assert!(truth > 0.1, "it burned {truth} s");
    assert!(
        (last - truth).abs() < 0.025,
        "measured {last}, the kernel says {truth}"
    );
}

#[test]
fn totals_go_on_over_a_restart_and_gauges_fall_to_zero_between() {
    let mut sampler = Sampler::default();
    let mut shell = Shell::start();
    shell.run(BURN);
    let before = one(&mut sampler, shell.pid());
    assert!(before.processes == 1 && before.resident_bytes > 0 && before.max_fds > 0);
    drop(shell);
    let between = sampler.sample(&[], "none");
    assert_eq!(
        between,
        [(
            7,
            Usage {
                ..with_totals(None, &sampler.totals[&7])
            }
        )]
    );
    assert!(cpu(&between[0].1) >= cpu(&before) && between[0].1.processes == 0);
    let shell = Shell::start();
    let after = one(&mut sampler, shell.pid());
    assert!(cpu(&after) >= cpu(&before) && after.processes == 1);
    sampler.retain(|key| key != 7);
    assert_eq!(sampler.sample(&[], "none"), []);
}

/// Ends a shell as the daemon does: what the kernel says of it is heard before it is reaped.
fn end(shell: Shell, endings: &Endings) {
    let mut shell = std::mem::ManuallyDrop::new(shell);
    let pid = shell.pid();
    let _ = writeln!(shell.input, "exit");
    let pidfd = crate::os::pidfd::open(pid).expect("alive");
    let used = loop {
        if let Some((_, used)) = crate::os::pidfd::peek(pidfd.as_fd()) {
            break used;
        }
        std::thread::yield_now();
    };
    endings.add(7, pid, used);
    shell.child.wait().expect("wait");
}

#[test]
fn the_last_use_of_a_main_process_is_counted_once_whether_a_pass_saw_it_or_not() {
    let endings = Endings::default();
    let mut sampler = Sampler::new(endings.clone(), Accounts::default());
    let burn = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";
    let mut truth = 0.0;
    let mut last = 0.0;
    sampler.sample(&[(7, 1_000_000_000)], "none");
    // Seen early, seen late, never seen; with a child that it waited for, or alone.
    for (early, late, line) in [
        (true, false, burn),
        (true, true, burn),
        (false, false, burn),
        (false, true, BURN),
        (true, false, BURN),
        (false, false, BURN),
    ] {
        let mut shell = Shell::start();
        if early {
            one(&mut sampler, shell.pid());
        }
        shell.run(line);
        if late {
            one(&mut sampler, shell.pid());
        }
        let stat = Stat::read(shell.pid()).expect("alive");
        let ticks: u64 = stat.own_time.iter().chain(&stat.reaped_time).sum();
        truth += seconds(ticks);
        end(shell, &endings);
        if late {
            // Gone in this pass already, and heard in the same or the next.
            sampler.sample(&[], "none");
        }
        let now = cpu(&sampler.sample(&[], "none")[0].1);
        assert!(now >= last, "{now} after {last}");
        last = now;
        // Ticks are cut off twice for each, and it takes a moment to end.
        let difference = last - truth;
        assert!(
            (-0.001..0.3).contains(&difference) && truth > 0.02,
            "measured {last}, the kernel says {truth}"
        );
    }
    assert!(
        (last - truth).abs() < 0.15,
        "measured {last}, the kernel says {truth}"
    );
}

#[test]
fn a_last_word_that_comes_after_the_pass_that_missed_the_process_is_no_double() {
    let endings = Endings::default();
    let mut sampler = Sampler::new(endings.clone(), Accounts::default());
    let mut shell = Shell::start();
    shell.run("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    let before = cpu(&one(&mut sampler, shell.pid()));
    let pid = shell.pid();
    let late = Endings::default();
    end(shell, &late);
    sampler.sample(&[], "none");
    let used = late.take()[&7].first;
    endings.add(7, pid, used);
    let after = cpu(&sampler.sample(&[], "none")[0].1);
    let truth = (used[0] + used[1]) as f64 / 1e6;
    assert!(before > 0.03 && after >= before);
    assert!(
        (after - truth).abs() < 0.021,
        "measured {after}, the kernel says {truth}"
    );
}

#[test]
fn descendants_and_their_descriptors_count() {
    let mut sampler = Sampler::default();
    let mut shell = Shell::start();
    let alone = one(&mut sampler, shell.pid());
    shell.run("exec 7</dev/null 8</dev/null; setsid sleep 300 & far=$!; sleep 300 & near=$!");
    // Until both are `sleep`, and done with loading, they have other descriptors.
    let expected = (
        alone.processes + 2,
        alone.threads + 2,
        (alone.open_fds + 2) * 3,
    );
    let begun = std::time::Instant::now();
    loop {
        let family = one(&mut sampler, shell.pid());
        let measured = (family.processes, family.threads, family.open_fds);
        if measured == expected {
            break;
        }
        assert!(
            begun.elapsed().as_secs() < 10,
            "{measured:?}, expected {expected:?}"
        );
    }
    shell.run("kill $far $near");
}

#[test]
fn an_adopted_orphan_belongs_where_its_session_or_its_marker_says() {
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
    let mut sampler = Sampler::default();
    let mut shell = Shell::start();
    let text = shell.run(
        "(sleep 300 & echo $!); (ETERNAL_RUN=abc:7:1 setsid sleep 300 & echo $!); \
         (setsid sleep 300 & echo $!)",
    );
    let pids: Vec<i32> = text
        .lines()
        .map(|line| line.parse().expect("pid"))
        .collect();
    // The subshells have ended when the shell answers; setsid has to have happened, too.
    let settled = |pid: i32, apart: bool| {
        Stat::read(pid).is_ok_and(|s| (s.session == pid) == apart && marked_run_or_none(pid))
    };
    let mut tries = 0;
    while !(settled(pids[0], false) && settled(pids[1], true) && settled(pids[2], true)) {
        tries += 1;
        assert!(tries < 1_000_000, "the orphans settle");
        std::thread::yield_now();
    }
    let usage = |sampler: &mut Sampler| sampler.sample(&[(7, shell.pid())], "abc")[0].1;
    assert_eq!(
        usage(&mut sampler).processes,
        3,
        "the shell, and two of three orphans"
    );
    for pid in pids {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("kill");
        nix::sys::wait::waitpid(pid, None).expect("adopted");
    }
    assert_eq!(usage(&mut sampler).processes, 1);
}

/// Its program is `sleep` already, and its environment in its place: the name comes first.
fn marked_run_or_none(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        && matches!(environ::read(pid, &["ETERNAL_RUN"]), Environment::Says(_))
}

fn thread_cpu_ms() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD);
    let usage = usage.expect("getrusage");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|t| t.tv_sec() * 1000 + t.tv_usec() / 1000)
        .sum()
}

#[test]
#[ignore = "a measurement, with a thousand processes"]
fn a_thousand_families_take_milliseconds() {
    let spawn = |_| Command::new("sleep").arg("300").spawn().expect("sleep");
    let mut children: Vec<Child> = (0..1000).map(spawn).collect();
    let roots: Vec<(u32, i32)> = children
        .iter()
        .enumerate()
        .map(|(key, child)| (key as u32, child.id() as i32))
        .collect();
    let mut sampler = Sampler::default();
    for _ in 0..5 {
        let begun = (std::time::Instant::now(), thread_cpu_ms());
        assert_eq!(sampler.sample(&roots, "none").len(), 1000);
        let cpu = thread_cpu_ms() - begun.1;
        eprintln!(
            "1,000 families: {:?}, of which {cpu} ms on a processor",
            begun.0.elapsed()
        );
    }
    for child in &mut children {
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
