//! Tells the compiler what `eternal_build_info` says: the compiler itself and, in a release build,
//! the commit. A packager without a repository sets `ETERNAL_REVISION`.

use std::path::Path;
use std::process::Command;

const REVISION: &str = "ETERNAL_REVISION";

fn main() {
    println!("cargo::rerun-if-changed=deploy/build.rs");
    println!("cargo::rerun-if-env-changed={REVISION}");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    if let Some(version) = said_by(&compiler, &["--version"]) {
        println!("cargo::rustc-env=ETERNAL_RUSTC={version}");
    }
    let given = std::env::var(REVISION)
        .ok()
        .filter(|given| !given.is_empty());
    // Not in a debug build: there each commit would compile everything once more.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(revision) = given.or_else(|| if is_release { commit() } else { None }) {
        println!("cargo::rustc-env={REVISION}={revision}");
    }
}

/// The commit that is checked out; none outside of a repository.
fn commit() -> Option<String> {
    // Every change of what is checked out is logged there.
    let log = said_by("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    said_by("git", &["rev-parse", "--short=12", "HEAD"])
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let words = String::from_utf8(output.stdout).ok()?;
    let word = words.trim();
    (output.status.success() && !word.is_empty()).then(|| word.to_owned())
}
