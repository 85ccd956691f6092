//! Many ends at once.

use std::collections::HashMap;
use std::fs::OpenOptions;

use eternal::os::children::News;
use eternal::supervision::{Run, WaitStatus};

use crate::world::within;

const MANY: usize = 200;

#[test]
fn no_status_is_lost_when_many_children_and_orphans_end_at_once() {
    within(async |world| {
        let gate = world.directory().join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let opener = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&gate)
            .expect("the fifo");
        let mut expected: HashMap<Run, i32> = HashMap::new();
        let mut all = Vec::new();
        for code in 1..=i32::try_from(MANY).expect("small") {
            let script = format!(
                "exec 3<gate; (sh -c 'read x; exit 77' <&3 & echo $!); echo up; read x <&3; exit {code}"
            );
            let mut launch = world.launch(&["/bin/sh", "-c", &script]);
            launch.family = false;
            let started = world.start(&launch).expect("it starts");
            expected.insert(started.run, code);
            all.push(started);
        }
        let mut orphans = Vec::new();
        for started in &mut all {
            orphans.push(started.number().await);
            assert_eq!(
                started.line().await,
                "up",
                "the parent of the orphan is gone"
            );
        }
        // The end of the fifo is the common moment of death.
        drop(opener);
        while !expected.is_empty() {
            if let News::Exited {
                run,
                status,
                family,
                ..
            } = world.news().await
            {
                let code = expected.remove(&run).expect("each end is told once");
                assert_eq!((status, family), (WaitStatus::Exited { code }, false));
            }
        }
        for pid in orphans {
            assert_eq!(world.orphan(pid).await, WaitStatus::Exited { code: 77 });
        }
        assert_eq!(world.orphans.len(), MANY);
        assert!(world.children.is_empty());
    });
}
