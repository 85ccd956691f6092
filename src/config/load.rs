//! Loading: which file, which layers, and in what order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file;
use super::flags::{self, Flags};
use super::fleet_rules;
use super::layers::Gathering;
use super::model::{Config, Program};
use super::node::{Kind, Node, Place, quote};
use super::origins::Origins;
use super::problem::{Problem, Problems, Text};
use super::schema::reference;
use super::trust::stranger;
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
    /// This text, as if it were the file at this path, which need not be there.
    Text(PathBuf, String),
    /// `./eternal.toml`, else `/etc/eternal/eternal.toml`, else none. Root reads only one that nobody
    /// else can change.
    Search,
    /// None.
    None,
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

/// What there is to supervise.
pub(super) enum Mode {
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
        Mode::Command(command, name) => {
            one_program(&mut gathering, name, command);
            if sources.command.is_none() {
                // The bundled server says when it listens.
                let kind = Kind::Text("notify".to_owned());
                let place = Place::Command;
                gathering.set_program(name, "ready", Node { place, kind });
            }
        }
    }
    gathering.environment(&sources.environment);
    warnings.extend(sources.environment.iter().filter_map(misspelt));
    flags::gather(&mut gathering, &sources.flags, &mode);
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
    warnings.extend(fleet_rules::vain_waits(&config));
    Ok(Loaded {
        config,
        origins,
        warnings,
    })
}

/// Says of a variable that looks like one of ours and is not read how it is spelt.
fn misspelt((name, _): &(String, String)) -> Option<String> {
    let rest = name.strip_prefix("ETERNAL_")?;
    let key = reference().iter().find(|key| {
        let plain = key.name.to_ascii_uppercase();
        rest == plain || rest == format!("{}_{plain}", key.section.table().to_ascii_uppercase())
    })?;
    let (table, key) = (key.section.table(), key.name);
    let right = format!("ETERNAL__{table}__{key}").to_ascii_uppercase();
    Some(format!(
        "the variable {name} is not read: it would be {right}, with two underscores"
    ))
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
        FileChoice::Text(path, text) => {
            let path = absolute(&sources.directory, path);
            return Ok(Mode::File(Text::new(path, text)));
        }
        FileChoice::Explicit(path) => Some(absolute(&sources.directory, path)),
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
        (None, Some(path)) => {
            let named = matches!(sources.file, FileChoice::Explicit(_));
            warnings.extend(judge(&path, named)?);
            file::read(&path).map(Mode::File)
        }
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

/// Refuses root a file that somebody else can change, found where root happens to be. One that is
/// named on purpose is worth a warning.
fn judge(file: &Path, named: bool) -> Result<Option<String>, Problems> {
    let shown = file.display();
    match stranger(file) {
        None => Ok(None),
        Some(who) if named => Ok(Some(format!(
            "{who}: whoever can change {shown} decides what runs as root"
        ))),
        Some(who) => Err(Problems::one(
            format!("{shown} is not read, since root would run what it says: {who}"),
            Some(format!("if that is meant, name it: --config {shown}")),
        )),
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

fn warning(program: &Program) -> Option<String> {
    let policy = &program.policy;
    (policy.restart == RestartMode::Always && policy.restart_delay.is_zero()).then(|| {
        format!("programs.{}: restart_delay is 0: if it ends at once it is started again without a pause", program.name)
    })
}
