//! YAML as a tree: anchors, aliases and merges resolved, within bounds.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::tree::{Bad, Kind, Node};

/// Reads YAML.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn read(text: &str) -> Result<Node, Bad> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Bad {
            line: error.marker().line(),
            what: format!("not valid YAML: {}", error.info()),
        })?;
        builder.take(event, span)?;
    }
    builder.document.ok_or(Bad {
        line: 1,
        what: "it is empty".to_owned(),
    })
}

/// A collection that is not closed yet.
enum Open {
    List(usize, Option<usize>, Vec<Node>),
    Map(usize, Option<usize>, Vec<(String, Node)>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    document: Option<Node>,
    nodes: usize,
}

impl Builder {
    /// Aliases may repeat aliases; beyond this a file is out to fill the memory.
    const MOST_NODES: usize = 1_000_000;
    const DEEPEST: usize = 100;

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Bad> {
        let line = span.start.line();
        self.nodes += 1;
        if self.nodes > Self::MOST_NODES || self.open.len() > Self::DEEPEST {
            return Err(Bad {
                line,
                what: "it is too large or too deep for a configuration".to_owned(),
            });
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let kind = if style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Kind::Text(text.into_owned())
                };
                let line = Some(line);
                self.add(anchor, Node { line, kind })
            }
            Event::SequenceStart(anchor, _) => {
                self.open.push(Open::List(anchor, Some(line), Vec::new()));
                Ok(())
            }
            Event::MappingStart(anchor, _) => {
                self.open
                    .push(Open::Map(anchor, Some(line), Vec::new(), None));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(anchor, line, items)) => {
                    let kind = Kind::List(items);
                    self.add(anchor, Node { line, kind })
                }
                Some(Open::Map(anchor, line, members, _)) => {
                    let kind = Kind::Map(merged(members));
                    self.add(anchor, Node { line, kind })
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let (node, size) = self.anchors.get(&anchor).cloned().ok_or_else(|| Bad {
                    line,
                    what: "an alias within what it stands for".to_owned(),
                })?;
                self.nodes = self.nodes.saturating_add(size);
                self.add(0, node)
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn add(&mut self, anchor: usize, node: Node) -> Result<(), Bad> {
        if anchor > 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            // Of several documents the first counts.
            None => {
                self.document.get_or_insert(node);
            }
            Some(Open::List(_, _, items)) => items.push(node),
            Some(Open::Map(_, _, members, name)) => match name.take() {
                Some(name) => members.push((name, node)),
                None => {
                    let what = "a key that is not a word".to_owned();
                    let line = node.line.unwrap_or(1);
                    *name = Some(node.scalar().unwrap_or_default());
                    if name.as_deref() == Some("") && node.kind != Kind::Text(String::new()) {
                        return Err(Bad { line, what });
                    }
                }
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    let inner: usize = match &node.kind {
        Kind::List(items) => items.iter().map(size).sum(),
        Kind::Map(members) => members.iter().map(|(_, node)| size(node)).sum(),
        Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) => 0,
    };
    inner + 1
}

/// Lets a later member replace an earlier one, and `<<` fill in what is not said.
fn merged(members: Vec<(String, Node)>) -> Vec<(String, Node)> {
    let mut own: Vec<(String, Node)> = Vec::with_capacity(members.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut fills = Vec::new();
    for (name, node) in members {
        if name == "<<" {
            fills.push(node);
            continue;
        }
        match places.get(&name) {
            Some(place) => own[*place].1 = node,
            None => {
                places.insert(name.clone(), own.len());
                own.push((name, node));
            }
        }
    }
    for (name, node) in fills.iter().flat_map(Node::items).flat_map(Node::members) {
        if !places.contains_key(name) {
            places.insert(name.clone(), own.len());
            own.push((name.clone(), node.clone()));
        }
    }
    own
}

/// Reads a plain scalar by the core schema of YAML 1.2, as js-yaml does.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    let numeric = |c: char| c.is_ascii_digit() || ".eE+-".contains(c);
    let hex = digits.strip_prefix("0x");
    if let Some(Ok(number)) = hex.map(|hex| i64::from_str_radix(hex, 16)) {
        return Kind::Integer(number);
    }
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.chars().all(numeric) {
        if let Ok(number) = text.parse() {
            return Kind::Integer(number);
        }
        if let Ok(number) = text.parse() {
            return Kind::Float(number);
        }
    }
    Kind::Text(text.to_owned())
}
