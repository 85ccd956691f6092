//! What is wrong with a configuration: every problem at once, each where it was written.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::node::{Node, Place};

/// Why a value is refused.
#[derive(Debug)]
pub(super) struct Fault {
    /// Where exactly, when it is a part of the value that is wrong.
    pub place: Place,
    /// The rule it breaks, after the key: "must be …".
    pub rule: String,
    /// What was found, under the caret.
    pub found: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line may hold a secret and is not shown.
    pub secret: bool,
}

impl Fault {
    /// Refuses `node` by `rule`.
    pub(super) fn new(node: &Node, rule: impl Into<String>) -> Self {
        Self {
            place: node.place.clone(),
            rule: rule.into(),
            found: format!("found {}", node.show()),
            help: None,
            secret: false,
        }
    }

    /// Adds what to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Keeps the value and its line out of the message.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self.found = "this value (not shown: it may be a secret)".to_owned();
        self
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// Where.
    pub place: Place,
    /// The whole sentence: names the key and the rule.
    pub title: String,
    /// What was found; under the caret.
    pub found: String,
    /// Another place that matters, and why.
    pub also: Option<(Place, String)>,
    /// What to do about it.
    pub help: Option<String>,
    /// The line may hold a secret and is not shown.
    pub secret: bool,
}

impl Problem {
    /// Describes what is wrong at `place`.
    pub(super) fn new(place: Place, title: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            place,
            title: title.into(),
            found: found.into(),
            also: None,
            help: None,
            secret: false,
        }
    }

    /// Adds the key to what a value was refused for.
    pub(super) fn of(key: &str, fault: Fault) -> Self {
        Self {
            help: fault.help,
            secret: fault.secret,
            ..Self::new(fault.place, format!("`{key}` {}", fault.rule), fault.found)
        }
    }

    /// Adds what to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place and why it matters.
    pub(super) fn also(mut self, place: Place, why: impl Into<String>) -> Self {
        self.also = Some((place, why.into()));
        self
    }
}

/// The file as it was read, to quote from.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub path: PathBuf,
    pub text: Arc<str>,
    lines: Vec<usize>,
}

impl Text {
    pub(super) fn new(path: PathBuf, text: &str) -> Self {
        let lines =
            std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        Self {
            path,
            text: text.into(),
            lines: lines.collect(),
        }
    }

    /// Returns the number of the line that byte `at` is in, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Returns the first line of `span`: its number, its text and the span within it.
    fn quote(&self, span: &Range<usize>) -> (usize, &str, Range<usize>) {
        let at = span.start.min(self.text.len());
        let number = self.line(at);
        let start = self.lines.get(number - 1).copied().unwrap_or(0);
        let end = self
            .lines
            .get(number)
            .map_or(self.text.len(), |next| next - 1);
        let line = self
            .text
            .get(start..end)
            .unwrap_or("")
            .trim_end_matches('\r');
        // A parser counts bytes and may stop inside a character; the renderer slices the text.
        let clamp = |at: usize| at.saturating_sub(start).min(line.len());
        let from = line.floor_char_boundary(clamp(at));
        (
            number,
            line,
            from..line.ceil_char_boundary(clamp(span.end)).max(from),
        )
    }
}

/// One problem for machines.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// The rule that was broken.
    pub message: String,
    /// The file, where it is in one.
    pub file: Option<PathBuf>,
    /// Its line, counted from 1.
    pub line: Option<usize>,
    /// What was found instead.
    pub found: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Everything that is wrong with a configuration. `Display` is for people: each problem with its
/// file, line and caret (or its variable or flag), its rule, and a guess at what was meant.
#[derive(Clone, Debug)]
pub struct Problems {
    list: Vec<Problem>,
    file: Option<Text>,
    color: bool,
}

impl Problems {
    pub(super) fn new(list: Vec<Problem>, file: Option<Text>) -> Self {
        Self {
            list,
            file,
            color: false,
        }
    }

    pub(super) fn one(title: impl Into<String>, help: Option<String>) -> Self {
        let mut problem = Problem::new(Place::BuiltIn, title, "");
        problem.help = help;
        Self::new(vec![problem], None)
    }

    /// Turns colours (ANSI escapes) on or off; they are off at first.
    #[must_use]
    pub fn color(mut self, on: bool) -> Self {
        self.color = on;
        self
    }

    /// Returns how many there are; never 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns each problem in one line, without its place: for a log, a label or JSON.
    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|problem| problem.title.as_str())
    }

    /// Returns what is wrong and where in one line, and nothing that was written there: it may be a
    /// secret.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let one = |detail: Detail| match (detail.file, detail.line) {
            (Some(file), Some(line)) => format!("{} ({}:{line})", detail.message, file.display()),
            _ => detail.message,
        };
        self.details().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Returns each problem for machines.
    pub fn details(&self) -> impl Iterator<Item = Detail> {
        self.list.iter().map(|problem| {
            let (file, line) = match (&problem.place, &self.file) {
                (Place::File(span), Some(text)) => {
                    (Some(text.path.clone()), Some(text.line(span.start)))
                }
                _ => (None, None),
            };
            Detail {
                message: problem.title.clone(),
                file,
                line,
                found: (!problem.found.is_empty()).then(|| problem.found.clone()),
                help: problem.help.clone(),
            }
        })
    }

    fn render(&self, renderer: &Renderer, problem: &Problem) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.title.as_str()));
        group = self.point(group, problem);
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// Adds the place: a quoted line of the file, `NAME=value` or `--flag value`.
    fn point<'a>(&'a self, group: Group<'a>, problem: &'a Problem) -> Group<'a> {
        let found = problem.found.as_str();
        match (&problem.place, &self.file) {
            (Place::File(span), Some(file)) => {
                let path = file.path.display().to_string();
                let (number, line, within) = file.quote(span);
                if problem.secret {
                    return group
                        .element(Origin::path(path).line(number))
                        .element(Level::NOTE.message(found));
                }
                let mut snippet = Snippet::source(line).path(path).line_start(number);
                snippet = snippet.annotation(AnnotationKind::Primary.span(within).label(found));
                let group = group.element(snippet);
                self.point_also(group, problem)
            }
            (Place::Variable { name, text }, _) => {
                let shown = if problem.secret { "…" } else { text };
                assignment(group, "environment", (format!("{name}="), shown), found)
            }
            (Place::Flag { name, text }, _) => {
                assignment(group, "command line", (format!("{name} "), text), found)
            }
            (Place::Command, _) => group.element(Origin::path("command line")),
            (Place::BuiltIn, _) if found.is_empty() => group,
            (Place::BuiltIn | Place::File(_), _) => group
                .element(Origin::path("built-in default"))
                .element(Level::NOTE.message(found)),
        }
    }

    fn point_also<'a>(&'a self, group: Group<'a>, problem: &'a Problem) -> Group<'a> {
        let (Some((Place::File(span), why)), Some(file)) = (&problem.also, &self.file) else {
            return match &problem.also {
                Some((_, why)) => group.element(Level::NOTE.message(why.as_str())),
                None => group,
            };
        };
        let (number, line, within) = file.quote(span);
        group.element(
            Snippet::source(line)
                .path(file.path.display().to_string())
                .line_start(number)
                .annotation(AnnotationKind::Context.span(within).label(why.as_str())),
        )
    }
}

/// Shows a variable or a flag as it would be typed, with a caret under its value.
fn assignment<'a>(
    group: Group<'a>,
    from: &'a str,
    (head, value): (String, &str),
    found: &'a str,
) -> Group<'a> {
    let value = value.lines().next().unwrap_or("");
    let span = head.len()..head.len() + value.len();
    group.element(
        Snippet::source(head + value)
            .path(from)
            .line_numbering(false)
            .annotation(AnnotationKind::Primary.span(span).label(found)),
    )
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = if self.color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&self.render(&renderer, problem))?;
        }
        if self.list.len() > 1 {
            write!(f, "\n\n{} problems", self.list.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Returns the candidate that `word` was probably meant to be.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase().replace('-', "_")),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
