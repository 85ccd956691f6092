//! Linux: processes, signals, files and sockets, with decisions left to others. The only room with
//! `unsafe`.

/// A new process becomes its user.
mod become_user;
#[cfg(not(target_pointer_width = "64"))]
compile_error!("the system calls made by hand here are those of 64-bit Linux");

/// One cgroup for each replica, where the machine has given us a part of its tree.
pub mod cgroups;
/// The table of running programs: start, stop, kill, and the news of their ends.
pub mod children;
/// A process that begins its life in a cgroup.
mod clone3;
/// Stacks for newborn processes.
mod cradle;
/// What the environments of other processes say.
mod environ;
/// The pidfds of the running programs, waited for together.
mod exits;
/// Why a start failed, in words.
mod failure;
/// Who descends from whom.
mod family;
/// Who holds a lock.
mod holders;
pub mod identity;
pub mod installation;
pub mod journal;
/// What a program needs to be started.
pub mod launch;
/// Resource limits, by name.
pub mod limits;
pub mod logs;
pub mod memory;
/// Names of hosts.
mod names;
/// The child's side of a spawn: nothing but system calls.
mod newborn;
pub mod notify;
pub mod pid_file;
/// Processes by descriptor instead of by number.
mod pidfd;
pub mod places;
pub mod probe;
pub mod procfs;
/// System calls by hand.
mod raw;
pub mod rehearsal;
/// The terminal, the journal and the background.
pub mod session;
/// The signals that the daemon itself obeys.
pub mod signals;
/// From a launch to a running process.
mod spawn;
pub mod state_dir;
pub mod survivors;
/// Threads whose end somebody notices.
pub mod threads;
/// Users and groups.
mod users;

pub use limits::raise_nofile;

/// Tells whether this process is the init of its pid namespace, as in a container.
#[must_use]
pub fn is_pid_1() -> bool {
    std::process::id() == 1
}
