//! Signals by name, the real-time ones included.

use std::ops::RangeInclusive;
use std::str::FromStr;

use nix::sys::signal::Signal;

/// What programs, shells and unit files call SIGRTMIN: the C library keeps 32 and 33 for itself.
/// Not asked of our own library, as a static build has another one than the programs.
const FIRST_REAL_TIME: i32 = 34;
const LAST_REAL_TIME: i32 = 64;

/// Every number that is a signal.
pub const NUMBERS: RangeInclusive<i32> = 1..=LAST_REAL_TIME;

/// Returns the number of a signal, called `SIGTERM`, `term` or `SIGRTMIN+3`.
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    let name = with_prefix(name);
    match Signal::from_str(&name) {
        Ok(signal) => Some(signal as i32),
        Err(_) => real_time(&name),
    }
}

/// Returns the name of a signal; `None` for the two that have none.
#[must_use]
pub fn signal_name(number: i32) -> Option<String> {
    match (Signal::try_from(number), number) {
        (Ok(signal), _) => Some(signal.as_str().to_owned()),
        (Err(_), FIRST_REAL_TIME) => Some("SIGRTMIN".to_owned()),
        (Err(_), FIRST_REAL_TIME..=LAST_REAL_TIME) => {
            Some(format!("SIGRTMIN+{}", number - FIRST_REAL_TIME))
        }
        (Err(_), _) => None,
    }
}

/// Writes a name as signals are called in manuals: in capitals, with `SIG` before it.
pub(super) fn with_prefix(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    }
}

/// `SIGRTMIN`, `SIGRTMIN+3`, `SIGRTMAX-1`, `SIGRTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let distance = |text: &str, sign: char| match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    };
    let number = if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        FIRST_REAL_TIME.checked_add(distance(rest, '+')?)?
    } else {
        LAST_REAL_TIME.checked_sub(distance(name.strip_prefix("SIGRTMAX")?, '-')?)?
    };
    (FIRST_REAL_TIME..=LAST_REAL_TIME)
        .contains(&number)
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_has_a_name_is_found_by_it() {
        for number in NUMBERS {
            let Some(name) = signal_name(number) else {
                assert!((32..34).contains(&number), "{number}");
                continue;
            };
            assert_eq!(signal_number(&name), Some(number), "{name}");
            let short = name.trim_start_matches("SIG").to_ascii_lowercase();
            assert_eq!(signal_number(&short), Some(number), "{short}");
        }
    }

    #[test]
    fn real_time_signals_are_counted_from_both_ends() {
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("rtmax-1"), Some(63));
        assert_eq!(signal_number("SIGRTMAX"), Some(64));
        let wrong = [
            "SIGRTMIN+31",
            "SIGRTMAX-31",
            "SIGRTMIN-1",
            "SIGRTMIN+",
            "SIGRTMIN++1",
            "RTMIN3",
            "SIGRTMIN+99999999999",
            "SIGRTMAX-99999999999",
            "",
        ];
        for wrong in wrong {
            assert_eq!(signal_number(wrong), None, "{wrong}");
        }
    }
}
