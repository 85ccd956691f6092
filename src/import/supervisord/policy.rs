//! When a program starts again and how it stops.

use super::options::{Given, Options};
use super::restarts::Retries;
use super::seconds;
use crate::config::{signal_name, signal_number};
use crate::import::draft::Table;
use crate::import::note::Notes;

pub(super) fn restarts(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let table = options.table.clone();
    if options.truth("autostart", notes).is_some_and(|g| !g.value) {
        keys.set("autostart", false);
    }
    let mode = |text: &str| match text.to_ascii_lowercase().as_str() {
        "unexpected" => Some("on-failure"),
        other => super::options::truth(other).map(|on| if on { "always" } else { "never" }),
    };
    let rule = "it must be true, false or unexpected";
    let mode = options.read("autorestart", rule, mode, notes);
    let mode = mode.map_or("on-failure", |given| given.value);
    if mode != "on-failure" {
        keys.set("restart", mode);
    }
    let codes = options.read(
        "exitcodes",
        "it must be exit codes from 0 to 255",
        codes,
        notes,
    );
    if let Some(given) = codes.filter(|given| given.value != [0]) {
        keys.set("success_exit_codes", given.value);
    }
    let mut retries = Retries::default();
    let startsecs = options.number("startsecs", notes);
    let up = startsecs.as_ref().map_or(1, |given| given.value);
    match up {
        ..=0 => keys.set("ready", "immediately"),
        // Said where the default is another: one that runs once may be a server all the same.
        1 if mode != "never" => {}
        seconds => keys.set("ready", format!("alive:{}s", seconds.min(LONGEST_UP))),
    }
    let startretries = options.number("startretries", notes);
    if let Some(given) = &startsecs {
        retries.startsecs = given.value;
    }
    if let Some(given) = &startretries {
        retries.startretries = given.value;
    }
    if startsecs.is_some() || startretries.is_some() {
        retries.write_difference(keys);
    }
    if let Some(given) = startsecs.filter(|_| retries.is_endless() && mode != "never") {
        keys.set("on_crash_loop", "retry");
        keys.set("retry_after", "1s");
        let text = "0 means that no end is too soon: it is never given up, as on_crash_loop = \
                    \"retry\" says; its crashes are counted and alerted on all the same";
        notes.differs(&table, &given.at, text);
    }
    if let Some(given) = startretries.filter(|given| given.value <= 0) {
        let text = "a start that fails is tried once more, so that a crash after a long run is not \
                    the last; crash_threshold = 1 would give up at the first of either";
        notes.differs(&table, &given.at, text);
    }
}

/// In seconds: less than the 100 years that a duration may be.
const LONGEST_UP: i64 = 3_000_000_000;

fn codes(text: &str) -> Option<Vec<i64>> {
    let codes: Option<Vec<i64>> = text
        .split(',')
        .map(str::trim)
        .filter(|code| !code.is_empty())
        .map(|code| code.parse().ok().filter(|code| (0..=255).contains(code)))
        .collect();
    codes.filter(|codes| !codes.is_empty())
}

pub(super) fn stopping(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let table = options.table.clone();
    let rule = "it must be a signal, as TERM";
    let signal = options.read("stopsignal", rule, signal, notes);
    if let Some(given) = signal.filter(|given| given.value != "SIGTERM") {
        keys.set("stop_signal", given.value);
    }
    if let Some(given) = options.number("stopwaitsecs", notes) {
        keys.set_length(
            "stop_timeout",
            seconds(given.value.clamp(0, i64::from(u32::MAX))),
        );
    }
    let stop = options.truth("stopasgroup", notes);
    let kill = options.truth("killasgroup", notes);
    let (stops, kills) = (is_true(&stop), is_true(&kill));
    if stops {
        keys.set("kill_mode", "family");
        if let Some(given) = &stop {
            let text = "there it is the process group that a stop ends; here it is every \
                        descendant, and also before a restart";
            notes.differs(&table, &given.at, text);
        }
    } else if let (true, Some(given)) = (kills, &kill) {
        let text = "kill_mode = \"process\" tells only the main process to stop, as \
                    stopasgroup = false does, and kills only it; \"family\" tells and kills \
                    every descendant";
        notes.differs(&table, &given.at, text);
    }
    if let (true, Some(given), false) = (stops, &kill, kills) {
        let text = "supervisord refuses it together with stopasgroup = true";
        notes.lacks(&table, &given.at, text);
    }
}

fn is_true(given: &Option<Given<bool>>) -> bool {
    given.as_ref().is_some_and(|given| given.value)
}

fn signal(text: &str) -> Option<String> {
    match text.parse() {
        Ok(number) => signal_name(number),
        Err(_) => signal_name(signal_number(text)?),
    }
}
