//! The descriptors that a newborn begins with.
#![expect(unsafe_code, reason = "a descriptor that fcntl has made")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The streams of a new process.
pub(in crate::os) struct Streams<'fd> {
    pub(in crate::os) stdin: BorrowedFd<'fd>,
    pub(in crate::os) stdout: BorrowedFd<'fd>,
    pub(in crate::os) stderr: BorrowedFd<'fd>,
}

/// The descriptors that a newborn is given, all above 2, where putting one in place would close
/// another; and the end that stays with us.
pub(super) struct Descriptors<'fd> {
    pub(super) stdio: Raised<'fd>,
    /// The `cgroup.procs` to go through.
    pub(super) door: Option<OwnedFd>,
    /// The end of the pipe that the newborn holds until it executes the program.
    pub(super) theirs: OwnedFd,
    /// Ours.
    pub(super) answer: OwnedFd,
}

impl<'fd> Descriptors<'fd> {
    pub(super) fn new(streams: &Streams<'fd>, door: Option<OwnedFd>) -> Result<Self, Errno> {
        let (answer, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self {
            stdio: Raised::new(streams)?,
            door: door.map(above_stdio).transpose()?,
            theirs: above_stdio(theirs)?,
            answer,
        })
    }
}

/// Moves a descriptor of ours out of the way of the standard streams.
fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    match Stream::raise(fd.as_fd())? {
        Stream::Moved(moved) => Ok(moved),
        Stream::Borrowed(_) => Ok(fd),
    }
}

/// Streams that do not sit on 0, 1 or 2, where putting one in place would close another.
pub(super) struct Raised<'fd> {
    stdin: Stream<'fd>,
    stdout: Stream<'fd>,
    stderr: Stream<'fd>,
}

enum Stream<'fd> {
    Borrowed(BorrowedFd<'fd>),
    Moved(OwnedFd),
}

impl<'fd> Raised<'fd> {
    fn new(streams: &Streams<'fd>) -> Result<Self, Errno> {
        Ok(Self {
            stdin: Stream::raise(streams.stdin)?,
            stdout: Stream::raise(streams.stdout)?,
            stderr: Stream::raise(streams.stderr)?,
        })
    }

    pub(super) fn numbers(&self) -> [RawFd; 3] {
        [
            self.stdin.number(),
            self.stdout.number(),
            self.stderr.number(),
        ]
    }
}

impl<'fd> Stream<'fd> {
    fn raise(fd: BorrowedFd<'fd>) -> Result<Self, Errno> {
        if fd.as_raw_fd() > 2 {
            return Ok(Self::Borrowed(fd));
        }
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self::Moved(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    fn number(&self) -> RawFd {
        match self {
            Self::Borrowed(fd) => fd.as_raw_fd(),
            Self::Moved(fd) => fd.as_raw_fd(),
        }
    }
}
