//! /etc/passwd and /etc/group, read by ourselves: a static binary must not ask the C library, which
//! would load the modules of nsswitch.conf, and a second C library with them, and crash.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User};

/// A line of /etc/group.
#[derive(Debug, PartialEq, Eq)]
struct GroupLine<'a> {
    name: &'a str,
    gid: Gid,
    members: &'a str,
}

/// Finds the first user that fits; none when there is no file.
pub(super) fn user(fits: impl Fn(&User) -> bool) -> Result<Option<User>, Errno> {
    Ok(read("/etc/passwd")?
        .lines()
        .filter_map(passwd_line)
        .find(fits))
}

/// Finds a group by its name; none when there is no file.
pub(super) fn group(name: &str) -> Result<Option<Gid>, Errno> {
    let text = read("/etc/group")?;
    let found = text.lines().filter_map(group_line).find(|g| g.name == name);
    Ok(found.map(|group| group.gid))
}

/// Lists the groups that have the user as a member, and `gid`.
pub(super) fn groups_of(user: &str, gid: Gid) -> Result<Vec<Gid>, Errno> {
    Ok(with_member(&read("/etc/group")?, user, gid))
}

fn with_member(text: &str, user: &str, gid: Gid) -> Vec<Gid> {
    let mut groups = vec![gid];
    for group in text.lines().filter_map(group_line) {
        let is_member = group.members.split(',').any(|member| member == user);
        if is_member && !groups.contains(&group.gid) {
            groups.push(group.gid);
        }
    }
    groups
}

fn read(file: &str) -> Result<String, Errno> {
    match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
    }
}

/// `name:password:uid:gid:comment:home:shell`, see passwd(5); what is no such line is skipped.
fn passwd_line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let mut next = || fields.next();
    let (name, passwd) = (next()?, next()?);
    let (uid, gid) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let (comment, home, shell) = (next()?, next()?, next()?);
    Some(User {
        name: name.to_owned(),
        passwd: CString::new(passwd).ok()?,
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        gecos: CString::new(comment).ok()?,
        dir: PathBuf::from(home),
        shell: PathBuf::from(shell),
    })
}

/// `name:password:gid:member,member`, see group(5); what is no such line is skipped.
fn group_line(line: &str) -> Option<GroupLine<'_>> {
    let mut fields = line.split(':');
    let (name, _) = (fields.next()?, fields.next()?);
    let gid = Gid::from_raw(fields.next()?.parse().ok()?);
    let members = fields.next()?;
    Some(GroupLine { name, gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_what_the_c_library_says() {
        let ours = user(|user| user.name == "nobody").expect("readable");
        let theirs = User::from_name("nobody").expect("an answer");
        assert_eq!(ours, theirs);
        assert_eq!(user(|user| user.name == "nobody2"), Ok(None));
        assert_eq!(group("nogroup2"), Ok(None));
        assert_eq!(group("root"), Ok(Some(Gid::from_raw(0))));
    }

    #[test]
    fn lines_that_are_none_are_skipped() {
        for line in [
            "",
            "# a comment",
            "+::::::",
            "web:x:many:1::/:/bin/sh",
            "web:x:1",
        ] {
            assert_eq!(passwd_line(line), None, "{line}");
            assert_eq!(group_line(line).filter(|g| g.name != "web"), None, "{line}");
        }
    }

    #[test]
    fn the_groups_of_a_user_are_its_own_and_those_it_is_a_member_of() {
        let text = "root:x:0:\nweb:x:5:web\nlog:x:7:ann,web\nadm:x:8:webb,ann\n";
        let groups = with_member(text, "web", Gid::from_raw(5));
        assert_eq!(groups, [5, 7].map(Gid::from_raw));
    }
}
