//! What the tests share: a table of children for one test at a time.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eternal::os::children::{Children, Launch, News, Prepared, Stdio};
use eternal::supervision::{Id, Run, SpawnFailure, WaitStatus};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// Long enough for a busy machine; only a failing test takes it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Orphans come to the process, not to a thread: only one test at a time can have some.
static ALONE: Mutex<()> = Mutex::new(());

/// Tests so far: each has a token of its own, so that no leftover is taken for a relative.
static TESTS: AtomicU64 = AtomicU64::new(0);

pub struct World {
    pub marker: String,
    pub children: Children,
    /// Orphans that were reaped.
    pub orphans: HashMap<i32, WaitStatus>,
    runs: u64,
    /// News that came while a birth was waited for.
    kept: VecDeque<News>,
    directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A process under test, and its standard output.
pub struct Started {
    pub run: Run,
    pub pid: i32,
    output: BufReader<pipe::Receiver>,
}

/// Runs a test on a runtime of its own, and ends everything that it leaves.
pub fn within(test: impl AsyncFnOnce(&mut World)) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let marker = format!("test-{}", TESTS.fetch_add(1, Ordering::Relaxed));
        let mut world = World {
            children: Children::new(&marker, Instant::now).expect("a table"),
            marker,
            orphans: HashMap::new(),
            runs: 0,
            kept: VecDeque::new(),
            directory: tempfile::tempdir().expect("a directory"),
            _alone: alone,
        };
        tokio::time::timeout(DEADLINE * 3, test(&mut world))
            .await
            .expect("the test ends");
        world.everything_ends().await;
    });
}

impl World {
    pub fn directory(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("a directory")
    }

    pub fn launch(&self, argv: &[&str]) -> Launch {
        Launch {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            working_directory: self.directory(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            user: None,
            group: None,
            umask: 0o022,
            nice: None,
            oom_score_adj: None,
            limits: Vec::new(),
            family: true,
            cgroup: None,
        }
    }

    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    pub fn shell(&mut self, script: &str) -> Started {
        self.start(&self.launch(&["/bin/sh", "-c", script]))
            .expect("the shell starts")
    }

    pub fn start(&mut self, launch: &Launch) -> Result<Started, SpawnFailure> {
        let (ours, theirs) = std::io::pipe().expect("a pipe");
        self.runs += 1;
        let run = Run(self.runs);
        let stderr = std::io::stderr();
        let stdio = Stdio {
            stdout: theirs.into(),
            stderr: std::os::fd::AsFd::as_fd(&stderr)
                .try_clone_to_owned()
                .expect("a descriptor"),
        };
        self.begin(run, launch, stdio)?;
        let pid = self.born(run)?;
        let output = pipe::Receiver::from_owned_fd(ours.into()).expect("a pipe");
        Ok(Started {
            run,
            pid,
            output: BufReader::new(output),
        })
    }

    /// Begins a run that says nothing to anybody, and waits for nothing.
    pub fn begin_silently(&mut self, launch: &Launch) -> Result<Run, SpawnFailure> {
        self.runs += 1;
        let run = Run(self.runs);
        let null = || {
            let null = fs::File::options().write(true).open("/dev/null");
            null.expect("it is everywhere").into()
        };
        let (stdout, stderr) = (null(), null());
        self.begin(run, launch, Stdio { stdout, stderr })?;
        Ok(run)
    }

    /// Waits for the end of one run among others.
    pub async fn exit_of(&mut self, wanted: Run) -> (WaitStatus, bool) {
        loop {
            if let News::Exited {
                run,
                status,
                family,
                ..
            } = self.news().await
                && run == wanted
            {
                return (status, family);
            }
        }
    }

    /// Begins a run, and waits for nothing.
    pub fn begin(&mut self, run: Run, launch: &Launch, stdio: Stdio) -> Result<(), SpawnFailure> {
        let mark = self.children.mark(Id(1), run);
        let prepared = Prepared::new(launch.clone(), &mark)?;
        self.children.begin((Id(1), run), Arc::new(prepared), stdio)
    }

    /// Waits until it is known what became of a birth; what else happens is kept.
    fn born(&mut self, wanted: Run) -> Result<i32, SpawnFailure> {
        let end = Instant::now() + DEADLINE;
        loop {
            self.children.look();
            while let Some(news) = self.children.drain() {
                match news {
                    News::Spawned { run, pid, .. } if run == wanted => return Ok(pid),
                    News::SpawnFailed { run, failure, .. } if run == wanted => return Err(failure),
                    other @ (News::Spawned { .. }
                    | News::SpawnFailed { .. }
                    | News::Exited { .. }
                    | News::FamilyGone { .. }
                    | News::LeftAlone { .. }
                    | News::OrphanReaped { .. }) => self.kept.push_back(other),
                }
            }
            assert!(Instant::now() < end, "it is never known what became of it");
            std::thread::yield_now();
        }
    }

    /// Waits for the next news, keeping those of orphans.
    pub async fn news(&mut self) -> News {
        let news = match self.kept.pop_front() {
            Some(kept) => kept,
            None => {
                let deadline = tokio::time::timeout(DEADLINE, self.children.next());
                deadline.await.expect("news in time")
            }
        };
        if let News::OrphanReaped { pid, status } = news {
            let before = self.orphans.insert(pid, status);
            assert_eq!(before, None, "an orphan was reaped twice");
        }
        news
    }

    /// Waits until the main process of a run has ended; tells whether a family remains.
    pub async fn exit(&mut self, wanted: Run) -> (WaitStatus, bool) {
        loop {
            if let News::Exited {
                run,
                status,
                family,
                ..
            } = self.news().await
            {
                assert_eq!(run, wanted, "news of another run");
                return (status, family);
            }
        }
    }

    pub async fn family_gone(&mut self, wanted: Run) {
        loop {
            match self.news().await {
                News::FamilyGone { run, .. } => return assert_eq!(run, wanted),
                News::Exited { run, .. } => panic!("{run:?} ended twice"),
                News::LeftAlone { .. } | News::OrphanReaped { .. } => {}
                news @ (News::Spawned { .. } | News::SpawnFailed { .. }) => {
                    panic!("nothing was begun: {news:?}")
                }
            }
        }
    }

    /// Waits until a run and its family are gone.
    pub async fn finish(&mut self, run: Run) -> (WaitStatus, bool) {
        let (status, family) = self.exit(run).await;
        if family {
            self.family_gone(run).await;
        }
        (status, family)
    }

    pub async fn orphan(&mut self, pid: i32) -> WaitStatus {
        while !self.orphans.contains_key(&pid) {
            self.news().await;
        }
        self.orphans[&pid]
    }

    pub async fn everything_ends(&mut self) {
        for run in 1..=self.runs {
            self.children.kill(Run(run));
        }
        while !self.children.is_empty() {
            self.news().await;
        }
    }
}

impl Started {
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.output.read_line(&mut line));
        read.await
            .expect("a line in time")
            .expect("a readable pipe");
        line.trim_end().to_owned()
    }

    pub async fn number(&mut self) -> i32 {
        let line = self.line().await;
        line.parse()
            .unwrap_or_else(|_| panic!("not a number: {line:?}"))
    }
}

pub fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("a living process");
}

/// Tells whether a process exists and is not a zombie.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').expect("a name").1.starts_with(" Z"))
}

/// Returns a field of /proc/PID/stat, counted from 1 as in the manual.
pub fn stat(pid: i32, field: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let rest = stat.rsplit_once(')').expect("a name").1;
    rest.split_whitespace()
        .nth(field - 3)
        .expect("a field")
        .to_owned()
}

pub fn group_and_session(pid: i32) -> (i32, i32) {
    let field = |number| stat(pid, number).parse().expect("a number");
    (field(5), field(6))
}

/// Returns a field of /proc/PID/status.
pub fn status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field").trim().to_owned()
}

/// Waits until the kernel shows a process in this state: there is no event for it.
pub async fn wait_for_state(pid: i32, state: &str) {
    let reached = async {
        while stat(pid, 3) != state {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, reached)
        .await
        .expect("the state in time");
}

/// Waits until the kernel has finished the execution of a program: it lets us go on as soon as the
/// program cannot fail to start, which is before its environment can be read.
pub async fn executed(pid: i32) {
    let finished = async {
        while fs::read(format!("/proc/{pid}/environ"))
            .expect("a process")
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, finished)
        .await
        .expect("an environment in time");
}

/// Returns the children of this process that are no zombies, adopted ones included.
pub fn living_children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").expect("tasks");
    let lists = tasks.map(|task| {
        let list = task.expect("a task").path().join("children");
        // A thread of another test may end meanwhile.
        fs::read_to_string(list).unwrap_or_default()
    });
    let pids = lists.flat_map(|list| {
        let numbers: Vec<i32> = list.split_whitespace().flat_map(str::parse).collect();
        numbers
    });
    pids.filter(|&pid| alive(pid)).collect()
}
