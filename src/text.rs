//! How things are written for people, everywhere: lengths of time, sizes, counts, causes, and text of
//! others on a terminal. Uses no other room, so that every room can use it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

/// Returns a duration as a person says it, in the syntax of the config: `250ms`, `12.4s`, `3m 20s`,
/// `2d 4h`.
#[must_use]
pub fn duration(of: Duration) -> String {
    if of.is_zero() {
        return "0s".to_owned();
    }
    let seconds = of.as_secs();
    if seconds == 0 {
        return match of.as_millis() {
            0 => "<1ms".to_owned(),
            millis => format!("{millis}ms"),
        };
    }
    if seconds < 60 {
        let tenths = of.subsec_millis() / 100;
        return if tenths == 0 {
            format!("{seconds}s")
        } else {
            format!("{seconds}.{tenths}s")
        };
    }
    let (large, small) = match seconds {
        0..=3599 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3600..=86_399 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
    };
    match small.0 {
        0 => format!("{}{}", large.0, large.1),
        _ => format!("{}{} {}{}", large.0, large.1, small.0, small.1),
    }
}

/// Writes a number of seconds that came over a wire the same way; `?` for what is no length of time.
#[must_use]
pub fn seconds(of: f64) -> String {
    Duration::try_from_secs_f64(of).map_or_else(|_| "?".to_owned(), duration)
}

/// Returns a number of bytes as a person says it: `512B`, `12.3MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        // What would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1}{unit}")
}

/// Writes a number with its noun: `1 program`, `2 programs`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Writes an error and its causes as one sentence.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns text with everything made visible that a terminal would obey or hide: control characters of
/// both sets and what turns the direction of writing, as `\x1b` and `\u{202e}`. Tabs stay.
///
/// A line end stays only where `lines` says that the text may have several.
#[must_use]
pub fn harmless(text: &str, lines: Lines) -> Cow<'_, str> {
    let stays = |c: char| !is_obeyed(c) || (c == '\n' && lines == Lines::Several);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if stays(c) {
            shown.push(c);
        } else if u32::from(c) < 0x100 {
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    Cow::Owned(shown)
}

/// Returns what strangers may see of a command: the name of its program, without where that is and
/// without arguments. A whole shell line in the first word is cut at its first space, for the rest of it
/// is arguments all the same.
#[must_use]
pub fn command_name(command: &[String]) -> &str {
    let words = command.first().map_or("", String::as_str);
    let path = words.split_whitespace().next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or(path)
}

/// A fact in a log line: its text, and whether machines read it as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    text: String,
    number: bool,
}

impl Fact {
    /// Makes one of a number, as it is written in JSON.
    #[must_use]
    pub fn number(number: impl ToString) -> Self {
        Self {
            text: number.to_string(),
            number: true,
        }
    }

    /// Tells whether it is a number.
    #[must_use]
    pub const fn is_number(&self) -> bool {
        self.number
    }
}

impl<T: Into<String>> From<T> for Fact {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            number: false,
        }
    }
}

impl std::ops::Deref for Fact {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Whether a text may have more than one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// A line end in it would forge a line.
    One,
    /// Its line ends are its own.
    Several,
}

/// Tells whether a terminal does something else with a character than show it.
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    match c {
        '\t' => false,
        // Marks, embeddings, overrides and isolates of direction (Unicode annex 9), and separators.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (micros, said) in [
            (0, "0s"),
            (300, "<1ms"),
            (250_000, "250ms"),
            (1_000_000, "1s"),
            (12_430_000, "12.4s"),
            (60_000_000, "1m"),
            (200_900_000, "3m 20s"),
            (3_600_000_000, "1h"),
            (187_200_000_000, "2d 4h"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), said);
        }
        assert_eq!(seconds(12.34), "12.3s");
        assert_eq!(seconds(f64::NAN), "?");
        assert_eq!(seconds(-1.0), "?");
    }

    #[test]
    fn sizes_and_counts_read_well_at_every_scale() {
        for (count, said) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (1_048_575, "1.0MiB"),
            (12_897_485, "12.3MiB"),
            (5 << 30, "5.0GiB"),
        ] {
            assert_eq!(bytes(count), said);
        }
        assert_eq!(count(1, "program"), "1 program");
        assert_eq!(count(0, "program"), "0 programs");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        for (text, shown) in [
            ("plain é 漢\ttab", "plain é 漢\ttab"),
            ("\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
            ("\u{9b}2J\x7f\r", "\\x9b2J\\x7f\\x0d"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("two\nlines", "two\\x0alines"),
        ] {
            assert_eq!(harmless(text, Lines::One), shown);
        }
        assert_eq!(harmless("two\nlines", Lines::Several), "two\nlines");
    }
}
