//! What the tests share: a directory with a config, the real daemon in it, and ways to look at both.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use eternal::control::api::{ProgramStatus, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a busy machine; only a failing test takes it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How often the world is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Tells the processes of one test from all others, whatever became of their parents.
const MARK: &str = "ETERNAL_TEST_WORLD";

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, and everything that runs in it.
pub struct World {
    directory: tempfile::TempDir,
    mark: String,
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A daemon in the foreground.
pub struct Daemon<'a> {
    pub world: &'a World,
    child: Child,
}

impl World {
    /// Makes a world with this config. `/metrics` is on a socket unless the config says otherwise.
    pub fn new(config: &str) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let world = Self {
            directory: tempfile::Builder::new()
                .prefix("eternal-")
                .tempdir()
                .expect("a directory"),
            mark: format!("{}-{number}", std::process::id()),
        };
        world.configure(config);
        world
    }

    /// Writes the config anew. Programs are ready as soon as they run unless the config has
    /// `[defaults]`: most tests have better things to do than to watch them stay up.
    pub fn configure(&self, config: &str) {
        let metrics = if config.contains("[metrics]") {
            ""
        } else {
            "[metrics]\nlisten = \"unix:metrics.sock\"\n"
        };
        let defaults = if config.contains("[defaults]") {
            ""
        } else {
            "[defaults]\nready = \"immediately\"\n"
        };
        self.write("eternal.toml", &format!("{config}\n{metrics}{defaults}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Reads a file; empty when there is none.
    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Waits for this many lines in a file.
    pub fn lines_of(&self, name: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in {name}"), || {
            Some(self.lines(name)).filter(|lines| lines.len() >= count)
        })
    }

    /// Reads the daemon's log.
    pub fn log(&self) -> String {
        self.read("logs/daemon.log")
    }

    /// Returns the first line of the log with all these words in it, as soon as there is one.
    pub fn logged(&self, words: &[&str]) -> String {
        eventually(&format!("the log says {words:?}"), || {
            self.log()
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned)
        })
    }

    /// Prepares any command to run here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env(MARK, &self.mark)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("ETERNAL_CONFIG")
            .stdin(Stdio::null());
        command
    }

    pub fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_eternal")
    }

    /// Runs `eternal` with these words to its end.
    pub fn eternal(&self, words: &[&str]) -> Said {
        let mut command = self.command(Self::binary());
        command.args(words);
        self.said(command)
    }

    /// Runs a command to its end, at most the deadline.
    pub fn said(&self, mut command: Command) -> Said {
        let (out, err) = (tempfile::tempfile(), tempfile::tempfile());
        let (mut out, mut err) = (out.expect("a file"), err.expect("a file"));
        // Files and not pipes: a daemon in the background may keep them open.
        let mut child = command
            .stdout(out.try_clone().expect("a descriptor"))
            .stderr(err.try_clone().expect("a descriptor"))
            .spawn()
            .expect("a command");
        let code = ended(&mut child, &format!("{command:?}"));
        let text = |file: &mut fs::File| {
            let mut bytes = Vec::new();
            std::io::Seek::rewind(file).expect("rewound");
            file.read_to_end(&mut bytes).expect("read");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Said {
            code,
            out: text(&mut out),
            err: text(&mut err),
        }
    }

    /// Starts `eternal run` in the foreground and waits until it answers.
    pub fn run(&self) -> Daemon<'_> {
        let daemon = self.launch(&["run"]);
        daemon.answers();
        daemon
    }

    /// Starts `eternal` in the foreground.
    pub fn launch(&self, words: &[&str]) -> Daemon<'_> {
        let mut command = self.command(Self::binary());
        command.args(words);
        self.launch_as(command)
    }

    /// Starts whatever becomes the daemon, in a session of its own as a service manager would.
    pub fn launch_as(&self, mut command: Command) -> Daemon<'_> {
        let (out, err) = (self.file("stdout"), self.file("stderr"));
        let child = command
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .expect("the daemon starts");
        Daemon { world: self, child }
    }

    fn file(&self, name: &str) -> fs::File {
        fs::File::create(self.path(name)).expect("a file")
    }

    /// Asks the control socket; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        ask(&self.path("daemon.sock"), "GET", path)
    }

    /// Scrapes `/metrics`; `None` when nobody answers.
    pub fn scrape(&self) -> Option<String> {
        let (code, body) = ask(&self.path("metrics.sock"), "GET", "/metrics")?;
        (code == 200).then_some(body)
    }

    pub fn status(&self) -> Option<Status> {
        let (code, body) = self.get("/v1/status")?;
        (code == 200).then(|| serde_json::from_str(&body).expect("a status"))
    }

    /// Waits for a status that shows something.
    pub fn until<T>(&self, what: &str, look: impl Fn(&Status) -> Option<T>) -> T {
        eventually(what, || look(&self.status()?))
    }

    /// Waits until a program (`web`, `web/1`) shows something.
    pub fn program<T>(
        &self,
        name: &str,
        what: &str,
        look: impl Fn(&ProgramStatus) -> Option<T>,
    ) -> T {
        self.until(&format!("{name} {what}"), |status| {
            look(find(status, name)?)
        })
    }

    /// Waits until a program is in a state and returns how it is then.
    pub fn is(&self, name: &str, state: &str) -> ProgramStatus {
        self.program(name, &format!("is {state}"), |program| {
            (program.state == state).then(|| program.clone())
        })
    }

    /// Waits until a program runs and returns its pid.
    pub fn pid(&self, name: &str) -> i32 {
        self.is(name, "running").pid.expect("what runs has a pid")
    }

    /// Waits for a file with something in it and returns that.
    pub fn appears(&self, name: &str) -> String {
        eventually(&format!("the file {name}"), || {
            Some(self.read(name)).filter(|text| text.ends_with('\n'))
        })
    }

    /// Reads the pid that a process wrote to a file.
    pub fn pid_in(&self, name: &str) -> i32 {
        self.appears(name).trim().parse().expect("a pid")
    }

    /// Every process of this world that lives: it has the mark, or, since a program with a user
    /// does not inherit that, it is in the directory.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.mark);
        let here = self.directory.path();
        let entries = fs::read_dir("/proc").expect("/proc");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let marked = environment.split(|b| *b == 0).any(|v| v == mark.as_bytes());
                let inside =
                    || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == here);
                (marked || inside()) && lives(*pid)
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = self.processes();
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if left.is_empty() || Instant::now() > end {
                break;
            }
            std::thread::sleep(LOOK);
        }
        if std::thread::panicking() {
            eprintln!("--- stderr\n{}--- log\n{}", self.read("stderr"), self.log());
        }
    }
}

impl Daemon<'_> {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn answers(&self) {
        eventually("the daemon answers", || self.world.status());
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("a signal to the daemon");
    }

    /// Waits for its end and returns its exit code, or minus the signal.
    pub fn ends(&mut self) -> i32 {
        ended(&mut self.child, "the daemon")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }

    /// Ends it as a power cut would.
    pub fn is_killed(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.ends(), -9);
    }

    /// SIGTERM, and its exit code.
    pub fn is_stopped(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.ends()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until there is something to see.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, look).unwrap_or_else(|| panic!("in {DEADLINE:?} it was never true: {what}"))
}

/// Looks until there is something to see, or the time is over.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a process lives; a zombie does not.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub fn dies(pid: i32) {
    eventually(&format!("process {pid} is gone"), || {
        (!lives(pid)).then_some(())
    });
}

pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

pub fn find<'a>(status: &'a Status, name: &str) -> Option<&'a ProgramStatus> {
    status.programs.iter().find(|p| p.display_name == name)
}

/// The value of a series: its name and labels as they stand in the exposition.
pub fn value(exposition: &str, series: &str) -> Option<f64> {
    exposition
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// One request over a Unix socket; HTTP/1.0, so that the body ends with the connection.
pub fn ask(socket: &Path, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: test\r\ncontent-length: 0\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

fn ended(child: &mut Child, what: &str) -> i32 {
    let status = within(DEADLINE, || child.try_wait().expect("a status"));
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{what} did not end in {DEADLINE:?}");
    };
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| -status.signal().unwrap_or_default())
}
