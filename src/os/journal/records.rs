//! What the files of the state directory look like.
//!
//! `running` begins with a line that names its format. Then it is a log: `CHECK + KEY IDENTITY NAME`
//! and `CHECK - KEY`, where CHECK is a sum over the rest of the line; later lines win. Keys of earlier
//! daemons begin with `p`. Up to version 0.1.0 there was neither the first line nor CHECK.
//! `crashes.jsonl` has one JSON text a line.

use std::collections::BTreeMap;

use crate::os::identity::Identity;
use crate::os::installation::{fold, hash};

/// Crashes kept.
pub(super) const CRASHES: usize = 1000;

/// The first line of a log of who runs.
pub(super) const HEADER: &str = "eternal-running 2\n";

/// A process on record, and the display name of its program.
pub(super) type Entry = (Identity, String);

pub(super) fn added(key: &str, (identity, name): &Entry) -> String {
    checked(&format!("+ {key} {identity} {name}"))
}

pub(super) fn removed(key: &str) -> String {
    checked(&format!("- {key}"))
}

fn checked(text: &str) -> String {
    format!("{:08x} {text}\n", sum(text))
}

fn sum(text: &str) -> u32 {
    fold(hash([text.as_bytes()]))
}

/// What a log of who runs says, and how many of its lines make no sense.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub running: Vec<Entry>,
    pub lines: usize,
    pub damaged: usize,
}

/// Reads a log of who runs. A line that makes no sense, and a torn last one, loses only itself.
pub(super) fn parse_running(text: &[u8]) -> Log {
    let (text, is_checked) = match text.strip_prefix(HEADER.as_bytes()) {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = String::from_utf8_lossy(text);
    let mut live = BTreeMap::new();
    let (mut lines, mut damaged) = (0, 0);
    for line in text.split_inclusive('\n') {
        lines += 1;
        let understood = line
            .strip_suffix('\n')
            .and_then(|line| {
                if is_checked {
                    verified(line)
                } else {
                    Some(line)
                }
            })
            .and_then(|line| apply(line, &mut live));
        damaged += usize::from(understood.is_none());
    }
    Log {
        running: live.into_values().collect(),
        lines,
        damaged,
    }
}

fn verified(line: &str) -> Option<&str> {
    let (check, text) = line.split_once(' ')?;
    (check.len() == 8 && u32::from_str_radix(check, 16) == Ok(sum(text))).then_some(text)
}

fn apply<'a>(line: &'a str, live: &mut BTreeMap<&'a str, Entry>) -> Option<()> {
    // The last field may hold spaces.
    let mut words = line.splitn(4, ' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("+"), Some(key), Some(identity), Some(name)) => {
            live.insert(key, (identity.parse().ok()?, name.to_owned()));
        }
        (Some("-"), Some(key), None, None) => drop(live.remove(key)),
        _ => return None,
    }
    Some(())
}

/// Returns the last crashes of a history. Its first and its last line may be torn.
pub(super) fn last_crashes(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let json = |line: &&str| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let mut crashes: Vec<String> = text.split('\n').filter(json).map(str::to_owned).collect();
    crashes.drain(..crashes.len().saturating_sub(CRASHES));
    crashes
}
