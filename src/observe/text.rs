//! Numbers for people: durations, sizes, times of day, names of signals.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

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

/// Returns a duration as a person says it: `12.4s`, `250ms`, `3m 20s`, `2d 4h`.
#[must_use]
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    if seconds == 0 {
        return format!("{}ms", d.as_millis());
    }
    if seconds < 60 {
        let tenths = d.subsec_millis() / 100;
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

/// Returns a number of bytes as a person says it: `512B`, `12.3MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
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
    fn durations_read_as_people_say_them() {
        for (millis, said) in [
            (0, "0ms"),
            (250, "250ms"),
            (1000, "1s"),
            (12_430, "12.4s"),
            (60_000, "1m"),
            (200_900, "3m 20s"),
            (3_600_000, "1h"),
            (187_200_000, "2d 4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn sizes_times_and_signals_read_as_people_say_them() {
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(12_897_485), "12.3MiB");
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
