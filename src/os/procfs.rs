//! What `/proc` says about processes: their status, and what they and their families use.

mod endings;
mod sampler;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::environ::{self, Environment};
use super::launch::MARKER;

pub use endings::Endings;
pub use sampler::{Sampler, Usage};

/// What a process has used: microseconds in user mode and in the kernel, bytes read from disks and
/// written to them.
pub(super) type Account = [u64; 4];

/// One process as `/proc/PID/stat` describes it. Times are clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: i32,
    /// The kernel's letter: R, S, D, T, Z, …
    pub state: u8,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Its own time in user mode and in the kernel.
    pub own_time: [u64; 2],
    /// The same of the children it has waited for, and of theirs.
    pub reaped_time: [u64; 2],
    /// Its threads.
    pub threads: u64,
    /// From boot to its start.
    pub start: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Bytes in memory.
    pub resident_bytes: u64,
}

impl Stat {
    /// Reads the status of a process.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process (also when it goes during the read); `InvalidData`
    /// when the kernel says something unheard of.
    pub fn read(pid: i32) -> io::Result<Self> {
        let mut buffer = [0; SMALL];
        let text = read_small(&format!("/proc/{pid}/stat"), &mut buffer)?;
        Self::parse(text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Parses after the LAST `)`: a program's name may itself contain parentheses and newlines.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let pid = std::str::from_utf8(&text[..open])
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
        // Field 3 of proc_pid_stat(5) is the first here.
        let mut fields = [""; 22];
        let mut split = rest.split_ascii_whitespace();
        for field in &mut fields {
            *field = split.next()?;
        }
        let signed = |number: usize| fields[number - 3].parse::<i32>().ok();
        let count = |number: usize| fields[number - 3].parse::<u64>().ok();
        // Children's times are signed in the kernel; nothing else here can be negative.
        Some(Self {
            pid,
            state: *fields[0].as_bytes().first()?,
            parent: signed(4)?,
            group: signed(5)?,
            session: signed(6)?,
            own_time: [count(14)?, count(15)?],
            reaped_time: [count(16).unwrap_or(0), count(17).unwrap_or(0)],
            threads: count(20)?,
            start: count(22)?,
            virtual_bytes: count(23)?,
            resident_bytes: count(24).unwrap_or(0) * page_size(),
        })
    }

    /// Tells whether it is neither a zombie nor gone.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Returns the numbers of all processes; empty when `/proc` cannot be read.
pub fn pids() -> impl Iterator<Item = i32> {
    all_pids().into_iter().flatten()
}

/// As [`pids`], for one who must not miss any.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub(super) fn all_pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Tells whether a look at a process failed for something that we lack at this moment, such as a
/// descriptor: not because it is gone, or hidden from us.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, PermissionDenied};
    let gone = error.raw_os_error() == Some(libc::ESRCH);
    !gone && !matches!(error.kind(), NotFound | PermissionDenied | InvalidData)
}

/// Returns what follows `ETERNAL_RUN=<marker>:` in the environment that a process was started
/// with: `<key>:<run>`. `None` also when its environment is not ours to read.
#[must_use]
pub fn marked_run(pid: i32, marker: &str) -> Option<String> {
    let Environment::Says(mut found) = environ::read_in_time(pid, &[MARKER]) else {
        return None;
    };
    let run = found.pop()??;
    let run = run.strip_prefix(marker)?;
    run.strip_prefix(':').map(str::to_owned)
}

/// What the daemon itself uses: the `process_*` values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DaemonUsage {
    /// User and system time together; a hundredth of a second is the kernel's grain.
    pub cpu_seconds: f64,
    /// Seconds from the Unix epoch to its start: exact to a hundredth relative to the boot time,
    /// which the kernel gives in whole seconds.
    pub start_time_seconds: f64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// How many it may have; `u64::MAX` is unlimited.
    pub max_fds: u64,
    /// Its threads.
    pub threads: u64,
}

/// Measures the daemon itself.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn daemon_usage() -> io::Result<DaemonUsage> {
    let pid = std::process::id() as i32;
    let stat = Stat::read(pid)?;
    Ok(DaemonUsage {
        cpu_seconds: seconds(stat.own_time[0] + stat.own_time[1]),
        start_time_seconds: boot_time() + seconds(stat.start),
        resident_bytes: stat.resident_bytes,
        virtual_bytes: stat.virtual_bytes,
        open_fds: open_fds(pid).unwrap_or(0),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        threads: stat.threads,
    })
}

/// Counts a process's descriptors: at once from the directory's size where the kernel tells it
/// (Linux 6.2), else by reading the directory.
fn open_fds(pid: i32) -> io::Result<u64> {
    static SIZE_COUNTS: OnceLock<bool> = OnceLock::new();
    let counts = *SIZE_COUNTS
        .get_or_init(|| fs::metadata("/proc/self/fd").is_ok_and(|directory| directory.size() > 0));
    let path = format!("/proc/{pid}/fd");
    if counts {
        return Ok(fs::metadata(path).map_err(vanished)?.size());
    }
    Ok(fs::read_dir(path).map_err(vanished)?.count() as u64)
}

/// Returns a process's own soft limit of descriptors; `u64::MAX` is unlimited.
fn max_fds(pid: i32) -> io::Result<u64> {
    let mut buffer = [0; SMALL];
    let text = String::from_utf8_lossy(read_small(&format!("/proc/{pid}/limits"), &mut buffer)?);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_ascii_whitespace().next()) {
        Some("unlimited") => Ok(u64::MAX),
        Some(limit) => limit.parse().map_err(|_| io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Returns bytes that a process and the children it waited for made the disks read and write.
fn disk_bytes(pid: i32) -> io::Result<[u64; 2]> {
    let mut buffer = [0; SMALL];
    let text = String::from_utf8_lossy(read_small(&format!("/proc/{pid}/io"), &mut buffer)?);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    Ok([value("read_bytes:"), value("write_bytes:")])
}

/// Longer than any of the files that are read into one buffer: twice the size of `limits`.
const SMALL: usize = 4096;

/// Reads a file of `/proc` with a single read, which the kernel answers whole: a pass over thousands
/// of processes takes half the system calls of a read to the end.
fn read_small<'a>(path: &str, buffer: &'a mut [u8; SMALL]) -> io::Result<&'a [u8]> {
    let length = File::open(path)
        .and_then(|mut file| file.read(buffer))
        .map_err(vanished)?;
    Ok(&buffer[..length])
}

/// A process that goes between open and read gives ESRCH; to readers it is simply not there.
fn vanished(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(nix::libc::ESRCH) {
        return io::ErrorKind::NotFound.into();
    }
    error
}

fn seconds(ticks: u64) -> f64 {
    micros(ticks) as f64 / 1e6
}

fn micros(ticks: u64) -> u64 {
    static PER_SECOND: OnceLock<u64> = OnceLock::new();
    let per_second = *PER_SECOND.get_or_init(|| system_value(SysconfVar::CLK_TCK, 100).max(1));
    ticks.saturating_mul(1_000_000) / per_second
}

fn page_size() -> u64 {
    static PAGE: OnceLock<u64> = OnceLock::new();
    *PAGE.get_or_init(|| system_value(SysconfVar::PAGE_SIZE, 4096))
}

fn system_value(variable: SysconfVar, usual: u64) -> u64 {
    sysconf(variable)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(usual)
}

/// Returns seconds from the Unix epoch to the boot of the machine.
fn boot_time() -> f64 {
    static BOOT: OnceLock<f64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("btime "));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_spaces_and_newlines_is_no_trouble() {
        let text =
            b"42 (a) R 1 (\n) b) S 7 8 9 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 3 0 555 4096 2 1 1";
        let stat = Stat::parse(text).expect("valid");
        assert_eq!(
            (stat.pid, stat.state, stat.parent, stat.group, stat.session),
            (42, b'S', 7, 8, 9)
        );
        assert_eq!((stat.own_time, stat.reaped_time), ([11, 12], [13, 14]));
        assert_eq!(
            (stat.threads, stat.start, stat.virtual_bytes),
            (3, 555, 4096)
        );
        assert_eq!(stat.resident_bytes, 2 * page_size());
        for cut in 0..text.len() - 6 {
            assert_eq!(Stat::parse(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn the_daemons_own_values_are_plausible() {
        let usage = daemon_usage().expect("proc");
        assert!(usage.threads >= 1 && usage.open_fds >= 3 && usage.max_fds >= usage.open_fds);
        assert!(usage.virtual_bytes > usage.resident_bytes && usage.resident_bytes > 100_000);
        let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
        let uptime: f64 = uptime
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .expect("number");
        let since_boot = usage.start_time_seconds - boot_time();
        assert!(
            since_boot > 0.0 && since_boot <= uptime,
            "{since_boot} {uptime}"
        );
        assert_eq!(
            max_fds(std::process::id() as i32).expect("limits"),
            usage.max_fds
        );
    }

    #[test]
    fn a_process_that_is_gone_is_not_found() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        child.wait().expect("wait");
        let error = Stat::read(child.id() as i32).expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
