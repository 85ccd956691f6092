//! Where the daemon is: which socket and which pid file.

use std::path::{Path, PathBuf};

use super::arguments::{CONFIG_VARIABLE, SourcesArgs};
use super::output::Output;
use super::{Complaint, USAGE};
use crate::config;
use crate::control::client::Client;

/// Where the daemon of a config is to be found.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) client: Client,
    /// Unknown when it cannot be loaded.
    pub(super) config: Option<config::Config>,
}

impl Place {
    /// Returns the pid file; `None` when the config cannot be loaded.
    pub(super) fn pid_file(&self) -> Option<&Path> {
        self.config
            .as_ref()
            .map(|config| config.daemon.pid_file.as_path())
    }
}

/// Finds the daemon that these arguments mean. A config with mistakes must not keep anyone from
/// stopping the daemon that runs with the one before, so its socket is enough.
pub(super) fn find(sources: &SourcesArgs, output: &mut Output) -> Result<Place, Complaint> {
    match load(sources) {
        Ok(loaded) => Ok(Place {
            client: Client::new(loaded.config.daemon.socket.clone()),
            config: Some(loaded.config),
        }),
        Err(complaint) => {
            let socket = socket_of_a_bad_config(sources).ok_or(complaint)?;
            output.complain(
                "the config has mistakes (`eternal check` shows them); the daemon is looked for at the socket it names",
            );
            Ok(Place {
                client: Client::new(socket),
                config: None,
            })
        }
    }
}

/// Loads the config; a bad one is a usage error with every problem.
pub(super) fn load(sources: &SourcesArgs) -> Result<config::Loaded, Complaint> {
    let directory = std::env::current_dir().map_err(|error| {
        Complaint::failed(format!("cannot tell the current directory: {error}"))
    })?;
    load_in(sources, directory)
}

/// Loads the config; the inner error has every problem of a bad one.
pub(super) fn try_load(
    sources: &SourcesArgs,
) -> Result<Result<config::Loaded, config::Problems>, Complaint> {
    let sources = sources
        .sources()
        .map_err(|error| Complaint::failed(format!("cannot tell where we are: {error}")))?;
    Ok(config::load(&sources))
}

/// Loads the config as if started in a directory.
pub(super) fn load_in(
    sources: &SourcesArgs,
    directory: PathBuf,
) -> Result<config::Loaded, Complaint> {
    let sources = sources
        .sources_in(directory)
        .map_err(|error| Complaint::failed(format!("cannot tell our own executable: {error}")))?;
    config::load(&sources).map_err(|problems| Complaint::new(USAGE, problems.to_string()))
}

/// Reads nothing but the socket's path, as the config would: the flag, the variable, the file.
fn socket_of_a_bad_config(sources: &SourcesArgs) -> Option<PathBuf> {
    let directory = std::env::current_dir().ok()?;
    if let Some(socket) = &sources.flags.socket {
        return Some(directory.join(socket));
    }
    let named = sources
        .config
        .clone()
        .or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
    let is_named = named.is_some();
    let file = named
        .or_else(|| Some(PathBuf::from("eternal.toml")).filter(|path| path.exists()))
        .unwrap_or_else(|| PathBuf::from("/etc/eternal/eternal.toml"));
    let file = directory.join(file);
    if !is_named && config::stranger(&file).is_some() {
        return None;
    }
    let base = file.parent().unwrap_or(Path::new("/"));
    if let Some(socket) = std::env::var_os("ETERNAL__DAEMON__SOCKET") {
        return Some(base.join(socket));
    }
    // In the middle of an edit a file may not even be TOML: then its socket is where it is by
    // default.
    let table: toml::Table = std::fs::read_to_string(&file)
        .ok()?
        .parse()
        .unwrap_or_default();
    let socket = table.get("daemon").and_then(|daemon| daemon.get("socket"));
    match socket {
        None => Some(base.join("daemon.sock")),
        Some(socket) => socket.as_str().map(|socket| base.join(socket)),
    }
}
