//! A value as somebody wrote it, with the place where they did.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: the built-in default.
    BuiltIn,
    /// These bytes of the file.
    File(Range<usize>),
    /// An environment variable.
    Variable {
        /// Its name.
        name: Box<str>,
        /// Its value.
        text: Box<str>,
    },
    /// A command line flag.
    Flag {
        /// With its dashes.
        name: &'static str,
        /// Its value.
        text: Box<str>,
    },
    /// The command after `--`.
    Command,
}

/// A value and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it was written.
    pub place: Place,
    /// What was written.
    pub kind: Kind,
}

/// The kinds of value that TOML has.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Array(Vec<Node>),
    Table(Vec<(String, Place, Node)>),
    /// Something that no key takes, by its name.
    Other(&'static str),
}

impl Node {
    /// Converts a parsed TOML value; `place` says where a span of it is.
    pub(super) fn from_toml(
        value: &Spanned<DeValue<'_>>,
        place: &dyn Fn(Range<usize>) -> Place,
    ) -> Self {
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or(
                    Kind::Other("an integer of more than 64 bits"),
                    Kind::Integer,
                ),
            DeValue::Float(float) => float
                .as_str()
                .parse()
                .map_or(Kind::Other("an unreadable number"), Kind::Float),
            DeValue::Boolean(truth) => Kind::Bool(*truth),
            DeValue::Datetime(_) => Kind::Other("a date or time"),
            DeValue::Array(items) => Kind::Array(
                items
                    .iter()
                    .map(|item| Self::from_toml(item, place))
                    .collect(),
            ),
            DeValue::Table(table) => Kind::Table(
                table
                    .iter()
                    .map(|(key, value)| {
                        (
                            key.get_ref().to_string(),
                            place(key.span()),
                            Self::from_toml(value, place),
                        )
                    })
                    .collect(),
            ),
        };
        Self {
            place: place(value.span()),
            kind,
        }
    }

    /// Says what it is in a few words, for the text under a caret.
    pub(super) fn show(&self) -> String {
        match &self.kind {
            Kind::Text(text) => quote(text),
            Kind::Integer(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            Kind::Bool(truth) => truth.to_string(),
            Kind::Array(_) => "an array".to_owned(),
            Kind::Table(_) => "a table".to_owned(),
            Kind::Other(what) => (*what).to_owned(),
        }
    }
}

/// Quotes a text, shortened to what fits a line.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head:?}…")
}
