//! A new process becomes somebody else: raw system calls only, see [`super::newborn`].
#![expect(unsafe_code, reason = "raw system calls on plain memory")]

use super::raw::call;
use super::spawn::Step;
use super::users::Credentials;

/// `securebits` that loosen what a change of user means, see capabilities(7): NO_SETUID_FIXUP and
/// KEEP_CAPS. The others only ever take something away.
const LOOSE_SECUREBITS: usize = 1 << 2 | 1 << 4;
/// See keyctl(2).
const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
/// See capget(2): three sets of 64 capabilities in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Becomes the user for good, with its groups and without anything that the daemon may do or has
/// keys for; or tells where it failed, and the number of the error.
///
/// # Safety
///
/// Only for a child: the raw calls change this one task, not all threads. The list of groups lives
/// as long as the call.
pub(super) unsafe fn become_user(to: &Credentials) -> Result<(), (Step, i32)> {
    // SAFETY: as the caller vouches.
    unsafe {
        if !to.keeps_privileges {
            tighten();
        }
        switch(to).map_err(|errno| (Step::Credentials, errno))?;
        if !to.keeps_privileges {
            drop_privileges().map_err(|errno| (Step::Privileges, errno))?;
        }
        if !has_switched(to) {
            return Err((Step::Unchanged, 0));
        }
    }
    Ok(())
}

/// Leaves the keys of whoever started the daemon, and makes a change of user mean what it usually
/// does. Where one of them is refused, a sandbox or whoever locked the bits has decided so.
///
/// # Safety
///
/// Only for a child.
unsafe fn tighten() {
    let (get, set) = (
        libc::PR_GET_SECUREBITS as usize,
        libc::PR_SET_SECUREBITS as usize,
    );
    // SAFETY: numbers, and a null for "a keyring without a name".
    unsafe {
        let _ = call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0]);
        let bits = call(libc::SYS_prctl, [get, 0, 0, 0, 0]).unwrap_or(0);
        let tight = bits & !LOOSE_SECUREBITS;
        if tight != bits {
            let _ = call(libc::SYS_prctl, [set, tight, 0, 0, 0]);
        }
    }
}

/// # Safety
///
/// As for [`become_user`].
unsafe fn switch(to: &Credentials) -> Result<(), i32> {
    let (groups, gid) = (to.groups.as_ptr() as usize, to.gid as usize);
    // SAFETY: the list of groups is there, its length beside it.
    unsafe {
        if let Err(errno) = call(libc::SYS_setgroups, [to.groups.len(), groups])
            && !to.already
        {
            return Err(errno);
        }
        call(libc::SYS_setresgid, [gid, gid, gid])?;
        if let Some(uid) = to.uid {
            let uid = uid as usize;
            call(libc::SYS_setresuid, [uid, uid, uid])?;
        }
    }
    Ok(())
}

/// The kernel takes capabilities away from who stops being root, and only then: a daemon that is
/// not root and has some would hand them down.
///
/// # Safety
///
/// Only for a child.
unsafe fn drop_privileges() -> Result<(), i32> {
    let header = [CAPABILITY_VERSION, 0];
    let none = [0_u32; 6];
    let (ambient, clear_all) = (
        libc::PR_CAP_AMBIENT as usize,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as usize,
    );
    let sets = [header.as_ptr() as usize, none.as_ptr() as usize];
    // SAFETY: a header and two triples of sets, as the version wants them.
    unsafe {
        // Refused by kernels that have none. They go with the permitted ones in any case.
        let _ = call(libc::SYS_prctl, [ambient, clear_all, 0, 0, 0]);
        call(libc::SYS_capset, sets).map(drop)
    }
}

/// Tells whether this process is who it was to become: what the kernel answers is not all there is,
/// since some ids mean "leave it as it is" to it.
///
/// # Safety
///
/// Only for a child.
unsafe fn has_switched(to: &Credentials) -> bool {
    let (mut uids, mut gids) = ([u32::MAX; 3], [u32::MAX; 3]);
    let (uid, gid) = (uids.as_mut_ptr(), gids.as_mut_ptr());
    // SAFETY: each points to room for three ids, and `read_volatile` to one of them: that the kernel
    // has written there is nothing that the compiler knows of.
    unsafe {
        let room = |first: *mut u32| [0, 1, 2].map(|n| first.add(n) as usize);
        if call(libc::SYS_getresuid, room(uid)).is_err()
            || call(libc::SYS_getresgid, room(gid)).is_err()
        {
            return false;
        }
        let (mut index, mut switched) = (0, to.gid != u32::MAX);
        while index < 3 {
            let (uid, gid) = (
                uid.add(index).read_volatile(),
                gid.add(index).read_volatile(),
            );
            switched &= gid == to.gid && to.uid.is_none_or(|wanted| wanted == uid);
            index += 1;
        }
        switched
    }
}
