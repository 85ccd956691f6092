//! Whether a cgroup is ours to arrange.
//!
//! Being root is not enough: a session or a service that somebody else manages also lets us write.
//! A cgroup is ours when all of this holds:
//! - nobody else is in it but an `eternal start` that waits for us, and no other daemon of ours is below it;
//! - who manages the tree has handed it over. systemd says so itself: it marks every unit's cgroup
//!   (`trusted.invocation_id`, `user.invocation_id`) and, with `Delegate=`, adds `trusted.delegate`
//!   or `user.delegate`. The nearest mark from our cgroup upwards decides. Where there is no mark,
//!   somebody made this cgroup for us alone: a container's own, or one made by hand;
//! - the root of the whole tree is ours only as the first process of the machine.
#![expect(unsafe_code, reason = "extended attributes are in neither std nor nix")]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::place::Place;
use super::{SUPERVISOR, files};

/// The process id namespace that the kernel starts with.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Where we may make cgroups, and whether we are in our place of it already.
pub(super) struct Owned {
    pub(super) base: Place,
    pub(super) settled: bool,
    /// `eternal start`, which waits for us there, and has to move as well.
    pub(super) starter: Option<i32>,
}

/// Finds the cgroup that is ours, or says why there is none.
pub(super) fn find(own: Place) -> Result<Owned, String> {
    let ours = Ours {
        pid: std::process::id().cast_signed(),
        starter: starter(),
    };
    // Put there by `DelegateSubgroup=supervisor`, or by an earlier start from inside.
    if own.path.file_name().is_some_and(|name| name == SUPERVISOR)
        && let Some(base) = own.parent()
        && is_ours(&base, &own, &ours).is_ok()
    {
        return Ok(Owned {
            base,
            settled: true,
            starter: None,
        });
    }
    is_ours(&own, &own.child(SUPERVISOR), &ours)?;
    let starter = ours
        .starter
        .filter(|pid| files::members(&own.directory).contains(pid));
    Ok(Owned {
        base: own,
        settled: false,
        starter,
    })
}

/// The processes that may be in a cgroup of ours.
struct Ours {
    pid: i32,
    starter: Option<i32>,
}

impl Ours {
    fn has(&self, pid: i32) -> bool {
        pid == self.pid || Some(pid) == self.starter
    }
}

/// Finds the `eternal start` that waits for us: our parent, if it is the same program.
fn starter() -> Option<i32> {
    let parent = nix::unistd::getppid().as_raw();
    let ours = fs::read_link("/proc/self/exe").ok()?;
    let theirs = fs::read_link(format!("/proc/{parent}/exe")).ok()?;
    (theirs == ours).then_some(parent)
}

/// Tells why `base` is not ours to arrange, with `supervisor` for our own place in it.
fn is_ours(base: &Place, supervisor: &Place, ours: &Ours) -> Result<(), String> {
    let name = base.path.display();
    if base.is_root() {
        return if super::super::is_pid_1() && is_first_namespace() {
            Ok(())
        } else {
            Err(format!(
                "the daemon is in {name}, the root of the tree of cgroups, which is nobody's"
            ))
        };
    }
    let kind = files::read(&base.directory, "cgroup.type").unwrap_or_default();
    if kind.trim() != "domain" {
        return Err(format!("{name} is a {} cgroup", kind.trim()));
    }
    if let Some(manager) = nearest_mark(base)
        && !manager.delegates
    {
        return Err(format!(
            "{} is managed by systemd, without Delegate=yes",
            manager.path
        ));
    }
    let mut others = files::members(&base.directory)
        .into_iter()
        .chain(files::members(&supervisor.directory));
    match others.find(|pid| !ours.has(*pid)) {
        Some(0) => Err(format!(
            "{name} also holds processes that are not seen here"
        )),
        Some(pid) => Err(format!("{name} also holds process {pid}{}", called(pid))),
        None => Ok(()),
    }
}

fn is_first_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name == Path::new(FIRST_NAMESPACE))
}

fn called(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| String::new(), |name| format!(" ({})", name.trim_end()))
}

/// What systemd says of a cgroup.
struct Mark {
    path: String,
    delegates: bool,
}

/// Finds the nearest cgroup, upwards and below the root, that systemd has marked.
fn nearest_mark(of: &Place) -> Option<Mark> {
    let mut at = Some(of.clone());
    while let Some(place) = at.take_if(|place| !place.is_root()) {
        let has = |names: [&CStr; 2]| {
            names
                .iter()
                .any(|name| has_attribute(&place.directory, name))
        };
        let delegates = has([c"trusted.delegate", c"user.delegate"]);
        if delegates || has([c"trusted.invocation_id", c"user.invocation_id"]) {
            return Some(Mark {
                path: place.path.display().to_string(),
                delegates,
            });
        }
        at = place
            .parent()
            .filter(|parent| parent.directory.join("cgroup.procs").exists());
    }
    None
}

fn has_attribute(directory: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: two C strings go in; with no buffer the kernel only tells how long the value is.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    length >= 0
}
