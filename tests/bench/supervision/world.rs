//! The two supervisors that are compared, and the births of the programs they run.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The C programs, compiled.
pub struct Tools {
    directory: TempDir,
}

impl Tools {
    /// Compiles them; `None` where there is no working `cc`.
    pub fn build() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/supervision");
        for (name, more) in [("witness", Some("-static")), ("floor", None)] {
            let status = Command::new("cc")
                .args(["-O2", "-o"])
                .arg(directory.path().join(name))
                .arg(source.join(name).with_extension("c"))
                .args(more)
                .status();
            if !status.is_ok_and(|status| status.success()) {
                return None;
            }
        }
        Some(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// What a program says first.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// By CLOCK_MONOTONIC.
    pub nanoseconds: u64,
    pub pid: i32,
    pub slot: usize,
}

/// Reads CLOCK_MONOTONIC, as the programs do.
pub fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_nanos() as u64
}

/// A supervisor with its programs.
pub struct Flock {
    pub supervisor: Child,
    /// By slot.
    pub pids: Vec<i32>,
    births: File,
    directory: TempDir,
    /// When the supervisor was started, by CLOCK_MONOTONIC in nanoseconds.
    pub begun: u64,
    /// When the last of the programs first ran.
    pub complete: u64,
}

/// Which programs a daemon gets.
#[derive(Clone, Copy)]
pub struct Fleet {
    pub count: usize,
    /// One more program, in the last slot, floods its log.
    pub flood: bool,
}

impl Flock {
    /// Starts the C supervisor; with `session` each program leads a session, as under ours.
    pub fn floor(tools: &Tools, count: usize, session: bool) -> Self {
        let (directory, births) = birthplace();
        let mut command = Command::new(tools.path("floor"));
        command
            .arg(count.to_string())
            .arg(tools.path("witness"))
            .arg(directory.path().join("births"))
            .args(session.then_some("session"));
        Self::begin(command, (directory, births), count)
    }

    /// Starts the daemon.
    pub fn daemon(tools: &Tools, fleet: Fleet) -> Self {
        let (directory, births) = birthplace();
        let config = directory.path().join("eternal.toml");
        fs::write(&config, configuration(tools, directory.path(), fleet)).expect("written");
        let binary = std::env::var_os("ETERNAL_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_eternal").into());
        let mut command = Command::new(binary);
        command.arg("--config").arg(config).arg("run");
        let count = fleet.count + usize::from(fleet.flood);
        Self::begin(command, (directory, births), count)
    }

    fn begin(mut command: Command, place: (TempDir, File), count: usize) -> Self {
        let begun = nanoseconds();
        let supervisor = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the supervisor starts");
        let mut flock = Self {
            supervisor,
            pids: vec![0; count],
            births: place.1,
            directory: place.0,
            begun,
            complete: 0,
        };
        flock.complete = flock.await_births(count);
        flock
    }

    /// Waits for so many births; returns when the last one was.
    pub fn await_births(&mut self, count: usize) -> u64 {
        let until = Instant::now() + PATIENCE;
        let mut last = 0;
        let mut buffer = [0; 16 * 256];
        let mut left = count;
        while left > 0 {
            let readable = PollFd::new(self.births.as_fd(), PollFlags::POLLIN);
            let _ = poll(&mut [readable], PollTimeout::from(1000_u16));
            let wanted = buffer.len().min(left * 16);
            let read = self.births.read(&mut buffer[..wanted]).unwrap_or(0);
            for birth in buffer[..read].chunks_exact(16).map(parse) {
                self.pids[birth.slot] = birth.pid;
                last = last.max(birth.nanoseconds);
                left -= 1;
            }
            assert!(Instant::now() < until, "{left} of {count} did not start");
            let ended = self.supervisor.try_wait().expect("our child");
            assert!(
                ended.is_none(),
                "the supervisor ended: {}",
                self.last_words()
            );
        }
        last
    }

    fn last_words(&self) -> String {
        fs::read_to_string(self.directory.path().join("logs/daemon.log")).unwrap_or_default()
    }

    /// Kills these programs; returns how long it took until all of them ran again, in
    /// microseconds.
    pub fn restart(&mut self, slots: std::ops::Range<usize>) -> f64 {
        let begin = nanoseconds();
        let count = slots.len();
        for pid in &self.pids[slots] {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("it lives");
        }
        (self.await_births(count) - begin) as f64 / 1000.0
    }

    /// Asks the supervisor to end; returns how long that took, in microseconds.
    pub fn end(mut self) -> f64 {
        let begin = nanoseconds();
        let pid = Pid::from_raw(self.supervisor.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.supervisor.wait();
        (nanoseconds() - begin) as f64 / 1000.0
    }

    /// Where the daemon serves its metrics.
    pub fn metrics(&self) -> PathBuf {
        self.directory.path().join("metrics.sock")
    }
}

fn parse(bytes: &[u8]) -> Birth {
    let field = |from: usize, to: usize| {
        let mut value = [0; 8];
        value[..to - from].copy_from_slice(&bytes[from..to]);
        u64::from_ne_bytes(value)
    };
    Birth {
        nanoseconds: field(0, 8),
        pid: field(8, 12) as i32,
        slot: field(12, 16) as usize,
    }
}

/// A pipe with a name. Ours is open both ways, so that it never ends.
fn birthplace() -> (TempDir, File) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("births");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a fifo");
    let births = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .expect("our fifo");
    let _: Result<i32, _> = fcntl(&births, FcntlArg::F_SETPIPE_SZ(1 << 20));
    (directory, births)
}

fn configuration(tools: &Tools, directory: &Path, fleet: Fleet) -> String {
    let mut text = String::from(
        "[metrics]\nlisten = \"unix:metrics.sock\"\n\
         [defaults]\nrestart_delay = \"0s\"\ncrash_threshold = 1000000\ncrash_window = \"1s\"\n",
    );
    let mut program = |slot: usize, more: &str| {
        let _ = writeln!(
            text,
            "[programs.p{slot}]\ncommand = [{:?}, {:?}, \"{slot}\"{more}]",
            tools.path("witness"),
            directory.join("births"),
        );
    };
    for slot in 0..fleet.count {
        program(slot, "");
    }
    if fleet.flood {
        program(fleet.count, ", \"flood\"");
    }
    text
}

/// Sends a request to a Unix socket and reads the whole answer; returns its size in bytes.
pub fn get(socket: &Path, path: &str, encoding: Option<&str>) -> io::Result<usize> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    let accept = encoding.map_or_else(String::new, |name| format!("Accept-Encoding: {name}\r\n"));
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{accept}\r\n");
    io::Write::write_all(&mut stream, request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)
}
