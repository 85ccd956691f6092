//! The result while it is made: tables of keys, written as TOML in the order of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use toml::Value;

use super::note::{Kind, Note};
use crate::config::{self, Section};

/// A configuration to be written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Lines of comment at its head.
    pub head: Vec<String>,
    pub daemon: Table,
    pub defaults: Table,
    pub programs: Vec<Program>,
}

/// One program.
#[derive(Debug)]
pub(super) struct Program {
    pub name: String,
    pub keys: Table,
}

/// The keys of one table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    keys: BTreeMap<&'static str, Value>,
    reasons: BTreeMap<&'static str, &'static str>,
}

impl Table {
    /// Sets a key.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.keys.insert(key, value.into());
    }

    /// Sets a key, with a comment on its line.
    pub fn set_because(
        &mut self,
        key: &'static str,
        value: impl Into<Value>,
        reason: &'static str,
    ) {
        self.set(key, value);
        self.reasons.insert(key, reason);
    }

    /// Sets the user of a program that inherits everything, as elsewhere: here one with a user
    /// inherits little unless told otherwise.
    pub fn set_user(&mut self, user: impl Into<Value>) {
        self.set("user", user);
        self.set("pass_environment", texts(["*"]));
    }

    /// Sets one more variable of the environment.
    pub fn add_variable(&mut self, name: &str, value: &str) {
        let mut all = match self.keys.remove("environment") {
            Some(Value::Table(all)) => all,
            _ => toml::Table::new(),
        };
        all.insert(name.to_owned(), value.into());
        self.set("environment", all);
    }

    /// Sets a key to a length of time.
    pub fn set_length(&mut self, key: &'static str, length: Duration) {
        self.set(key, config::length(length));
    }

    /// Drops the keys that another table has with the same value.
    pub fn drop_shared(&mut self, other: &Self) {
        self.keys.retain(|key, value| other.get(key) != Some(value));
    }

    /// Adds the keys of another table.
    pub fn take_over(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.reasons.extend(other.reasons);
    }

    /// Returns a key that was set.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    fn write(&self, section: Section, text: &mut String) {
        let known = config::reference()
            .iter()
            .filter(|key| key.section == section);
        for key in known {
            let Some(value) = self.keys.get(key.name) else {
                continue;
            };
            let _ = match self.reasons.get(key.name) {
                Some(reason) => writeln!(text, "{} = {value}  # {reason}", key.name),
                None => writeln!(text, "{} = {value}", key.name),
            };
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Draft {
    /// Writes it as TOML; notes become comments at their tables.
    pub fn write(&self, notes: &[Note]) -> String {
        let mut text = String::new();
        for line in &self.head {
            let _ = writeln!(text, "# {line}");
        }
        let mut by_table: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
        for note in notes {
            by_table.entry(&note.table).or_default().push(note);
        }
        let mut told = BTreeMap::new();
        let mut comments = |table: &str, text: &mut String| {
            if let Some((table, notes)) = by_table.get_key_value(table) {
                comments(table, notes, &mut told, text);
            }
        };
        comments("", &mut text);
        for (name, section, table) in [
            ("daemon", Section::Daemon, &self.daemon),
            ("defaults", Section::Program, &self.defaults),
        ] {
            let about = notes.iter().any(|note| note.table == name);
            if !table.is_empty() || about {
                let _ = writeln!(text, "\n[{name}]");
                comments(name, &mut text);
                table.write(section, &mut text);
            }
        }
        for program in &self.programs {
            let _ = writeln!(text, "\n[programs.{}]", key(&program.name));
            comments(&program.name, &mut text);
            program.keys.write(Section::Program, &mut text);
        }
        text
    }
}

/// Writes the notes of a table above its keys. `told` is where each text was written first.
fn comments<'a>(
    table: &'a str,
    notes: &[&'a Note],
    told: &mut BTreeMap<&'a str, &'a str>,
    text: &mut String,
) {
    for note in notes {
        let section = match note.section.as_str() {
            section if !section.is_empty() && table.is_empty() => format!("[{section}] "),
            _ => String::new(),
        };
        let kind = match note.kind {
            Kind::NoEquivalent => "no equivalent: ",
            Kind::Differs => "differs: ",
            Kind::Note => "",
        };
        let what = match (note.key.as_str(), note.line) {
            ("", _) => String::new(),
            (key, Some(line)) => format!("{key} = {} (line {line}): ", note.value),
            (key, None) => format!("{key} = {}: ", note.value),
        };
        // A control character would end the comment.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let first = told.entry(&note.text).or_insert(table);
        let why = if *first == table {
            note.text.clone()
        } else {
            format!("as for {first}")
        };
        let line: String = format!("{kind}{section}{what}{why}")
            .chars()
            .map(plain)
            .collect();
        let _ = writeln!(text, "# {line}");
    }
}

/// Writes a name as a key of TOML.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}

/// Makes an array of texts.
pub(super) fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(
        items
            .into_iter()
            .map(|item| Value::String(item.into()))
            .collect(),
    )
}

/// Makes a table of texts.
pub(super) fn variables<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    Value::Table(
        pairs
            .into_iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect(),
    )
}
