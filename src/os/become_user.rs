//! A new process becomes somebody else: raw system calls only, see [`super::newborn`].
#![expect(unsafe_code, reason = "raw system calls on plain memory")]

use std::ptr;

use super::spawn::Step;
use super::users::Credentials;

/// `securebits` that loosen what a change of user means, see capabilities(7): NO_SETUID_FIXUP and
/// KEEP_CAPS. The others only ever take something away.
const LOOSE_SECUREBITS: libc::c_ulong = 1 << 2 | 1 << 4;
/// See keyctl(2).
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
/// See capget(2): three sets of 64 capabilities in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Becomes the user for good, with its groups and without anything that the daemon may do or has
/// keys for; or tells where it failed. `errno` says why.
///
/// # Safety
///
/// Only for a child: the raw calls change this one task, not all threads. The list of groups lives
/// as long as the call.
pub(super) unsafe fn become_user(to: &Credentials) -> Result<(), Step> {
    // SAFETY: as the caller vouches.
    unsafe {
        if !to.keeps_privileges {
            tighten();
        }
        if !switch(to) {
            return Err(Step::Credentials);
        }
        if !to.keeps_privileges && !drop_privileges() {
            return Err(Step::Privileges);
        }
        if !has_switched(to) {
            return Err(Step::Unchanged);
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
    // SAFETY: numbers, and a null for "a keyring without a name".
    unsafe {
        let nameless = ptr::null::<libc::c_char>();
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nameless);
        let bits = libc::syscall(libc::SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0);
        let tight = bits as libc::c_ulong & !LOOSE_SECUREBITS;
        if bits > 0 && tight != bits as libc::c_ulong {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_SECUREBITS, tight, 0, 0, 0);
        }
    }
}

/// # Safety
///
/// As for [`become_user`].
unsafe fn switch(to: &Credentials) -> bool {
    // SAFETY: the list of groups is there, its length beside it.
    unsafe {
        let groups = libc::syscall(libc::SYS_setgroups, to.groups.len(), to.groups.as_ptr());
        if (groups < 0 && !to.already)
            || libc::syscall(libc::SYS_setresgid, to.gid, to.gid, to.gid) < 0
        {
            return false;
        }
        match to.uid {
            Some(uid) => libc::syscall(libc::SYS_setresuid, uid, uid, uid) >= 0,
            None => true,
        }
    }
}

/// The kernel takes capabilities away from who stops being root, and only then: a daemon that is
/// not root and has some would hand them down.
///
/// # Safety
///
/// Only for a child.
unsafe fn drop_privileges() -> bool {
    let header = [CAPABILITY_VERSION, 0];
    let none = [0_u32; 6];
    let clear_all = libc::PR_CAP_AMBIENT_CLEAR_ALL;
    // SAFETY: a header and two triples of sets, as the version wants them.
    unsafe {
        // Refused by kernels that have none. They go with the permitted ones in any case.
        libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, clear_all, 0, 0, 0);
        libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) >= 0
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
    // SAFETY: each points to room for three ids.
    let answered = unsafe {
        libc::syscall(libc::SYS_getresuid, uid, uid.add(1), uid.add(2)) == 0
            && libc::syscall(libc::SYS_getresgid, gid, gid.add(1), gid.add(2)) == 0
    };
    let (mut index, mut switched) = (0, answered && to.gid != u32::MAX);
    while index < 3 {
        // SAFETY: below three.
        let (uid, gid) = unsafe { (*uid.add(index), *gid.add(index)) };
        switched &= gid == to.gid && to.uid.is_none_or(|wanted| wanted == uid);
        index += 1;
    }
    switched
}
