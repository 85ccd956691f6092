//! Log capture against a C program that copies a pipe to a file: `cargo bench --bench log_capture`.
//!
//! Ours counts lines, keeps the last ones, and rotates at 50 MiB; the floor does none of it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eternal::os::logs::{Logs, Options, Source, Stderr};
use eternal::supervision::{Id, Run};

const TOTAL: usize = 400 * 1024 * 1024;
const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let floor = directory.path().join("log_floor");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/log_floor.c");
    if !Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&floor)
        .arg(source)
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: no working cc");
        return;
    }
    measure("100-byte writes", &floor, 100, true, 0.8);
    measure("64 KiB writes", &floor, 64 * 1024, true, 0.7);
    measure("64 KiB writes, daemon log", &floor, 64 * 1024, false, 0.0);
    open_cost();
}

fn measure(name: &str, floor: &Path, size: usize, own_file: bool, wanted: f64) {
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let base = copy(floor, size);
        let ours = capture(floor, size, own_file);
        let mib = TOTAL as f64 / f64::from(1 << 20);
        rates[0].push(mib / base.as_secs_f64());
        rates[1].push(mib / ours.as_secs_f64());
        rates[2].push(base.as_secs_f64() / ours.as_secs_f64());
    }
    for rate in &mut rates {
        rate.sort_by(f64::total_cmp);
    }
    let [base, ours, ratio] = rates.map(|rate| (rate[0], rate[ROUNDS / 2], rate[ROUNDS - 1]));
    println!(
        "{name}: floor {:.0} MiB/s, ours {:.0} MiB/s (medians)",
        base.1, ours.1
    );
    println!(
        "  ratio min {:.2} median {:.2} max {:.2} (wanted {wanted})",
        ratio.0, ratio.1, ratio.2
    );
}

fn copy(floor: &Path, size: usize) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let begin = Instant::now();
    let mut command = Command::new(floor);
    command
        .arg("copy")
        .arg(directory.path().join("log"))
        .args([size.to_string(), TOTAL.to_string()]);
    assert!(command.status().expect("it runs").success());
    begin.elapsed()
}

fn capture(floor: &Path, size: usize, own_file: bool) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(directory.path(), own_file);
    let begin = Instant::now();
    let (out, err) = logs.open(Id(1), Run(1)).expect("pipes");
    let mut command = Command::new(floor);
    command
        .arg("write")
        .args([size.to_string(), TOTAL.to_string()]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("it runs");
    logs.attend();
    assert!(child.wait().expect("it ends").success());
    let _ = logs.ended(Id(1), Run(1)).blocking_recv();
    logs.shutdown(PATIENCE);
    let took = begin.elapsed();
    let counters = logs.counters(Id(1));
    assert_eq!(
        (counters.stdout.bytes() as usize).div_ceil(size),
        TOTAL.div_ceil(size)
    );
    assert_eq!(counters.stdout.dropped(), 0);
    took
}

fn start(directory: &Path, own_file: bool) -> Logs {
    let options = Options {
        file: Some(directory.join("daemon.log")),
        max_size: 50 * 1024 * 1024,
        keep: 2,
        json: false,
        stderr: Stderr::None,
        stderr_to: None,
    };
    let logs = Logs::start(options).expect("logging starts");
    let file = own_file.then(|| directory.join("web.log"));
    logs.program(
        Id(1),
        Source {
            name: "web".into(),
            file,
            lasting: false,
        },
    )
    .expect("registered");
    logs
}

fn open_cost() {
    const COUNT: u32 = 200;
    let directory = tempfile::tempdir().expect("a directory");
    let logs = start(directory.path(), false);
    let mut ends = Vec::new();
    let mut took: Vec<Duration> = (0..COUNT)
        .map(|number| {
            let begin = Instant::now();
            ends.push(logs.open(Id(1), Run(u64::from(number))).expect("pipes"));
            begin.elapsed()
        })
        .collect();
    took.sort();
    println!("open: min {:?} median {:?}", took[0], took[took.len() / 2]);
}
