//! From one value as written to one value as meant, or the rule that it breaks.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a rule names the kinds of value that it takes and refuses all others alike"
)]

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::node::{Kind, Node, quote};
use super::problem::{Fault, did_you_mean};
use super::signals;

/// A hundred years: beyond it an addition to the clock may overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(super) type Read<T> = Result<T, Fault>;

/// Reads a text without NUL bytes, which no system call takes.
pub(super) fn text(node: &Node) -> Read<String> {
    let Kind::Text(text) = &node.kind else {
        return Err(Fault::new(node, "must be a string"));
    };
    if text.contains('\0') {
        return Err(Fault::new(node, "must not contain a NUL byte"));
    }
    Ok(text.clone())
}

/// Reads a text of which the empty one means "none".
pub(super) fn optional(node: &Node) -> Read<Option<String>> {
    Ok(Some(text(node)?).filter(|text| !text.is_empty()))
}

/// Reads a user or a group: a name or a number.
pub(super) fn account(node: &Node) -> Read<Option<String>> {
    let refuse = || {
        let rule = "must be a name, or a number from 0 to 4294967294 other than 65535";
        Fault::new(node, rule)
    };
    match &node.kind {
        Kind::Integer(id) if is_account_number(&id.to_string()) => Ok(Some(id.to_string())),
        Kind::Integer(_) => Err(refuse()),
        Kind::Text(text) if looks_like_a_number(text) && !is_account_number(text) => Err(refuse()),
        _ => optional(node),
    }
}

/// Tells what somebody who wrote it took for a number, not for a name.
fn looks_like_a_number(text: &str) -> bool {
    let digits = text.trim().trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// 4294967295 is -1, with which the kernel means "leave it as it is": a program would go on as the
/// daemon's user. 65535 is the same of 16 bits, and systemd refuses it too.
fn is_account_number(text: &str) -> bool {
    let number = text.parse::<u32>().ok();
    number.is_some_and(|id| id != u32::MAX && id != 0xffff && id.to_string() == text)
}

pub(super) fn truth(node: &Node) -> Read<bool> {
    match node.kind {
        Kind::Bool(truth) => Ok(truth),
        _ => Err(Fault::new(node, "must be true or false")),
    }
}

/// Reads a whole number from `least` to `most`.
pub(super) fn whole(node: &Node, least: i64, most: i64) -> Read<i64> {
    match node.kind {
        Kind::Integer(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Fault::new(
            node,
            format!("must be a whole number from {least} to {most}"),
        )),
    }
}

/// Reads a whole number from `least` up to what 32 bits hold.
pub(super) fn count(node: &Node, least: u32) -> Read<u32> {
    match node.kind {
        Kind::Integer(number) if number >= i64::from(least) => u32::try_from(number)
            .map_err(|_| Fault::new(node, format!("must be at most {}", u32::MAX))),
        _ => Err(Fault::new(
            node,
            format!("must be a whole number, {least} or more"),
        )),
    }
}

/// Reads `"unlimited"` or a number.
pub(super) fn count_or_unlimited(node: &Node) -> Read<Option<u32>> {
    match &node.kind {
        Kind::Text(word) if word == "unlimited" => Ok(None),
        Kind::Integer(0..) => count(node, 0).map(Some),
        _ => Err(Fault::new(
            node,
            "must be \"unlimited\" or a whole number, 0 or more",
        )),
    }
}

/// Reads a share, 0 to 1.
pub(super) fn share(node: &Node) -> Read<f64> {
    let number = match node.kind {
        Kind::Float(number) => number,
        Kind::Integer(0) => 0.0,
        Kind::Integer(1) => 1.0,
        _ => f64::NAN,
    };
    if (0.0..=1.0).contains(&number) {
        return Ok(number.abs());
    }
    Err(Fault::new(node, "must be a number from 0 to 1"))
}

/// Reads one of a set of words.
pub(super) fn word<T: Copy>(node: &Node, words: &[(&str, T)]) -> Read<T> {
    let names = || words.iter().map(|(name, _)| *name);
    let rule = || {
        format!(
            "must be one of {}",
            names().map(quote).collect::<Vec<_>>().join(", ")
        )
    };
    let Kind::Text(found) = &node.kind else {
        return Err(Fault::new(node, rule()));
    };
    if let Some((_, value)) = words.iter().find(|(name, _)| name == found) {
        return Ok(*value);
    }
    let fault = Fault::new(node, rule());
    Err(match did_you_mean(found, names()) {
        Some(guess) => fault.help(format!("did you mean {guess:?}?")),
        None => fault,
    })
}

/// Reads a length of time: `"250ms"`, `"1h 30m"`, or a number of seconds.
pub(super) fn duration(node: &Node) -> Read<Duration> {
    const EXAMPLES: &str = "write \"250ms\", \"1s\", \"5m\", \"1h 30m\", or a number of seconds";
    let refuse = |rule: &str| Fault::new(node, rule).help(EXAMPLES);
    let seconds = match &node.kind {
        Kind::Integer(number) if *number < 0 => return Err(refuse("must not be negative")),
        #[expect(
            clippy::cast_precision_loss,
            reason = "what is too large for a float is refused below"
        )]
        Kind::Integer(number) => *number as f64,
        Kind::Float(number) if number.is_nan() => return Err(refuse("must be a length of time")),
        Kind::Float(number) if number.is_sign_negative() && *number != 0.0 => {
            return Err(refuse("must not be negative"));
        }
        Kind::Float(number) => number.abs(),
        Kind::Text(text)
            if text.trim_start().starts_with('-') || text.trim_end().ends_with("ago") =>
        {
            return Err(refuse("must not be negative"));
        }
        Kind::Text(text) => {
            return friendly(text)
                .ok_or_else(|| refuse("must be a length of time"))
                .and_then(capped(node));
        }
        Kind::Bool(_) | Kind::Array(_) | Kind::Table(_) | Kind::Other(_) => {
            return Err(refuse("must be a length of time"));
        }
    };
    Duration::try_from_secs_f64(seconds).map_or_else(|_| capped(node)(Duration::MAX), capped(node))
}

/// Reads units, as `"1h 30m"`. Only letters, digits and dots: jiff also knows `"1:30"` and `"P1D"`,
/// which are too easy to misread in a config.
fn friendly(text: &str) -> Option<Duration> {
    let plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ' ' | 'µ'));
    if !plain || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let days_in_hours = text.trim();
    jiff::fmt::friendly::SpanParser::new()
        .parse_unsigned_duration(days_in_hours)
        .ok()
        .or_else(|| calendar(days_in_hours))
}

/// Reads days and weeks, of 24 hours, which jiff leaves to a calendar.
fn calendar(text: &str) -> Option<Duration> {
    let span = jiff::fmt::friendly::SpanParser::new()
        .parse_span(text)
        .ok()?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .ok()?;
    Duration::try_from(signed).ok()
}

fn capped(node: &Node) -> impl Fn(Duration) -> Read<Duration> {
    move |length| {
        if length > LONGEST {
            return Err(Fault::new(node, "must be at most 100 years"));
        }
        Ok(length)
    }
}

/// Reads a length of time longer than zero.
pub(super) fn positive_duration(node: &Node) -> Read<Duration> {
    duration(node).and_then(|length| {
        if length.is_zero() {
            return Err(Fault::new(node, "must be longer than zero"));
        }
        Ok(length)
    })
}

/// Reads a size: `"50MiB"`, or a number of bytes.
pub(super) fn size(node: &Node) -> Read<u64> {
    let refuse = || {
        Fault::new(node, "must be a size, 1 byte or more")
            .help("write \"50MiB\", \"500KB\", or a number of bytes")
    };
    let bytes = match &node.kind {
        Kind::Integer(number) => u64::try_from(*number).ok(),
        Kind::Text(text) => bytesize::ByteSize::from_str(text)
            .ok()
            .map(|size| size.as_u64()),
        Kind::Float(_) | Kind::Bool(_) | Kind::Array(_) | Kind::Table(_) | Kind::Other(_) => None,
    };
    match bytes {
        Some(bytes) if bytes > 0 && i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(refuse()),
    }
}

/// Reads `"unlimited"` or a size that a program can live in.
pub(super) fn memory(node: &Node) -> Read<Option<u64>> {
    const LEAST: u64 = 64 << 10;
    if is_unlimited(node) {
        return Ok(None);
    }
    match size(node) {
        Ok(bytes) if bytes >= LEAST => Ok(Some(bytes)),
        _ => Err(
            Fault::new(node, "must be \"unlimited\" or a size, 64KiB or more")
                .help("write \"512MiB\", \"2GiB\", or a number of bytes"),
        ),
    }
}

/// Reads `"unlimited"` or a number of processes and threads: as many as the kernel can have.
pub(super) fn processes(node: &Node) -> Read<Option<u32>> {
    const MOST: i64 = 4 << 20;
    if is_unlimited(node) {
        return Ok(None);
    }
    let number = whole(node, 1, MOST)
        .ok()
        .and_then(|n| u32::try_from(n).ok());
    number.map(Some).ok_or_else(|| {
        let rule = format!("must be \"unlimited\" or a whole number from 1 to {MOST}");
        Fault::new(node, rule)
    })
}

/// Reads `"unlimited"`, a share of one processor (`"50%"`, `"150%"`) or a number of processors, as
/// thousandths of one. Less than a hundredth the kernel does not take.
pub(super) fn processors(node: &Node) -> Read<Option<u32>> {
    const MOST: f64 = 8_192.0;
    const LEAST: f64 = 0.01;
    if is_unlimited(node) {
        return Ok(None);
    }
    let plain = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse::<f64>().ok().filter(|_| digits)
    };
    let number = match &node.kind {
        Kind::Float(number) => Some(*number),
        Kind::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Kind::Text(text) => match text.trim().strip_suffix('%') {
            Some(share) => plain(share.trim_end()).map(|share| share / 100.0),
            None => plain(text.trim()),
        },
        Kind::Bool(_) | Kind::Array(_) | Kind::Table(_) | Kind::Other(_) => None,
    };
    match number.filter(|number| (LEAST..=MOST).contains(number)) {
        // At most 8,192,000: it fits.
        Some(number) => Ok(Some((number * 1_000.0).round() as u32)),
        None => Err(Fault::new(
            node,
            "must be \"unlimited\" or processor time from 1% to 8192 processors",
        )
        .help("write \"50%\" for half a processor, \"150%\" or 1.5 for one and a half")),
    }
}

fn is_unlimited(node: &Node) -> bool {
    matches!(&node.kind, Kind::Text(word) if word == "unlimited")
}

/// Reads a file mode creation mask.
pub(super) fn umask(node: &Node) -> Read<u32> {
    const RULE: &str = "must be an octal string such as \"022\", at most \"777\"";
    match &node.kind {
        Kind::Integer(_) => Err(Fault::new(node, RULE).help("TOML has no octal of this form: 022 is not a number in it and 22 is decimal; put it in quotes")),
        Kind::Text(text) if !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) => {
            u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(|| Fault::new(node, RULE))
        }
        _ => Err(Fault::new(node, RULE)),
    }
}

/// Reads a signal: `"SIGTERM"`, `"TERM"`, `"SIGRTMIN+3"` or 15.
pub(super) fn signal(node: &Node) -> Read<i32> {
    const RULE: &str = "must be a signal: \"SIGTERM\", \"TERM\", \"SIGRTMIN+3\", \"SIGRTMAX-1\" or a number from 1 to 64";
    let refused = || Fault::new(node, RULE);
    match &node.kind {
        Kind::Integer(number) => i32::try_from(*number)
            .ok()
            .filter(|number| signals::NUMBERS.contains(number))
            .ok_or_else(refused),
        Kind::Text(text) => signals::signal_number(text).ok_or_else(|| {
            let name = signals::with_prefix(text);
            let known = Signal::iterator().map(Signal::as_str);
            match did_you_mean(&name, known).filter(|_| !name.starts_with("SIGRT")) {
                Some(guess) => refused().help(format!("did you mean {guess:?}?")),
                None => refused(),
            }
        }),
        _ => Err(refused()),
    }
}

/// Makes a path absolute, without its `.` parts; `..` stays, as it may cross a link.
pub(super) fn absolute(base: &Path, path: impl AsRef<Path>) -> PathBuf {
    base.join(path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}
