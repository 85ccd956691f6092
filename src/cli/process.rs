//! Whether a process still lives, from /proc.

use std::fs;
use std::time::Duration;

/// How often it is looked whether a process is gone; its parent alone could be told.
const LOOK: Duration = Duration::from_millis(20);
/// How long a daemon that has confirmed its end may take to be gone.
const DEADLINE: Duration = Duration::from_secs(30);

/// One life of a process: its number and when it began, so that a successor with the same number
/// is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pid: u32,
    began: u64,
}

impl Life {
    /// Finds the life that has this number; `None` when it is over, or cannot be seen from here.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, even ")"; the fields after it may not.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let began = fields.nth(18)?.parse().ok()?;
        // A zombie has closed everything and released every lock.
        (!matches!(state, "Z" | "X")).then_some(Self { pid, began })
    }

    fn is_over(self) -> bool {
        Self::of(self.pid) != Some(self)
    }

    /// Waits until it is over; `false` when it is not after 30 s.
    pub(super) async fn end(self) -> bool {
        let over = async {
            while !self.is_over() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(DEADLINE, over).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_over_when_its_process_is_a_zombie_and_when_it_is_gone() {
        assert!(Life::of(std::process::id()).is_some());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let life = Life::of(child.id()).expect("it lives");
        assert!(!life.is_over());
        child.kill().expect("a kill");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        assert!(runtime.expect("a runtime").block_on(life.end()));
        child.wait().expect("a status");
        assert!(life.is_over());
    }
}
