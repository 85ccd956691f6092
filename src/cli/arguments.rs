//! What may be written on the command line.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config;

/// The variable that names the config file where `--config` does not.
pub(super) const CONFIG_VARIABLE: &str = "ETERNAL_CONFIG";

/// Keeps servers running for ever and says exactly how that went.
#[derive(Debug, Parser)]
#[command(name = "eternal", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) globals: Globals,
    #[command(subcommand)]
    pub(super) word: Word,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed (also: gave up on a crash loop), 2 usage or configuration error,
3 no daemon is running. `status` follows LSB: 0 running, 1 dead but the pid file is there,
3 not running, 4 unknown.";

#[derive(Args, Clone, Debug)]
pub(super) struct Globals {
    /// Config file [default: $ETERNAL_CONFIG, ./eternal.toml, /etc/eternal/eternal.toml]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Control socket of the daemon
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Word {
    /// Supervise in the foreground
    Run(Run),
    /// Supervise in the background, or start programs of a running daemon
    Start(Start),
    /// Stop the daemon and all its programs, or only the programs named
    Stop(Named),
    /// Stop and start again the daemon, or only the programs named
    Restart(Named),
    /// Show how every program is, why, and what happens next
    Status {
        /// Programs, or replicas such as web/1
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Keep showing it: every second on a terminal, else at every change
        #[arg(long, short)]
        watch: bool,
    },
    /// Read the config again and start, stop and restart only what changed
    Reload {
        /// Restart every program, one after the other
        #[arg(long)]
        restart: bool,
    },
    /// Show captured output
    Logs(Logs),
    /// Show the crash history: when, why, how long it ran, last output
    Crashes {
        /// Programs
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Check a config, what a start would meet on this machine, and when it would give up
    Check {
        /// The config file [default: as for --config]
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Check only what the file says: not users, paths, ports, certificates of this machine
        #[arg(long)]
        file_only: bool,
    },
    /// Show every value of the config and where it comes from: as the running daemon reads it
    Config {
        /// As a daemon started here would read it, whether one runs or not
        #[arg(long)]
        file: bool,
    },
    /// Print a systemd unit for a config
    SystemdUnit(SystemdUnit),
    /// Translate the config of supervisord, PM2 or a Procfile
    #[command(subcommand)]
    Import(ImportFrom),
    /// Ask the running daemon whether it is well: exit code 0 or 1, for containers
    Healthcheck {
        /// Ask whether every program that starts with the daemon is ready
        #[arg(long)]
        ready: bool,
        /// How long to wait for the answer
        #[arg(long, value_name = "SECONDS", default_value_t = 3,
              value_parser = clap::value_parser!(u64).range(1..=300))]
        timeout: u64,
    },
    /// Be the bundled API server, a small server to supervise
    ApiServer(ApiServerArgs),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// Become independent of the terminal and report progress on standard output
    #[arg(long, hide = true)]
    pub(super) detached: bool,
    /// Supervise this one command without a config file
    #[arg(last = true, value_name = "CMD ARG")]
    pub(super) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct Named {
    /// Programs, or replicas such as web/1
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Also a daemon that is the service of a service manager
    #[arg(long, conflicts_with = "names")]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct Start {
    /// Also where the daemon has been the service of a service manager
    #[arg(long, conflicts_with = "names")]
    pub(super) force: bool,
    /// Programs of the running daemon, or replicas such as web/1
    #[arg(value_name = "NAME", conflicts_with_all = ["Flags", "command"])]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) flags: Flags,
    /// Supervise this one command without a config file
    #[arg(last = true, value_name = "CMD ARG")]
    pub(super) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct Logs {
    /// Programs, or replicas such as web/1
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Keep showing lines as they come
    #[arg(long, short)]
    pub(super) follow: bool,
    /// How many past lines: of each program named, or of all together; at most 100000
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(super) lines: u32,
    /// Print the lines alone and exactly as they were written, control characters included
    #[arg(long, conflicts_with = "json")]
    pub(super) raw: bool,
}

/// `eternal systemd-unit`.
#[derive(Args, Clone, Debug)]
pub(super) struct SystemdUnit {
    /// User the daemon runs as, with every program that has no user of its own
    #[arg(long, value_name = "USER", default_value = "eternal")]
    pub(super) run_as: String,
    /// Run it as root, so that programs can have users of their own; so too where the config names some
    #[arg(long)]
    pub(super) users: bool,
}

const IMPORT_CODES: &str = "\
Exit codes: 0 translated, also when something has no equivalent (stderr names it), 1 the result
cannot be written, or something has no equivalent and --strict was given, 2 the file cannot be read
or understood.";

#[derive(Debug, Subcommand)]
pub(super) enum ImportFrom {
    /// Translate supervisord.conf, and the files that it includes
    #[command(after_help = IMPORT_CODES)]
    Supervisord {
        #[command(flatten)]
        options: Import,
    },
    /// Translate an ecosystem file of PM2: JSON, YAML, or JavaScript, which is run with node
    #[command(after_help = IMPORT_CODES)]
    Pm2 {
        #[command(flatten)]
        options: Import,
        /// Add the variables of env_NAME
        #[arg(long = "env", value_name = "NAME")]
        environment: Option<String>,
        /// As root, run JavaScript that others than root may write
        #[arg(long)]
        trust_javascript: bool,
    },
    /// Translate a Procfile, with the .env beside it
    #[command(after_help = IMPORT_CODES)]
    Procfile {
        #[command(flatten)]
        options: Import,
        /// How many of each type, as web=2,worker=1 or all=1 [default: one of each]
        #[arg(long, short = 'm', value_name = "TYPE=N,…")]
        formation: Option<String>,
        /// PORT of the first type; the next one's is 100 higher [a PORT in .env wins]
        #[arg(long, short, default_value_t = 5000)]
        port: u16,
    },
}

#[derive(Args, Debug)]
pub(super) struct Import {
    /// The file to translate
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub(super) file: PathBuf,
    /// Write the config here [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Replace the file that is there
    #[arg(long)]
    pub(super) force: bool,
    /// Exit with 1 when something has no equivalent
    #[arg(long)]
    pub(super) strict: bool,
}

/// Options of the config that can be given on the command line; checked with the config.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Flags {
    /// Name of the program [default: the basename of CMD]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// When to restart: always, on-failure, never
    #[arg(long, value_name = "WHEN")]
    restart: Option<String>,
    /// Automatic restarts before giving up, or "unlimited"
    #[arg(long, value_name = "N")]
    max_restarts: Option<String>,
    /// Wait before the first restart, such as 1s
    #[arg(long, value_name = "DURATION")]
    restart_delay: Option<String>,
    /// Crashes within the window before giving up
    #[arg(long, value_name = "N")]
    crash_threshold: Option<String>,
    /// Run time within which crashes are counted
    #[arg(long, value_name = "DURATION")]
    crash_window: Option<String>,
    /// Time to stop before it is killed
    #[arg(long, value_name = "DURATION")]
    stop_timeout: Option<String>,
    /// Log file of the daemon, "" for none
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
    /// Pid file of the daemon
    #[arg(long, value_name = "FILE")]
    pid_file: Option<String>,
    /// Address of /metrics, "" for none
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Time between statistics lines
    #[arg(long, value_name = "DURATION")]
    stats_interval: Option<String>,
    /// How long to serve the final metrics after giving up
    #[arg(long, value_name = "DURATION")]
    linger: Option<String>,
    /// Form of the log: text, json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Least important level to log: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// `eternal run`.
#[derive(Clone, Debug)]
pub struct RunArgs {
    /// What the config is made of.
    pub sources: SourcesArgs,
    /// Started by `eternal start`: become independent of the terminal, report
    /// [`Progress`](crate::control::api::Progress) on standard output, log only to the file.
    pub detached: bool,
}

/// `eternal api-server`.
#[derive(Args, Clone, Debug)]
pub struct ApiServerArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Offer ways to crash, hang and leak under /chaos
    #[arg(long)]
    pub chaos: bool,
    /// Requests a client may make, such as 50/s
    #[arg(long, value_name = "N/s")]
    pub rate_limit: Option<String>,
    /// Requests a client may make at once
    #[arg(long, value_name = "N")]
    pub burst: Option<u32>,
    /// Proxy whose X-Forwarded-For is believed; may be repeated
    #[arg(long, value_name = "IP[/BITS]")]
    pub trusted_proxy: Vec<String>,
}

/// What the command line contributes to the config.
#[derive(Clone, Debug)]
pub struct SourcesArgs {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Flags as they were written.
    pub flags: config::Flags,
    /// What stood after `--`.
    pub command: Option<Vec<String>>,
}

impl SourcesArgs {
    pub(super) fn new(globals: &Globals, flags: Flags, command: Vec<String>) -> Self {
        Self {
            config: globals.config.clone(),
            flags: config::Flags {
                name: flags.name,
                restart: flags.restart,
                max_restarts: flags.max_restarts,
                restart_delay: flags.restart_delay,
                crash_threshold: flags.crash_threshold,
                crash_window: flags.crash_window,
                stop_timeout: flags.stop_timeout,
                log_file: flags.log_file,
                pid_file: flags.pid_file,
                metrics_listen: flags.metrics_listen,
                stats_interval: flags.stats_interval,
                linger: flags.linger,
                log_format: flags.log_format,
                log_level: flags.log_level,
                socket: globals.socket.clone(),
            },
            command: (!command.is_empty()).then_some(command),
        }
    }

    /// Gathers what the config is loaded from: these arguments, the environment and where we are.
    ///
    /// # Errors
    /// When the current directory or our own executable cannot be told.
    pub fn sources(&self) -> io::Result<config::Sources> {
        self.sources_in(std::env::current_dir()?)
    }

    pub(super) fn sources_in(&self, directory: PathBuf) -> io::Result<config::Sources> {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(config::Sources {
            file: self.file(),
            directory,
            environment,
            flags: self.flags.clone(),
            command: self.command.clone(),
            own_executable: std::env::current_exe()?,
        })
    }

    /// A command needs no config, so the variable does not force one upon it.
    fn file(&self) -> config::FileChoice {
        let named = || std::env::var_os(CONFIG_VARIABLE).filter(|value| !value.is_empty());
        match &self.config {
            Some(path) => config::FileChoice::Explicit(path.clone()),
            None if self.command.is_some() => config::FileChoice::Search,
            None => named().map_or(config::FileChoice::Search, |path| {
                config::FileChoice::Explicit(PathBuf::from(path))
            }),
        }
    }

    /// Names the config file where nothing else says what to supervise.
    pub(super) fn or_config(mut self, file: Option<&str>) -> Self {
        if self.config.is_none() && self.command.is_none() {
            self.config = file.map(|file| Path::new(file).to_owned());
        }
        self
    }

    /// Writes these arguments as a command line for `run`.
    pub(super) fn to_arguments(&self) -> Vec<OsString> {
        let flags = &self.flags;
        let mut arguments = Vec::new();
        if let Some(path) = &self.config {
            arguments.extend([OsString::from("--config"), path.clone().into_os_string()]);
        }
        for (name, value) in [
            ("name", &flags.name),
            ("restart", &flags.restart),
            ("max-restarts", &flags.max_restarts),
            ("restart-delay", &flags.restart_delay),
            ("crash-threshold", &flags.crash_threshold),
            ("crash-window", &flags.crash_window),
            ("stop-timeout", &flags.stop_timeout),
            ("log-file", &flags.log_file),
            ("pid-file", &flags.pid_file),
            ("metrics-listen", &flags.metrics_listen),
            ("stats-interval", &flags.stats_interval),
            ("linger", &flags.linger),
            ("log-format", &flags.log_format),
            ("log-level", &flags.log_level),
            ("socket", &flags.socket),
        ] {
            if let Some(value) = value {
                // One word, so that a value may begin with a dash.
                arguments.push(OsString::from(format!("--{name}={value}")));
            }
        }
        if let Some(command) = &self.command {
            arguments.push(OsString::from("--"));
            arguments.extend(command.iter().map(OsString::from));
        }
        arguments
    }
}

#[cfg(test)]
mod tests;
