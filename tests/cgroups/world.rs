//! What the tests share: a cgroup made for one daemon, a directory with a config, and ways to look
//! at both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a busy machine; only a failing test takes it.
const DEADLINE: Duration = Duration::from_secs(30);

static WORLDS: AtomicU32 = AtomicU32::new(0);

pub struct World {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
    /// As `/proc/PID/cgroup` has it.
    name: String,
    /// Where the tree is mounted.
    mount: PathBuf,
}

pub struct Daemon<'a> {
    world: &'a World,
    child: Child,
    /// The daemon itself, which may be below `child`.
    pid: i32,
}

/// A process of the test itself, gone with it.
pub struct Outsider(pub Child);

impl Outsider {
    pub fn start(words: &[&str]) -> Self {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("a process"))
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    /// Makes a world; `None`, said loudly, where that is not possible.
    pub fn new() -> Option<Self> {
        Self::try_new()
            .inspect_err(|why| eprintln!("\n*** SKIPPED, and nothing is proved: {why} ***\n"))
            .ok()
    }

    fn try_new() -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let mounts = read("/proc/self/mountinfo")?;
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .and_then(|line| line.split(' ').nth(4))
            .ok_or("cgroup v2 is not mounted")?;
        let own = read("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .ok_or("no cgroup v2")?;
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}/eternal-test-{}-{number}",
            own.trim_end_matches('/'),
            std::process::id()
        );
        let cgroup = PathBuf::from(format!("{mount}{name}"));
        fs::create_dir(&cgroup).map_err(|error| format!("{}: {error}", cgroup.display()))?;
        let world = Self {
            directory: tempfile::tempdir().map_err(|error| error.to_string())?,
            cgroup,
            name,
            mount: PathBuf::from(mount),
        };
        Ok(world)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn cgroup(&self, file: &str) -> PathBuf {
        self.cgroup.join(file)
    }

    pub fn members(&self, of: &str) -> Vec<i32> {
        numbers(&self.cgroup.join(of))
    }

    /// Sets an extended attribute of the cgroup, or removes it.
    pub fn mark(&self, attribute: &str, value: Option<&str>) {
        let script = match value {
            Some(value) => {
                format!("import os, sys; os.setxattr(sys.argv[1], '{attribute}', b'{value}')")
            }
            None => format!("import os, sys; os.removexattr(sys.argv[1], '{attribute}')"),
        };
        let mut command = Command::new("python3");
        command.arg("-c").arg(script).arg(&self.cgroup);
        assert!(command.status().expect("python3").success(), "{attribute}");
    }

    /// Tells that the cgroup has nobody in it and nothing below it.
    pub fn tree_is_as_it_was(&self) {
        let left: Vec<PathBuf> = below(&self.cgroup);
        assert!(left.is_empty(), "{left:?} are left\n{}", self.log());
        let on = fs::read_to_string(self.cgroup("cgroup.subtree_control")).expect("readable");
        assert_eq!(on.trim(), "", "no controller is left on");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn configure(&self, config: &str) {
        self.write(
            "eternal.toml",
            &format!("{config}\n[metrics]\nlisten = \"unix:metrics.sock\"\n"),
        );
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn remove(&self, names: &[&str]) {
        for name in names {
            fs::remove_file(self.path(name)).expect("it is there");
        }
    }

    /// Reads a number out of a file, as soon as there is one.
    pub fn number<T: FromStr>(&self, name: &str) -> T {
        eventually(&format!("{name} has a number\n{}", self.log()), || {
            let text = self.read(name);
            // A whole line: the file may be half written.
            text.strip_suffix('\n')?.parse().ok()
        })
    }

    pub fn log(&self) -> String {
        self.read("logs/daemon.log")
    }

    pub fn logged(&self, words: &str) {
        eventually(&format!("the log says {words:?}"), || {
            self.log().contains(words).then_some(())
        });
    }

    /// Starts the daemon in the cgroup that was made for it.
    pub fn daemon(&self) -> Daemon<'_> {
        let mut command = self.enter("exec \"$BINARY\" run");
        let child = command.spawn().expect("the daemon starts");
        let pid = child.id().cast_signed();
        self.up(child, pid)
    }

    /// Starts it as the first process of a container with a cgroup namespace.
    pub fn container(&self) -> Daemon<'_> {
        let mut command = self.command("unshare");
        let inside = "echo 0 > \"$CGROUP/cgroup.procs\" && exec unshare --cgroup sh -c \
                      'umount \"$TREE\" && mount -t cgroup2 none \"$TREE\" && exec \"$BINARY\" run'";
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", inside]);
        let child = command.spawn().expect("the container starts");
        let pid = eventually("the daemon has its place", || {
            numbers(&self.cgroup.join("supervisor")).first().copied()
        });
        self.up(child, pid)
    }

    fn up(&self, child: Child, pid: i32) -> Daemon<'_> {
        let daemon = Daemon {
            world: self,
            child,
            pid,
        };
        eventually(&format!("the daemon is up\n{}", self.log()), || {
            let mut status = self.command(env!("CARGO_BIN_EXE_eternal"));
            let status = status.arg("status").output().expect("it runs");
            status.status.success().then_some(())
        });
        daemon
    }

    /// Runs a daemon that is to end by itself: its exit code, and what it said.
    pub fn run_to_its_end(&self) -> (Option<i32>, String) {
        self.to_its_end("timeout 20 \"$BINARY\" run")
    }

    /// Runs a command to its end, in our cgroup and with no shell beside it.
    pub fn to_its_end(&self, line: &str) -> (Option<i32>, String) {
        let mut command = self.enter(&format!("exec {line}"));
        let output = command.stderr(Stdio::piped()).output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn enter(&self, then: &str) -> Command {
        let mut command = self.command("sh");
        let script = format!("echo 0 > \"$CGROUP/cgroup.procs\" && {then}");
        command.args(["-c", &script]);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env("BINARY", env!("CARGO_BIN_EXE_eternal"))
            .env("CGROUP", &self.cgroup)
            .env("TREE", &self.mount)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("ETERNAL_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Daemon<'_> {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn kill_process(&self, pid: i32) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
    }

    /// Stops it, and waits until it is gone.
    pub fn stops(mut self) {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).expect("it is there");
        let world = self.world;
        let status = eventually("the daemon ends", || {
            self.child.try_wait().expect("a child")
        });
        assert_eq!(status.code(), Some(0), "{}", world.log());
    }

    pub fn dies(mut self) {
        self.kill_process(self.pid);
        self.child.wait().expect("a child");
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whatever a failed test left goes with its cgroup.
impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup("cgroup.kill"), "1");
        eventually("the cgroup is empty", || {
            let events = fs::read_to_string(self.cgroup("cgroup.events")).unwrap_or_default();
            (!events.contains("populated 1")).then_some(())
        });
        for directory in below(&self.cgroup).iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Every cgroup below, parents before children.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.push(entry.path());
            found.extend(below(&entry.path()));
        }
    }
    found
}

fn numbers(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Tells whether a process lives; a zombie does not.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(
        |stat| !matches!(stat.rsplit_once(") "), Some((_, rest)) if rest.starts_with(['Z', 'X'])),
    )
}

/// Looks until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
