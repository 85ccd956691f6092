//! What supervision costs, against targets: `cargo bench --bench supervision [-- NAME…] [--check]`.
//!
//! Latencies are told as ratios to a minimal supervisor in C (`floor.c`) that restarts the same
//! program (`witness.c`), killed in turn with ours. `--check` makes a missed target an error.
//! `ETERNAL_BINARY` names another binary to measure.

mod figures;
mod footprint;
mod latency;
mod world;

use std::fs;
use std::process::ExitCode;

use figures::Verdict;
use world::Tools;

type Measure = fn(&Tools) -> Vec<Verdict>;

const MEASURES: [(&str, Measure); 8] = [
    ("restart", latency::restart),
    ("burst", latency::burst),
    ("flooded", latency::flooded),
    ("scraped", latency::scraped),
    ("scrape", footprint::scrape),
    ("start-stop", footprint::start_stop),
    ("memory", footprint::memory),
    ("idle", footprint::idle),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let known = |name: &&String| MEASURES.iter().any(|(known, _)| known == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        println!(
            "there is no {unknown}; there are: {}",
            MEASURES.map(|(name, _)| name).join(" ")
        );
        return ExitCode::from(2);
    }
    let Some(tools) = Tools::build() else {
        println!("skipped: no working cc");
        return ExitCode::SUCCESS;
    };
    let mut verdicts = Vec::new();
    for (name, measure) in MEASURES {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            println!("{name} (load {})", load());
            verdicts.extend(measure(&tools));
        }
    }
    figures::table(&verdicts);
    let missed = verdicts.iter().any(|verdict| !verdict.met());
    ExitCode::from(u8::from(
        missed && words.iter().any(|word| word == "--check"),
    ))
}

/// How busy the machine is: the averages of one and five minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}
