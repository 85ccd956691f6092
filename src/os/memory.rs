//! The allocator's habits: what is not needed goes back to the kernel.
#![expect(
    unsafe_code,
    reason = "malloc's own settings are in neither std nor nix"
)]

/// Larger blocks than this, in bytes, are mapped, and so go back at once when they are freed. Left
/// alone glibc raises this by itself as soon as one exposition was freed, and keeps the next.
#[cfg(target_env = "gnu")]
const MAPPED: i32 = 256 * 1024;

/// One for the loop, one for all other threads. Left alone glibc gives every thread its own.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// Makes this process keep little memory that it does not use. To be called before there are
/// threads; does nothing where the C library is not glibc.
pub fn be_frugal() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator; what it does not know it refuses.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Returns free memory from between what is in use, as a start leaves it. Takes milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only touches memory that is free.
    unsafe {
        libc::malloc_trim(0)
    };
}
