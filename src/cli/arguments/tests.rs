use clap::CommandFactory;

use super::*;
use crate::cli::{Invocation, parse_from};

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn the_definition_has_no_contradiction() {
    Arguments::command().debug_assert();
}

#[test]
fn every_flag_survives_the_way_to_the_background() {
    let line = "run --detached --config a.toml --name=n --restart=never --max-restarts=-1 \
                --restart-delay=1s --crash-threshold=2 --crash-window=3s --stop-timeout=4s \
                --log-file= --pid-file=p --metrics-listen=:1 --stats-interval=5s --linger=6s \
                --log-format=json --log-level=debug --socket=s -- sh -c --json";
    let line = words(&line.split_whitespace().collect::<Vec<_>>().join(" "));
    let Ok(Invocation::Run(run)) = parse_from(&line) else {
        panic!("a run")
    };
    assert!(run.detached);
    let written: Vec<String> = run
        .sources
        .to_arguments()
        .into_iter()
        .map(|word| word.into_string().expect("UTF-8"))
        .collect();
    assert_eq!(written, line[2..]);
}

#[test]
fn names_of_programs_and_options_of_a_daemon_do_not_mix() {
    assert!(parse_from(&words("start web --restart never")).is_err());
    assert!(parse_from(&words("start web -- sleep 1")).is_err());
    assert!(parse_from(&words("start web api/1 --socket x")).is_ok());
    assert!(parse_from(&words("start --restart never -- sleep 1")).is_ok());
}
