//! The file: read it, parse it, and walk over every key of it with its span.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layers::{Gathering, one_line, section_called};
use super::node::{Node, Place, quote};
use super::other_formats;
use super::problem::{Problem, Problems, Text, did_you_mean};
use super::schema::{self, Section, TABLES};

/// As much is read; bytes. Thousands of programs take less, and a parser may make many times as much
/// memory of it.
const LONGEST: u64 = 4 * 1024 * 1024;
/// As many mistakes of syntax are told: the rest tells nobody anything new.
const MOST_ERRORS: usize = 100;

/// Reads the file at `path`; a byte order mark is not part of it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the many kinds of I/O error only some have a better text"
)]
pub(super) fn read(path: &Path) -> Result<Text, Problems> {
    let refuse = |why: String, help: Option<&str>| {
        Problems::one(
            format!("cannot read the configuration {}: {why}", path.display()),
            help.map(str::to_owned),
        )
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(
            "there is no such file".to_owned(),
            Some("look at --config and ETERNAL_CONFIG"),
        ),
        io::ErrorKind::IsADirectory => {
            refuse("it is a directory".to_owned(), Some("name the file in it"))
        }
        io::ErrorKind::PermissionDenied => refuse("permission denied".to_owned(), None),
        _ => refuse(error.to_string(), None),
    })?;
    if bytes.len() as u64 > LONGEST {
        let why = format!("it is longer than {} MiB", LONGEST >> 20);
        return Err(refuse(why, Some("is it another file?")));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    std::str::from_utf8(bytes)
        .map(|text| Text::new(path.to_owned(), text))
        .map_err(|error| {
            let good = error.valid_up_to();
            let text = Text::new(path.to_owned(), &String::from_utf8_lossy(bytes));
            let problem = Problem::new(
                Place::File(good..good + 1),
                "the configuration is not UTF-8 text",
                "this byte",
            );
            Problems::new(vec![problem], Some(text))
        })
}

/// Adds the file as a layer, noting every key that does not exist.
pub(super) fn gather(text: &Text, into: &mut Gathering) {
    let (document, errors) = DeTable::parse_recoverable(&text.text);
    if !errors.is_empty()
        && let Some((what, help)) = other_formats::language(&text.text)
    {
        let title = format!("not valid TOML: this is {what}");
        let problem = Problem::new(Place::File(0..0), title, "it begins here").help(help);
        into.problems.push(problem);
        return;
    }
    if !errors.is_empty() {
        // What follows an error on its line is mostly its echo.
        let mut lines = HashSet::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = text.line(span.start);
            if lines.len() < MOST_ERRORS && lines.insert(line) {
                let problem = Problem::new(
                    Place::File(span),
                    format!("not valid TOML: {}", one_line(error.message())),
                    "here",
                );
                into.problems.push(problem);
            }
        }
        return;
    }
    into.next_layer();
    for (name, value) in document.get_ref() {
        let path = name.get_ref().as_ref();
        match (path, section_called(path), value.get_ref()) {
            ("programs", _, DeValue::Table(programs)) => programs
                .iter()
                .for_each(|(name, value)| program(name, value, into)),
            (_, Some(section), DeValue::Table(table)) => {
                for (key, value) in known(path, section, table, into) {
                    into.set(path, key, value);
                }
            }
            ("programs", _, _) | (_, Some(_), _) => {
                let place = Place::File(value.span());
                let found = format!("found {}", Node::from_toml(value, &Place::File).show());
                into.problems.push(
                    Problem::new(place, format!("`{path}` must be a table"), found)
                        .help(format!("write [{path}]")),
                );
            }
            _ => into.problems.push(unknown_table(name)),
        }
    }
}

fn program(
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    into: &mut Gathering,
) {
    let header = Place::File(name.span());
    let path = format!("programs.{}", name.get_ref());
    if !is_program_name(name.get_ref()) {
        let title = format!("{} is not a program name", quote(name.get_ref()));
        into.problems
            .push(Problem::new(header, title, "this name").help(NAME_RULE));
        return;
    }
    let DeValue::Table(table) = value.get_ref() else {
        let mut problem = Problem::new(header, format!("`{path}` must be a table"), "this name");
        problem.help = Some(match schema::find(Section::Program, name.get_ref()) {
            Some(_) => format!(
                "write `{}` under [programs.NAME], or under [defaults] for all",
                name.get_ref()
            ),
            None => format!("write [{path}]"),
        });
        into.problems.push(problem);
        return;
    };
    into.begin_program(name.get_ref(), header);
    for (key, value) in known(&path, Section::Program, table, into) {
        into.set_program(name.get_ref(), key, value);
    }
}

/// What a program may be called.
pub const NAME_RULE: &str =
    "a name has 1 to 64 of A-Z a-z 0-9 _ . : @ - and begins with a letter or a digit";

/// Says whether a program may be called this.
#[must_use]
pub fn is_program_name(name: &str) -> bool {
    const LONGEST: usize = 64;
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b))
}

/// Returns the keys that exist, and notes those that do not.
fn known(
    path: &str,
    section: Section,
    table: &DeTable<'_>,
    into: &mut Gathering,
) -> Vec<(&'static str, Node)> {
    let mut found = Vec::with_capacity(table.len());
    for (key, value) in table {
        match schema::find(section, key.get_ref()) {
            Some(known) => found.push((known.name, Node::from_toml(value, &Place::File))),
            None => into.problems.push(unknown_key(path, section, key)),
        }
    }
    found
}

fn unknown_key(path: &str, section: Section, key: &Spanned<std::borrow::Cow<'_, str>>) -> Problem {
    let name = key.get_ref().as_ref();
    let mut problem = Problem::new(
        Place::File(key.span()),
        format!("`{path}` has no key {}", quote(name)),
        "unknown key",
    );
    let synonym = other_formats::synonym(name).filter(|_| section == Section::Program);
    problem.help = if let Some(ours) = synonym {
        Some(format!("here it is {ours}"))
    } else if let Some(guess) = did_you_mean(name, schema::names(section)) {
        Some(format!("did you mean `{guess}`?"))
    } else {
        elsewhere(name).map(|place| format!("`{name}` belongs in {place}"))
    };
    problem
}

fn unknown_table(name: &Spanned<std::borrow::Cow<'_, str>>) -> Problem {
    let word = name.get_ref().as_ref();
    let problem = Problem::new(
        Place::File(name.span()),
        format!("the configuration has no {}", quote(word)),
        "unknown",
    );
    let tables = TABLES.iter().map(|(table, _)| *table).chain(["programs"]);
    match (elsewhere(word), did_you_mean(word, tables)) {
        (Some(place), _) => problem.help(format!("`{word}` belongs in {place}")),
        (None, Some(guess)) => problem.help(format!("did you mean `{guess}`?")),
        (None, None) => problem
            .help("the tables are [daemon], [metrics], [tracing], [defaults] and [programs.NAME]"),
    }
}

/// Says in which table a key would be right.
fn elsewhere(name: &str) -> Option<&'static str> {
    let key = schema::reference()
        .iter()
        .rev()
        .find(|key| key.name == name)?;
    Some(match key.section {
        Section::Daemon => "[daemon]",
        Section::Metrics => "[metrics]",
        Section::Tracing => "[tracing]",
        Section::Program => "[programs.NAME] or [defaults]",
    })
}
