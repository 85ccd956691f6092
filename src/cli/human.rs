//! Numbers for people.

/// Writes seconds as "12.3 s", "5m 3s", "3h 4m", "3d 4h".
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // Any time a process can have run fits.
    let whole = seconds.round() as u64;
    let (days, hours) = (whole / 86_400, whole / 3_600 % 24);
    let (minutes, rest) = (whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {rest}s"),
        (0, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Writes bytes as "512 B", "1.5 KiB", "12.3 MiB".
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        // What would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Writes a number with its noun: "1 program", "2 programs".
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_scale() {
        let table = [
            (0.0, "0.0 s"),
            (12.34, "12.3 s"),
            (59.94, "59.9 s"),
            (59.99, "1m 0s"),
            (303.0, "5m 3s"),
            (11_040.0, "3h 4m"),
            (273_600.0, "3d 4h"),
            (f64::NAN, "?"),
        ];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn sizes_read_well_at_every_scale() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
        ];
        for (count, text) in table {
            assert_eq!(bytes(count), text);
        }
    }
}
