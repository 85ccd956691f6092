//! Loading: which file, which layers, and in what order.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file;
use super::fleet_rules;
use super::layers::{Gathering, Keys, Layers, typed};
use super::model::{Config, Program};
use super::node::{Kind, Node, Place, quote};
use super::problem::{Problem, Problems, Text};
use super::schema::{self, Section, TABLES};
use super::valid;
use super::values::absolute;
use crate::supervision::RestartMode;

/// Everything a configuration is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Which file.
    pub file: FileChoice,
    /// The current directory; absolute.
    pub directory: PathBuf,
    /// The environment; only `ETERNAL__…` is looked at.
    pub environment: Vec<(String, String)>,
    /// The command line's options.
    pub flags: Flags,
    /// The command after `--`.
    pub command: Option<Vec<String>>,
    /// What runs the bundled API server when nothing is configured.
    pub own_executable: PathBuf,
}

/// Which file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChoice {
    /// This one (`--config`, `ETERNAL_CONFIG`); it has to be there.
    Explicit(PathBuf),
    /// `./eternal.toml`, else `/etc/eternal/eternal.toml`, else none.
    Search,
    /// None.
    None,
}

/// Options of the command line, as they were typed; each wins over file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the option of its name, and the key of its name in the file"
)]
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

/// An option that sets a key: its name, section, key and text.
type Option_<'a> = (&'static str, Section, &'static str, &'a Option<String>);

impl Flags {
    fn list(&self) -> [Option_<'_>; 14] {
        use Section::{Daemon, Metrics, Program};
        [
            ("--restart", Program, "restart", &self.restart),
            (
                "--max-restarts",
                Program,
                "max_restarts",
                &self.max_restarts,
            ),
            (
                "--restart-delay",
                Program,
                "restart_delay",
                &self.restart_delay,
            ),
            (
                "--crash-threshold",
                Program,
                "crash_threshold",
                &self.crash_threshold,
            ),
            (
                "--crash-window",
                Program,
                "crash_window",
                &self.crash_window,
            ),
            (
                "--stop-timeout",
                Program,
                "stop_timeout",
                &self.stop_timeout,
            ),
            ("--log-file", Daemon, "log_file", &self.log_file),
            ("--pid-file", Daemon, "pid_file", &self.pid_file),
            ("--metrics-listen", Metrics, "listen", &self.metrics_listen),
            (
                "--stats-interval",
                Daemon,
                "stats_interval",
                &self.stats_interval,
            ),
            ("--linger", Metrics, "linger", &self.linger),
            ("--log-format", Daemon, "log_format", &self.log_format),
            ("--log-level", Daemon, "log_level", &self.log_level),
            ("--socket", Daemon, "socket", &self.socket),
        ]
    }
}

/// A valid configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is configured.
    pub config: Config,
    /// Where each value came from.
    pub origins: Origins,
    /// What is allowed and yet worth a word.
    pub warnings: Vec<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The built-in default.
    BuiltIn,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A command line option.
    Flag(&'static str),
    /// The command line after `--`, or the bundled server.
    Command,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Flag(name) => write!(f, "the option {name}"),
            Self::Command => f.write_str("the command line"),
        }
    }
}

/// Where every value that is not a built-in default came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    sections: BTreeMap<String, BTreeMap<String, Origin>>,
    programs: BTreeMap<String, BTreeMap<String, Origin>>,
}

impl Origins {
    /// Returns where a key of `[table]` came from.
    #[must_use]
    pub fn section(&self, table: &str, key: &str) -> &Origin {
        self.sections
            .get(table)
            .and_then(|keys| keys.get(key))
            .unwrap_or(&Origin::BuiltIn)
    }

    /// Returns where a key of a program came from: its own table, else `[defaults]`.
    #[must_use]
    pub fn program(&self, name: &str, key: &str) -> &Origin {
        let own = self.programs.get(name).and_then(|keys| keys.get(key));
        own.unwrap_or_else(|| self.section("defaults", key))
    }

    fn of(layers: &Layers, file: Option<&Text>) -> Self {
        let origin = |place: &Place| match place {
            Place::BuiltIn => Origin::BuiltIn,
            Place::File(span) => file.map_or(Origin::BuiltIn, |text| {
                Origin::File(text.path.clone(), text.line(span.start))
            }),
            Place::Variable { name, .. } => Origin::Variable(name.to_string()),
            Place::Flag { name, .. } => Origin::Flag(name),
            Place::Command => Origin::Command,
        };
        let all = |keys: Keys<'_>| {
            keys.all_explicit()
                .map(|(key, place)| (key.to_owned(), origin(place)))
                .collect()
        };
        Self {
            sections: TABLES
                .iter()
                .map(|(table, _)| ((*table).to_owned(), all(layers.section(table))))
                .collect(),
            programs: layers
                .programs()
                .map(|(name, _, keys)| (name.to_owned(), all(keys)))
                .collect(),
        }
    }
}

/// What there is to supervise.
enum Mode {
    /// What a file says.
    File(Text),
    /// One command; or the bundled server.
    Command(Vec<String>, String),
}

/// Loads and checks the configuration.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut warnings = Vec::new();
    let mode = mode(sources, &mut warnings)?;
    let mut gathering = Gathering::default();
    gathering.built_in();
    let (text, base) = match &mode {
        Mode::File(text) => (
            Some(text),
            text.path.parent().unwrap_or(Path::new("/")).to_owned(),
        ),
        Mode::Command(..) => (None, sources.directory.clone()),
    };
    match &mode {
        Mode::File(text) => {
            file::gather(text, &mut gathering);
            if !gathering.problems.is_empty()
                && gathering
                    .problems
                    .iter()
                    .all(|problem| problem.title.starts_with("not valid TOML"))
            {
                return Err(Problems::new(gathering.problems, text.clone().into()));
            }
        }
        Mode::Command(command, name) => one_program(&mut gathering, name, command),
    }
    gathering.environment(&sources.environment);
    flags(&mut gathering, &sources.flags, &mode);
    let problems = |list| Problems::new(list, text.cloned());
    let merged = gathering.merge();
    let (layers, mut found) = merged
        .map_err(|error| Problems::one(format!("cannot merge the configuration: {error}"), None))?;
    let config = valid::config(
        &layers,
        (text.map(|text| text.path.clone()), base),
        &mut found,
    );
    fleet_rules::check(&config, &layers, &mut found);
    if config.programs.is_empty() && found.is_empty() {
        found.push(
            Problem::new(
                Place::File(0..0),
                "no program is configured",
                "in this file",
            )
            .help("add [programs.NAME] with a command"),
        );
    }
    if !found.is_empty() {
        in_order(&mut found);
        return Err(problems(found));
    }
    let origins = Origins::of(&layers, text);
    config
        .programs
        .iter()
        .for_each(|program| warnings.extend(warning(program)));
    Ok(Loaded {
        config,
        origins,
        warnings,
    })
}

/// Puts what is wrong in the file in the order of its lines, and the rest behind it.
fn in_order(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| match &problem.place {
        Place::File(span) => span.start,
        Place::BuiltIn | Place::Variable { .. } | Place::Flag { .. } | Place::Command => usize::MAX,
    });
}

fn mode(sources: &Sources, warnings: &mut Vec<String>) -> Result<Mode, Problems> {
    let found = match &sources.file {
        FileChoice::Explicit(path) => Some(absolute(&sources.directory, &path.to_string_lossy())),
        FileChoice::Search => search(&sources.directory),
        FileChoice::None => None,
    };
    match (&sources.command, found) {
        (Some(_), Some(path)) if matches!(sources.file, FileChoice::Explicit(_)) => {
            Err(Problems::one(
                format!(
                    "a command after -- and the configuration {} exclude each other",
                    path.display()
                ),
                Some("drop the command, or --config and ETERNAL_CONFIG".to_owned()),
            ))
        }
        (Some(command), found) => {
            if let Some(path) = found {
                warnings.push(format!(
                    "{} is not read: the command line says what to run",
                    path.display()
                ));
            }
            let name = sources
                .flags
                .name
                .clone()
                .unwrap_or_else(|| name_of(command.first().map_or("", String::as_str)));
            Ok(Mode::Command(command.clone(), name))
        }
        (None, Some(path)) => file::read(&path).map(Mode::File),
        (None, None) => {
            let command = vec![
                sources.own_executable.to_string_lossy().into_owned(),
                "api-server".to_owned(),
            ];
            Ok(Mode::Command(
                command,
                sources
                    .flags
                    .name
                    .clone()
                    .unwrap_or_else(|| "api".to_owned()),
            ))
        }
    }
}

/// Finds the file in its usual places. One that cannot be looked at is found: reading it says why.
fn search(directory: &Path) -> Option<PathBuf> {
    let places = [
        directory.join("eternal.toml"),
        PathBuf::from("/etc/eternal/eternal.toml"),
    ];
    places.into_iter().find(|path| match fs::metadata(path) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    })
}

/// Makes a program's name of the first word of its command.
fn name_of(command: &str) -> String {
    const LONGEST: usize = 64;
    let base = Path::new(command)
        .file_name()
        .map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let name: String = base
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_.:@-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    if name.is_empty() {
        "program".to_owned()
    } else {
        name
    }
}

fn one_program(into: &mut Gathering, name: &str, command: &[String]) {
    if !file::is_program_name(name) {
        let place = Place::Flag {
            name: "--name",
            text: name.into(),
        };
        let problem = Problem::new(
            place,
            format!("{} is not a program name", quote(name)),
            "this name",
        );
        into.problems.push(problem.help(file::NAME_RULE));
    }
    into.next_layer();
    into.begin_program(name, Place::Command);
    let text = |text: &String| Node {
        place: Place::Command,
        kind: Kind::Text(text.clone()),
    };
    let words = Kind::Array(command.iter().map(text).collect());
    into.set_program(
        name,
        "command",
        Node {
            place: Place::Command,
            kind: words,
        },
    );
}

fn flags(into: &mut Gathering, flags: &Flags, mode: &Mode) {
    into.next_layer();
    let edit = |text: &Text| {
        format!(
            "set it in [programs.NAME] or [defaults] of {}",
            text.path.display()
        )
    };
    if let (Some(name), Mode::File(text)) = (&flags.name, mode) {
        let place = Place::Flag {
            name: "--name",
            text: name.as_str().into(),
        };
        let problem = Problem::new(
            place,
            "--name is for a command after --, and a configuration file is used",
            "this name",
        );
        into.problems
            .push(problem.help(format!("programs are named in {}", text.path.display())));
    }
    for (flag, section, name, text) in flags.list() {
        let (Some(value), Some(key)) = (text, schema::find(section, name)) else {
            continue;
        };
        let place = Place::Flag {
            name: flag,
            text: value.as_str().into(),
        };
        let node = match typed(key, value, &place) {
            Ok(node) => node,
            Err(problem) => {
                into.problems.push(*problem);
                continue;
            }
        };
        match (section, mode) {
            (Section::Program, Mode::File(text)) => {
                let title =
                    format!("{flag} is for a command after --, and a configuration file is used");
                into.problems
                    .push(Problem::new(place, title, "this option").help(edit(text)));
            }
            (Section::Program, Mode::Command(_, program)) => into.set_program(program, name, node),
            (Section::Daemon | Section::Metrics | Section::Tracing, _) => {
                into.set(section.table(), name, node)
            }
        }
    }
}

fn warning(program: &Program) -> Option<String> {
    let policy = &program.policy;
    (policy.restart == RestartMode::Always && policy.restart_delay.is_zero()).then(|| {
        format!("programs.{}: restart_delay is 0: if it ends at once it is started again without a pause", program.name)
    })
}
