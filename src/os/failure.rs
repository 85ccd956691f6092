//! Why a start failed, in words: operation, object, cause.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::launch::{Launch, Prepared};
use super::newborn::Report;
use super::spawn::{Obstacle, Step};
use crate::supervision::{FailureKind, SpawnFailure};

/// Builds the failure of an operation that the kernel refused.
pub(super) fn from_errno(kind: FailureKind, errno: Errno, operation: String) -> SpawnFailure {
    let transient = matches!(
        errno,
        Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE
    );
    SpawnFailure {
        kind: if transient { FailureKind::Limits } else { kind },
        transient,
        message: format!("{operation}: {}", cause(errno)),
    }
}

/// Explains what stopped a new process before it became the program.
pub(super) fn explain(obstacle: &Obstacle, prepared: &Prepared) -> SpawnFailure {
    let launch = &prepared.launch;
    let errno = obstacle.errno;
    let (kind, operation) = match obstacle.step {
        Step::Clone => (
            FailureKind::Permission,
            format!("cannot start a process for {}", command(launch)),
        ),
        Step::Cgroup => (
            FailureKind::Permission,
            format!("cannot start {} in its cgroup", command(launch)),
        ),
        Step::Session => (FailureKind::Permission, "cannot make a session".to_owned()),
        Step::Stdio => (
            FailureKind::Limits,
            "cannot set up standard input and output".to_owned(),
        ),
        Step::Limit => (FailureKind::Permission, limit(obstacle.detail, prepared)),
        Step::Nice => (
            FailureKind::Permission,
            format!("cannot set nice to {}", launch.nice.unwrap_or_default()),
        ),
        Step::OomScore => (
            FailureKind::Permission,
            format!(
                "cannot set oom_score_adj to {}",
                launch.oom_score_adj.unwrap_or_default()
            ),
        ),
        Step::Credentials => return credentials(errno, launch),
        Step::Privileges => (
            FailureKind::Permission,
            "cannot drop the daemon's capabilities".to_owned(),
        ),
        Step::Unchanged => {
            let message = format!(
                "cannot switch to {}: the kernel left it as it was",
                target(launch)
            );
            return SpawnFailure {
                kind: FailureKind::Permission,
                transient: false,
                message,
            };
        }
        Step::Directory => (
            FailureKind::Directory,
            format!(
                "cannot enter working directory {}",
                launch.working_directory.display()
            ),
        ),
        Step::Execute => return execute(obstacle, prepared),
    };
    let mut failure = from_errno(kind, errno, operation);
    if let Some(lacking) = lacking(obstacle, prepared) {
        failure.message.push_str(&lacking);
    }
    failure
}

/// Says what a newborn process is doing that takes so long.
pub(super) fn whereabouts(report: &Report, prepared: &Prepared) -> String {
    let launch = &prepared.launch;
    match report.step {
        _ if report.began == 0 => "its process does not run (a frozen cgroup?)".to_owned(),
        Step::Cgroup => "joining its cgroup".to_owned(),
        Step::Credentials | Step::Privileges | Step::Unchanged => {
            format!("switching to {}", target(launch))
        }
        Step::Directory => format!("working directory {}", launch.working_directory.display()),
        Step::Execute => {
            let path = prepared.candidates.get(report.detail);
            let path = path.map(|path| without_arguments(&path.to_string_lossy()));
            format!("executing {}", path.unwrap_or_else(|| command(launch)))
        }
        Step::Clone | Step::Session | Step::Stdio | Step::Limit | Step::Nice | Step::OomScore => {
            "setting up its process".to_owned()
        }
    }
}

/// Says what it takes to do what was refused, where that is known.
fn lacking(obstacle: &Obstacle, prepared: &Prepared) -> Option<String> {
    let (Errno::EPERM | Errno::EACCES) = obstacle.errno else {
        return None;
    };
    let needs = match obstacle.step {
        Step::Limit => match beyond_every_limit(obstacle.detail, prepared) {
            Some(most) => format!("the machine's fs.nr_open is {most}"),
            None => "more than the daemon's own hard limit needs CAP_SYS_RESOURCE".to_owned(),
        },
        Step::OomScore => "to lower it needs CAP_SYS_RESOURCE".to_owned(),
        Step::Nice => "to lower it needs CAP_SYS_NICE".to_owned(),
        Step::Clone
        | Step::Cgroup
        | Step::Session
        | Step::Stdio
        | Step::Credentials
        | Step::Privileges
        | Step::Unchanged
        | Step::Directory
        | Step::Execute => return None,
    };
    Some(format!(" ({:?}; {needs})", obstacle.errno))
}

/// Returns the most descriptors that anybody may have, if this limit is above that.
fn beyond_every_limit(index: usize, prepared: &Prepared) -> Option<u64> {
    let setting = prepared.limits.get(index)?;
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    let most = most.trim().parse().ok()?;
    (setting.resource.name() == "nofile" && setting.value.rlim_max > most).then_some(most)
}

fn command(launch: &Launch) -> String {
    without_arguments(launch.argv.first().map_or("", String::as_str))
}

/// A whole shell line in the first word of a command is mostly arguments, and those are not shown.
fn without_arguments(command: &str) -> String {
    match command.split_whitespace().next() {
        Some(first) if first.len() < command.len() => format!("\"{first} …\""),
        _ => command.to_owned(),
    }
}

fn limit(index: usize, prepared: &Prepared) -> String {
    let Some(setting) = prepared.limits.get(index) else {
        return "cannot set a limit".to_owned();
    };
    let name = setting.resource.name();
    let number = |value| match value {
        libc::RLIM64_INFINITY => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let (soft, hard) = (
        number(setting.value.rlim_cur),
        number(setting.value.rlim_max),
    );
    if soft == hard {
        format!("cannot set limit {name} to {soft}")
    } else {
        format!("cannot set limit {name} to {soft} (hard {hard})")
    }
}

fn target(launch: &Launch) -> String {
    match (&launch.user, &launch.group) {
        (Some(user), _) => format!("user {user}"),
        (None, group) => format!("group {}", group.as_deref().unwrap_or_default()),
    }
}

fn credentials(errno: Errno, launch: &Launch) -> SpawnFailure {
    let mut failure = from_errno(
        FailureKind::Permission,
        errno,
        format!("cannot switch to {}", target(launch)),
    );
    if errno == Errno::EPERM {
        let uid = nix::unistd::geteuid();
        failure
            .message
            .push_str(&format!(" (the daemon runs as uid {uid})"));
    }
    failure
}

fn execute(obstacle: &Obstacle, prepared: &Prepared) -> SpawnFailure {
    let launch = &prepared.launch;
    let operation = format!("cannot execute {}", command(launch));
    let command = launch.argv.first().map_or("", String::as_str);
    let errno = obstacle.errno;
    let refuse = |kind, cause: String| SpawnFailure {
        kind,
        transient: false,
        message: format!("{operation}: {cause}"),
    };
    let resolved = |path: &CString| {
        launch
            .working_directory
            .join(Path::new(OsStr::from_bytes(path.to_bytes())))
    };
    let tried = prepared
        .candidates
        .get(obstacle.detail)
        .map(&resolved)
        .unwrap_or_default();
    if errno == Errno::EACCES && tried.is_dir() {
        return refuse(FailureKind::Exec, "is a directory".to_owned());
    }
    if errno == Errno::EACCES && not_executable(&tried) {
        return refuse(
            FailureKind::Permission,
            format!("{} (not executable)", cause(errno)),
        );
    }
    if matches!(errno, Errno::ENOENT | Errno::EACCES) && command.contains(char::is_whitespace) {
        let cause = format!(
            "{}; each word of `command` is an element of its own, and there is no shell",
            cause(errno)
        );
        return refuse(FailureKind::Exec, cause);
    }
    if errno == Errno::ENOEXEC {
        let cause = format!(
            "{}: neither a program of this machine nor a script with a #! line",
            cause(errno)
        );
        return refuse(FailureKind::Exec, cause);
    }
    if errno == Errno::ENOENT {
        if let Some(present) = prepared
            .candidates
            .iter()
            .map(resolved)
            .find(|path| path.is_file())
        {
            return refuse(FailureKind::Exec, missing_interpreter(&present));
        }
        if !command.contains('/') {
            // Which directories those are is a value of the environment, and the message goes round.
            return refuse(FailureKind::Exec, "no such file in its PATH".to_owned());
        }
    }
    let refused = matches!(errno, Errno::EACCES | Errno::EPERM);
    let kind = if refused {
        FailureKind::Permission
    } else {
        FailureKind::Exec
    };
    from_errno(kind, errno, operation)
}

fn not_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 == 0)
}

/// The file is there and the kernel says it is not: what it needs to run is missing.
fn missing_interpreter(path: &PathBuf) -> String {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(256).read_to_end(&mut head));
    let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let script = String::from_utf8_lossy(first);
    match script
        .strip_prefix("#!")
        .and_then(|rest| rest.split_whitespace().next())
    {
        Some(interpreter) if read.is_ok() => {
            format!("its interpreter {interpreter} does not exist")
        }
        _ => "its dynamic loader does not exist (it was built for another system)".to_owned(),
    }
}

/// The kernel's words, so that they fit after a colon.
fn cause(errno: Errno) -> String {
    let description = io::Error::from(errno).to_string();
    let description = description.split(" (os error").next().unwrap_or_default();
    let mut letters = description.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
