//! What the random walks seldom come to.

use std::time::{Duration, Instant};

use super::*;
use crate::supervision::{Action, OnCrashLoop, Readiness, RestartMode, Run, WaitStatus};

/// A fleet whose time stands still, with spawns that always succeed.
struct World {
    fleet: Fleet,
    out: Outbox,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            fleet: Fleet::default(),
            out: Outbox::new(),
            now: Instant::now(),
        }
    }

    fn add(&mut self, name: &str, after: &[&str], policy: Policy) -> Id {
        self.fleet.add(Member {
            name: name.to_owned(),
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            policy,
        })
    }

    fn at(&self) -> Moment {
        Moment {
            now: self.now,
            chance: 0.5,
        }
    }

    fn ask(&mut self, request: Request) {
        self.fleet.request(self.at(), request, &mut self.out);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.out.pop_front() {
            if let Output::Action(id, Action::Spawn(run)) = output {
                let at = self.at();
                self.fleet
                    .step(at, id, Input::Spawned(run, 1), &mut self.out);
            }
        }
    }

    /// The present run of a program exits with this code.
    fn exits(&mut self, id: Id, code: i32) {
        let run = self.run(id).expect("it runs");
        let input = Input::Exited {
            run,
            status: WaitStatus::Exited { code },
            family: false,
        };
        let at = self.at();
        self.fleet.step(at, id, input, &mut self.out);
        self.settle();
    }

    fn run(&self, id: Id) -> Option<Run> {
        self.fleet.view(id)?.run.map(|(run, ..)| run)
    }

    fn state(&self, id: Id) -> State {
        self.fleet.view(id).expect("it is there").state
    }
}

fn spawned() -> Policy {
    Policy {
        ready: Readiness::Spawned,
        ..Policy::default()
    }
}

fn once() -> Policy {
    Policy {
        restart: RestartMode::Never,
        ready: Readiness::Exit,
        ..Policy::default()
    }
}

#[test]
fn who_ran_to_a_good_end_and_nobody_waits_completes_the_work() {
    let mut world = World::new();
    let job = world.add("job", &[], once());
    assert_eq!(world.fleet.outcome(), None, "nothing was ever wanted");
    world.ask(Request::Start(job));
    assert_eq!(world.fleet.outcome(), None);
    world.exits(job, 0);
    assert_eq!(world.fleet.outcome(), Some(Outcome::Completed));
}

#[test]
fn who_still_waits_when_nothing_is_left_to_run_makes_the_end_a_failure() {
    let mut world = World::new();
    let job = world.add("job", &[], once());
    world.add("db", &[], spawned());
    let web = world.add("web", &["db"], spawned());
    world.ask(Request::Start(web));
    assert_eq!(world.fleet.outcome(), None, "somebody may start db");
    world.ask(Request::Start(job));
    world.exits(job, 0);
    assert_eq!(world.fleet.outcome(), Some(Outcome::Failed));
}

#[test]
fn a_one_shot_lets_who_comes_after_it_go_when_it_has_succeeded_and_not_before() {
    for (code, then) in [(0, State::Running), (3, State::Starting)] {
        let mut world = World::new();
        let migrate = world.add("migrate", &[], once());
        let web = world.add("web", &["migrate"], spawned());
        world.ask(Request::Start(migrate));
        world.ask(Request::Start(web));
        assert_eq!(world.fleet.view(web).expect("web").waits_for, Some(migrate));
        world.exits(migrate, code);
        assert_eq!(world.state(web), then, "exit code {code}");
    }
}

#[test]
fn held_is_what_a_person_stopped_and_nothing_else() {
    let mut world = World::new();
    let web = world.add("web", &[], spawned());
    assert!(!world.fleet.is_held(web));
    world.ask(Request::Start(web));
    assert!(!world.fleet.is_held(web));
    world.ask(Request::Stop(web));
    assert!(world.fleet.is_held(web));
    world.ask(Request::Start(web));
    assert!(!world.fleet.is_held(web));
    assert!(!world.fleet.is_held(Id(99)), "nor one that is not there");
}

#[test]
fn who_has_run_before_does_not_wait_a_second_time() {
    let mut world = World::new();
    let db = world.add("db", &[], spawned());
    let policy = Policy {
        restart_delay: Duration::from_secs(60),
        on_crash_loop: OnCrashLoop::GiveUp,
        ..spawned()
    };
    let web = world.add("web", &["db"], policy);
    world.ask(Request::Start(db));
    world.ask(Request::Start(web));
    world.ask(Request::Stop(db));
    world.exits(db, 0);
    world.exits(web, 1);
    assert_eq!(world.state(web), State::Backoff);
    world.ask(Request::Start(web));
    assert_eq!(world.state(web), State::Running);
}

#[test]
fn a_roll_ends_at_the_first_that_does_not_come_up_and_names_the_rest() {
    let mut world = World::new();
    let alive = Policy::default();
    let ids: Vec<Id> = (0..3)
        .map(|_| world.add("web", &[], alive.clone()))
        .collect();
    for id in &ids {
        world.ask(Request::Start(*id));
    }
    world.now += Duration::from_secs(1);
    let at = world.at();
    world.fleet.tick(at, &mut world.out);
    assert!(ids.iter().all(|id| world.state(*id) == State::Running));
    world.ask(Request::Roll(ids.clone(), Cause::Config));
    world.exits(ids[0], 0);
    assert!(world.fleet.is_rolling(), "it has not lived long enough yet");
    assert_eq!(world.state(ids[1]), State::Running);
    world.exits(ids[0], 1);
    assert!(!world.fleet.is_rolling());
    assert_eq!(
        world.fleet.take_halted_roll(),
        Some((ids[0], ids[1..].to_vec()))
    );
    assert_eq!(world.fleet.take_halted_roll(), None, "told once");
    assert!(ids[1..].iter().all(|id| world.state(*id) == State::Running));
}
