//! Reading the options of one section: expanded, checked, and none left unread.

use std::collections::BTreeSet;

use super::expand::Scope;
use super::ini::{Opt, Section};
use super::place;
use crate::import::note::{At, Notes};

/// The options of a section while they are read.
pub(super) struct Options<'a> {
    pub section: &'a Section,
    pub scope: &'a Scope,
    /// The table of the result that the notes belong to.
    pub table: String,
    read: BTreeSet<&'a str>,
}

/// An option with its value as meant.
pub(super) struct Given<T> {
    pub value: T,
    pub at: At,
}

impl<'a> Options<'a> {
    pub fn new(section: &'a Section, scope: &'a Scope, table: &str) -> Self {
        Self {
            section,
            scope,
            table: table.to_owned(),
            read: BTreeSet::new(),
        }
    }

    /// Returns an option as written.
    pub fn raw(&mut self, key: &'a str) -> Option<&'a Opt> {
        self.read.insert(key);
        self.section.get(key)
    }

    /// Means an option.
    pub fn at(&self, option: &Opt) -> At {
        place(&self.section.name, option)
    }

    /// Reads an option; one that is wrong is noted.
    pub fn read<T>(
        &mut self,
        key: &'a str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        notes: &mut Notes,
    ) -> Option<Given<T>> {
        let option = self.raw(key)?;
        let at = self.at(option);
        let (text, used) = match self.scope.now(&option.value) {
            Ok(expanded) => expanded,
            Err(why) => {
                notes.lacks(&self.table, &at, format!("it {why}"));
                return None;
            }
        };
        let Some(value) = parse(text.trim()) else {
            let found = if used.is_empty() {
                String::new()
            } else {
                format!(" (found {:?})", text.trim())
            };
            let why = format!("{rule}{found}; supervisord refuses this too");
            notes.lacks(&self.table, &at, why);
            return None;
        };
        for name in used {
            let text = format!("it has the value that {name} had when this was imported");
            notes.differs(&self.table, &at, text);
        }
        Some(Given { value, at })
    }

    pub fn text(&mut self, key: &'a str, notes: &mut Notes) -> Option<Given<String>> {
        self.read(key, "", |text| Some(text.to_owned()), notes)
    }

    pub fn truth(&mut self, key: &'a str, notes: &mut Notes) -> Option<Given<bool>> {
        self.read(key, "it must be true or false", truth, notes)
    }

    pub fn number(&mut self, key: &'a str, notes: &mut Notes) -> Option<Given<i64>> {
        self.read(key, "it must be a whole number", |t| t.parse().ok(), notes)
    }

    pub fn bytes(&mut self, key: &'a str, notes: &mut Notes) -> Option<Given<u64>> {
        self.read(key, "it must be a size, as 50MB", bytes, notes)
    }

    /// Says of every option that nobody read that supervisord has no such option.
    pub fn leftovers(self, notes: &mut Notes) {
        for option in &self.section.options {
            if !self.read.contains(option.key.as_str()) {
                let why = match option.key.as_str() {
                    "depends_on" => "supervisord ignores it; `after` does here what it says",
                    _ => "supervisord has no such option in this section and ignores it",
                };
                notes.lacks(&self.table, &self.at(option), why);
            }
        }
    }
}

/// Reads what supervisord takes for a truth value.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a size, in bytes: supervisord's units are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    for (unit, factor) in [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1_u64 << 30)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim().parse::<u64>().ok()?.checked_mul(factor);
        }
    }
    text.parse().ok()
}
