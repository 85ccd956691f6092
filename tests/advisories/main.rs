//! The classes of faults that other supervisors, shells and exporters have published advisories for, each
//! as a test: of this target, or of another that proves it ([`classes::CLASSES`] says which; a test
//! checks that those are there). `tests/advisories/plant.py` breaks promises on purpose and expects
//! their tests to notice.

mod births;
mod canary;
mod classes;
mod hostile_files;
mod pages;
#[path = "../daemon/world.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the daemon, which use all of it"
)]
mod world;

use std::io::{Read, Write};

/// Sends a request and returns the whole answer, head in small letters and body, up to the end of the
/// connection; `None` when there is none.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Option<(String, String)> {
    // A request that is refused early may meet a closed door; what was said before counts.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_ascii_lowercase(), body.to_owned()))
}

/// An address of this machine that no other test has.
fn address() -> String {
    let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
    format!("127.{a}.{b}.{c}")
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root has something to lose to other users");
    }
    root
}
