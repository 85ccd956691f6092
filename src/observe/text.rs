//! Text for people: times of day, names of signals, HTML.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

pub use crate::text::{bytes, duration};

/// Returns a wall-clock time as RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |stamp| format!("{stamp:.3}"))
}

/// Returns a wall-clock time as seconds since 1970, to the millisecond.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> f64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// Returns the name of a signal: `SIGKILL`, or `signal 64` where it has none.
#[must_use]
pub fn signal(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string())
}

/// Appends text with everything escaped that means something in HTML.
pub fn push_html(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_signals_read_as_people_say_them() {
        assert_eq!(signal(9), "SIGKILL");
        assert_eq!(signal(64), "signal 64");
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(rfc3339(at), "1970-01-01T00:00:01.500Z");
        assert!((unix_seconds(at) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn html_is_escaped() {
        let mut out = String::new();
        push_html(&mut out, "<b a='\"'>&\u{7}");
        assert_eq!(out, "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\u{7}");
    }
}
