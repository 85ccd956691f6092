//! What a translation has to tell: what has no equivalent, what differs, what was decided.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The option has no equivalent; nothing stands for it in the result.
    NoEquivalent,
    /// The option was translated and means something else, or not quite the same.
    Differs,
    /// Nothing is lost; it is worth knowing.
    Note,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEquivalent => "no equivalent",
            Self::Differs => "differs",
            Self::Note => "note",
        })
    }
}

/// One thing to tell about an option of the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Note {
    /// How much it matters.
    pub kind: Kind,
    /// The file the option is in.
    pub file: PathBuf,
    /// Its line, counted from 1; `None` where the source is not read as text (JavaScript).
    pub line: Option<usize>,
    /// The section, program or app that it belongs to.
    pub section: String,
    /// Its name; empty when the whole section is meant.
    pub key: String,
    /// Its value as written; `…` where it may be a secret.
    pub value: String,
    /// Why, and what to do instead.
    pub text: String,
    /// The table of the result that it belongs to; empty: none.
    #[serde(skip)]
    pub(super) table: String,
}

impl Note {
    /// Returns what it is about: file, line, section, key and value.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = self.file.display().to_string();
        if let Some(line) = self.line {
            place.push_str(&format!(":{line}"));
        }
        if !self.section.is_empty() {
            place.push_str(&format!(": [{}]", self.section));
        }
        if !self.key.is_empty() {
            let space = if self.section.is_empty() { ": " } else { " " };
            place.push_str(&format!("{space}{} = {}", self.key, self.value));
        }
        place
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.place(), self.text)
    }
}

/// Where an option was written.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub section: String,
    pub key: String,
    pub value: String,
}

impl At {
    /// Means a whole file.
    pub fn file(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            section: String::new(),
            key: String::new(),
            value: String::new(),
        }
    }
}

/// The notes while they are taken.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Vec<Note>,
    known: HashSet<Note>,
}

impl Notes {
    /// Says that an option has no equivalent: why, and what to do instead.
    pub fn lacks(&mut self, table: &str, at: &At, text: impl Into<String>) {
        self.add(Kind::NoEquivalent, table, at, text.into());
    }

    /// Says that an option means something else in the result.
    pub fn differs(&mut self, table: &str, at: &At, text: impl Into<String>) {
        self.add(Kind::Differs, table, at, text.into());
    }

    /// Says what was decided, or that nothing is needed.
    pub fn says(&mut self, table: &str, at: &At, text: impl Into<String>) {
        self.add(Kind::Note, table, at, text.into());
    }

    fn add(&mut self, kind: Kind, table: &str, at: &At, text: String) {
        let note = Note {
            kind,
            file: at.file.clone(),
            line: at.line,
            section: at.section.clone(),
            key: at.key.clone(),
            value: shown(&at.key, &at.value),
            text,
            table: table.to_owned(),
        };
        if self.known.insert(note.clone()) {
            self.list.push(note);
        }
    }

    /// Returns them in the order of the source: the file read first, its lines in their order.
    pub fn in_order(self) -> Vec<Note> {
        let mut list = self.list;
        let mut files: Vec<PathBuf> = Vec::new();
        for note in &list {
            if !files.contains(&note.file) {
                files.push(note.file.clone());
            }
        }
        let place = |file: &PathBuf| files.iter().position(|known| known == file);
        list.sort_by_key(|note| (place(&note.file), note.line.unwrap_or(0)));
        list
    }
}

/// Makes a value fit for one line of a report.
fn shown(key: &str, value: &str) -> String {
    const LONGEST: usize = 120;
    const SECRETS: [&str; 6] = [
        "password",
        "secret",
        "token",
        "passwd",
        "credential",
        "apikey",
    ];
    let key = key.to_ascii_lowercase().replace(['_', '-'], "");
    let secret = key.starts_with("env") || SECRETS.iter().any(|word| key.contains(word));
    if secret && !value.is_empty() {
        return "…".to_owned();
    }
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST).chain(['…']).collect()
}
