//! System calls by hand, for a process that shares our memory while we run: the C library's wrappers
//! write `errno`, which is ours then, and may act on all its threads.
#![expect(unsafe_code, reason = "the instruction that enters the kernel")]

use std::ffi::c_long;

/// Whether there are such calls for this processor. Where there are none, a newborn may only live
/// in our memory while we are suspended.
pub(super) const ARE_HERE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Makes a system call: its result, or the number of the error. Touches no memory of its own.
///
/// # Safety
///
/// As for the call itself.
#[inline]
pub(super) unsafe fn call<const N: usize>(number: c_long, given: [usize; N]) -> Result<usize, i32> {
    let mut all = [0; 6];
    let mut index = 0;
    while index < N && index < all.len() {
        all[index] = given[index];
        index += 1;
    }
    // SAFETY: the caller's.
    let result = unsafe { enter(number, all) };
    // The kernel's errors are -4095 to -1; everything else is a result.
    if (-4095..0).contains(&result) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 4095")]
        let error = -result as i32;
        Err(error)
    } else {
        Ok(result.cast_unsigned())
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller's; the kernel spoils `rcx` and `r11`.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller's; the kernel keeps every register but the first.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// Through the C library, whose `errno` nobody else uses meanwhile: we are suspended.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    // SAFETY: the caller's; `errno` is a live number of this thread.
    unsafe {
        let result = libc::syscall(number, a, b, c, d, e, f) as isize;
        if result == -1 {
            -(*libc::__errno_location() as isize)
        } else {
            result
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_by_hand_says_what_the_kernel_says_and_leaves_errno_alone() {
        nix::errno::Errno::set_raw(4242);
        // SAFETY: neither call has pointers.
        let (own, closed) = unsafe {
            (
                call(libc::SYS_getpid, []),
                call(libc::SYS_close, [usize::MAX]),
            )
        };
        assert_eq!(own, Ok(std::process::id() as usize));
        assert_eq!(closed, Err(libc::EBADF));
        assert_eq!(nix::errno::Errno::last_raw(), 4242);
    }
}
