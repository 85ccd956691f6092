//! Users and groups, looked up before a process is made: the user database may allocate, lock and
//! talk to other machines, none of which a new process may do.

mod files;

use std::ffi::{CString, OsString};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

use crate::supervision::{FailureKind, SpawnFailure};

/// Who a process is to be.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// `None`: only the group changes.
    pub(super) uid: Option<u32>,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// The daemon is that already, without being root: the other groups are out of its reach.
    pub(super) already: bool,
    /// It is root, or stays who the daemon is: it may do what the daemon may.
    pub(super) keeps_privileges: bool,
}

impl Credentials {
    fn new(uid: Option<Uid>, gid: Gid, groups: Vec<u32>) -> Self {
        let now = geteuid();
        Self {
            uid: uid.map(Uid::as_raw),
            gid: gid.as_raw(),
            groups,
            already: !now.is_root() && uid.is_none_or(|uid| uid == now) && gid == getegid(),
            keeps_privileges: uid.is_none_or(Uid::is_root),
        }
    }
}

/// What a configured user and group amount to.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// `None`: nothing is configured.
    pub(super) credentials: Option<Credentials>,
    /// HOME, USER, LOGNAME and SHELL, for an environment that is silent about them.
    pub(super) variables: Vec<(&'static str, OsString)>,
}

/// Looks up a user and a group, each by name or number.
///
/// The group defaults to the user's own; the supplementary groups are the user's.
///
/// # Errors
///
/// When one of them does not exist, cannot be looked up or has an id that no process can have.
pub(super) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Identity, SpawnFailure> {
    let group = group.map(find_group).transpose()?;
    let Some(name) = user else {
        return Ok(Identity {
            credentials: group.map(|gid| Credentials::new(None, gid, vec![gid.as_raw()])),
            variables: Vec::new(),
        });
    };
    let (uid, entry) = find_user(name)?;
    let gid = group
        .or(entry.as_ref().map(|entry| entry.gid))
        .ok_or_else(|| {
            refuse(format!(
                "user {name} is in no user database, so its group must be configured"
            ))
        })?;
    let groups = match &entry {
        Some(entry) => supplementary(entry, gid)?,
        None => vec![gid.as_raw()],
    };
    Ok(Identity {
        credentials: Some(Credentials::new(Some(uid), gid, groups)),
        variables: entry.map(variables).unwrap_or_default(),
    })
}

fn find_user(name: &str) -> Result<(Uid, Option<User>), SpawnFailure> {
    if let Some(entry) = found(user_called(name), "user", name)? {
        possible("user", name, ("uid", entry.uid.as_raw()))?;
        possible("user", name, ("gid", entry.gid.as_raw()))?;
        return Ok((entry.uid, Some(entry)));
    }
    let uid = number("user", name)?;
    possible("user", name, ("uid", uid))?;
    let uid = Uid::from_raw(uid);
    Ok((uid, found(user_with(uid), "user", name)?))
}

fn find_group(name: &str) -> Result<Gid, SpawnFailure> {
    let gid = match found(group_called(name), "group", name)? {
        Some(gid) => gid.as_raw(),
        None => number("group", name)?,
    };
    possible("group", name, ("gid", gid))?;
    Ok(Gid::from_raw(gid))
}

/// Reads an id as it is usually written: `+0` and `00` are no names, and hardly meant to be root.
fn number(what: &str, name: &str) -> Result<u32, SpawnFailure> {
    let number = name.parse::<u32>().ok();
    number
        .filter(|id| id.to_string() == name)
        .ok_or_else(|| refuse(format!("{what} {name} does not exist")))
}

/// Refuses the ids that no process can have, wherever they come from: for the kernel -1
/// (4294967295) means "leave it as it is", so that the program would go on as the daemon's user;
/// 65535 is the -1 of 16 bits.
fn possible(what: &str, name: &str, (kind, id): (&str, u32)) -> Result<(), SpawnFailure> {
    if id == u32::MAX || id == 0xffff {
        let message = format!("{what} {name} has {kind} {id}, which no process can have");
        return Err(refuse(message));
    }
    Ok(())
}

fn user_called(name: &str) -> Result<Option<User>, Errno> {
    if linked_statically() {
        return files::user(|user| user.name == name);
    }
    User::from_name(name)
}

fn user_with(uid: Uid) -> Result<Option<User>, Errno> {
    if linked_statically() {
        return files::user(|user| user.uid == uid);
    }
    User::from_uid(uid)
}

fn group_called(name: &str) -> Result<Option<Gid>, Errno> {
    if linked_statically() {
        return files::group(name);
    }
    Ok(Group::from_name(name)?.map(|group| group.gid))
}

fn groups_of(entry: &User, gid: Gid) -> Result<Vec<Gid>, Errno> {
    if linked_statically() {
        return files::groups_of(&entry.name, gid);
    }
    let name = CString::new(entry.name.as_str()).map_err(|_| Errno::EINVAL)?;
    getgrouplist(&name, gid)
}

/// Whether no dynamic linker brought us here: it has no base address then, see getauxval(3).
#[expect(unsafe_code, reason = "nix has no getauxval")]
fn linked_statically() -> bool {
    // SAFETY: it reads what the kernel left on our stack, and has no arguments that could be wrong.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// Tells "there is none" (which some databases say with an error) from "cannot know".
fn found<T>(
    answer: Result<Option<T>, Errno>,
    what: &str,
    name: &str,
) -> Result<Option<T>, SpawnFailure> {
    match answer {
        Ok(entry) => Ok(entry),
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(errno) => Err(failure(errno, format!("cannot look up {what} {name}"))),
    }
}

fn supplementary(entry: &User, gid: Gid) -> Result<Vec<u32>, SpawnFailure> {
    let groups = groups_of(entry, gid).map_err(|errno| {
        failure(
            errno,
            format!("cannot list the groups of user {}", entry.name),
        )
    })?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

fn variables(entry: User) -> Vec<(&'static str, OsString)> {
    vec![
        ("HOME", entry.dir.into_os_string()),
        ("USER", OsString::from(entry.name.clone())),
        ("LOGNAME", OsString::from(entry.name)),
        ("SHELL", entry.shell.into_os_string()),
    ]
}

fn refuse(message: String) -> SpawnFailure {
    SpawnFailure {
        kind: FailureKind::User,
        transient: false,
        message,
    }
}

fn failure(errno: Errno, operation: String) -> SpawnFailure {
    super::failure::from_errno(FailureKind::User, errno, operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same_user() {
        let by_name = look_up(Some("nobody"), None)
            .expect("nobody exists")
            .variables;
        let by_number = look_up(Some("65534"), None)
            .expect("65534 is nobody")
            .variables;
        assert_eq!(by_name, by_number);
        assert!(by_name.contains(&("USER", OsString::from("nobody"))));
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let failure = look_up(Some("nobody2"), None).expect_err("no such user");
        assert_eq!(failure.message, "user nobody2 does not exist");
        assert_eq!(failure.kind, FailureKind::User);
        let failure = look_up(None, Some("nogroup2")).expect_err("no such group");
        assert_eq!(failure.message, "group nogroup2 does not exist");
    }

    #[test]
    fn what_means_unchanged_to_the_kernel_or_is_no_usual_number_is_nobody() {
        for id in ["4294967295", "65535"] {
            let failure = look_up(Some(id), Some("7")).expect_err("it would stay root");
            let rule = format!("user {id} has uid {id}, which no process can have");
            assert_eq!(failure.message, rule);
            let failure = look_up(None, Some(id)).expect_err("it would stay root");
            let rule = format!("group {id} has gid {id}, which no process can have");
            assert_eq!(failure.message, rule);
        }
        for number in ["+0", "00", "-1", "4294967296", " 0", "0x0", "1e3", ""] {
            let failure = look_up(Some(number), Some("7")).expect_err("no usual number");
            assert_eq!(failure.message, format!("user {number} does not exist"));
            let failure = look_up(None, Some(number)).expect_err("no usual number");
            assert_eq!(failure.message, format!("group {number} does not exist"));
        }
    }

    #[test]
    fn a_number_without_an_entry_needs_a_group() {
        let failure = look_up(Some("424242"), None).expect_err("no primary group");
        assert!(
            failure.message.contains("group must be configured"),
            "{failure}"
        );
        let identity = look_up(Some("424242"), Some("7")).expect("complete");
        let credentials = identity.credentials.expect("a switch");
        assert_eq!((credentials.uid, credentials.gid), (Some(424_242), 7));
        assert_eq!(credentials.groups, [7]);
    }
}
