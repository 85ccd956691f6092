//! What the daemon opens and lends: listeners, logs, samplers, the environment for its children.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tracing::Level;

use super::{Refusal, refuse, refuse_plainly};
use crate::config::{self, Config, Listen, LogFormat, LogLevel, Metrics};
use crate::observe::log::{self, LogRecord};
use crate::observe::{
    Alive, Listener, OwnSampler, Protection, ProtectionError, ProtectionFiles, Sampler, Tracing,
    Usage,
};
use crate::os::logs::{self, Logs, Options, Record, Stderr};
use crate::os::notify::{NotifySocket, Reach};
use crate::os::places::{self, Directory};
use crate::os::session::{self, StandardError};
use crate::os::{cgroups, procfs};

/// Opens the metrics listener.
///
/// # Errors
///
/// When the address is taken or not ours: exit 2, before anything is started.
pub(super) fn listen(metrics: &Metrics) -> Result<Option<Listener>, Refusal> {
    let Some(listen) = &metrics.listen else {
        return Ok(None);
    };
    let listener = match listen {
        Listen::Tcp(at) => TcpListener::bind(at).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(listener))
        }),
        Listen::Unix(path) => bind_unix(path).map(Listener::Unix),
    };
    listener
        .map(Some)
        .map_err(|error| cannot_listen(listen, &error))
}

/// Says why there is no listener for /metrics.
pub(super) fn cannot_listen(listen: &Listen, error: &io::Error) -> Refusal {
    let operation = format!("listen on {} for /metrics", address(listen));
    match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, Listen::Tcp(at)) => {
            let hint = format!(
                "{error}; `ss -ltnp 'sport = :{}'` shows which process holds it",
                at.port()
            );
            refuse(2, &operation, &hint)
        }
        _ => refuse(2, &operation, error),
    }
}

/// The settings that [`protection`] reads: they take effect at a reload.
pub(super) const PROTECTION_KEYS: [&str; 3] = [
    "metrics.tls_cert",
    "metrics.tls_key",
    "metrics.basic_auth_file",
];

/// Files that somebody configured are no longer than this; bytes.
pub(super) const MOST_READ: u64 = 16 * 1024 * 1024;

/// Reads the certificate, the key and the password file of the metrics listener.
///
/// # Errors
///
/// When one of them is wrong. Without a listener nothing is read.
pub(super) fn protection(metrics: &Metrics) -> Result<Protection, ProtectionError> {
    let files = metrics.listen.as_ref().map(|_| ProtectionFiles {
        certificate: metrics.tls_cert.clone().zip(metrics.tls_key.clone()),
        accounts: metrics.basic_auth_file.clone(),
    });
    let files = files.unwrap_or_default();
    Protection::load(&files, |path| places::read(path, MOST_READ))
}

/// Replaces the socket of a daemon that is gone, never one where somebody answers.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let (directory, name) = Directory::create_for(path)?;
    if directory.look(&name)?.is_some() {
        match UnixStream::connect(path) {
            Ok(_) => {
                let what = "somebody answers there";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    let listener = directory.bind_plainly(&name, |path| UnixListener::bind(path))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket of ours.
pub(super) fn remove_socket(path: &Path) {
    // One that is left is replaced by the next start.
    let _ = Directory::of(path).and_then(|(directory, name)| directory.remove(&name));
}

/// Writes a listen address as the config does.
pub(super) fn address(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(at) => at.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Opens the log room and makes it the place of every log line of this process.
///
/// # Errors
///
/// When the log file cannot be opened.
pub(super) fn start_logs(
    config: &Config,
    detached: bool,
    tracing: Option<&Tracing>,
) -> Result<Logs, Refusal> {
    let daemon = &config.daemon;
    let logs = Logs::start(Options {
        file: daemon.log_file.clone(),
        max_size: daemon.log_max_size,
        keep: daemon.log_keep,
        json: daemon.log_format == LogFormat::Json,
        stderr: if detached {
            Stderr::None
        } else {
            stderr_style(daemon.log_format)
        },
        stderr_to: None,
    })
    .map_err(|error| refuse_plainly(2, &error))?;
    let sink = logs.clone();
    let installed = log::install(
        Arc::new(move |record| sink.line(&to_line(record))),
        level(daemon.log_level),
        tracing,
    );
    installed.map_err(|error| refuse(1, "install the log", &error))?;
    Ok(logs)
}

fn stderr_style(format: LogFormat) -> Stderr {
    let journal = std::env::var("JOURNAL_STREAM").ok();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match (session::standard_error(journal.as_deref()), format) {
        (StandardError::Terminal, _) if plain => Stderr::Text,
        (StandardError::Terminal, _) => Stderr::TextColour,
        (StandardError::Journal, _) => Stderr::Journal,
        (StandardError::Other, LogFormat::Json) => Stderr::Json,
        (StandardError::Other, LogFormat::Text) => Stderr::Text,
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

fn to_line(record: LogRecord) -> Record {
    let level = match record.level {
        Level::ERROR => logs::Level::Error,
        Level::WARN => logs::Level::Warn,
        Level::INFO => logs::Level::Info,
        Level::DEBUG => logs::Level::Debug,
        Level::TRACE => logs::Level::Trace,
    };
    let LogRecord {
        at,
        program,
        message,
        fields,
        ..
    } = record;
    Record {
        level,
        at,
        program,
        message,
        fields,
    }
}

/// Takes possession of our part of the tree of cgroups, if one is ours and wanted.
///
/// # Errors
///
/// When the config requires one and there is none.
pub(super) fn cgroups(mode: config::Cgroups) -> Result<cgroups::Cgroups, Refusal> {
    if mode == config::Cgroups::Off {
        return Ok(cgroups::Cgroups::none("daemon.cgroups is \"off\""));
    }
    let found = cgroups::Cgroups::claim();
    match found.describe() {
        Ok(what) => tracing::info!("each replica gets a cgroup of its own, below {what}"),
        Err(reason) if mode == config::Cgroups::Required => {
            let operation = "use cgroups, which daemon.cgroups requires";
            return Err(refuse(2, operation, reason));
        }
        Err(reason) => tracing::info!("programs get no cgroups of their own: {reason}"),
    }
    Ok(found)
}

/// Opens the socket on which programs say READY=1 and WATCHDOG=1.
///
/// # Errors
///
/// When there is no socket to be had.
pub(super) fn notify_socket(config: &Config) -> Result<NotifySocket, Refusal> {
    let switches = config.programs.iter().any(|program| program.user.is_some());
    // A reload may bring a program with a user, which only root is likely to become.
    let reach = if switches || nix::unistd::geteuid().is_root() {
        Reach::Everybody
    } else {
        Reach::Own
    };
    NotifySocket::bind(&config.daemon.state_dir.join("notify"), reach)
        .map_err(|error| refuse(1, "make the socket for READY=1", &error))
}

/// A sign of life is an answer from the loop itself.
pub(super) fn alive(ping: mpsc::Sender<oneshot::Sender<()>>) -> Alive {
    Arc::new(move || {
        let ping = ping.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            ping.send(reply).await.is_ok() && answer.await.is_ok()
        })
    })
}

/// Reads what whole process trees use. One look at a time: the second waits for the first.
pub(super) fn sampler(
    marker: String,
    endings: procfs::Endings,
    cgroups: cgroups::Accounts,
) -> Sampler {
    let sampler = Mutex::new(procfs::Sampler::new(endings, cgroups.clone()));
    Arc::new(move |programs| {
        let mut sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<u32> = programs.iter().map(|(key, _)| *key).collect();
        sampler.retain(|key| known.contains(&key));
        let running = programs
            .iter()
            .filter_map(|(key, pid)| Some((*key, (*pid)?)));
        let found = sampler.sample(&running.collect::<Vec<_>>(), &marker);
        let mut by_key: HashMap<u32, procfs::Usage> = found.into_iter().collect();
        programs
            .iter()
            .map(|(key, _)| by_key.remove(key).unwrap_or_default())
            .zip(programs)
            .map(|(usage, (key, _))| to_usage(cgroups.overlay(*key, usage)))
            .collect()
    })
}

fn to_usage(usage: procfs::Usage) -> Usage {
    Usage {
        cpu_user_seconds: usage.cpu_user_seconds,
        cpu_system_seconds: usage.cpu_system_seconds,
        run_cpu_seconds: usage.run_cpu_seconds,
        resident_bytes: usage.resident_bytes,
        virtual_bytes: usage.virtual_bytes,
        open_fds: usage.open_fds,
        max_fds: usage.max_fds,
        threads: usage.threads,
        processes: usage.processes,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
        oom_kills: usage.oom_kills,
    }
}

/// Reads what the daemon itself uses.
pub(super) fn own_sampler() -> OwnSampler {
    Arc::new(|| {
        let own = procfs::daemon_usage().ok()?;
        Some(Usage {
            // The kernel's split is of no interest here: process_cpu_seconds_total is the sum.
            cpu_user_seconds: own.cpu_seconds,
            resident_bytes: own.resident_bytes,
            virtual_bytes: own.virtual_bytes,
            open_fds: own.open_fds,
            max_fds: own.max_fds,
            threads: own.threads,
            processes: 1,
            ..Usage::default()
        })
    })
}
