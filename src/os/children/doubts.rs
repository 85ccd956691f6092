//! Orphans of whom nobody can tell yet whose they are: their environments are being read, and that
//! may take as long as their owners please.
//!
//! A doubt ends in any case: with what was read, or with nothing when there is nothing to read
//! after three looks, when a read takes longer than [`PATIENCE`], or when the execution of a
//! program takes longer than [`LONGEST`]. An answer that comes later still counts.

use std::collections::{HashMap, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use crate::os::environ::{self, Environment, Reader};
use crate::os::family::Process;
use crate::os::launch::MARKER;

/// From one look to the next: most executions are over within microseconds, some never.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// So often there has to be nothing to read.
const LOOKS: u32 = 3;
/// A read that takes longer is left to itself, and its reader with it.
const PATIENCE: Duration = Duration::from_millis(15);
/// The most that a doubt lasts, and that it holds anybody up.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// What has become known of an orphan.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) pid: i32,
    pub(super) started: u64,
    /// The value of our marker; `None`: it has none, or shows none.
    pub(super) marker: Option<String>,
}

#[derive(Debug)]
struct Doubt {
    process: Process,
    waited: Duration,
    silent: u32,
    /// It was asked for, and there is no answer yet.
    pending: bool,
}

/// All that is in doubt.
#[derive(Debug)]
pub(super) struct Doubts {
    open: HashMap<i32, Doubt>,
    reader: Option<Reader>,
    /// Asked of this reader and not answered, in this order.
    asked: VecDeque<i32>,
    /// How long it has been at the first of them.
    stuck: Duration,
    sender: mpsc::UnboundedSender<(Process, Environment)>,
    answers: mpsc::UnboundedReceiver<(Process, Environment)>,
    pause: Duration,
    /// Nothing tells that an execution is over.
    timer: Option<Pin<Box<Sleep>>>,
    /// How long there have been doubts, all together.
    lasted: Duration,
}

impl Doubts {
    pub(super) fn new() -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            open: HashMap::new(),
            reader: None,
            asked: VecDeque::new(),
            stuck: Duration::ZERO,
            sender,
            answers,
            pause: FIRST_PAUSE,
            timer: None,
            lasted: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, process: Process) {
        let doubt = Doubt {
            process,
            waited: Duration::ZERO,
            silent: 0,
            pending: false,
        };
        self.open.insert(process.pid, doubt);
        self.ask_all();
        // Not put off by each of many.
        if self.timer.is_none() || self.pause > FIRST_PAUSE {
            self.pause = FIRST_PAUSE;
            self.timer = Some(Box::pin(sleep(self.pause)));
        }
    }

    /// It has ended.
    pub(super) fn forget(&mut self, pid: i32) {
        self.open.remove(&pid);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Tells whether one of them is that young: it may descend from one who started then (in ticks).
    pub(super) fn any_since(&self, started: u64) -> bool {
        let mut open = self.open.values();
        open.any(|doubt| doubt.process.started >= started)
    }

    /// How long there have been doubts since the beginning: a clock for who is held up by them.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted
    }

    /// Takes what has become known; `Pending` when nothing has changed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Vec<Finding>> {
        let (mut findings, mut changed) = (Vec::new(), false);
        while let Poll::Ready(Some((process, answer))) = self.answers.poll_recv(context) {
            changed = true;
            findings.extend(self.answered(&process, answer));
        }
        while let Some(timer) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            changed = true;
            self.look_again(&mut findings);
        }
        if changed {
            Poll::Ready(findings)
        } else {
            Poll::Pending
        }
    }

    fn answered(&mut self, process: &Process, answer: Environment) -> Option<Finding> {
        if let Some(at) = self.asked.iter().position(|pid| *pid == process.pid) {
            self.asked.remove(at);
            self.stuck = Duration::ZERO;
        }
        let doubt = self.open.get_mut(&process.pid);
        let doubt = doubt.filter(|doubt| doubt.process.started == process.started);
        let marker = match (answer, doubt) {
            (Environment::Says(mut found), _) => found.pop().flatten(),
            (Environment::Silent, Some(doubt)) => {
                doubt.pending = false;
                doubt.silent += 1;
                if doubt.silent < LOOKS {
                    return None;
                }
                None
            }
            (Environment::NotYet, Some(doubt)) => {
                doubt.pending = false;
                return None;
            }
            (Environment::Silent | Environment::NotYet, None) => return None,
        };
        self.open.remove(&process.pid);
        Some(finding(process, marker))
    }

    fn look_again(&mut self, findings: &mut Vec<Finding>) {
        let pause = self.pause;
        self.lasted += pause;
        let reads = self.reader.as_ref().is_some_and(Reader::is_reading);
        if reads && !self.asked.is_empty() {
            self.stuck += pause;
        }
        let hangs = if self.stuck >= PATIENCE {
            self.leave_reader()
        } else {
            None
        };
        let deaf = self.reader.is_none();
        self.open.retain(|pid, doubt| {
            doubt.waited += pause;
            let unheard = Some(*pid) == hangs || (deaf && doubt.waited >= PATIENCE);
            let over = doubt.waited >= LONGEST || (unheard && !environ::is_executing(*pid));
            if over {
                findings.push(finding(&doubt.process, None));
            }
            !over
        });
        self.ask_all();
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.timer = (!self.open.is_empty()).then(|| Box::pin(sleep(self.pause)));
    }

    /// Has a new reader take over from one that hangs; returns what that hangs at.
    fn leave_reader(&mut self) -> Option<i32> {
        self.stuck = Duration::ZERO;
        let hangs = self.asked.pop_front();
        self.reader = Reader::start();
        for pid in self.asked.drain(..) {
            if let Some(doubt) = self.open.get_mut(&pid) {
                doubt.pending = false;
            }
        }
        hangs
    }

    /// Asks for whatever nobody has been asked for.
    fn ask_all(&mut self) {
        let waiting = self.open.values_mut().filter(|doubt| !doubt.pending);
        for doubt in waiting {
            if self.reader.is_none() {
                self.reader = Reader::start();
            }
            let Some(reader) = &self.reader else { return };
            let (sender, process) = (self.sender.clone(), doubt.process);
            reader.ask(process.pid, &[MARKER], move |found| {
                // Nobody listens any more at the end of the daemon.
                let _ = sender.send((process, found));
            });
            doubt.pending = true;
            self.asked.push_back(process.pid);
        }
    }
}

fn finding(process: &Process, marker: Option<String>) -> Finding {
    Finding {
        pid: process.pid,
        started: process.started,
        marker,
    }
}
