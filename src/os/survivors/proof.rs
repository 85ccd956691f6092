//! What shows that a process was a program of ours, besides the token in its environment.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::os::procfs::Stat;

/// As much of an environment is read: no longer one is possible.
const MOST_BYTES: u64 = 8 << 20;

/// Tells whether a process leads a session, as each program does, and writes to a pipe that nobody
/// reads any more, as each program of a daemon that is gone does. Whoever forges a record cannot do
/// that to a process of somebody else.
pub(super) fn is_bereft_of_its_daemon(stat: &Stat) -> bool {
    const STANDARD_OUTPUTS: [i32; 2] = [1, 2];
    stat.session == stat.pid
        && STANDARD_OUTPUTS
            .iter()
            .any(|number| nobody_reads(&format!("/proc/{}/fd/{number}", stat.pid)))
}

fn nobody_reads(descriptor: &str) -> bool {
    let leads_to = fs::read_link(descriptor).unwrap_or_default();
    // Only pipes without a name: to open anything else may do something.
    if !leads_to.to_string_lossy().starts_with("pipe:[") {
        return false;
    }
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(descriptor);
    opened.is_ok_and(|writer| {
        let mut ends = [PollFd::new(writer.as_fd(), PollFlags::empty())];
        let looked = poll(&mut ends, PollTimeout::ZERO);
        // pipe(7): the writing end of a pipe without a reader is in error.
        looked.is_ok() && ends[0].revents() == Some(PollFlags::POLLERR)
    })
}

/// The program that a process was started for, as it was told; else the command's name.
pub(super) fn program_name(pid: i32) -> String {
    let mut environment = Vec::new();
    // What cannot be read has no name in it.
    let _ = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MOST_BYTES).read_to_end(&mut environment));
    environment
        .split(|byte| *byte == 0)
        .find_map(|pair| pair.strip_prefix(b"ETERNAL_PROGRAM="))
        .map_or_else(
            || command_name(pid),
            |name| String::from_utf8_lossy(name).into_owned(),
        )
}

fn command_name(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}
