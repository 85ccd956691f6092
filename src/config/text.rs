//! Values as text that reads back as the same value.

use std::time::Duration;

/// Writes a length of time as a config takes it: `1s`, `250ms`, `1h 30m`.
#[must_use]
pub fn length(of: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = of.as_secs();
    let mut parts = Vec::new();
    for (seconds, unit) in UNITS {
        if rest >= seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    let nanos = of.subsec_nanos();
    for (value, unit) in [
        (nanos / 1_000_000, "ms"),
        (nanos / 1_000 % 1_000, "us"),
        (nanos % 1_000, "ns"),
    ] {
        if value > 0 {
            parts.push(format!("{value}{unit}"));
        }
    }
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// Writes a size in the largest unit that divides it.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    UNITS
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes}B"),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

/// Writes processor time, of thousandths of one processor, as a share of one.
pub(super) fn processors(thousandths: u32) -> String {
    match (thousandths / 10, thousandths % 10) {
        (share, 0) => format!("{share}%"),
        (share, tenths) => format!("{share}.{tenths}%"),
    }
}

/// Writes a string as TOML.
pub(super) fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Writes strings as a TOML array.
pub(super) fn strings<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    format!(
        "[{}]",
        items
            .into_iter()
            .map(|item| string(item))
            .collect::<Vec<_>>()
            .join(", ")
    )
}
