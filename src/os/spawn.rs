//! From a launch to a running process.
//!
//! `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` on a stack of our own: no page table is copied, so
//! a restart takes the same time however large the daemon is, and the daemon knows at once whether
//! the program could be executed. The price: until it executes the program the child lives *in our
//! memory*, so it may do nothing but raw system calls. Everything else is done before.
#![expect(
    unsafe_code,
    reason = "clone, and raw system calls between clone and execve"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::clone3;
use super::launch::{Launch, Prepared};
use super::newborn::{MASK_SIZE, Plan, Report, child};
use super::pidfd;

/// What a new process was doing when it failed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Clone,
    Cgroup,
    Session,
    Stdio,
    Limit,
    Nice,
    OomScore,
    Credentials,
    Privileges,
    /// It was told that it has switched, and has not.
    Unchanged,
    Directory,
    Execute,
}

/// Why a new process did not become the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) step: Step,
    /// Which limit, or which of the paths to execute.
    pub(super) detail: usize,
    pub(super) errno: Errno,
}

impl Obstacle {
    fn clone(errno: Errno) -> Self {
        Self {
            step: Step::Clone,
            detail: 0,
            errno,
        }
    }

    fn cgroup(errno: Errno) -> Self {
        Self {
            step: Step::Cgroup,
            ..Self::clone(errno)
        }
    }
}

/// How to make a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In our memory, with us suspended until it executes: fast.
    Shared,
    /// In a copy of our memory: where the first is refused (sandboxes, emulators).
    Copied,
}

/// The streams of a new process.
pub(super) struct Streams<'fd> {
    pub(super) stdin: BorrowedFd<'fd>,
    pub(super) stdout: BorrowedFd<'fd>,
    pub(super) stderr: BorrowedFd<'fd>,
}

/// Makes processes. Holds the stack they start on, used by one at a time.
#[derive(Debug)]
pub(super) struct Spawner {
    stack: Mapping,
    /// A page that even a copied child shares with us.
    report: Mapping,
    pub(super) way: Way,
    /// The kernel makes processes right in a cgroup; else they move there themselves.
    pub(super) born_inside: bool,
}

const STACK: usize = 128 * 1024;
const PAGE: usize = 64 * 1024; // no machine has larger ones

impl Spawner {
    pub(super) fn new() -> Result<Self, Errno> {
        let stack = Mapping::new(PAGE + STACK, libc::MAP_PRIVATE | libc::MAP_STACK)?;
        // SAFETY: the range is ours: the lowest page of the mapping, made a guard.
        Errno::result(unsafe { libc::mprotect(stack.base, PAGE, libc::PROT_NONE) })?;
        let report = Mapping::new(PAGE, libc::MAP_SHARED)?;
        Ok(Self {
            stack,
            report,
            way: Way::Shared,
            born_inside: clone3::IS_HERE,
        })
    }

    /// Starts the program, in a cgroup if there is one (its directory): its number and a
    /// descriptor for it.
    ///
    /// Falls back to a copied process for good where sharing is refused, and says so once.
    pub(super) fn spawn(
        &mut self,
        launch: &Launch,
        prepared: &Prepared,
        streams: &Streams<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(i32, OwnedFd), Obstacle> {
        let first = self.spawn_by(self.way, launch, prepared, streams, cgroup);
        match first {
            Err(Obstacle {
                step: Step::Clone,
                errno: Errno::EINVAL | Errno::ENOSYS | Errno::EPERM,
                ..
            }) if self.way == Way::Shared => {
                self.way = Way::Copied;
                tracing::warn!("cannot make processes that share memory: starts will be slower");
                self.spawn_by(self.way, launch, prepared, streams, cgroup)
            }
            other => other,
        }
    }

    fn spawn_by(
        &mut self,
        way: Way,
        launch: &Launch,
        prepared: &Prepared,
        streams: &Streams<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(i32, OwnedFd), Obstacle> {
        let stdio = Raised::new(streams).map_err(Obstacle::clone)?;
        let inside = cgroup.filter(|_| self.born_inside && way == Way::Shared);
        let door = match cgroup {
            Some(directory) if inside.is_none() => {
                Some(membership(directory).map_err(Obstacle::cgroup)?)
            }
            Some(_) | None => None,
        };
        let argv = pointers(&prepared.argv);
        let environment = pointers(&prepared.environment);
        let candidates = pointers(&prepared.candidates);
        let null = ptr::null();
        let report: *mut Report = self.report.base.cast();
        let plan = Plan {
            argv: argv.as_ptr(),
            environment: environment.as_ptr(),
            candidates: candidates.as_ptr(),
            directory: prepared.directory.as_ptr(),
            stdio: stdio.numbers(),
            limits: prepared.limits.as_ptr(),
            limit_count: prepared.limits.len(),
            nice: launch.nice.as_ref().map_or(null, ptr::from_ref),
            oom: prepared
                .oom_score_adj
                .as_ref()
                .map_or(null.cast(), |text| text.as_ptr()),
            oom_length: prepared
                .oom_score_adj
                .as_ref()
                .map_or(0, |text| text.count_bytes()),
            umask: launch.umask,
            credentials: prepared
                .identity
                .credentials
                .as_ref()
                .map_or(null.cast(), ptr::from_ref),
            cgroup: door.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            report,
        };
        // SAFETY: the page is ours, aligned, and no process writes to it at this moment.
        unsafe {
            report.write(Report {
                began: 0,
                failed: 0,
                step: Step::Clone,
                detail: 0,
                errno: 0,
            })
        };
        let cloned = match (way, inside) {
            (Way::Shared, Some(directory)) => match self.clone_inside(&plan, directory) {
                // No clone3 here (an old kernel, a sandbox): from here on the other way.
                Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM | Errno::E2BIG) => {
                    self.born_inside = false;
                    return self.spawn_by(way, launch, prepared, streams, cgroup);
                }
                // The machine is short of something, or so is the cgroup: its `pids.max`.
                Err(errno @ (Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)) => {
                    Err(Obstacle::clone(errno))
                }
                other => other.map_err(Obstacle::cgroup),
            },
            (Way::Shared, None) => self.clone_shared(&plan).map_err(Obstacle::clone),
            (Way::Copied, _) => self.clone_copied(&plan).map_err(Obstacle::clone),
        };
        let (pid, pidfd) = cloned?;
        // SAFETY: the child has executed the program or ended: it no longer writes here.
        let report = unsafe { report.read_volatile() };
        if report.began == 0 && inside.is_some() {
            pidfd::reap_soon(pidfd.as_fd());
            return self.spawn_walking(launch, prepared, streams, cgroup);
        }
        if report.failed == 0 {
            return Ok((pid, pidfd));
        }
        pidfd::reap_soon(pidfd.as_fd());
        let errno = Errno::from_raw(report.errno);
        Err(Obstacle {
            step: report.step,
            detail: report.detail,
            errno,
        })
    }

    /// Has the child move itself to its cgroup.
    ///
    /// Kernels since 6.14, and older ones with the same change, compare how often the cgroups of
    /// parent and child were killed through `cgroup.kill`, and kill a child that is born into one
    /// that was killed more often: one kill, and nobody could be born there any more.
    fn spawn_walking(
        &mut self,
        launch: &Launch,
        prepared: &Prepared,
        streams: &Streams<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(i32, OwnedFd), Obstacle> {
        let born_inside = std::mem::replace(&mut self.born_inside, false);
        let born = self.spawn_by(self.way, launch, prepared, streams, cgroup);
        self.born_inside = born_inside;
        born
    }

    fn clone_shared(&mut self, plan: &Plan) -> Result<(i32, OwnedFd), Errno> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
        let mut fd: RawFd = -1;
        let pid = self.clone(plan, flags, &raw mut fd)?;
        // SAFETY: a successful clone has put a descriptor there that is ours alone.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn clone_inside(
        &mut self,
        plan: &Plan,
        cgroup: BorrowedFd<'_>,
    ) -> Result<(i32, OwnedFd), Errno> {
        let mut fd: RawFd = -1;
        let plan: *const Plan = plan;
        // SAFETY: `stack` is a live mapping of PAGE + STACK bytes, the first PAGE a guard.
        let stack = unsafe { self.stack.base.byte_add(PAGE) };
        let all = Blocked::new();
        // SAFETY: as for `clone`: the stack is for this child alone, we are suspended until it has
        // executed the program or ended, and `plan` outlives that.
        let pid = unsafe {
            clone3::into_cgroup(clone3::Newborn {
                stack: (stack, STACK),
                pidfd: &raw mut fd,
                cgroup,
                plan: plan.cast_mut().cast(),
            })
        };
        drop(all);
        // SAFETY: a successful clone has put a descriptor there that is ours alone.
        pid.map(|pid| (pid, unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The end of a pipe says when the child has executed the program or ended.
    fn clone_copied(&mut self, plan: &Plan) -> Result<(i32, OwnedFd), Errno> {
        let (done, held) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let pid = self.clone(plan, 0, ptr::null_mut())?;
        drop(held);
        while nix::unistd::read(&done, &mut [0]) == Err(Errno::EINTR) {}
        // The child is unreaped, so that its number still means it.
        pidfd::open(pid).map(|fd| (pid, fd)).inspect_err(|_| {
            // SAFETY: a signal to our own unreaped child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        })
    }

    fn clone(&mut self, plan: &Plan, flags: c_int, pidfd: *mut RawFd) -> Result<i32, Errno> {
        let plan: *const Plan = plan;
        // SAFETY: `stack` is a live mapping of PAGE + STACK bytes, so this is its end, 16-aligned.
        let top = unsafe { self.stack.base.byte_add(PAGE + STACK) };
        let all = Blocked::new();
        // SAFETY: `child` runs on a stack of its own that nothing else uses, since `self` is
        // borrowed mutably and we are suspended (or it has a copy of it). It only reads `plan`,
        // which outlives that time, and makes system calls. Signals are blocked, so that no
        // handler of ours runs in it.
        let pid = unsafe {
            libc::clone(
                child,
                top,
                flags | libc::SIGCHLD,
                plan.cast_mut().cast(),
                pidfd,
            )
        };
        let result = Errno::result(pid);
        drop(all);
        result
    }
}

/// Opens the file of a cgroup that takes its members.
fn membership(cgroup: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(cgroup, "cgroup.procs", flags, nix::sys::stat::Mode::empty())
}

/// Memory that is returned when dropped.
#[derive(Debug)]
struct Mapping {
    base: *mut c_void,
    length: usize,
}

// SAFETY: the mapping belongs to its owner alone, whichever thread that is on.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(length: usize, flags: c_int) -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: asks for fresh memory anywhere.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                access,
                flags | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(Self { base, length })
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nothing points into it any more.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// Every signal blocked, those of the C library too, until dropped.
struct Blocked(u64);

impl Blocked {
    fn new() -> Self {
        let (all, mut before) = (u64::MAX, 0_u64);
        // SAFETY: both point to masks of the size that is given.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const all,
                &raw mut before,
                MASK_SIZE,
            )
        };
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let nowhere = ptr::null_mut::<u64>();
        // SAFETY: points to a mask of the size that is given.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const self.0,
                nowhere,
                MASK_SIZE,
            )
        };
    }
}

/// Streams that do not sit on 0, 1 or 2, where putting one in place would close another.
struct Raised<'fd> {
    stdin: Stream<'fd>,
    stdout: Stream<'fd>,
    stderr: Stream<'fd>,
}

enum Stream<'fd> {
    Borrowed(BorrowedFd<'fd>),
    Moved(OwnedFd),
}

impl<'fd> Raised<'fd> {
    fn new(streams: &Streams<'fd>) -> Result<Self, Errno> {
        Ok(Self {
            stdin: Stream::raise(streams.stdin)?,
            stdout: Stream::raise(streams.stdout)?,
            stderr: Stream::raise(streams.stderr)?,
        })
    }

    fn numbers(&self) -> [RawFd; 3] {
        [
            self.stdin.number(),
            self.stdout.number(),
            self.stderr.number(),
        ]
    }
}

impl<'fd> Stream<'fd> {
    fn raise(fd: BorrowedFd<'fd>) -> Result<Self, Errno> {
        if fd.as_raw_fd() > 2 {
            return Ok(Self::Borrowed(fd));
        }
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self::Moved(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    fn number(&self) -> RawFd {
        match self {
            Self::Borrowed(fd) => fd.as_raw_fd(),
            Self::Moved(fd) => fd.as_raw_fd(),
        }
    }
}

/// An array of pointers as the kernel takes it, with a null at its end.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([ptr::null()])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::os::users::Credentials;
    use crate::supervision::WaitStatus;

    /// A cgroup below that of the test, gone with it.
    struct TestCgroup(PathBuf);

    impl TestCgroup {
        fn make() -> Option<Self> {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
            let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
            let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
            let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let directory = PathBuf::from(line.split(' ').nth(4)?)
                .join(own)
                .join(format!("eternal-spawn-{}-{number}", std::process::id()));
            std::fs::create_dir(&directory).ok()?;
            Some(Self(directory))
        }
    }

    impl Drop for TestCgroup {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).expect("nobody lives there");
        }
    }

    fn run(way: Way, command: &str) -> Result<(WaitStatus, String), Obstacle> {
        let mut spawner = Spawner::new().expect("a stack");
        let script = (command, "echo $$; exit 9");
        run_in(&mut spawner, way, script, None)
    }

    fn prepared(command: &str, script: &str) -> (Launch, Prepared) {
        let launch = Launch {
            argv: vec![command.to_owned(), "-c".to_owned(), script.to_owned()],
            working_directory: "/".into(),
            environment: Vec::new(),
            user: None,
            group: None,
            umask: 0o022,
            nice: None,
            oom_score_adj: None,
            limits: Vec::new(),
            family: true,
            cgroup: None,
        };
        let prepared = Prepared::new(&launch, "t:1:1").expect("a valid launch");
        (launch, prepared)
    }

    fn run_in(
        spawner: &mut Spawner,
        way: Way,
        (command, script): (&str, &str),
        cgroup: Option<&PathBuf>,
    ) -> Result<(WaitStatus, String), Obstacle> {
        let (launch, prepared) = prepared(command, script);
        let cgroup = cgroup.map(|path| File::open(path).expect("a directory"));
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let null = File::open("/dev/null").expect("it is everywhere");
        let (mut ours, theirs) = std::io::pipe().expect("a pipe");
        let streams = Streams {
            stdin: null.as_fd(),
            stdout: theirs.as_fd(),
            stderr: null.as_fd(),
        };
        let (pid, pidfd) = spawner.spawn_by(way, &launch, &prepared, &streams, cgroup)?;
        drop(theirs);
        let mut output = String::new();
        ours.read_to_string(&mut output).expect("text");
        if script.starts_with("echo") {
            assert_eq!(output.trim(), pid.to_string());
        }
        let ended = loop {
            if let Some(status) = pidfd::reap(pidfd.as_fd()) {
                break status;
            }
            std::thread::yield_now();
        };
        Ok((ended, output))
    }

    #[test]
    fn both_ways_make_the_same_process() {
        for way in [Way::Shared, Way::Copied] {
            let (status, _) = run(way, "/bin/sh").expect("the shell starts");
            assert_eq!(status, WaitStatus::Exited { code: 9 }, "{way:?}");
        }
    }

    #[test]
    fn every_way_puts_a_process_into_its_cgroup() {
        let Some(cgroup) = TestCgroup::make() else {
            eprintln!("SKIPPED: no writable cgroup v2 here");
            return;
        };
        for (way, inside) in [
            (Way::Shared, true),
            (Way::Shared, false),
            (Way::Copied, true),
        ] {
            let mut spawner = Spawner::new().expect("a stack");
            spawner.born_inside = inside && clone3::IS_HERE;
            let script = "cat /proc/self/cgroup";
            let output = run_in(&mut spawner, way, ("/bin/sh", script), Some(&cgroup.0));
            let (_, output) = output.expect("the shell starts");
            let name = cgroup.0.file_name().expect("a name").to_string_lossy();
            assert!(
                output.trim().ends_with(&*name),
                "{way:?}, {inside}: {output}"
            );
            assert_eq!(spawner.born_inside, inside && clone3::IS_HERE, "{way:?}");
        }
    }

    #[test]
    fn a_cgroup_that_was_killed_takes_who_comes_later() {
        let Some(cgroup) = TestCgroup::make() else {
            eprintln!("SKIPPED: no writable cgroup v2 here");
            return;
        };
        std::fs::write(cgroup.0.join("cgroup.kill"), "1").expect("a kernel since 5.14");
        let mut spawner = Spawner::new().expect("a stack");
        for _ in 0..2 {
            let script = "cat /proc/self/cgroup";
            let run = run_in(
                &mut spawner,
                Way::Shared,
                ("/bin/sh", script),
                Some(&cgroup.0),
            );
            let (status, output) = run.expect("the shell starts");
            assert_eq!(status, WaitStatus::Exited { code: 0 }, "{output}");
            let name = cgroup.0.file_name().expect("a name").to_string_lossy();
            assert!(output.trim().ends_with(&*name), "{output}");
            assert_eq!(spawner.born_inside, clone3::IS_HERE);
        }
    }

    #[test]
    fn a_cgroup_that_takes_nobody_is_told_from_other_obstacles() {
        let Some(cgroup) = TestCgroup::make() else {
            eprintln!("SKIPPED: no writable cgroup v2 here");
            return;
        };
        let open = File::open(&cgroup.0).expect("a directory");
        drop(cgroup);
        for inside in [true, false] {
            let mut spawner = Spawner::new().expect("a stack");
            spawner.born_inside = inside && clone3::IS_HERE;
            let (launch, prepared) = prepared("/bin/true", "");
            let null = File::open("/dev/null").expect("it is everywhere");
            let streams = Streams {
                stdin: null.as_fd(),
                stdout: null.as_fd(),
                stderr: null.as_fd(),
            };
            let refused = spawner.spawn(&launch, &prepared, &streams, Some(open.as_fd()));
            let obstacle = refused.expect_err("the cgroup is gone");
            assert_eq!(obstacle.step, Step::Cgroup, "{inside}: {obstacle:?}");
        }
    }

    #[test]
    fn a_process_that_did_not_become_who_it_should_executes_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can switch users");
            return;
        }
        let (unchanged, nobody) = (u32::MAX, 65_534);
        for (uid, gid) in [(unchanged, nobody), (nobody, unchanged)] {
            for way in [Way::Shared, Way::Copied] {
                let (launch, mut prepared) = prepared("/bin/true", "");
                prepared.identity.credentials = Some(Credentials {
                    uid: Some(uid),
                    gid,
                    groups: vec![nobody],
                    already: false,
                    keeps_privileges: false,
                });
                let null = File::open("/dev/null").expect("it is everywhere");
                let streams = Streams {
                    stdin: null.as_fd(),
                    stdout: null.as_fd(),
                    stderr: null.as_fd(),
                };
                let mut spawner = Spawner::new().expect("a stack");
                let refused = spawner.spawn_by(way, &launch, &prepared, &streams, None);
                let obstacle = refused.expect_err("the kernel left it as it was");
                assert_eq!(obstacle.step, Step::Unchanged, "{way:?}, {uid}, {gid}");
            }
        }
    }

    #[test]
    fn both_ways_tell_at_once_what_cannot_be_executed() {
        for way in [Way::Shared, Way::Copied] {
            let obstacle = run(way, "/no/such").expect_err("no such program");
            assert_eq!(
                (obstacle.step, obstacle.errno),
                (Step::Execute, Errno::ENOENT),
                "{way:?}"
            );
        }
    }
}
