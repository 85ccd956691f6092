//! Reading the options of one app: by all the names they have, and none left unread.

use std::collections::BTreeSet;
use std::time::Duration;

use super::brief;
use super::tree::{Kind, Node};
use crate::import::draft::Table;
use crate::import::note::{At, Notes};

/// The options of an app while they are read.
pub(super) struct Options<'a> {
    pub app: &'a Node,
    file: &'a std::path::Path,
    /// The program that it becomes.
    pub name: String,
    read: BTreeSet<String>,
}

/// An option with its value as meant.
pub(super) struct Given<T> {
    pub value: T,
    pub at: At,
}

impl<'a> Options<'a> {
    pub fn new(app: &'a Node, file: &'a std::path::Path, name: String) -> Self {
        Self {
            app,
            file,
            name,
            read: BTreeSet::new(),
        }
    }

    /// Returns an option by the first of its names that is there; the name in camel case is one.
    pub fn raw(&mut self, names: &[&str]) -> Option<(At, &'a Node)> {
        let mut found = None;
        for name in names {
            for name in [(*name).to_owned(), camel(name)] {
                self.read.insert(name.clone());
                if let (None, Some(node)) = (&found, self.app.get(&name)) {
                    found = Some((self.at(&name, node), node));
                }
            }
        }
        found
    }

    /// Means an option.
    pub fn at(&self, name: &str, node: &Node) -> At {
        At {
            file: self.file.to_owned(),
            line: node.line.or(self.app.line),
            section: self.name.clone(),
            key: name.to_owned(),
            value: brief(node),
        }
    }

    /// Means the app.
    pub fn whole(&self) -> At {
        At {
            file: self.file.to_owned(),
            line: self.app.line,
            section: self.name.clone(),
            key: String::new(),
            value: String::new(),
        }
    }

    /// Reads an option; one that is wrong is noted.
    pub fn read<T>(
        &mut self,
        names: &[&str],
        rule: &str,
        parse: impl FnOnce(&Node) -> Option<T>,
        notes: &mut Notes,
    ) -> Option<Given<T>> {
        let (at, node) = self.raw(names)?;
        match parse(node) {
            Some(value) => Some(Given { value, at }),
            None => {
                notes.lacks(&self.name, &at, format!("it must be {rule}"));
                None
            }
        }
    }

    pub fn text(&mut self, names: &[&str], notes: &mut Notes) -> Option<Given<String>> {
        self.read(names, "a text", Node::scalar, notes)
    }

    pub fn truth(&mut self, names: &[&str], notes: &mut Notes) -> Option<Given<bool>> {
        self.read(names, "true or false", truth, notes)
    }

    pub fn number(&mut self, names: &[&str], notes: &mut Notes) -> Option<Given<i64>> {
        self.read(names, "a whole number", number, notes)
    }

    /// Reads milliseconds.
    pub fn milliseconds(&mut self, names: &[&str], notes: &mut Notes) -> Option<Given<Duration>> {
        self.read(names, "a number of milliseconds", milliseconds, notes)
    }

    /// Reads words: a list, or a text that is split as PM2 does.
    pub fn words(&mut self, names: &[&str], notes: &mut Notes) -> Vec<String> {
        let parse = |node: &Node| match &node.kind {
            Kind::Text(text) => Some(split(text)),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::List(_)
            | Kind::Map(_) => node.items().iter().map(Node::scalar).collect(),
        };
        let read = self.read(names, "a text or a list of texts", parse, notes);
        read.map_or_else(Vec::new, |given| given.value)
    }

    /// Returns the members that nobody read.
    pub fn leftovers(&self) -> Vec<(At, &'a Node)> {
        let left = self.app.members().iter();
        left.filter(|(name, node)| !self.read.contains(name) && node.kind != Kind::Null)
            .map(|(name, node)| (self.at(name, node), node))
            .collect()
    }
}

/// Turns `out_file` into `outFile`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        camel.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    camel
}

pub(super) fn truth(node: &Node) -> Option<bool> {
    match &node.kind {
        Kind::Bool(truth) => Some(*truth),
        Kind::Text(text) if text == "true" => Some(true),
        Kind::Text(text) if text == "false" => Some(false),
        Kind::Null
        | Kind::Integer(_)
        | Kind::Float(_)
        | Kind::Text(_)
        | Kind::List(_)
        | Kind::Map(_) => None,
    }
}

pub(super) fn number(node: &Node) -> Option<i64> {
    match &node.kind {
        Kind::Integer(number) => Some(*number),
        Kind::Text(text) => text.trim().parse().ok(),
        Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
    }
}

fn milliseconds(node: &Node) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let text = node.scalar()?;
    let text = text.trim();
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 'h') => (&text[..at], 3_600_000.0),
        (at, 'm') => (&text[..at], 60_000.0),
        (at, 's') => (&text[..at], 1_000.0),
        _ => (text, 1.0),
    };
    let whole: f64 = number.parse().ok()?;
    let length = Duration::try_from_secs_f64((whole * factor).round() / 1_000.0).ok()?;
    Some(length.min(LONGEST))
}

/// Splits a text into words as PM2 does: at white space outside quotes, which fall away only where
/// they enclose the whole word.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => {
                quote = None;
                word.push(c);
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (None, c) if c.is_whitespace() => words.extend(whole(std::mem::take(&mut word))),
            (_, c) => word.push(c),
        }
    }
    words.extend(whole(word));
    words
}

fn whole(word: String) -> Option<String> {
    let inside = ['"', '\'']
        .iter()
        .find_map(|quote| word.strip_prefix(*quote)?.strip_suffix(*quote));
    let word = inside.map_or(word.clone(), str::to_owned);
    (!word.trim().is_empty()).then_some(word)
}

/// When PM2 calls an app unstable: `max_restarts` ends within `min_uptime` each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unstable {
    pub min_uptime: Duration,
    pub max_restarts: i64,
}

impl Default for Unstable {
    fn default() -> Self {
        Self {
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
        }
    }
}

impl Unstable {
    /// Writes it as a limit of crashes within run time.
    pub fn write(self, keys: &mut Table) {
        let most = self.max_restarts.clamp(1, i64::from(u32::MAX));
        const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        let times = u32::try_from(most).unwrap_or(u32::MAX);
        let window = self.min_uptime.saturating_mul(times).min(LONGEST);
        keys.set("crash_threshold", most);
        keys.set_length("crash_window", window.max(Duration::from_millis(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_pm2_does() {
        assert_eq!(
            split(" run  --a=\"b c\" 'd e' \"\" f "),
            ["run", "--a=\"b c\"", "d e", "f"]
        );
        assert_eq!(camel("exp_backoff_restart_delay"), "expBackoffRestartDelay");
    }
}
