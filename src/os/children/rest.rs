//! The end of all: what belongs to nobody and descends from us goes with us.

use super::Children;
use super::kin::Owner;
use crate::os::family::Process;

impl Children {
    /// Tells whoever is left and belongs to no run to end, and whoever of them comes later.
    pub fn bid_farewell(&mut self, signal: i32) {
        self.kin.farewell = Some(signal);
        for (process, owner) in self.rest() {
            // Of one in doubt it may turn out that it is to be left alone.
            if owner != Owner::Unknown {
                self.tell_stray(&process, signal);
            }
        }
    }

    /// Returns how many are left that go with the daemon, those in doubt included.
    ///
    /// Left alone are descendants of programs in process mode, as their config says (but as the
    /// first process of a container, whose end they would not survive), and whoever was here
    /// before us.
    pub fn rest_len(&mut self) -> usize {
        self.counted = false;
        self.rest().len()
    }

    fn rest(&mut self) -> Vec<(Process, Owner)> {
        self.count();
        let spares = !crate::os::is_pid_1();
        let orphans = self.kin.orphans.values();
        let left = orphans.filter(|orphan| match orphan.owner {
            Owner::Run(_) | Owner::Late | Owner::Nobody | Owner::Unknown => true,
            Owner::LeftAlone(_) => !spares,
            Owner::Stranger => false,
        });
        left.filter_map(|orphan| Some((orphan.process.again()?, orphan.owner)))
            .filter(|(process, _)| !process.zombie)
            .collect()
    }
}
