//! Whose word a notification is.

use std::collections::HashMap;

use crate::os::notify;
use crate::supervision::Run;

/// Runs whose word is waited for, by the number of their main process.
#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<i32, Run>);

impl Senders {
    pub fn expect(&mut self, run: Run, pid: i32) {
        self.0.insert(pid, run);
    }

    pub fn forget(&mut self, run: Run, pid: i32) {
        if self.0.get(&pid) == Some(&run) {
            self.0.remove(&pid);
        }
    }

    /// Finds the run for which this process speaks: it is its main process or a descendant of it.
    pub fn speaks_for(&self, pid: i32) -> Option<Run> {
        if self.0.is_empty() {
            return None;
        }
        notify::family_of(pid, |main| self.0.get(&main).copied())
    }

    /// The same for a sender that is gone, as `systemd-notify` always is: it can be placed only
    /// where a single program is waited for. Not to be believed when it does harm.
    pub fn spoke_for(&self, pid: i32) -> Option<Run> {
        let mut waiting = self.0.values();
        let run = waiting.next()?;
        let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists();
        (gone && waiting.next().is_none()).then_some(*run)
    }
}
