//! The end of survivors: all asked at once, each with its own signal and its own grace, then killed,
//! always through a pidfd whose owner was checked.
//!
//! Nothing here waits or reads a clock: whoever owns a [`Clearing`] polls [`Clearing::poll_next`] and waits for its
//! deadline and then calls [`Clearing::advance`], which does what is due. A call too many does nothing.
//!
//! Who survives is found by looking through all processes: on a thread, since their memory may be slow
//! to answer; once for all of them, however many there are; and again when a grace is over, and when
//! nobody is left who is known, until two looks in a row find nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::watched::{Taken, Watched};
use super::{Found, Search, Survivor};
use crate::os::identity::Identity;
use crate::os::threads;

/// How long the killed may take to go; longer means uninterruptible sleep.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long a process may be just executing a program; longer is somebody who hides.
const EXECUTION_LIMIT: Duration = Duration::from_secs(1);
/// How long after a look at such a process the first next one is; each takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long a look through all processes may take before it is said that it hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How a program is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The number of its stop signal.
    pub signal: i32,
    /// How long it may take after that.
    pub grace: Duration,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// They were found, and are asked to end.
    Found(Vec<Survivor>),
    /// This process is on record under this name, lives, and does not prove to be ours: it is left alone.
    Unproven(Identity, String),
    /// A living daemon of this installation runs them: nobody is touched.
    Rival(i32),
    /// The look through all processes hangs.
    Hangs,
    /// It outlives SIGKILL, or may not be signalled.
    Left(Survivor),
    /// Nobody is left, or those who are cannot be ended.
    Over {
        /// How many processes were ended, each counted once.
        count: usize,
    },
}

/// Survivors on their way to their end.
pub struct Clearing {
    search: Search,
    farewell: Box<dyn Fn(&str) -> Farewell + Send>,
    looking: Option<(Instant, oneshot::Receiver<Found>)>,
    looked: Option<Found>,
    /// Something has happened that makes another look necessary, at this time.
    look_at: Option<Instant>,
    /// Looks in a row that found nobody.
    empty_looks: u32,
    families: BTreeMap<String, Family>,
    alive: Watched,
    ended: HashSet<Identity>,
    given_up: HashSet<Identity>,
    unsure: HashMap<Identity, Instant>,
    pause: Duration,
    said: BTreeSet<Identity>,
    hang_said: bool,
    /// The first look is through.
    begun: bool,
    /// No grace from this time on.
    hurried: Option<Instant>,
    over: bool,
}

/// The processes of one program.
#[derive(Debug)]
struct Family {
    farewell: Farewell,
    asked_at: Instant,
    /// When its grace is over, or was.
    kill_at: Instant,
    killing: bool,
    alive: usize,
}

impl Clearing {
    /// Prepares to end whoever the search finds; `farewell` tells how, by the name of a program. To be
    /// called inside a runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an epoll instance.
    pub fn new(
        search: Search,
        farewell: impl Fn(&str) -> Farewell + Send + 'static,
        now: Instant,
    ) -> io::Result<Self> {
        Ok(Self {
            search,
            farewell: Box::new(farewell),
            looking: None,
            looked: None,
            look_at: Some(now),
            empty_looks: 0,
            families: BTreeMap::new(),
            alive: Watched::new()?,
            ended: HashSet::new(),
            given_up: HashSet::new(),
            unsure: HashMap::new(),
            pause: FIRST_PAUSE,
            said: BTreeSet::new(),
            hang_said: false,
            begun: false,
            hurried: None,
            over: false,
        })
    }

    /// Ready when there is a reason for [`Clearing::advance`], besides the deadline.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut woken = self.alive.poll(context);
        if let Some((since, answer)) = &mut self.looking
            && let Poll::Ready(found) = Pin::new(answer).poll(context)
        {
            if found.is_err() {
                // Its thread died: what the next one says counts.
                self.look_at = Some(*since + LONGEST_PAUSE);
            }
            self.looking = None;
            self.looked = found.ok();
            woken = Poll::Ready(());
        }
        woken
    }

    /// Returns when [`Clearing::advance`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let families = self.families.values().filter(|family| family.alive > 0);
        let kills = families.map(|family| match family.killing {
            true => family.kill_at + KILL_LIMIT,
            false => family.kill_at,
        });
        let hang = self.looking.as_ref().filter(|_| !self.hang_said);
        kills
            .chain(hang.map(|(since, _)| *since + LOOK_LIMIT))
            .chain(self.look_at.filter(|_| self.looking.is_none()))
            .chain(self.hurried.map(|since| since + KILL_LIMIT))
            .min()
    }

    /// Ends every grace now.
    pub fn hurry(&mut self, now: Instant) {
        self.hurried.get_or_insert(now);
        for family in self.families.values_mut().filter(|family| !family.killing) {
            family.kill_at = now;
        }
    }

    /// Tells whether the first look is through.
    #[must_use]
    pub const fn has_looked(&self) -> bool {
        self.begun
    }

    /// Returns how many processes live that are to be ended, and the names of their programs.
    #[must_use]
    pub fn left(&self) -> (usize, BTreeSet<&str>) {
        (self.alive.len(), self.alive.names())
    }

    /// Does what is due, and tells what has come of it.
    pub fn advance(&mut self, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        if self.over {
            return news;
        }
        loop {
            for survivor in self.alive.take_ended() {
                self.count_out(&survivor);
                self.ended.insert(survivor.identity);
            }
            if let Some(found) = self.looked.take() {
                self.take_in(found, now, &mut news);
            }
            if !self.over {
                self.end_graces(now);
                self.give_up(now, &mut news);
                self.look_if_due(now, &mut news);
            }
            if self.looked.is_none() {
                return news;
            }
        }
    }

    fn count_out(&mut self, survivor: &Survivor) {
        if let Some(family) = self.families.get_mut(&survivor.name) {
            family.alive -= 1;
        }
    }

    /// Takes in what a look has found.
    fn take_in(&mut self, found: Found, now: Instant, news: &mut Vec<News>) {
        if let Some(rival) = found.rival.filter(|_| !self.begun) {
            self.over = true;
            return news.push(News::Rival(rival));
        }
        for (identity, name) in &found.unproven {
            if self.said.insert(*identity) {
                news.push(News::Unproven(*identity, name.clone()));
            }
        }
        let new: Vec<Survivor> = found
            .survivors
            .iter()
            .filter(|survivor| self.is_new(&survivor.identity))
            .cloned()
            .collect();
        if !self.begun && !new.is_empty() {
            news.push(News::Found(new.clone()));
        }
        self.begun = true;
        self.empty_looks = if new.is_empty() {
            self.empty_looks + 1
        } else {
            0
        };
        for survivor in new {
            self.take_on(survivor, now);
        }
        for left in &found.left_over {
            if !left.pids.is_empty() && left.pids.iter().all(|pid| self.is_killing(*pid)) {
                left.kill();
            }
        }
        self.search.sessions.extend(found.sessions);
        self.doubt(found.unsure, now);
    }

    /// Whether the grace of the program of this process is over.
    fn is_killing(&self, pid: i32) -> bool {
        let survivor = self.alive.with_pid(pid);
        let family = survivor.and_then(|survivor| self.families.get(&survivor.name));
        family.is_some_and(|family| family.killing)
    }

    fn is_new(&self, identity: &Identity) -> bool {
        !self.alive.contains(identity)
            && !self.ended.contains(identity)
            && !self.given_up.contains(identity)
    }

    /// Asks a survivor to end, or kills it where its program's grace is over.
    fn take_on(&mut self, survivor: Survivor, now: Instant) {
        let identity = survivor.identity;
        match self.alive.watch(&survivor) {
            Taken::Watched => {
                if let Some(signal) = self.signal_for(&survivor.name, now) {
                    self.alive.tell(&identity, signal);
                }
            }
            Taken::Gone => drop(self.ended.insert(identity)),
            // The next look finds it again, when others have ended.
            Taken::NotNow => self.look_at = Some(now + LONGEST_PAUSE),
        }
        self.search.known.insert(identity, survivor.name);
    }

    /// Counts another member of a program's family; returns what to send to it. One that appears while
    /// others are on their way to their end may be what they need for that: it is left to them.
    fn signal_for(&mut self, name: &str, now: Instant) -> Option<i32> {
        let hurried = self.hurried.is_some();
        let family = self.families.entry(name.to_owned()).or_insert_with(|| {
            let farewell = (self.farewell)(name);
            let grace = if hurried {
                Duration::ZERO
            } else {
                farewell.grace
            };
            Family {
                farewell,
                asked_at: now,
                kill_at: now + grace,
                killing: false,
                alive: 0,
            }
        });
        family.alive += 1;
        if !family.killing {
            let is_late = family.asked_at < now && family.alive > 1;
            return (!is_late).then_some(family.farewell.signal);
        }
        if family.alive == 1 {
            // All that were known are gone: this one has its own time to go.
            family.kill_at = now;
        }
        Some(libc::SIGKILL)
    }

    /// Remembers who is just executing a program, and looks again soon.
    fn doubt(&mut self, unsure: Vec<Identity>, now: Instant) {
        self.unsure.retain(|identity, _| unsure.contains(identity));
        let mut wait = false;
        for identity in unsure {
            let since = self.unsure.entry(identity).or_insert(now);
            wait |= now < *since + EXECUTION_LIMIT;
        }
        if wait {
            self.empty_looks = 0;
            self.look_at = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Kills the programs whose grace is over, and looks for what they have made meanwhile.
    fn end_graces(&mut self, now: Instant) {
        let mut due = HashSet::new();
        for (name, family) in &mut self.families {
            if !family.killing && family.kill_at <= now {
                family.killing = true;
                due.insert(name.clone());
            }
        }
        for survivor in self.alive.iter() {
            if due.contains(&survivor.name) {
                self.alive.tell(&survivor.identity, libc::SIGKILL);
            }
        }
        if !due.is_empty() {
            self.look_at = Some(now);
        }
    }

    /// Lets go of those that outlive SIGKILL; of all when there is no time left.
    fn give_up(&mut self, now: Instant, news: &mut Vec<News>) {
        let out_of_time = self.hurried.is_some_and(|since| now >= since + KILL_LIMIT);
        let is_lost = |survivor: &&Survivor| {
            let family = self.families.get(&survivor.name);
            out_of_time || family.is_some_and(|f| f.killing && now >= f.kill_at + KILL_LIMIT)
        };
        let lost: Vec<Survivor> = self.alive.iter().filter(is_lost).cloned().collect();
        for survivor in lost {
            self.alive.dismiss(&survivor.identity);
            self.count_out(&survivor);
            self.given_up.insert(survivor.identity);
            news.push(News::Left(survivor));
        }
        if out_of_time {
            self.finish(news);
        }
    }

    /// Begins another look where one is due; ends where none is needed any more.
    fn look_if_due(&mut self, now: Instant, news: &mut Vec<News>) {
        if self.over {
            return;
        }
        if let Some((since, _)) = self.looking {
            if now >= since + LOOK_LIMIT && !std::mem::replace(&mut self.hang_said, true) {
                news.push(News::Hangs);
            }
            return;
        }
        let nobody = self.alive.is_empty() && self.look_at.is_none();
        let enough = if self.families.is_empty() { 1 } else { 2 };
        if nobody && self.begun && self.empty_looks >= enough {
            return self.finish(news);
        }
        if nobody || self.look_at.is_some_and(|due| due <= now) {
            self.look_at = None;
            self.look(now);
        }
    }

    fn look(&mut self, now: Instant) {
        let (answer, found) = oneshot::channel();
        let search = self.search.clone();
        // Whoever asked may be over.
        let started = threads::spawn_helper("survivors", move || drop(answer.send(search.run())));
        match started {
            Ok(_) => self.looking = Some((now, found)),
            // No thread to be had: a loop that waits for a moment is better than a late start.
            Err(_) => self.looked = Some(self.search.run()),
        }
    }

    fn finish(&mut self, news: &mut Vec<News>) {
        self.over = true;
        self.search.cgroups.remove();
        news.push(News::Over {
            count: self.ended.len(),
        });
    }
}
