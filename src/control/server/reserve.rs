//! The last descriptors: who may still have one, so that whoever comes to help always gets in.
//!
//! ```text
//! in use … │ 8 clients │ 8 starts │ 8 commands │ 12 orders, logs, what is under way │ limit
//! ```
//!
//! Each leaves alone what belongs to those on its right.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// Kept for orders, and for what goes on anyway: files that are rotated, pids that are looked at.
const KEPT: u64 = 12;
/// A birth takes that many while it lasts: two pipes for its output, one for its answer, a pidfd and the
/// door of a cgroup. About half of them are given back.
const BIRTH: u64 = 8;

/// What a descriptor is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An order or a question of who may give orders.
    Order,
    /// A command that looks after a program.
    Command,
    /// The start of a program, while so many others are being prepared.
    Start(usize),
    /// Somebody who reads the metrics.
    Client,
}

/// Tells whether there are enough descriptors for it beyond those that it has to leave alone. Where it
/// cannot be known, there are.
#[must_use]
pub fn allows(claim: Claim) -> bool {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return true;
    };
    in_use().saturating_add(claim.leaves()) <= limit
}

impl Claim {
    fn leaves(self) -> u64 {
        match self {
            Self::Order => KEPT,
            Self::Command => KEPT + BIRTH,
            // One each: an open log file.
            Self::Start(others) => KEPT + 2 * BIRTH + others as u64,
            Self::Client => KEPT + 3 * BIRTH,
        }
    }
}

/// Counts our open descriptors. Since Linux 6.2 the directory's size is their number.
fn in_use() -> u64 {
    const OURS: &str = "/proc/self/fd";
    match fs::metadata(OURS).map(|directory| directory.len()) {
        Ok(0) => fs::read_dir(OURS).map_or(0, |entries| entries.count() as u64),
        Ok(count) => count,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_help_may_have_what_others_have_to_leave() {
        let leaves = [
            Claim::Order,
            Claim::Command,
            Claim::Start(0),
            Claim::Start(1),
            Claim::Client,
        ]
        .map(Claim::leaves);
        assert!(leaves.is_sorted_by(|less, more| less < more), "{leaves:?}");
        assert!(leaves[0] > super::super::SEATS_IN_NEED as u64);
    }
}
