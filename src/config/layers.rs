//! Who said what: built-in defaults, then the file, then the environment, then flags.
//!
//! The `config` crate decides which layer wins. It knows no spans, so what travels through it is
//! the number of a [`Node`], which knows its place.

use std::collections::BTreeMap;

use ::config::{ConfigBuilder, ConfigError, Map, Source, Value, ValueKind, builder::DefaultState};
use toml::de::DeValue;

use super::node::{Kind, Node, Place};
use super::problem::{Problem, did_you_mean};
use super::schema::{self, Key, Section, Shape, TABLES};

/// One layer: tables of keys, each with the number of its node.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// The layers while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    nodes: Vec<Node>,
    layers: Vec<Layer>,
    headers: BTreeMap<String, Place>,
    /// What was wrong on the way.
    pub problems: Vec<Problem>,
}

impl Gathering {
    /// Begins a layer that wins over the earlier ones.
    pub(super) fn next_layer(&mut self) {
        self.layers.push(Layer::default());
    }

    /// Sets a key of `[table]` in the present layer.
    pub(super) fn set(&mut self, table: &str, key: &str, node: Node) {
        let number = self.number(node);
        if let Some(keys) = self.table(table) {
            keys.insert(key.to_owned(), number);
        }
    }

    /// Sets a key of `[programs.NAME]` in the present layer.
    pub(super) fn set_program(&mut self, name: &str, key: &str, node: Node) {
        let number = self.number(node);
        if let Some(keys) = self.program(name) {
            keys.insert(key.to_owned(), number);
        }
    }

    /// Makes a program known, also if it has no keys.
    pub(super) fn begin_program(&mut self, name: &str, header: Place) {
        self.headers.insert(name.to_owned(), header);
        self.program(name);
    }

    fn number(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value::new(None, ValueKind::U64((self.nodes.len() - 1) as u64))
    }

    fn table(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        keys_of(&mut self.layers.last_mut()?.0, name)
    }

    fn program(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        keys_of(self.table("programs")?, name)
    }

    /// Adds the built-in defaults as a layer.
    pub(super) fn built_in(&mut self) {
        self.next_layer();
        for key in schema::reference() {
            if let Ok(value) = DeValue::parse(key.default) {
                self.set(
                    key.section.table(),
                    key.name,
                    Node::from_toml(&value, &|_| Place::BuiltIn),
                );
            }
        }
    }

    /// Adds the environment as a layer: `ETERNAL__SECTION__KEY`.
    pub(super) fn environment(&mut self, variables: &[(String, String)]) {
        self.next_layer();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix("ETERNAL__") else {
                continue;
            };
            let place = Place::Variable {
                name: name.as_str().into(),
                text: text.as_str().into(),
            };
            match variable(rest) {
                Ok(key) => match typed(key, text, &place) {
                    Ok(node) => self.set(key.section.table(), key.name, node),
                    Err(problem) => self.problems.push(Problem {
                        secret: key.name == "environment",
                        ..*problem
                    }),
                },
                Err(help) => {
                    let title = format!("the environment variable `{name}` names no key");
                    self.problems.push(
                        Problem::new(
                            Place::Variable {
                                name: name.as_str().into(),
                                text: "…".into(),
                            },
                            title,
                            "unknown",
                        )
                        .help(help),
                    );
                }
            }
        }
    }

    /// Merges the layers.
    pub(super) fn merge(self) -> Result<(Layers, Vec<Problem>), ConfigError> {
        let mut builder = ConfigBuilder::<DefaultState>::default();
        for layer in self.layers {
            builder = builder.add_source(layer);
        }
        let merged = builder.build()?.cache;
        let ValueKind::Table(tables) = merged.kind else {
            return Err(ConfigError::Message(
                "the layers merge to something that is not a table".to_owned(),
            ));
        };
        Ok((
            Layers {
                nodes: self.nodes,
                tables,
                headers: self.headers,
            },
            self.problems,
        ))
    }
}

fn keys_of<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let table = parent
        .entry(name.to_owned())
        .or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
    if let ValueKind::Table(keys) = &mut table.kind {
        Some(keys)
    } else {
        None
    }
}

/// Finds the key that `SECTION__KEY` names, or says what was meant.
fn variable(rest: &str) -> Result<&'static Key, String> {
    let all = || {
        TABLES.iter().flat_map(|(table, section)| {
            schema::names(*section)
                .map(move |key| format!("{}__{}", table.to_uppercase(), key.to_uppercase()))
        })
    };
    let found = TABLES.iter().find_map(|(table, section)| {
        let key = rest
            .strip_prefix(&table.to_uppercase())?
            .strip_prefix("__")?;
        schema::reference()
            .iter()
            .find(|k| k.section == *section && k.name.to_uppercase() == key)
    });
    if let Some(key) = found {
        return Ok(key);
    }
    if rest.starts_with("PROGRAMS__") {
        return Err(
            "programs are set in the file; ETERNAL__DEFAULTS__KEY sets what all of them share"
                .to_owned(),
        );
    }
    let names: Vec<String> = all().collect();
    Err(
        did_you_mean(rest, names.iter().map(String::as_str)).map_or_else(
            || {
                "it is ETERNAL__SECTION__KEY, where SECTION is DAEMON, METRICS, TRACING or DEFAULTS"
                    .to_owned()
            },
            |guess| format!("did you mean `ETERNAL__{guess}`?"),
        ),
    )
}

/// Reads the text of a variable or a flag as the key's shape says.
pub(super) fn typed(key: &Key, text: &str, place: &Place) -> Result<Node, Box<Problem>> {
    let plain = || Node {
        place: place.clone(),
        kind: Kind::Text(text.to_owned()),
    };
    match key.shape {
        Shape::Text => Ok(plain()),
        Shape::Number => Ok(number(text).map_or_else(plain, |kind| Node {
            place: place.clone(),
            kind,
        })),
        Shape::Toml => DeValue::parse(text)
            .map(|value| Node::from_toml(&value, &|_| place.clone()))
            .map_err(|error| {
                let title = format!(
                    "`{}.{}` is not a TOML value: {}",
                    key.section.table(),
                    key.name,
                    one_line(error.message())
                );
                let problem = Problem::new(place.clone(), title, "this value");
                Box::new(match key.default {
                    "" => problem.help("write an array, as [\"./server\", \"--port\", \"3000\"]"),
                    default => {
                        problem.help(format!("write it as in the file; its default is {default}"))
                    }
                })
            }),
    }
}

fn number(text: &str) -> Option<Kind> {
    let digits = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    let integer = text.parse().ok().map(Kind::Integer);
    integer
        .or_else(|| text.parse().ok().map(Kind::Float))
        .filter(|_| digits)
}

/// Puts a message on one line.
pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The merged layers.
#[derive(Debug)]
pub(super) struct Layers {
    nodes: Vec<Node>,
    tables: Map<String, Value>,
    headers: BTreeMap<String, Place>,
}

/// The keys of one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    nodes: &'a [Node],
    table: Option<&'a Map<String, Value>>,
}

impl Layers {
    /// Returns the keys of `[table]`.
    pub(super) fn section(&self, table: &str) -> Keys<'_> {
        Keys {
            nodes: &self.nodes,
            table: self.tables.get(table).and_then(as_table),
        }
    }

    /// Returns every program in the order of the file: its name, where it begins and its keys.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&str, Place, Keys<'_>)> {
        let programs = self.tables.get("programs").and_then(as_table);
        programs.into_iter().flatten().map(|(name, value)| {
            let header = self.headers.get(name).cloned().unwrap_or(Place::Command);
            (
                name.as_str(),
                header,
                Keys {
                    nodes: &self.nodes,
                    table: as_table(value),
                },
            )
        })
    }
}

impl<'a> Keys<'a> {
    /// Returns what the winning layer says.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let ValueKind::U64(number) = self.table?.get(key)?.kind else {
            return None;
        };
        self.nodes.get(usize::try_from(number).ok()?)
    }

    /// Returns the place of a key that somebody set.
    pub(super) fn explicit(&self, key: &str) -> Option<&'a Place> {
        self.get(key)
            .map(|node| &node.place)
            .filter(|place| **place != Place::BuiltIn)
    }

    /// Returns every key that somebody set, with its place.
    pub(super) fn all_explicit(&self) -> impl Iterator<Item = (&'a str, &'a Place)> {
        let keys = *self;
        self.table
            .into_iter()
            .flatten()
            .filter_map(move |(key, _)| Some((key.as_str(), keys.explicit(key)?)))
    }
}

fn as_table(value: &Value) -> Option<&Map<String, Value>> {
    if let ValueKind::Table(table) = &value.kind {
        Some(table)
    } else {
        None
    }
}

/// Returns the section whose table is called `name`.
pub(super) fn section_called(name: &str) -> Option<Section> {
    TABLES
        .iter()
        .find(|(table, _)| *table == name)
        .map(|(_, section)| *section)
}
