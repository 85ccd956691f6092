//! `eternal import`: the config of another supervisor as one of ours, and what has no equivalent.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::arguments::{Import, ImportFrom};
use super::output::Output;
use super::{Complaint, DONE, FAILED, USAGE};
use crate::import::{self, Failure, Format, Imported, Kind, Note, Request};

/// What `import --json` prints.
#[derive(Serialize)]
struct Report<'a> {
    from: &'static str,
    file: &'a Path,
    /// Where the config was written; `null`: nowhere.
    written: Option<&'a Path>,
    programs: &'a [String],
    notes: &'a [Note],
    config: &'a str,
}

/// Translates a file; needs no daemon.
pub(super) fn execute(import: ImportFrom, output: &mut Output) -> Result<u8, Complaint> {
    let (format, options) = format(import)?;
    let result = options.output.clone();
    let result = result.unwrap_or_else(|| PathBuf::from("eternal.toml"));
    let result = std::path::absolute(&result).map_err(|error| {
        Complaint::failed(format!("cannot tell the current directory: {error}"))
    })?;
    let request = Request {
        format,
        file: options.file.clone(),
        result,
        environment: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let imported = import::import(&request).map_err(|failure| {
        let code = match failure {
            Failure::Source(_) => USAGE,
            Failure::Internal { .. } => FAILED,
        };
        Complaint::new(code, failure.to_string())
    })?;
    if let Some(path) = &options.output {
        write(path, &imported.config, options.force)?;
    }
    if output.is_json() {
        output.json(&Report {
            from: request.format.name(),
            file: &request.file,
            written: options.output.as_deref(),
            programs: &imported.programs,
            notes: &imported.notes,
            config: &imported.config,
        })?;
    } else {
        if options.output.is_none() {
            output.text(&imported.config)?;
        }
        output.complain(&report(&request.file, &imported));
    }
    let lacking = imported.notes.iter().any(|n| n.kind == Kind::NoEquivalent);
    Ok(if lacking && options.strict {
        FAILED
    } else {
        DONE
    })
}

fn format(import: ImportFrom) -> Result<(Format, Import), Complaint> {
    Ok(match import {
        ImportFrom::Supervisord { options } => (Format::Supervisord, options),
        ImportFrom::Pm2 {
            options,
            environment,
            trust_javascript: trusted,
        } => (
            Format::Pm2 {
                environment,
                trusted,
            },
            options,
        ),
        ImportFrom::Procfile {
            options,
            formation,
            port,
        } => {
            let formation = self::formation(formation.as_deref().unwrap_or_default())?;
            (Format::Procfile { formation, port }, options)
        }
    })
}

/// Reads `web=2,worker=1`.
fn formation(text: &str) -> Result<BTreeMap<String, u32>, Complaint> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let pair = part.split_once('=');
            let pair = pair.and_then(|(name, count)| Some((name, count.parse().ok()?)));
            match pair {
                Some((name, count)) => Ok((name.to_owned(), count)),
                None => Err(Complaint::new(
                    USAGE,
                    format!("--formation: {part:?} is no TYPE=NUMBER, as in web=2,worker=1"),
                )),
            }
        })
        .collect()
}

/// Says to people how it went.
fn report(file: &Path, imported: &Imported) -> String {
    let of = |kind| imported.notes.iter().filter(|n| n.kind == kind).count();
    let count = |number: usize, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    };
    let mut text = format!(
        "{}: {} translated; {} no equivalent, {} something else here",
        file.display(),
        count(imported.programs.len(), "program", "programs"),
        count(of(Kind::NoEquivalent), "option has", "options have"),
        count(of(Kind::Differs), "thing means", "things mean"),
    );
    for kind in [Kind::NoEquivalent, Kind::Differs, Kind::Note] {
        let mut of_kind: Vec<&Note> = imported.notes.iter().filter(|n| n.kind == kind).collect();
        while let Some(first) = of_kind.first().map(|note| note.text.clone()) {
            let alike: Vec<&Note> = of_kind.extract_if(.., |note| note.text == first).collect();
            match alike.as_slice() {
                [one] => text.push_str(&format!("\n  {one}")),
                many => {
                    text.push_str(&format!("\n  {kind}: {first}:"));
                    for note in many {
                        text.push_str(&format!("\n    {}", note.place()));
                    }
                }
            }
        }
    }
    text
}

/// Writes the config whole or not at all. Only the owner may read it: it may hold secrets.
fn write(path: &Path, config: &str, force: bool) -> Result<(), Complaint> {
    let failed =
        |error: io::Error| Complaint::failed(format!("cannot write {}: {error}", path.display()));
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(Complaint::failed(format!(
            "{} is there already; --force replaces it",
            path.display()
        )));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = create(&temporary)
        .and_then(|mut file| {
            file.write_all(config.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| match force {
            true => fs::rename(&temporary, path),
            // Fails where somebody was faster.
            false => fs::hard_link(&temporary, path),
        });
    let _ = fs::remove_file(&temporary);
    written.map_err(failed)
}

fn create(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    const PRIVATE: u32 = 0o600;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)
}
