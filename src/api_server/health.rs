//! `GET /health`: what an operator or a probe wants to know at a glance.

use serde_json::{Value, json};

use super::statistics::Snapshot;

/// Returns the health document; times in whole seconds, memory in bytes.
pub(super) fn document(now: &Snapshot) -> Value {
    let memory = Memory::of_this_process();
    let by_status: serde_json::Map<String, Value> = now
        .by_status
        .iter()
        .map(|(status, count)| (status.to_string(), json!(count)))
        .collect();
    json!({
        "status": "ok",
        "timestamp": jiff::Timestamp::now().to_string(),
        "service": "api-server",
        "uptime": now.uptime.as_secs(),
        "memory": { "rss": memory.rss, "virtual": memory.virtual_size },
        "errors": {
            "total": now.errors,
            "lastHour": now.errors_last_hour,
            "lastMinute": now.errors_last_minute,
        },
        "requests": {
            "total": now.requests(),
            "inProgress": now.in_progress,
            "byStatus": by_status,
        },
    })
}

/// What the process occupies, in bytes; `None` where the kernel does not tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    rss: Option<u64>,
    virtual_size: Option<u64>,
}

impl Memory {
    /// Reads `/proc/self/status`, whose sizes are in KiB whatever the page size is.
    fn of_this_process() -> Self {
        std::fs::read_to_string("/proc/self/status")
            .map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(status: &str) -> Self {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Self {
            rss: bytes("VmRSS:"),
            virtual_size: bytes("VmSize:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "Name:\tx\nVmPeak:\t  9 kB\nVmSize:\t    2048 kB\nVmRSS:\t      12 kB\n";
        let memory = Memory {
            rss: Some(12_288),
            virtual_size: Some(2_097_152),
        };
        assert_eq!(Memory::parse(text), memory);
        assert_eq!(Memory::parse("VmRSS: many kB"), Memory::default());
        let real = Memory::of_this_process();
        assert!(
            real.rss > Some(1 << 20) && real.virtual_size >= real.rss,
            "{real:?}"
        );
    }
}
