//! The command line and the variables of a program.

use super::expand::pairs;
use super::ini::Section;
use super::options::Options;
use super::{Shared, place, place_of};
use crate::import::command::{Command, Piece, Word};
use crate::import::draft::{Table, variables};
use crate::import::note::Notes;

/// Reads `environment`, after that of `[supervisord]`.
pub(super) fn environment(
    section: &Section,
    name: &str,
    (shared, scope): (&Shared<'_>, &mut super::expand::Scope),
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    let mut all = shared.environment.clone();
    scope.own.clone_from(&all);
    if let Some(option) = section.get("environment") {
        let read = read_environment(&option.value, scope);
        match read {
            Ok(list) => {
                for (variable, value) in list {
                    match value.as_slice() {
                        [] => {
                            all.insert(variable, String::new());
                        }
                        [Piece::Text(text)] => {
                            all.insert(variable, text.clone());
                        }
                        // It is inherited.
                        [Piece::Variable(same)] if *same == variable => {
                            all.remove(&variable);
                        }
                        _ => command.exports.push((variable, value)),
                    }
                }
            }
            Err(why) => {
                let at = place(&section.name, option);
                notes.lacks(name, &at, format!("it {why}; supervisord refuses this too"));
            }
        }
    }
    scope.own.clone_from(&all);
    all.retain(|variable, _| !variable.is_empty());
    if !all.is_empty() {
        keys.set("environment", variables(&all));
    }
}

fn read_environment(
    text: &str,
    scope: &super::expand::Scope,
) -> Result<Vec<(String, Word)>, String> {
    pairs(text)?
        .into_iter()
        .map(|(name, value)| Ok((name, scope.expand(&value)?)))
        .collect()
}

/// Reads `command`, whose words are those of a shell that knows quotes only.
pub(super) fn words(options: &mut Options<'_>, notes: &mut Notes) -> Option<Vec<Word>> {
    let table = options.table.clone();
    let Some(option) = options.raw("command") else {
        let text =
            "it has no command, so there is no such program here; supervisord refuses it too";
        notes.lacks("", &place_of(options.section), text);
        return None;
    };
    let at = options.at(option);
    let split = options
        .scope
        .expand(&option.value)
        .map(|pieces| with_quotes_of_variables(pieces, options, notes))
        .and_then(|pieces| split(&pieces));
    let of_variable = |words: &Vec<Word>| {
        let mut pieces = words.iter().flatten();
        pieces.any(|piece| matches!(piece, Piece::Words(_)))
    };
    if split.as_ref().is_ok_and(of_variable) {
        let text = "a variable outside quotes is split at white space at every start; supervisord \
                    splits what it was when supervisord was started, and minds quotes in it";
        notes.differs(&table, &at, text);
    }
    match split {
        Ok(words) if !words.is_empty() => Some(words),
        Ok(_) => {
            notes.lacks("", &at, "it is empty, so there is no such program here");
            None
        }
        Err(why) => {
            let text = format!("it {why}, so there is no such program here: {table}");
            notes.lacks("", &at, text);
            None
        }
    }
}

/// Puts in the value of a variable that has quotes: no shell minds those of a value.
fn with_quotes_of_variables(
    pieces: Vec<Piece>,
    options: &Options<'_>,
    notes: &mut Notes,
) -> Vec<Piece> {
    let mut put_in = |piece| {
        let Piece::Variable(name) = &piece else {
            return piece;
        };
        let value = options.scope.outer.get(name);
        let Some(value) = value.filter(|value| value.contains(['\'', '"', '\\'])) else {
            return piece;
        };
        if let Some(option) = options.section.get("command") {
            let text = format!(
                "{name} has quotes, which divide it into words as there, so it has the value that \
                 it had when this was imported"
            );
            notes.differs(&options.table, &options.at(option), text);
        }
        Piece::Text(value.clone())
    };
    pieces.into_iter().map(&mut put_in).collect()
}

/// A line while it is split, as Python's `shlex` does.
#[derive(Default)]
struct Splitter {
    words: Vec<Word>,
    word: Option<Word>,
    quote: Option<char>,
    escaped: bool,
}

impl Splitter {
    fn piece(&mut self, piece: Piece) {
        self.word.get_or_insert_default().push(piece);
    }

    fn text(&mut self, c: char) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => word.push(Piece::Text(c.to_string())),
        }
    }

    fn character(&mut self, c: char) {
        match (self.quote, c) {
            _ if self.escaped => {
                self.escaped = false;
                // Within quotes only they and the sign itself can be escaped.
                if self.quote.is_some_and(|quote| c != quote && c != '\\') {
                    self.text('\\');
                }
                self.text(c);
            }
            (None | Some('"'), '\\') => self.escaped = true,
            (Some(quote), _) if quote == c => {
                self.quote = None;
                if self.word.get_or_insert_default().is_empty() {
                    self.piece(Piece::Text(String::new()));
                }
            }
            (None, '\'' | '"') => {
                self.quote = Some(c);
                self.word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\r' | '\n') => self.words.extend(self.word.take()),
            _ => self.text(c),
        }
    }
}

/// Splits into words.
fn split(pieces: &[Piece]) -> Result<Vec<Word>, String> {
    let mut splitter = Splitter::default();
    for piece in pieces {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| splitter.character(c)),
            Piece::Variable(name) | Piece::Words(name) => {
                let name = name.clone();
                splitter.escaped = false;
                splitter.piece(match splitter.quote {
                    Some(_) => Piece::Variable(name),
                    None => Piece::Words(name),
                });
            }
        }
    }
    if splitter.quote.is_some() {
        return Err("has a quote that is not closed".to_owned());
    }
    if splitter.escaped {
        return Err("ends with a backslash".to_owned());
    }
    splitter.words.extend(splitter.word.take());
    Ok(splitter.words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are those that Python's `shlex.split` gave.
    #[test]
    fn a_line_is_split_as_python_does() {
        for (line, words) in [
            ("a 'b c' \"d e\"f", &["a", "b c", "d ef"][..]),
            ("a # b", &["a", "#", "b"]),
            (r#"a "\$x" "\"" \$x"#, &["a", r"\$x", "\"", "$x"]),
            ("a '' \"\"", &["a", "", ""]),
            (r"a\ b 'c\d'", &["a b", r"c\d"]),
        ] {
            let split = split(&[Piece::Text(line.to_owned())]).expect(line);
            let plain = |word: &str| vec![Piece::Text(word.to_owned())];
            let wanted: Vec<Word> = words.iter().copied().map(plain).collect();
            assert_eq!(split, wanted, "{line}");
        }
        for bad in ["a 'b", "a \"b", "a \\"] {
            assert!(split(&[Piece::Text(bad.to_owned())]).is_err(), "{bad}");
        }
    }
}
