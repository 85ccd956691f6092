//! How long a restart takes, beside the simplest thing that could work.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{signal, within};

const ROUNDS: usize = 300;

/// Prints both medians: `cargo test --test children -- --ignored --nocapture latency`.
#[test]
#[ignore = "a measurement, not a check"]
fn from_sigkill_to_the_next_process() {
    let mut plain = blocking();
    within(async |world| {
        let launch = world.launch(&["/bin/sleep", "1000"]);
        let mut started = world.start(&launch).expect("it starts");
        let mut ours = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            signal(started.pid, Signal::SIGKILL);
            world.exit(started.run).await;
            started = world.start(&launch).expect("it starts");
            ours.push(begin.elapsed());
        }
        let (plain, ours) = (median(&mut plain), median(&mut ours));
        let ratio = ours.as_secs_f64() / plain.as_secs_f64();
        println!("p50: blocking wait and posix_spawn {plain:?}, ours {ours:?}: {ratio:.2} times");
    });
}

fn blocking() -> Vec<Duration> {
    let start = || {
        let mut command = Command::new("/bin/sleep");
        command
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut child = start();
    let times = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        child.kill().expect("it lives");
        child.wait().expect("it ended");
        child = start();
        begin.elapsed()
    });
    let times = times.collect();
    child.kill().expect("it lives");
    child.wait().expect("it ended");
    times
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
