//! What a newborn process meets on its way to its program.

use std::fs;

use eternal::os::children::News;
use eternal::supervision::Run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, within};

const ROUNDS: usize = 300;

/// Waits for what became of a birth.
async fn answer(world: &mut World, wanted: Run) -> News {
    loop {
        match world.news().await {
            news @ (News::Spawned { run, .. } | News::SpawnFailed { run, .. }) if run == wanted => {
                return news;
            }
            News::Spawned { .. }
            | News::SpawnFailed { .. }
            | News::Exited { .. }
            | News::FamilyGone { .. }
            | News::LeftAlone { .. }
            | News::OrphanReaped { .. } => {}
        }
    }
}

#[test]
fn one_that_is_stopped_by_somebody_before_its_execution_goes_on() {
    within(async |world| {
        let launch = world.launch(&["sleep", "1000"]);
        let mut early = 0;
        for _ in 0..ROUNDS {
            let run = world.begin_silently(&launch).expect("it begins");
            let pid = world.children.pid(run).expect("a process");
            kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("our child");
            let executed =
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("sleep"));
            early += usize::from(!executed);
            let born = answer(world, run).await;
            assert!(matches!(born, News::Spawned { .. }), "{born:?}");
            world.children.kill(run);
        }
        println!("{early} of {ROUNDS} were stopped before their execution");
    });
}

#[test]
fn one_that_is_killed_before_its_execution_is_a_failed_start_and_after_it_a_death() {
    within(async |world| {
        let launch = world.launch(&["sleep", "1000"]);
        let mut failed = 0;
        for _ in 0..ROUNDS {
            let run = world.begin_silently(&launch).expect("it begins");
            let pid = world.children.pid(run).expect("a process");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("our child");
            match answer(world, run).await {
                News::SpawnFailed { failure, .. } => {
                    let words = "killed by signal 9 before it was executed: ";
                    assert!(failure.message.starts_with(words), "{failure}");
                    failed += 1;
                }
                News::Spawned { .. }
                | News::Exited { .. }
                | News::FamilyGone { .. }
                | News::LeftAlone { .. }
                | News::OrphanReaped { .. } => {
                    let (status, _) = world.exit_of(run).await;
                    assert_eq!(status.signal(), Some(libc::SIGKILL));
                }
            }
            assert_eq!(world.children.pid(run), None, "nothing is left");
        }
        println!("{failed} of {ROUNDS} were killed before their execution");
    });
}

#[test]
fn any_number_can_be_on_their_way_at_a_time() {
    within(async |world| {
        let launch = world.launch(&["sleep", "1000"]);
        let runs: Vec<Run> = (0..100)
            .map(|_| world.begin_silently(&launch).expect("it begins"))
            .collect();
        assert_eq!(world.children.len(), runs.len());
        let mut born = 0;
        while born < runs.len() {
            match world.news().await {
                News::Spawned { .. } => born += 1,
                News::OrphanReaped { .. } => {}
                news @ (News::SpawnFailed { .. }
                | News::Exited { .. }
                | News::FamilyGone { .. }
                | News::LeftAlone { .. }) => panic!("{news:?}"),
            }
        }
    });
}

#[test]
fn its_oom_score_is_its_own() {
    within(async |world| {
        let own = || fs::read_to_string("/proc/self/oom_score_adj").expect("readable");
        let before = own();
        let mut launch = world.launch(&["sleep", "1000"]);
        launch.oom_score_adj = Some(777);
        let started = world.start(&launch).expect("it starts");
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", started.pid));
        assert_eq!(score.expect("readable").trim(), "777");
        assert_eq!(own(), before, "what shares memory shares its score");
    });
}
