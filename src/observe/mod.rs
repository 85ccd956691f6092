//! Observation: what happened and how things stand, as metrics, log lines, events and pages.
//!
//! ```text
//! events ─▶ Observer::record ─▶ ledger, log lines, crash records, /v1/events
//! views  ─▶ Observer::publish ─▶ Published ─▶ status, /metrics, /-/ready, page, statistics
//! ```
//!
//! The clock is read here: the monotonic one for everything that is subtracted, the wall clock
//! only for stamps that people read.

mod auth;
mod browsers;
mod catalogue;
mod crashes;
mod crowd;
mod daemon_events;
mod deadline;
mod exposition;
mod health;
mod http;
mod ledger;
pub mod log;
mod observer;
mod otlp_client;
mod process_metrics;
mod program_families;
mod program_metrics;
mod program_text;
mod protection;
mod published;
mod record;
mod resources;
mod serving;
mod spans;
mod statistics;
mod status_page;
mod telling;
mod text;
mod tls;
mod tracing_export;
mod turns;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use catalogue::{Described, catalogue, read_off};
pub use crashes::CrashHistory;
pub use daemon_events::DaemonEvent;
pub use exposition::{CONTENT_TYPE, Reader};
pub use health::{Checked, HealthCounts, HealthTally};
pub use http::{Alive, App};
pub use ledger::{describe, how};
pub use observer::{Observer, Setup};
pub use process_metrics::ProcessMetrics;
pub use program_metrics::ProgramCollector;
pub use protection::{Protection, ProtectionError, ProtectionFiles, ReadFile};
pub use published::{Program, Published};
pub use resources::{OwnSampler, Sample, Sampler, Usage};
pub use serving::{Listener, serve};
pub use spans::Spans;
pub use text::{duration, rfc3339};
pub use tracing_export::{Tracing, TracingError};
pub use turns::Turns;

/// What is counted of one captured stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Lines captured.
    pub lines: u64,
    /// Bytes captured.
    pub bytes: u64,
    /// Lines dropped because they could not be written.
    pub dropped: u64,
}

/// Reads the counters of a program's stdout and stderr, in this order.
pub type LogCounters = Arc<dyn Fn() -> [StreamCounts; 2] + Send + Sync>;

/// What a replica of a program is, as far as observation cares.
#[derive(Clone)]
pub struct About {
    /// The program's name in the config.
    pub name: String,
    /// 0, 1, …
    pub replica: u32,
    /// How people call it: `web`, or `web/1` where there are several instances.
    pub display_name: String,
    /// The command line.
    pub command: Vec<String>,
    /// `always`, `on-failure` or `never`.
    pub restart_policy: &'static str,
    /// The user it runs as; empty for the daemon's own.
    pub user: String,
    /// Changes whenever its configuration does.
    pub config_hash: String,
    /// It starts with the daemon, so `/-/ready` waits for it.
    pub autostart: bool,
    /// Crashes within the window at which it is given up.
    pub crash_budget: u32,
    /// Run time within which crashes count.
    pub crash_window: Duration,
    /// `HOST:PORT` where the program itself can be scraped.
    pub metrics_address: Option<String>,
    /// Its captured output.
    pub log_counters: LogCounters,
    /// Its health check, where it has one.
    pub health: Option<Arc<HealthTally>>,
}

impl std::fmt::Debug for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("About")
            .field("display_name", &self.display_name)
            .finish_non_exhaustive()
    }
}

/// What does not change while the daemon lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The daemon's version.
    pub version: String,
    /// The commit it was built from; empty when unknown.
    pub revision: String,
    /// The compiler it was built with; empty when unknown.
    pub rustc: String,
    /// The command line it was started with, without the program's own name.
    pub arguments: Vec<String>,
    /// The directory it was started in.
    pub directory: String,
    /// The config file in force.
    pub config_file: Option<String>,
    /// Where `/metrics` is served.
    pub metrics_address: Option<String>,
    /// A service manager started it.
    pub service: bool,
    /// What `systemctl` calls that service.
    pub unit: Option<String>,
    /// When the daemon started, for uptimes.
    pub since: Instant,
    /// When the daemon started, for people.
    pub started_at: SystemTime,
}
