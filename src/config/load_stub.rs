//! A stand-in for config loading until the real one is merged.

use std::path::PathBuf;

use super::{Config, Daemon, LogFormat, LogLevel, Metrics, Tracing};

/// Where the config file is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChoice {
    /// This one.
    Explicit(PathBuf),
    /// The usual places.
    Search,
    /// Nowhere.
    None,
}

/// Flags as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct Flags {
    pub name: Option<String>,
    pub restart: Option<String>,
    pub max_restarts: Option<String>,
    pub restart_delay: Option<String>,
    pub crash_threshold: Option<String>,
    pub crash_window: Option<String>,
    pub stop_timeout: Option<String>,
    pub log_file: Option<String>,
    pub pid_file: Option<String>,
    pub metrics_listen: Option<String>,
    pub stats_interval: Option<String>,
    pub linger: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub socket: Option<String>,
}

/// Everything a config is made of.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct Sources {
    pub file: FileChoice,
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
    pub flags: Flags,
    pub command: Option<Vec<String>>,
    pub own_executable: PathBuf,
}

/// A config with where it came from.
#[derive(Debug)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

/// Everything that is wrong.
#[derive(Debug)]
pub struct Problems(String);

impl std::fmt::Display for Problems {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Loads.
///
/// # Errors
/// A file that is not TOML.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let file = match &sources.file {
        FileChoice::Explicit(path) => Some(sources.directory.join(path)),
        FileChoice::Search => Some(sources.directory.join("eternal.toml")).filter(|p| p.exists()),
        FileChoice::None => None,
    };
    let mut table = toml::Table::new();
    if let Some(path) = &file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problems(format!("cannot read {}: {error}", path.display())))?;
        table = text
            .parse()
            .map_err(|error| Problems(format!("{}: {error}", path.display())))?;
    }
    let base = sources.directory.clone();
    let daemon = table.get("daemon").and_then(toml::Value::as_table);
    let setting = |key: &str, flag: &Option<String>, default: &str| {
        let value = flag
            .clone()
            .or_else(|| Some(daemon?.get(key)?.as_str()?.to_owned()))
            .unwrap_or_else(|| default.to_owned());
        base.join(value)
    };
    let daemon = Daemon {
        pid_file: setting("pid_file", &sources.flags.pid_file, "daemon.pid"),
        log_file: None,
        log_format: LogFormat::Text,
        log_level: LogLevel::Info,
        log_max_size: 1,
        log_keep: 1,
        stats_interval: None,
        socket: setting("socket", &sources.flags.socket, "daemon.sock"),
        state_dir: base.join("state"),
    };
    let metrics = Metrics {
        listen: None,
        linger: std::time::Duration::ZERO,
        tls_cert: None,
        tls_key: None,
        basic_auth_file: None,
    };
    let tracing = Tracing {
        otlp_endpoint: None,
    };
    let config = Config {
        file,
        base,
        daemon,
        metrics,
        tracing,
        programs: Vec::new(),
    };
    Ok(Loaded {
        config,
        warnings: Vec::new(),
    })
}

/// A summary.
#[must_use]
pub fn check(loaded: &Loaded) -> String {
    format!("{} programs, no problems\n", loaded.config.programs.len())
}

/// Effective values.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    format!("socket = {:?}\n", loaded.config.daemon.socket)
}
