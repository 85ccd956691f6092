//! `[include] files = …`: globs, relative to the main file, one level deep as in supervisord.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use super::expand::Scope;
use super::ini::{Ini, Section};
use crate::import::note::{At, Notes};
use crate::import::{Failure, source};

/// Adds the files that are included.
pub(super) fn follow(
    main: &Path,
    here: &Path,
    scope: &Scope,
    ini: &mut Ini,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let Some(section) = ini.sections.iter().find(|s| s.name == "include").cloned() else {
        return Ok(());
    };
    for option in section.options.iter().filter(|o| o.key != "files") {
        notes.lacks(
            "",
            &at(&section, option),
            "supervisord does not know this option either",
        );
    }
    let Some(files) = section.get("files") else {
        return Ok(());
    };
    let place = at(&section, files);
    let patterns = match scope.now(&files.value) {
        Ok((patterns, _)) => patterns,
        Err(why) => {
            notes.lacks("", &place, format!("it {why}"));
            return Ok(());
        }
    };
    let mut read: BTreeSet<PathBuf> = main.canonicalize().into_iter().collect();
    for pattern in patterns.split_whitespace() {
        let found = matches(&here.join(pattern)).map_err(|why| {
            Failure::at(
                &files.file,
                files.line,
                format!("[include] {pattern}: {why}"),
            )
        })?;
        if found.is_empty() {
            notes.differs(
                "",
                &place,
                format!("no file matches {pattern}; nothing was included"),
            );
        }
        for path in found {
            if !read.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                let what = format!("{} is included more than once; read once", path.display());
                notes.says("", &place, what);
                continue;
            }
            one(&path, ini, notes)?;
        }
    }
    Ok(())
}

fn one(path: &Path, ini: &mut Ini, notes: &mut Notes) -> Result<(), Failure> {
    // %(here)s is the directory of the file that says it, as in supervisord.
    let here = source::directory(path);
    let text = source::read(path)?.replace("%(here)s", &here.to_string_lossy());
    let mut nested = Ini::default();
    nested.add(path, &text)?;
    ini.add(path, &text)?;
    for section in nested.sections.iter().filter(|s| s.name == "include") {
        for option in &section.options {
            let why = "an [include] in an included file has no effect in supervisord either";
            notes.says("", &at(section, option), why);
        }
    }
    Ok(())
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let pattern = pattern.to_string_lossy();
    let paths = glob::glob_with(&pattern, options).map_err(|error| error.to_string())?;
    Ok(paths.flatten().filter(|path| path.is_file()).collect())
}

fn at(section: &Section, option: &super::ini::Opt) -> At {
    super::place(&section.name, option)
}
