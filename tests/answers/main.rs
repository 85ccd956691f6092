//! Every question can be asked when the person on call arrives, every answer is true, and no answer can
//! harm the terminal: the real binary, with real daemons, files and terminals.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

mod check;
mod gone;
mod guards;
mod terminal;
mod truth;
mod words;
#[path = "../daemon/world.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the daemon, which use all of it"
)]
mod world;

/// A terminal: what shows it, and what programs have of it. Not one that other tests' children inherit,
/// which would keep it open.
fn open_terminal() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).expect("a name"))
        .expect("its other end");
    let master = std::os::fd::OwnedFd::from(master);
    (File::from(master), slave)
}
