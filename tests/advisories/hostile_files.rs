//! Files that are made to take long or much to read.

use std::process::Stdio;

use nix::sys::resource::{UsageWho, getrusage};

use crate::world::World;

const MIB: usize = 1024 * 1024;
/// What any process of these tests may have used at its peak, in KiB.
const MOST_MEMORY: i64 = 400 * 1024;

/// A file of some size, made of one piece again and again.
fn of(size: usize, begin: &str, piece: &str) -> String {
    let mut text = begin.to_owned();
    text.push_str(&piece.repeat(size / piece.len()));
    text
}

#[test]
fn a_configuration_however_hostile_is_read_or_refused_in_bounded_time_and_memory() {
    let world = World::new("");
    let shapes = [
        ("", "= =\n"),
        ("", "x = [[[[[[[[\n"),
        ("a = ", "["),
        ("a = ", "{a="),
        ("", "[a]\n"),
        ("a = \"\"\"", "\\u0041"),
        ("", "#"),
        ("[programs.web]\ncommand = [", "'x',"),
    ];
    for size in [MIB, 10 * MIB] {
        for (begin, piece) in shapes {
            world.write("hostile.toml", &of(size, begin, piece));
            // Ends at the deadline of the world if it takes too long.
            let said = world.eternal(&["check", "--config", "hostile.toml"]);
            assert_eq!(said.code, 2, "{begin}{piece}: {}", said.err.len());
            assert!(
                said.err.len() < 100_000,
                "{begin}{piece}: {}",
                said.err.len()
            );
            assert_eq!(
                said.err.contains("longer than"),
                size > 4 * MIB,
                "{begin}{piece}"
            );
        }
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)
        .expect("a usage")
        .max_rss();
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}

#[test]
fn what_is_no_end_of_a_configuration_is_refused() {
    let world = World::new("");
    let mut command = world.command(World::binary());
    command
        .args(["check", "--config", "/dev/zero"])
        .stdin(Stdio::null());
    let said = world.said(command);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("longer than 4 MiB"), "{said:?}");
}

#[test]
fn a_procfile_and_an_ini_file_however_hostile_are_read_or_refused_in_bounded_time() {
    let world = World::new("");
    for (format, begin, piece) in [
        ("procfile", "web: ", "a\\"),
        ("procfile", "web: ", "'"),
        ("procfile", "", ":"),
        ("supervisord", "[program:x]\ncommand=", "%(ENV_"),
        ("supervisord", "[program:x]\ncommand=x\n", " a\n"),
        ("supervisord", "", "[program:x]\n"),
        ("supervisord", "", "["),
    ] {
        world.write("hostile", &of(2 * MIB, begin, piece));
        let said = world.eternal(&["import", format, "hostile"]);
        assert!(said.code < 3, "{format} {piece}: {}", said.code);
    }
}
