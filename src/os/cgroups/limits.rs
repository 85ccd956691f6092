//! Limits of a cgroup.

use std::fmt;

/// The most that a whole replica may use; `None`: no limit of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, the page cache it causes included.
    pub memory_max: Option<u64>,
    /// Tasks: processes and their threads.
    pub pids_max: Option<u32>,
    /// Thousandths of one processor.
    pub cpu_max: Option<u32>,
}

/// One limit, for its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// As it is called in a config.
    pub key: &'static str,
    pub controller: &'static str,
    pub file: &'static str,
    value: Option<u64>,
}

/// The time over which the kernel counts processor time; microseconds.
const PERIOD: u64 = 100_000;

impl Limits {
    pub(super) fn settings(self) -> [Setting; 3] {
        let setting = |key, controller, file, value| Setting {
            key,
            controller,
            file,
            value,
        };
        [
            setting("memory_max", "memory", "memory.max", self.memory_max),
            setting("pids_max", "pids", "pids.max", self.pids_max.map(u64::from)),
            setting("cpu_max", "cpu", "cpu.max", self.cpu_max.map(u64::from)),
        ]
    }
}

impl Setting {
    pub(super) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// As the kernel takes it.
    pub(super) fn text(&self) -> String {
        match (self.value, self.controller) {
            (None, "cpu") => format!("max {PERIOD}"),
            (None, _) => "max".to_owned(),
            (Some(thousandths), "cpu") => format!("{} {PERIOD}", thousandths * PERIOD / 1_000),
            (Some(value), _) => value.to_string(),
        }
    }
}

/// As it stands in a config.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        write!(f, "{} ", self.key)?;
        match (self.value, self.controller) {
            (None, _) => f.write_str("unlimited"),
            (Some(value), "cpu") if value % 10 == 0 => write!(f, "{}%", value / 10),
            (Some(value), "cpu") => write!(f, "{}.{}%", value / 10, value % 10),
            (Some(value), "memory") => match UNITS.iter().find(|(unit, _)| value % unit == 0) {
                Some((unit, name)) => write!(f, "{}{name}", value / unit),
                None => write!(f, "{value}B"),
            },
            (Some(value), _) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_and_as_the_config_have_them() {
        let limits = Limits {
            memory_max: Some(64 << 20),
            pids_max: Some(20),
            cpu_max: Some(1_505),
        };
        let [memory, pids, cpu] = limits.settings();
        assert_eq!(
            [memory.text(), pids.text(), cpu.text()],
            ["67108864", "20", "150500 100000"]
        );
        assert_eq!(
            [memory.to_string(), pids.to_string(), cpu.to_string()],
            ["memory_max 64MiB", "pids_max 20", "cpu_max 150.5%"]
        );
        let [memory, _, cpu] = Limits::default().settings();
        assert_eq!([memory.text(), cpu.text()], ["max", "max 100000"]);
        assert!(!memory.is_set());
    }
}
