//! What main processes had used when they ended: the kernel's last word, which no pass over `/proc`
//! can be sure to see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Account;

/// Collects last words until the sampler takes them. A handle; clones share them. Of each key it
/// keeps one, and the sum of those that followed: its size is bounded although nobody may ever ask.
#[derive(Clone, Debug, Default)]
pub struct Endings(Arc<Mutex<HashMap<u32, Ended>>>);

/// The ends of one key since the sampler last asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ended {
    /// The first main process that ended: the only one that a pass can have seen before.
    pub pid: i32,
    /// All that the first one used.
    pub first: Account,
    /// All that the later ones used.
    pub rest: Account,
}

impl Endings {
    /// Adds what a main process and the children it waited for had used.
    pub(in crate::os) fn add(&self, key: u32, pid: i32, used: Account) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key)
            .and_modify(|ended| {
                for (sum, more) in ended.rest.iter_mut().zip(used) {
                    *sum += more;
                }
            })
            .or_insert(Ended {
                pid,
                first: used,
                rest: [0; 4],
            });
    }

    /// Takes them all.
    pub(super) fn take(&self) -> HashMap<u32, Ended> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_is_kept_apart_and_the_others_are_summed() {
        let endings = Endings::default();
        for n in 1..=3 {
            endings.add(7, n, [10 * u64::from(n.cast_unsigned()); 4]);
        }
        let expected = Ended {
            pid: 1,
            first: [10; 4],
            rest: [50; 4],
        };
        assert_eq!(endings.take().get(&7), Some(&expected));
        assert!(endings.take().is_empty());
    }
}
