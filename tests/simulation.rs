//! Random walks over the pure core. The world keeps its own books (who is wanted, who lives, what
//! was asked, when it last died) and never asks the program whether it is right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use eternal::supervision::{
    Action, Ailment, Cause, Event, ExitReason, FailureKind, Fleet, Id, Input, Member, Moment,
    OnCrashLoop, Outbox, Outcome, Output, Policy, Readiness, Request, RestartMode, Run,
    SpawnFailure, State, WaitStatus,
};

const SEEDS: u64 = 4_000;
const STEPS: usize = 250;
/// When a start without an answer is told to hang.
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// The machine's own bound between SIGKILL and its alarm, and a margin.
const UNKILLABLE_AFTER: Duration = Duration::from_millis(5_001);

/// What the world knows of one process it made.
#[derive(Debug)]
struct Process {
    id: Id,
    since: Instant,
    main_alive: bool,
    family_alive: bool,
    ready_at: Option<Instant>,
    /// What it takes to be up, and whether it has said that it is.
    readiness: Readiness,
    said_ready: bool,
    dies_at: Option<(Instant, WaitStatus)>,
    ignores_stop: bool,
    leaves_family: bool,
    stop_sent: bool,
    asked_at: Option<Instant>,
    kill_sent: bool,
    /// It was not ready in time, which is why it was asked to go.
    timed_out: bool,
    unkillable: bool,
    /// What it was found to suffer from while it ran and nobody had asked it to go.
    ailment: Option<Ailment>,
    was_ready: bool,
}

/// What the world knows of a start that is under way.
#[derive(Clone, Copy, Debug)]
struct Birth {
    run: Run,
    since: Instant,
    /// When it is known what became of it; `None`: never, unless it is killed.
    answer_at: Option<Instant>,
    /// Not even then.
    unkillable: bool,
    hangs: bool,
    killed: bool,
}

/// An end that waits for its verdict.
#[derive(Debug)]
struct Unjudged {
    crash: bool,
    code: Option<i32>,
    ran: Duration,
    ailment: Option<Ailment>,
}

impl Process {
    fn asked(&self) -> bool {
        self.stop_sent || self.kill_sent
    }
}

/// What the world knows of one slot.
#[derive(Debug)]
struct Book {
    name: String,
    after: Vec<String>,
    policy: Policy,
    wanted: bool,
    removed: bool,
    living: Option<Run>,
    spawning: Option<Birth>,
    seen: BTreeSet<Run>,
    /// The earliest moment an automatic restart may come; `None`: an order allows it at once.
    not_before: Option<Instant>,
    /// It was given up, or is through: only an order (or a retry) starts it.
    over: bool,
    /// Run time so far, and the crashes on that clock.
    ran: Duration,
    crashes: VecDeque<Duration>,
    streak: u32,
    restarts: u32,
    exits_seen: u64,
    exits_told: u64,
    /// When a stop has to be over at the latest, unless the kernel keeps the process.
    down_by: Option<Instant>,
    is_ready: bool,
    is_completed: bool,
    unjudged: Option<Unjudged>,
    /// It shall be retried after a give-up although it failed.
    retry: bool,
    /// A roll may start it again, or may not reach it.
    was_over: bool,
    /// A roll that was asked for may come to it and lift any wait, once.
    rolling: bool,
    /// Starts that came to nothing since it was up or somebody asked for it.
    failed_starts: u32,
    /// The last run ended before it was up. The verdict says whether that was all that was wanted.
    never_up: bool,
    /// A roll that was asked for may come to it and begin that count again.
    roll_may_forgive: bool,
}

struct World {
    rng: fastrand::Rng,
    start: Instant,
    now: Instant,
    fleet: Fleet,
    out: Outbox,
    books: BTreeMap<Id, Book>,
    processes: BTreeMap<Run, Process>,
    pid: i32,
    shutting_down: bool,
    trace: Vec<String>,
    calm: bool,
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        let mut world = Self {
            rng: fastrand::Rng::with_seed(seed),
            start,
            now: start,
            fleet: Fleet::default(),
            out: Outbox::new(),
            books: BTreeMap::new(),
            processes: BTreeMap::new(),
            pid: 1000,
            shutting_down: false,
            trace: Vec::new(),
            calm: false,
        };
        for n in 0..world.rng.usize(1..=5) {
            world.add(n);
        }
        world
    }

    fn policy(&mut self) -> Policy {
        let rng = &mut self.rng;
        let restart = *rng
            .choice(&[
                RestartMode::Always,
                RestartMode::Always,
                RestartMode::OnFailure,
                RestartMode::Never,
            ])
            .expect("some");
        Policy {
            restart,
            max_restarts: (rng.u8(..) < 40).then(|| rng.u32(0..6)),
            restart_delay: millis(*rng.choice(&[0, 10, 1_000]).expect("some")),
            restart_delay_max: millis(*rng.choice(&[1_000, 30_000]).expect("some")),
            restart_jitter: *rng.choice(&[0.0, 0.1, 1.0]).expect("some"),
            stable_after: millis(*rng.choice(&[0, 5_000, 60_000]).expect("some")),
            crash_threshold: rng.u32(1..8),
            crash_window: millis(rng.u64(1..60_000)),
            on_crash_loop: if rng.u8(..) < 80 {
                OnCrashLoop::Retry {
                    after: millis(rng.u64(1..20_000)),
                }
            } else {
                OnCrashLoop::GiveUp
            },
            success_exit_codes: vec![0],
            no_restart_exit_codes: if rng.u8(..) < 30 { vec![78] } else { vec![] },
            stop_timeout: millis(*rng.choice(&[0, 100, 5_000]).expect("some")),
            start_timeout: millis(rng.u64(1..5_000)),
            ready: match rng.u8(0..5) {
                0 => Readiness::Spawned,
                1 => Readiness::Alive(millis(*rng.choice(&[0, 1, 500, 1_000]).expect("some"))),
                2 if restart != RestartMode::Always => Readiness::Exit,
                _ => Readiness::Shown,
            },
            critical: rng.u8(..) < 15,
        }
    }

    fn add(&mut self, n: usize) {
        let policy = self.policy();
        let rng = &mut self.rng;
        let after: Vec<String> = (0..n)
            .filter(|_| rng.u8(..) < 60)
            .map(|m| format!("p{m}"))
            .collect();
        let name = format!("p{n}");
        let id = self.fleet.add(Member {
            name: name.clone(),
            after: after.clone(),
            policy: policy.clone(),
        });
        self.books.insert(
            id,
            Book {
                name,
                after,
                policy,
                wanted: false,
                removed: false,
                living: None,
                spawning: None,
                seen: BTreeSet::new(),
                not_before: None,
                over: false,
                ran: Duration::ZERO,
                crashes: VecDeque::new(),
                streak: 0,
                restarts: 0,
                exits_seen: 0,
                exits_told: 0,
                down_by: None,
                is_ready: false,
                is_completed: false,
                unjudged: None,
                retry: false,
                was_over: false,
                rolling: false,
                failed_starts: 0,
                never_up: false,
                roll_may_forgive: false,
            },
        );
    }

    fn note(&mut self, what: String) {
        let at = self.now - self.start;
        self.trace.push(format!("{at:>12?} {what}"));
    }

    fn moment(&mut self) -> Moment {
        Moment {
            now: self.now,
            chance: self.rng.f64(),
        }
    }

    fn tell(&mut self, id: Id, input: Input) {
        self.note(format!("{id:?} <- {input:?}"));
        let at = self.moment();
        self.fleet.step(at, id, input, &mut self.out);
        self.drain();
    }

    fn ask(&mut self, request: Request) {
        self.note(format!("ask {request:?}"));
        if let Request::Start(id) | Request::Restart(id, _) = &request
            && !self.shutting_down
        {
            self.books.entry(*id).and_modify(|b| b.failed_starts = 0);
        }
        match &request {
            Request::Start(id) if !self.shutting_down => self.allow(*id, true),
            // What is being spawned keeps its record.
            Request::Restart(id, _)
                if !self.shutting_down
                    && self.books[id]
                        .spawning
                        .is_some_and(|birth| !birth.hangs && !birth.killed) =>
            {
                self.books.entry(*id).and_modify(|b| b.wanted |= !b.removed);
            }
            Request::Restart(id, _) if !self.shutting_down => self.allow(*id, true),
            Request::Roll(ids, _) if !self.shutting_down => {
                for id in ids {
                    if let Some(book) = self.books.get_mut(id) {
                        // Its turn may come at any time from now on.
                        book.not_before = None;
                        book.was_over |= book.over;
                        book.rolling = true;
                        book.roll_may_forgive = true;
                        book.over = false;
                    }
                }
            }
            Request::Stop(id) | Request::Remove(id) => {
                self.allow(*id, false);
                let removing = matches!(request, Request::Remove(_));
                self.books.entry(*id).and_modify(|b| b.removed |= removing);
            }
            Request::Shutdown | Request::Kill => self.shutting_down = true,
            // The daemon is on its way out: nothing new is allowed.
            Request::Start(_) | Request::Restart(..) | Request::Roll(..) => {}
        }
        if matches!(request, Request::Kill) {
            let all: Vec<Id> = self.books.keys().copied().collect();
            for id in all {
                self.allow(id, false);
            }
        }
        let at = self.moment();
        self.fleet.request(at, request, &mut self.out);
        self.drain();
    }

    /// An order wipes the record, by the contract, and lifts every wait.
    fn allow(&mut self, id: Id, wanted: bool) {
        let now = self.now;
        let Some(book) = self.books.get_mut(&id) else {
            return;
        };
        if book.removed {
            return;
        }
        book.wanted = wanted;
        if wanted {
            book.forgive();
            book.over = false;
            book.was_over = false;
            book.not_before = None;
            book.down_by = None;
        } else if book.living.is_some() && book.down_by.is_none() {
            book.down_by = Some(now + book.policy.stop_timeout);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.out.pop_front() {
            match output {
                Output::Event(id, event) => self.hear(id, event),
                Output::Action(id, action) => self.act(id, action),
            }
        }
        self.halted_roll_has_its_reason();
        self.check();
    }

    /// A roll that reaches a program begins the count of its failed starts again; one that ended
    /// early ended at a program that did not come up.
    fn halted_roll_has_its_reason(&mut self) {
        for (id, book) in &mut self.books {
            let Some(view) = self.fleet.view(*id) else {
                continue;
            };
            if view.failed_starts == 0 && book.failed_starts > 0 && book.roll_may_forgive {
                book.failed_starts = 0;
                book.roll_may_forgive = false;
            }
        }
        if let Some((id, _)) = self.fleet.take_halted_roll() {
            let view = self.fleet.view(id).expect("known");
            assert!(view.failed_starts > 0, "a roll ends early for a reason");
            assert_ne!(view.state, State::Running);
        }
    }

    // ---- the world acts ---------------------------------------------------------------------

    fn act(&mut self, id: Id, action: Action) {
        self.note(format!("{id:?} -> {action:?}"));
        match action {
            Action::Spawn(run) => self.spawn(id, run),
            Action::Stop(run) => {
                let p = self
                    .processes
                    .get_mut(&run)
                    .expect("only what exists is signalled");
                assert!(
                    p.main_alive || p.family_alive,
                    "only the living are signalled"
                );
                p.stop_sent = true;
                p.asked_at.get_or_insert(self.now);
                if !p.ignores_stop && !p.unkillable {
                    let status = if p.leaves_family {
                        WaitStatus::Exited { code: 0 }
                    } else if self.rng.u8(..) < 20 {
                        oom_killed()
                    } else {
                        signaled(15)
                    };
                    p.dies_at = Some((self.now + millis(self.rng.u64(0..50)), status));
                }
            }
            Action::Kill(run) if self.is_being_born(run) => self.kill_birth(id),
            Action::Kill(run) => {
                let p = self
                    .processes
                    .get_mut(&run)
                    .expect("only what exists is signalled");
                assert!(p.main_alive || p.family_alive, "only the living are killed");
                p.kill_sent = true;
                p.leaves_family = false;
                if !p.unkillable {
                    p.dies_at = Some((self.now + millis(self.rng.u64(0..5)), signaled(9)));
                }
            }
        }
    }

    fn spawn(&mut self, id: Id, run: Run) {
        let now = self.now;
        let first = self.books[&id].seen.is_empty();
        if first {
            self.assert_dependencies_ready(id);
        }
        let book = self.books.get_mut(&id).expect("known");
        assert!(
            book.living.is_none() && book.spawning.is_none(),
            "never two lives of one slot"
        );
        assert!(book.wanted, "nothing spawned that is not wanted");
        if book.over && book.rolling {
            book.rolling = false;
            book.over = false;
            book.not_before = None;
        }
        assert!(!book.over, "nothing spawned after a give-up or an end");
        assert!(book.seen.insert(run), "every run is a new one");
        assert_eq!(run.id(), id);
        if let Some(earliest) = book.not_before
            && now < earliest
        {
            let lifted = std::mem::take(&mut book.rolling);
            assert!(
                lifted,
                "the back-off is kept: {:?} too early",
                earliest - now
            );
        }
        let calm = self.calm;
        let rng = &mut self.rng;
        let answer_at = match rng.u8(..) {
            _ if calm => Some(0),
            0..190 => Some(0),
            190..220 => Some(rng.u64(0..20)),
            220..250 => Some(rng.u64(500..8_000)),
            _ => None,
        };
        book.spawning = Some(Birth {
            run,
            since: now,
            answer_at: answer_at.map(|after| now + millis(after)),
            unkillable: !calm && rng.u8(..) < 20,
            hangs: false,
            killed: false,
        });
    }

    fn is_being_born(&self, run: Run) -> bool {
        let book = &self.books[&run.id()];
        book.spawning.is_some_and(|birth| birth.run == run)
    }

    /// What is killed on its way answers soon; it may have come through just before.
    fn kill_birth(&mut self, id: Id) {
        let answer = self.now + millis(self.rng.u64(0..5));
        let book = self.books.get_mut(&id).expect("known");
        let birth = book.spawning.as_mut().expect("it is being born");
        assert!(!birth.killed, "killed once");
        birth.killed = true;
        if !birth.unkillable {
            birth.answer_at = Some(answer);
        }
    }

    fn answer_spawn(&mut self, id: Id, run: Run) {
        let killed = self.books[&id].spawning.is_some_and(|birth| birth.killed);
        let fails = match killed {
            true => self.rng.u8(..) < 200,
            false => !self.calm && self.rng.u8(..) < 30,
        };
        let now = self.now;
        let rng = &mut self.rng;
        let book = self.books.get_mut(&id).expect("known");
        book.spawning = None;
        if fails {
            let transient = !killed && rng.bool();
            let kind = if transient {
                FailureKind::Limits
            } else {
                FailureKind::Exec
            };
            let input = Input::SpawnFailed(
                run,
                SpawnFailure {
                    kind,
                    transient,
                    message: "no".into(),
                },
            );
            return self.tell(id, input);
        }
        self.pid += 1;
        book.living = Some(run);
        if !book.wanted && book.down_by.is_none() {
            book.down_by = Some(now + book.policy.stop_timeout);
        }
        let calm = self.calm;
        let at_work = calm && !killed && book.policy.ready == Readiness::Exit;
        let lives = if killed {
            Some(Duration::ZERO)
        } else if calm {
            at_work.then(|| millis(5))
        } else {
            (rng.u8(..) < 200)
                .then(|| millis(*rng.choice(&[0, 5, 500, 20_000, 100_000]).expect("some")))
        };
        let status = match rng.u8(0..7) {
            _ if killed => signaled(9),
            _ if at_work => WaitStatus::Exited { code: 0 },
            0 => WaitStatus::Exited { code: 0 },
            1 => WaitStatus::Exited { code: 78 },
            2 => signaled(11),
            3 => WaitStatus::Lost,
            4 => oom_killed(),
            _ => WaitStatus::Exited { code: 1 },
        };
        let readiness = book.policy.ready;
        // One that nobody asked may say it all the same.
        let says = readiness == Readiness::Shown || rng.u8(..) < 30;
        let ready_at = says.then(|| now + millis(if calm { 0 } else { rng.u64(0..6_000) }));
        let process = Process {
            id,
            since: now,
            main_alive: true,
            family_alive: false,
            ready_at,
            readiness,
            said_ready: false,
            dies_at: lives.map(|l| (now + l, status)),
            ignores_stop: rng.u8(..) < 60,
            leaves_family: rng.u8(..) < 60,
            stop_sent: false,
            asked_at: None,
            kill_sent: false,
            timed_out: false,
            unkillable: !calm && !killed && rng.u8(..) < 4,
            ailment: None,
            was_ready: false,
        };
        self.processes.insert(run, process);
        self.tell(id, Input::Spawned(run, self.pid));
    }

    /// The main process ends; its family may live on until the next death of the same run.
    fn death(&mut self, run: Run, status: WaitStatus) {
        let now = self.now;
        let p = self.processes.get_mut(&run).expect("known");
        let id = p.id;
        if p.main_alive {
            p.main_alive = false;
            p.family_alive = p.leaves_family;
            p.dies_at = None;
            let family = p.family_alive;
            let ran = now - p.since;
            let book = self.books.get_mut(&id).expect("known");
            book.exits_seen += 1;
            book.ran += ran;
            if !family {
                book.living = None;
                book.down_by = None;
            }
            self.tell(
                id,
                Input::Exited {
                    run,
                    status,
                    family,
                },
            );
        } else if p.family_alive {
            p.family_alive = false;
            p.dies_at = None;
            let book = self.books.get_mut(&id).expect("known");
            book.living = None;
            book.down_by = None;
            self.tell(id, Input::FamilyGone(run));
        }
    }

    // ---- the world listens ------------------------------------------------------------------

    fn hear(&mut self, id: Id, event: Event) {
        self.note(format!("{id:?} ** {event:?}"));
        let now = self.now;
        let shutting_down = self.shutting_down;
        if let (
            Event::Stopping {
                reason: "stop requested",
                ..
            },
            true,
        ) = (&event, shutting_down)
        {
            self.assert_nothing_comes_after(id);
        }
        let book = self.books.get_mut(&id).expect("known");
        match event {
            Event::Started {
                cause: Some(Cause::Config | Cause::Operator),
                ..
            } => book.forgive(),
            Event::Started { .. } | Event::Waiting { .. } | Event::FamilyLeft { .. } => {}
            Event::Ready { run, took } => {
                book.is_ready = true;
                book.failed_starts = 0;
                let p = self.processes.get_mut(&run).expect("known");
                p.was_ready = true;
                assert_eq!(took, now - p.since);
                assert!(p.main_alive || took > Duration::ZERO, "the dead are not up");
                match p.readiness {
                    Readiness::Spawned => assert_eq!(took, Duration::ZERO),
                    Readiness::Alive(least) => assert!(took >= least, "up too early: {took:?}"),
                    Readiness::Shown => assert!(p.said_ready, "it did not say so"),
                    Readiness::Exit => panic!("ready before it was done"),
                }
            }
            Event::Exited(exit) => {
                book.exits_told += 1;
                book.is_ready = false;
                let p = &self.processes[&exit.run];
                check_reason(p, exit.reason, exit.status);
                assert_eq!(exit.ran, now - p.since);
                assert_eq!(exit.was_ready, p.was_ready);
                if let (Readiness::Alive(least), false) = (p.readiness, p.asked()) {
                    assert_eq!(
                        exit.was_ready,
                        exit.ran >= least,
                        "up means that it stayed up"
                    );
                }
                // The kernel's word goes before ours, but whoever was asked to go stays down.
                let by_kernel = exit.reason == ExitReason::Oom;
                let natural = match by_kernel {
                    true => !p.asked() || p.timed_out || p.ailment.is_some(),
                    false => !matches!(
                        exit.reason,
                        ExitReason::Stop | ExitReason::Restart | ExitReason::StopTimeout
                    ),
                };
                assert!(
                    p.ailment.is_none() || exit.reason.is_crash(),
                    "one that failed its check has crashed, however it ended"
                );
                book.never_up = natural && !exit.was_ready;
                book.unjudged = natural.then_some(Unjudged {
                    crash: exit.reason.is_crash(),
                    code: exit.status.code(),
                    ran: exit.ran,
                    ailment: p.ailment.filter(|_| !by_kernel),
                });
            }
            Event::StartFailed { cause, .. } => {
                (book.failed_starts, book.never_up) = (book.failed_starts + 1, false);
                if matches!(cause, Some(Cause::Config | Cause::Operator)) {
                    book.forgive();
                }
                book.unjudged = Some(Unjudged {
                    crash: true,
                    code: None,
                    ran: Duration::ZERO,
                    ailment: None,
                });
            }
            Event::StartDeferred { delay, .. } => {
                assert!(
                    delay <= book.policy.restart_delay_max * 2 + millis(100),
                    "a put-off start has a bound"
                );
                book.failed_starts += 1;
                book.not_before = Some(now + delay);
            }
            Event::StartTimedOut { run, after } => {
                assert_eq!(after, book.policy.start_timeout);
                self.processes.get_mut(&run).expect("known").timed_out = true;
            }
            Event::Stopping { reason, .. } => {
                book.is_ready = false;
                if reason == "restart requested" {
                    book.forgive();
                }
            }
            Event::StopEscalated { run, .. } => {
                let asked = self.processes[&run]
                    .asked_at
                    .expect("a stop comes before a kill");
                assert!(
                    now - asked >= book.policy.stop_timeout,
                    "the grace period is granted"
                );
            }
            Event::StartHangs { run } => {
                let birth = book.spawning.as_mut().filter(|birth| birth.run == run);
                let birth = birth.expect("what hangs is being born");
                assert!(!birth.hangs, "told once");
                assert_eq!(now - birth.since, HANGS_AFTER, "told in time");
                birth.hangs = true;
            }
            Event::Unkillable { run, .. } => {
                let birth = book.spawning.filter(|birth| birth.run == run);
                let stays = birth.map_or_else(
                    || self.processes[&run].unkillable,
                    |birth| birth.unkillable && birth.killed,
                );
                assert!(stays, "only what does not die is unkillable");
            }
            Event::Stopped { .. } => {
                assert!(book.living.is_none(), "stopped means gone");
                book.is_completed = false;
                book.unjudged = None;
            }
            Event::BackingOff {
                delay,
                cause,
                crashes_left,
            } => {
                book.failed_starts += u32::from(std::mem::take(&mut book.never_up));
                let expected = book.expect_verdict();
                assert_eq!(
                    expected,
                    Expected::Restart {
                        crashes_left,
                        cause
                    }
                );
                let (low, high) = book.delay_bounds();
                assert!(
                    delay >= low && delay <= high,
                    "delay {delay:?} outside {low:?}..={high:?}"
                );
                book.not_before = Some(now + delay);
            }
            Event::GaveUp { retry, .. } => {
                book.retry = retry.is_some();
                assert_eq!(book.expect_verdict(), Expected::GiveUp { retry });
                book.not_before = retry.map(|after| now + after);
                if retry.is_some() {
                    book.restarts += 1;
                }
            }
            Event::Failed { .. } | Event::Completed { .. } => {
                if book.unjudged.is_some() {
                    assert_eq!(book.expect_verdict(), Expected::End);
                }
                book.is_completed = matches!(event, Event::Completed { .. });
                let never_up = std::mem::take(&mut book.never_up);
                book.failed_starts += u32::from(never_up && !book.is_completed);
                book.over = !std::mem::take(&mut book.retry);
                if book.over && book.policy.critical && !book.is_completed {
                    self.shutting_down = true;
                }
            }
            Event::Removed => assert!(book.removed && book.living.is_none(), "removed means gone"),
        }
    }

    fn assert_dependencies_ready(&self, id: Id) {
        for name in &self.books[&id].after {
            for other in self
                .books
                .values()
                .filter(|b| b.name == *name && !b.removed)
            {
                assert!(
                    other.is_ready || other.is_completed,
                    "started before {name} was ready"
                );
            }
        }
    }

    /// At shutdown, what others come after goes last (unless a person stops it by name).
    fn assert_nothing_comes_after(&self, id: Id) {
        let book = &self.books[&id];
        if !book.wanted {
            return;
        }
        for (other, after) in self
            .books
            .iter()
            .filter(|(_, b)| b.after.contains(&book.name))
        {
            let alive = after
                .living
                .is_some_and(|run| !self.processes[&run].unkillable)
                || after.spawning.is_some_and(|birth| !birth.killed);
            assert!(
                !alive,
                "{id:?} stopped before {other:?}, which comes after it"
            );
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        for (id, book) in &self.books {
            assert!(book.exits_told <= book.exits_seen, "an exit told twice");
            assert_eq!(book.exits_told, book.exits_seen, "an exit not told");
            let Some(view) = self.fleet.view(*id) else {
                assert!(
                    book.removed && book.living.is_none(),
                    "forgotten while it lives"
                );
                continue;
            };
            let alive = book.living.filter(|run| self.processes[run].main_alive);
            assert_eq!(
                view.run.map(|(run, ..)| run),
                alive,
                "the published run is the living one"
            );
            assert_eq!(view.ran, book.ran, "every run's time is kept");
            assert_eq!(
                view.state == State::Running,
                book.is_ready,
                "running means ready"
            );
            assert_eq!(
                view.failed_starts, book.failed_starts,
                "{id:?}: failed starts"
            );
            if let Some(dependency) = view.waits_for {
                self.assert_worth_waiting_for(book, dependency);
            }
            if let Some(birth) = book.spawning.filter(|birth| !birth.killed) {
                let limit = book.policy.start_timeout.max(HANGS_AFTER);
                assert!(self.now <= birth.since + limit, "a start has a bound");
                let hangs = self.now > birth.since + HANGS_AFTER;
                assert!(
                    !hangs || (book.wanted && !self.shutting_down),
                    "a start that hangs and that nobody wants is ended"
                );
            }
            if let (Some(by), Some(run)) = (book.down_by, book.living) {
                let p = &self.processes[&run];
                assert!(
                    p.kill_sent || self.now <= by,
                    "every stop ends in bounded time: {id:?} {run:?}"
                );
            }
        }
    }

    /// Who waits waits for somebody who exists, whom it comes after, and who is not ready.
    fn assert_worth_waiting_for(&self, book: &Book, dependency: Id) {
        let other = self
            .fleet
            .view(dependency)
            .expect("it waits for one that is gone");
        let name = &self.books[&dependency].name;
        assert!(
            book.after.contains(name),
            "it does not come after {name} any more"
        );
        assert!(
            !matches!(other.state, State::Running | State::Completed),
            "it waits for {name}, which is ready"
        );
    }

    // ---- the walk ---------------------------------------------------------------------------

    /// The next thing that happens by itself: a spawn answered, a death, a readiness, a deadline.
    fn next_moment(&self) -> Option<Instant> {
        let spawns = self.books.values().filter_map(|b| b.spawning?.answer_at);
        let deaths = self
            .processes
            .values()
            .filter(|p| p.main_alive || p.family_alive)
            .filter_map(|p| p.dies_at.map(|(at, _)| at));
        let ready = self
            .processes
            .values()
            .filter(|p| p.main_alive)
            .filter_map(|p| p.ready_at);
        spawns
            .chain(deaths)
            .chain(ready)
            .chain(self.fleet.deadline())
            .min()
    }

    fn advance(&mut self) -> bool {
        let Some(next) = self.next_moment() else {
            return false;
        };
        self.early_tick_is_nothing(next);
        self.now = self.now.max(next);
        let now = self.now;
        if let Some((id, run)) = self.books.iter().find_map(|(id, b)| {
            b.spawning
                .filter(|birth| birth.answer_at.is_some_and(|at| at <= now))
                .map(|birth| (*id, birth.run))
        }) {
            self.answer_spawn(id, run);
        } else if let Some((run, status)) = self.processes.iter().find_map(|(run, p)| {
            p.dies_at
                .filter(|(at, _)| *at <= now && (p.main_alive || p.family_alive))
                .map(|(_, status)| (*run, status))
        }) {
            self.death(run, status);
        } else if let Some((run, id)) = self.processes.iter().find_map(|(run, p)| {
            p.ready_at
                .filter(|at| *at <= now && p.main_alive)
                .map(|_| (*run, p.id))
        }) {
            let p = self.processes.get_mut(&run).expect("known");
            (p.ready_at, p.said_ready) = (None, true);
            self.tell(id, Input::Ready(run));
        } else {
            let at = self.moment();
            self.note("tick".into());
            self.fleet.tick(at, &mut self.out);
            self.drain();
        }
        true
    }

    fn early_tick_is_nothing(&mut self, next: Instant) {
        if self.fleet.deadline().is_some_and(|d| d <= self.now) || next <= self.now {
            return;
        }
        let mut out = Outbox::new();
        let at = Moment {
            now: self.now + (next - self.now) / 2,
            chance: 0.5,
        };
        for id in self.fleet.ids() {
            self.fleet.step(at, id, Input::Tick, &mut out);
        }
        assert!(out.is_empty(), "an early tick is nothing: {out:?}");
    }

    fn old_news_is_nothing(&mut self) {
        let dead: Vec<Run> = self
            .processes
            .iter()
            .filter(|(_, p)| !p.main_alive && !p.family_alive)
            .map(|(run, _)| *run)
            .collect();
        let Some(run) = self.rng.choice(&dead).copied() else {
            return;
        };
        let mut out = Outbox::new();
        let at = self.moment();
        for input in [
            Input::Spawned(run, 1),
            Input::Ready(run),
            Input::Failing(run, Ailment::Health),
            Input::Exited {
                run,
                status: signaled(9),
                family: true,
            },
            Input::FamilyGone(run),
            Input::SpawnFailed(
                run,
                SpawnFailure {
                    kind: FailureKind::Exec,
                    transient: false,
                    message: String::new(),
                },
            ),
        ] {
            self.fleet.step(at, run.id(), input, &mut out);
        }
        assert!(out.is_empty(), "old news is nothing: {out:?}");
        self.check();
    }

    /// A check fails. Only a run that is ready is ended for it; whatever else lives stays as it is.
    fn ail(&mut self, id: Id) {
        let ailment = *self
            .rng
            .choice(&[Ailment::Health, Ailment::Watchdog])
            .expect("some");
        let book = &self.books[&id];
        let Some(run) = book.living else { return };
        let input = Input::Failing(run, ailment);
        if book.is_ready {
            let (now, grace) = (self.now, book.policy.stop_timeout);
            let p = self.processes.get_mut(&run).expect("known");
            p.ailment = Some(ailment);
            self.books.entry(id).and_modify(|b| {
                b.down_by.get_or_insert(now + grace);
            });
            self.tell(id, input);
            let p = &self.processes[&run];
            assert!(p.stop_sent || p.kill_sent, "what fails its check is ended");
        } else {
            let mut out = Outbox::new();
            let at = self.moment();
            self.fleet.step(at, id, input, &mut out);
            assert!(out.is_empty(), "one that does not run cannot fail: {out:?}");
            self.check();
        }
    }

    /// A reload adds a replica of a program, which somebody may start or not.
    fn grow(&mut self) {
        let n = self.rng.usize(0..5);
        self.add(n);
        let id = *self.fleet.ids().last().expect("just added");
        if self.rng.bool() {
            self.ask(Request::Start(id));
        }
    }

    /// A reload changes whom a program comes after, and what it takes to be up.
    fn update(&mut self, id: Id) {
        let ready = self.policy().ready;
        let rng = &mut self.rng;
        let book = self.books.get_mut(&id).expect("known");
        let own: usize = book.name[1..].parse().expect("a number");
        book.after = (0..own)
            .filter(|_| rng.u8(..) < 60)
            .map(|m| format!("p{m}"))
            .collect();
        if ready != Readiness::Exit || book.policy.restart != RestartMode::Always {
            book.policy.ready = ready;
        }
        let member = Member {
            name: book.name.clone(),
            after: book.after.clone(),
            policy: book.policy.clone(),
        };
        self.note(format!("{id:?} comes after {:?}", member.after));
        let at = self.moment();
        self.fleet.update(at, id, member, &mut self.out);
        self.drain();
    }

    fn disturb(&mut self) {
        let ids: Vec<Id> = self.books.keys().copied().collect();
        let id = *self.rng.choice(&ids).expect("some");
        match self.rng.u8(0..100) {
            0..20 => self.ask(Request::Start(id)),
            20..35 => self.ask(Request::Stop(id)),
            35..50 => self.ask(Request::Restart(id, Cause::Operator)),
            50..56 => self.ask(Request::Roll(ids, Cause::Config)),
            56..58 => self.ask(Request::Remove(id)),
            58..60 => self.grow(),
            60..64 => self.update(id),
            64..74 => self.ail(id),
            _ => self.old_news_is_nothing(),
        }
    }

    fn walk(&mut self) -> Outcome {
        for id in self.books.keys().copied().collect::<Vec<_>>() {
            self.ask(Request::Start(id));
        }
        for _ in 0..STEPS {
            if self.rng.u8(..) < 50 && !self.shutting_down {
                self.disturb();
            } else if !self.advance() {
                break;
            }
        }
        self.calm = true;
        let quiet_at = self.now + Duration::from_secs(1_200);
        while self.now < quiet_at && self.advance() {}
        if !self.shutting_down {
            self.check_liveness();
        }
        let urgent = self.rng.u8(..) < 60;
        self.ask(Request::Shutdown);
        if urgent {
            self.ask(Request::Kill);
        }
        let longest =
            self.books.len() as u32 * (millis(5_000) + UNKILLABLE_AFTER) + Duration::from_secs(1);
        let asked = self.now;
        while self.fleet.outcome().is_none() {
            assert!(self.advance(), "a shutdown that nothing can end");
            assert!(
                self.now - asked <= longest,
                "a shutdown ends in bounded time"
            );
        }
        self.fleet.outcome().expect("just seen")
    }

    /// In a calm world, whoever is wanted and not over runs, unless what it waits for does not.
    fn check_liveness(&self) {
        for (id, book) in &self.books {
            let waits = book.after.iter().any(|name| {
                self.books.values().any(|b| {
                    b.name == *name && !b.is_ready && !(b.is_completed && b.living.is_none())
                })
            });
            let stuck = book
                .living
                .is_some_and(|run| self.processes[&run].unkillable)
                || book.spawning.is_some_and(|birth| birth.unkillable);
            if book.wanted && !book.over && !book.was_over && !book.rolling && !waits && !stuck {
                let at_work = book
                    .living
                    .is_some_and(|run| self.processes[&run].readiness == Readiness::Exit);
                assert!(
                    book.is_ready || at_work,
                    "{id:?} is wanted and does not run"
                );
            }
            if !book.wanted && !stuck {
                assert!(book.living.is_none(), "{id:?} is not wanted and lives");
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Expected {
    Restart { crashes_left: u32, cause: Cause },
    GiveUp { retry: Option<Duration> },
    End,
}

impl Book {
    /// What an order does to the record.
    fn forgive(&mut self) {
        self.crashes.clear();
        self.streak = 0;
        self.restarts = 0;
    }

    /// The contract's section 4, written once more from its text.
    fn expect_verdict(&mut self) -> Expected {
        let Unjudged {
            crash,
            code,
            ran,
            ailment,
        } = self.unjudged.take().expect("a verdict follows an end");
        let p = &self.policy;
        if ran >= p.stable_after {
            self.streak = 0;
        }
        let total = self.ran;
        if crash {
            self.crashes.push_back(total);
        }
        self.crashes.retain(|at| total - *at <= p.crash_window);
        let in_window = self.crashes.len() as u32;
        let forbidden = code.is_some_and(|c| p.no_restart_exit_codes.contains(&c));
        let never = p.restart == RestartMode::Never;
        let done = p.restart == RestartMode::OnFailure && code == Some(0) && !crash;
        if forbidden || never || done {
            return Expected::End;
        }
        let exhausted = p.max_restarts.is_some_and(|max| self.restarts >= max);
        if (crash && in_window >= p.crash_threshold) || exhausted {
            let retry = match p.on_crash_loop {
                OnCrashLoop::Retry { after } if !exhausted => Some(after),
                OnCrashLoop::GiveUp | OnCrashLoop::Retry { .. } => None,
            };
            return Expected::GiveUp { retry };
        }
        self.streak += 1;
        self.restarts += 1;
        Expected::Restart {
            crashes_left: p.crash_threshold.saturating_sub(in_window),
            cause: match (ailment, crash) {
                (Some(Ailment::Health), _) => Cause::Health,
                (Some(Ailment::Watchdog), _) => Cause::Watchdog,
                (None, true) => Cause::Crash,
                (None, false) => Cause::Exit,
            },
        }
    }

    fn delay_bounds(&self) -> (Duration, Duration) {
        let p = &self.policy;
        if self.streak <= 1 {
            return (p.restart_delay, p.restart_delay);
        }
        let doubled = p.restart_delay.as_secs_f64() * 2f64.powi(self.streak as i32 - 1);
        let plain = doubled.min(p.restart_delay_max.as_secs_f64());
        let slack = 1e-6;
        let low = (plain * (1.0 - p.restart_jitter) - slack).max(0.0);
        (
            Duration::from_secs_f64(low),
            Duration::from_secs_f64(plain * (1.0 + p.restart_jitter) + slack),
        )
    }
}

fn signaled(signal: i32) -> WaitStatus {
    WaitStatus::Signaled {
        signal,
        core_dumped: false,
        oom: false,
    }
}

fn oom_killed() -> WaitStatus {
    WaitStatus::Signaled {
        signal: 9,
        core_dumped: false,
        oom: true,
    }
}

fn check_reason(p: &Process, reason: ExitReason, status: WaitStatus) {
    let asked = p.asked();
    let right = match (reason, status) {
        (reason, WaitStatus::Signaled { oom: true, .. }) => reason == ExitReason::Oom,
        (ExitReason::Health, _) => asked && p.ailment == Some(Ailment::Health),
        (ExitReason::Watchdog, _) => asked && p.ailment == Some(Ailment::Watchdog),
        _ if p.ailment.is_some() => false,
        (ExitReason::StopTimeout, WaitStatus::Signaled { signal: 9, .. }) => p.kill_sent,
        (ExitReason::Stop | ExitReason::Restart | ExitReason::StartupTimeout, _) => asked,
        (ExitReason::Success, WaitStatus::Exited { code: 0 }) => !asked,
        (ExitReason::ExitCode, WaitStatus::Exited { code }) => !asked && code != 0,
        (ExitReason::Signal, WaitStatus::Signaled { .. })
        | (ExitReason::Lost, WaitStatus::Lost) => !asked,
        _ => false,
    };
    assert!(right, "{reason:?} for {status:?}, asked to go: {asked}");
}

#[test]
fn no_walk_breaks_a_promise() {
    let only: Option<u64> = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.walk()));
        match result {
            Ok(outcome) => *outcomes.entry(format!("{outcome:?}")).or_default() += 1,
            Err(cause) => {
                let last = world.trace.len().saturating_sub(400);
                eprintln!("SEED={seed}\n{}", world.trace[last..].join("\n"));
                std::panic::resume_unwind(cause);
            }
        }
    }
    eprintln!("{outcomes:?}");
    if only.is_none() {
        assert!(
            outcomes.len() >= 3,
            "the walks reach several ends: {outcomes:?}"
        );
    }
}
