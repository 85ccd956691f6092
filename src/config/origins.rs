//! Where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::layers::{Keys, Layers};
use super::node::Place;
use super::problem::Text;
use super::schema::TABLES;

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

    pub(super) fn of(layers: &Layers, file: Option<&Text>) -> Self {
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
