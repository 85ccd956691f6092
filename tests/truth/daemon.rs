//! The real binary, its config, and the programs it supervises.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; only a failing test takes it.
pub const DEADLINE: Duration = Duration::from_secs(50);

/// A running daemon in a directory of its own.
pub struct Daemon {
    directory: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    /// Starts one with these programs, each a TOML table.
    pub fn start(programs: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("books")).expect("a directory");
        let child = include_str!("child.sh");
        fs::write(directory.path().join("child.sh"), child).expect("written");
        fs::write(directory.path().join("not-executable"), child).expect("written");
        write_config(&directory, programs);
        let process = Command::new(env!("CARGO_BIN_EXE_eternal"))
            .current_dir(directory.path())
            .args(["run", "--config", "eternal.toml"])
            .env("BOOKS", directory.path().join("books"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        Self { directory, process }
    }

    /// Where it serves `/metrics`.
    pub fn metrics(&self) -> PathBuf {
        self.directory.path().join("metrics.sock")
    }

    /// Runs one of its commands, which returns when it is carried out.
    pub fn tell(&self, words: &[&str]) {
        let out = Command::new(env!("CARGO_BIN_EXE_eternal"))
            .current_dir(self.directory.path())
            .args(words)
            .args(["--config", "eternal.toml"])
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?}: {}: {said}", out.status);
    }

    /// Puts other programs into the config and has it read.
    pub fn reload(&self, programs: &[String]) {
        write_config(&self.directory, programs);
        self.tell(&["reload"]);
    }

    /// Returns the lines of a file of the books; none when it is not there.
    pub fn book(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("books").join(name));
        text.unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Waits until a program has been born so many times, and returns the latest's pid.
    pub fn born(&self, program: &str, times: usize) -> i32 {
        let births = || self.book(&format!("{program}.0.born"));
        until(&format!("{program} is born {times} times"), || {
            births().len() >= times
        });
        let births = births();
        births[times - 1].parse().expect("a pid")
    }

    /// Waits until a replica has ended as often as it was to, and stays.
    pub fn parked(&self, replica: &str) {
        until(&format!("{replica} parks"), || {
            !self.book(&format!("{replica}.parked")).is_empty()
        });
    }

    /// Stops it and all its programs, and returns what it is left with.
    pub fn stop(mut self) -> std::process::ExitStatus {
        self.tell(&["stop"]);
        self.process.wait().expect("the daemon ends")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            // A failing test leaves nothing behind: the second signal ends the programs at once.
            for _ in 0..2 {
                let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                std::thread::park_timeout(Duration::from_millis(200));
            }
            let _ = self.process.wait();
        }
    }
}

fn write_config(directory: &tempfile::TempDir, programs: &[String]) {
    let socket = directory.path().join("metrics.sock");
    let config = format!(
        "[daemon]\nlog_level = \"error\"\n[metrics]\nlisten = \"unix:{}\"\n\
         [defaults]\nready = \"immediately\"\nrestart_delay = \"2ms\"\nrestart_delay_max = \"2ms\"\nrestart_jitter = 0\n\
         crash_threshold = 1000000\n{}",
        socket.display(),
        programs.concat()
    );
    fs::write(directory.path().join("eternal.toml"), config).expect("written");
}

/// Waits for something that has no event to wait for.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "{what}: not in {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A program that runs `child.sh` with these words.
pub fn script(name: &str, words: &str, keys: &str) -> String {
    let words: Vec<String> = words.split(' ').map(|word| format!("{word:?}")).collect();
    let words = words.join(", ");
    format!("[programs.{name}]\ncommand = [\"/bin/sh\", \"./child.sh\", {words}]\n{keys}\n")
}
