//! Configurations of other supervisors, translated.
//!
//! A translation is text in, text out: nothing is written here, and only a PM2 configuration in
//! JavaScript is run, because there is no other way to read one. Every option of the source ends in
//! the result or in a [`Note`]; what is written has passed the check of the config room.
//!
//! ```text
//! supervisord ─┐
//! pm2         ─┼─▶ draft (tables, keys, values) ─▶ TOML ─▶ config::load ─▶ Imported
//! procfile    ─┘   notes (what has no equivalent, what differs)
//! ```

mod command;
mod draft;
mod finish;
mod names;
mod note;
mod pm2;
mod procfile;
mod source;
mod supervisord;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use note::{Kind, Note};

use draft::Draft;
use note::Notes;

/// Whose configuration it is.
#[derive(Clone, Debug)]
pub enum Format {
    /// supervisord's INI file.
    Supervisord,
    /// PM2's ecosystem file: JSON, YAML or JavaScript.
    Pm2 {
        /// Which `env_NAME` is added to `env`.
        environment: Option<String>,
        /// Run JavaScript as root although others than root may write it.
        trusted: bool,
    },
    /// A Procfile, with the `.env` beside it.
    Procfile {
        /// How many of each type; `all` is every type that is not named. Without any, one of each.
        formation: BTreeMap<String, u32>,
        /// The port of the first process; the next type's is 100 higher.
        port: u16,
    },
}

impl Format {
    /// Returns what it is called on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Supervisord => "supervisord",
            Self::Pm2 { .. } => "pm2",
            Self::Procfile { .. } => "procfile",
        }
    }
}

/// What to translate.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose configuration it is.
    pub format: Format,
    /// The file.
    pub file: PathBuf,
    /// Where the result will be; paths that are relative in the source are written to fit.
    pub result: PathBuf,
    /// The environment, for sources that read variables when they are loaded.
    pub environment: BTreeMap<String, String>,
}

/// A translation.
#[derive(Clone, Debug)]
pub struct Imported {
    /// TOML that the config room takes.
    pub config: String,
    /// The programs, in the order they are started.
    pub programs: Vec<String>,
    /// What has no equivalent, what means something else, and what was decided; in the order of
    /// the source.
    pub notes: Vec<Note>,
}

/// Why there is no translation.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The source cannot be read or understood.
    #[error("{0}")]
    Source(String),
    /// The translation is one that the config room refuses: a mistake of this room.
    #[error(
        "the translation is not a valid configuration, which is a mistake of `eternal import`; \
         please report it with the file it was made from:\n{problems}\n\nthis was written:\n{config}"
    )]
    Internal {
        /// What the config room says.
        problems: String,
        /// What it says it of.
        config: String,
    },
}

impl Failure {
    fn at(file: &Path, line: usize, what: impl std::fmt::Display) -> Self {
        Self::Source(format!("{}:{line}: {what}", file.display()))
    }
}

/// Translates a configuration.
///
/// # Errors
/// When the source cannot be read or has no program, and when the result would not be valid.
pub fn import(request: &Request) -> Result<Imported, Failure> {
    let mut draft = Draft::default();
    let mut notes = Notes::default();
    match &request.format {
        Format::Supervisord => supervisord::translate(request, &mut draft, &mut notes)?,
        Format::Pm2 {
            environment,
            trusted,
        } => {
            let choice = (environment.as_deref(), *trusted);
            pm2::translate(request, choice, &mut draft, &mut notes)?;
        }
        Format::Procfile { formation, port } => {
            procfile::translate(request, (formation, *port), &mut draft, &mut notes)?;
        }
    }
    finish::finish(request, &draft, notes)
}
