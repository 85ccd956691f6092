//! Where newborn processes live until they execute their program: a stack each, and a place for what
//! they leave word of.
#![expect(unsafe_code, reason = "memory for the stack of another process")]

use std::ffi::c_void;
use std::mem;
use std::ptr;

use nix::errno::Errno;

use super::newborn::Report;

/// Deep enough for a few calls without buffers.
const STACK: usize = 64 * 1024;
/// No machine has larger ones.
const PAGE: usize = 64 * 1024;
/// A report takes this much of the upper end; the stack below it ends on a multiple of 16.
const REPORT: usize = mem::size_of::<Report>().next_multiple_of(64);
/// So many wait for the next newborns; what a burst needs beyond that is given back.
const KEPT: usize = 8;

/// One guard page, a stack, and a report at its upper end. Shared even with a copied child.
#[derive(Debug)]
pub(super) struct Cradle {
    base: *mut c_void,
}

// SAFETY: the mapping belongs to its owner alone, whichever thread that is on.
unsafe impl Send for Cradle {}

impl Cradle {
    fn new() -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: asks for fresh memory anywhere.
        let base = unsafe { libc::mmap(ptr::null_mut(), PAGE + STACK, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let cradle = Self { base };
        // SAFETY: the range is ours: the lowest page of the mapping, made a guard.
        Errno::result(unsafe { libc::mprotect(base, PAGE, libc::PROT_NONE) })?;
        Ok(cradle)
    }

    /// Returns the lowest byte of the stack, and its size: its end is 16-aligned.
    pub(super) fn stack(&self) -> (*mut c_void, usize) {
        // SAFETY: the mapping has PAGE + STACK bytes.
        (unsafe { self.base.byte_add(PAGE) }, STACK - REPORT)
    }

    /// Returns where the child leaves word.
    pub(super) fn report(&self) -> *mut Report {
        let (stack, size) = self.stack();
        // SAFETY: the mapping has another REPORT bytes above the stack, aligned to 64.
        unsafe { stack.byte_add(size) }.cast()
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and whoever drops it knows that no child uses it.
        unsafe { libc::munmap(self.base, PAGE + STACK) };
    }
}

/// Cradles that nobody lies in.
#[derive(Debug, Default)]
pub(super) struct Cradles(Vec<Cradle>);

impl Cradles {
    /// Returns one that waits, or a new one.
    pub(super) fn take(&mut self) -> Result<Cradle, Errno> {
        self.0.pop().map_or_else(Cradle::new, Ok)
    }

    /// Takes one back that no child uses any more.
    pub(super) fn put(&mut self, cradle: Cradle) {
        if self.0.len() < KEPT {
            self.0.push(cradle);
        }
    }
}
