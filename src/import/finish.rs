//! From a draft to a result: written, and passed through the config room's own check.

use std::collections::HashSet;
use std::path::PathBuf;

use super::draft::Draft;
use super::note::{Note, Notes};
use super::{Failure, Imported, Request};
use crate::config::{self, FileChoice, Flags, Sources};

/// A daemon supervises at most this many programs.
pub(super) const MOST: usize = 10_000;

/// Refuses more than [`MOST`].
pub(super) fn too_many(request: &Request) -> Failure {
    let file = request.file.display();
    Failure::Source(format!("{file} has more than {MOST} programs"))
}

/// Writes the draft and checks it.
pub(super) fn finish(request: &Request, draft: &Draft, notes: Notes) -> Result<Imported, Failure> {
    let notes = notes.in_order();
    if draft.programs.is_empty() {
        let mut text = format!(
            "{} has no program that can be translated",
            request.file.display()
        );
        for note in &notes {
            text.push_str(&format!("\n  {note}"));
        }
        return Err(Failure::Source(text));
    }
    let config = draft.write(&notes);
    let notes = once(notes);
    let sources = Sources {
        file: FileChoice::Text(request.result.clone(), config.clone()),
        directory: PathBuf::from("/"),
        environment: Vec::new(),
        flags: Flags::default(),
        command: None,
        own_executable: PathBuf::from("eternal"),
    };
    if let Err(problems) = config::load(&sources) {
        let problems = problems.to_string();
        return Err(Failure::Internal { problems, config });
    }
    Ok(Imported {
        config,
        programs: draft
            .programs
            .iter()
            .map(|program| program.name.clone())
            .collect(),
        notes,
    })
}

/// Says once what was said of several programs made of one option.
fn once(notes: Vec<Note>) -> Vec<Note> {
    let mut known = HashSet::new();
    let plain = notes.into_iter().map(|note| Note {
        table: String::new(),
        ..note
    });
    plain.filter(|note| known.insert(note.clone())).collect()
}
