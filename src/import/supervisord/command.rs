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
        .and_then(|pieces| split(&pieces));
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

/// Splits into words. A variable stands behind a sign of its own while the line is split.
fn split(pieces: &[Piece]) -> Result<Vec<Word>, String> {
    const FIRST_SIGN: u32 = 0xF_0000;
    let mut line = String::new();
    let mut signs: Vec<(String, bool)> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Variable(name) | Piece::Words(name) => {
                let number = u32::try_from(signs.len()).unwrap_or(u32::MAX);
                let sign = FIRST_SIGN.checked_add(number).and_then(char::from_u32);
                let alone = line.is_empty() || line.ends_with(char::is_whitespace);
                line.push(sign.ok_or("has too many variables")?);
                signs.push((name.clone(), alone));
            }
        }
    }
    let words = shlex::split(&line).ok_or("has a quote that is not closed")?;
    let sign = |c: char| {
        let number = u32::from(c).checked_sub(FIRST_SIGN)?;
        signs.get(usize::try_from(number).ok()?)
    };
    Ok(words
        .iter()
        .map(|word| {
            let mut pieces: Word = Vec::new();
            for c in word.chars() {
                match (sign(c), pieces.last_mut()) {
                    (Some((name, true)), _) if word.chars().count() == 1 => {
                        pieces.push(Piece::Words(name.clone()));
                    }
                    (Some((name, _)), _) => pieces.push(Piece::Variable(name.clone())),
                    (None, Some(Piece::Text(text))) => text.push(c),
                    (None, _) => pieces.push(Piece::Text(c.to_string())),
                }
            }
            if pieces.is_empty() {
                pieces.push(Piece::Text(String::new()));
            }
            pieces
        })
        .collect())
}
