//! The layer rule: an arrow may only point down, the clock is read where time comes in, `unsafe`
//! stays with the kernel. Reads the sources, so that a breach names its file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms of ours a room may use (itself is understood, and `text`, which uses none).
const ARROWS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("supervision", &[]),
    ("config", &["supervision"]),
    ("control", &[]),
    ("os", &["supervision"]),
    ("observe", &["supervision", "control"]),
    ("api_server", &[]),
    ("import", &["config"]),
    ("cli", &["control", "config", "import"]),
    (
        "daemon",
        &["supervision", "os", "observe", "control", "config"],
    ),
];

/// Who may read a clock. `api_server` is a program of its own; the log room stamps lines it reads
/// on its own threads, in one file.
const CLOCK_READERS: &[&str] = &[
    "src/daemon/",
    "src/observe/",
    "src/api_server/",
    "src/os/logs/clock.rs",
];
const CLOCKS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Every source file but the unit tests.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    assert!(found.len() > 50, "the sources were found");
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root)
                .expect("inside")
                .display()
                .to_string();
            (name, fs::read_to_string(path).expect("a source"))
        })
        .collect()
}

/// The lines of code of a file up to its tests: comments and unit tests are free.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

fn room(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let name = inside.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!matches!(name, "lib" | "main")).then_some(name)
}

fn breaches_of_arrows(sources: &[(String, String)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (file, text) in sources {
        let Some(room) = room(file) else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            breaches.push(format!("{file}: the room {room} is not on the map"));
            continue;
        };
        for (number, line) in code(text) {
            for part in line.split("crate::").skip(1) {
                let target: String = part
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let known = ARROWS.iter().any(|(name, _)| *name == target);
                // How to write for people is for all but the pure one.
                let free = target == room || (target == "text" && room != "supervision");
                if known && !free && !allowed.contains(&target.as_str()) {
                    breaches.push(format!("{file}:{number}: {room} may not use {target}"));
                }
            }
        }
    }
    breaches
}

#[test]
fn an_arrow_may_only_point_down() {
    let breaches = breaches_of_arrows(&sources());
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn a_breach_is_found() {
    let bad = [(
        "src/supervision/x.rs".to_owned(),
        "use crate::os::children::Children;\n".to_owned(),
    )];
    assert_eq!(
        breaches_of_arrows(&bad),
        ["src/supervision/x.rs:1: supervision may not use os"]
    );
}

#[test]
fn supervision_is_std_only() {
    for (file, text) in sources()
        .iter()
        .filter(|(file, _)| room(file) == Some("supervision"))
    {
        for (number, line) in code(text).filter(|(_, line)| line.trim_start().starts_with("use ")) {
            let from = line.trim_start().trim_start_matches("use ");
            let fine = ["std::", "super", "self", "crate::supervision"]
                .iter()
                .any(|start| from.starts_with(start));
            assert!(fine, "{file}:{number}: supervision uses only std: {line}");
        }
        for word in [
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "std::thread",
            "std::env",
            "println!",
            "tracing",
        ] {
            for (number, line) in code(text) {
                assert!(
                    !line.contains(word),
                    "{file}:{number}: supervision is pure: {line}"
                );
            }
        }
    }
}

#[test]
fn the_clock_is_read_only_where_time_comes_in() {
    for (file, text) in sources() {
        if CLOCK_READERS.iter().any(|reader| file.starts_with(reader)) {
            continue;
        }
        for (number, line) in code(&text) {
            let read = CLOCKS.iter().find(|clock| line.contains(**clock));
            assert!(
                read.is_none(),
                "{file}:{number}: reads a clock; time comes in as an argument: {line}"
            );
        }
    }
}

#[test]
fn unsafe_stays_with_the_kernel() {
    for (file, text) in sources() {
        if room(&file) == Some("os") {
            continue;
        }
        for (number, line) in code(&text) {
            let word = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe");
            assert!(!word, "{file}:{number}: `unsafe` outside os: {line}");
        }
    }
}

#[test]
fn the_process_is_ended_in_main_alone() {
    for (file, text) in sources() {
        // A chaos route has to die on request.
        if file == "src/main.rs" || file.starts_with("src/api_server/") {
            continue;
        }
        for (number, line) in code(&text) {
            let ends = line.contains("process::exit(");
            assert!(!ends, "{file}:{number}: only main ends the process: {line}");
        }
    }
}
