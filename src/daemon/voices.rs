//! Whose word a notification is.
//!
//! A program speaks for itself: its main process and the descendants of that, as root, as the
//! daemon's user or as its own. A program that was started as root may have become somebody else by
//! itself, so its family is heard whoever it is.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::os::notify::{self, Notification};
use crate::supervision::Run;

/// After a look at a process that turned out to be a stranger, processes of users that no program
/// has are not looked at for this long: a flood of theirs costs next to nothing.
const PAUSE: Duration = Duration::from_millis(10);
/// Strangers are told of this often.
const QUIET: Duration = Duration::from_secs(60);

/// Runs that may have something to say, by the number of their main process.
#[derive(Debug)]
pub(super) struct Voices {
    /// The user that the daemon is.
    daemon: u32,
    by_pid: HashMap<i32, Voice>,
    pids: HashMap<Run, i32>,
    looked_in_vain: Option<Instant>,
    strangers: Strangers,
}

#[derive(Debug)]
struct Voice {
    run: Run,
    /// `None`: the kernel did not say.
    user: Option<u32>,
}

impl Voice {
    /// Who is root may become anybody.
    fn changes_user(&self) -> bool {
        self.user == Some(0)
    }
}

/// A notification that has a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub run: Run,
    /// It has ended since, as `systemd-notify` always has. It is taken for one of the only program
    /// of its user that waits for a word: not to be believed when that does harm.
    pub gone: bool,
}

/// Notifications of processes that speak for no program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strangers {
    /// How many since they were told of.
    pub count: u64,
    /// The last one.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    told: Option<Instant>,
}

impl Voices {
    pub fn new(daemon: u32) -> Self {
        Self {
            daemon,
            by_pid: HashMap::new(),
            pids: HashMap::new(),
            looked_in_vain: None,
            strangers: Strangers::default(),
        }
    }

    /// Lends an ear to a run. `has_user`: a `user` is configured.
    pub fn expect(&mut self, run: Run, pid: i32, has_user: bool) {
        // Without one it was started as the daemon's, whoever it may have become by now.
        let user = if has_user {
            notify::user_of(pid).ok()
        } else {
            Some(self.daemon)
        };
        self.by_pid.insert(pid, Voice { run, user });
        self.pids.insert(run, pid);
    }

    /// The run has ended.
    pub fn forget(&mut self, run: Run) {
        if let Some(pid) = self.pids.remove(&run) {
            self.by_pid.remove(&pid);
        }
    }

    /// Finds who speaks. `waits` says whether such a word of a run is waited for.
    pub fn place(
        &mut self,
        notification: &Notification,
        waits: impl Fn(Run) -> bool,
    ) -> Option<Heard> {
        let Notification { pid, uid, .. } = *notification;
        if self.by_pid.is_empty() {
            return None;
        }
        let heard = self
            .living(pid, uid)
            .or_else(|| self.departed(pid, uid, waits));
        if heard.is_none() && notification.is_meant_for_us() {
            self.strangers.count += 1;
            (self.strangers.pid, self.strangers.uid) = (pid, uid);
        }
        heard
    }

    /// Returns the strangers that were not told of yet, if it is time to.
    pub fn strangers(&mut self) -> Option<Strangers> {
        let due = |told: Instant| told.elapsed() >= QUIET;
        if self.strangers.count == 0 || !self.strangers.told.is_none_or(due) {
            return None;
        }
        let told = Some(Instant::now());
        let quiet = Strangers {
            told,
            ..Strangers::default()
        };
        Some(std::mem::replace(&mut self.strangers, quiet))
    }

    /// The users are compared first: that costs nothing, and to look for a family is dear.
    fn living(&mut self, pid: i32, uid: u32) -> Option<Heard> {
        let gone = false;
        // What the kernel says of our own unreaped child is true whoever it has become.
        if let Some(voice) = self.by_pid.get(&pid).filter(|voice| self.fits(voice, uid)) {
            return Some(Heard {
                run: voice.run,
                gone,
            });
        }
        let trusted = uid == 0 || uid == self.daemon;
        let known = trusted || self.by_pid.values().any(|voice| voice.user == Some(uid));
        if !known && !self.may_look_at_others() {
            return None;
        }
        let run = notify::family_of(pid, |main| {
            let voice = self.by_pid.get(&main)?;
            Some((voice.run, self.fits(voice, uid)))
        });
        match run {
            Some((run, true)) => Some(Heard { run, gone }),
            Some((_, false)) | None => {
                if !known {
                    self.looked_in_vain = Some(Instant::now());
                }
                None
            }
        }
    }

    fn fits(&self, voice: &Voice, uid: u32) -> bool {
        uid == 0 || uid == self.daemon || voice.user == Some(uid) || voice.changes_user()
    }

    fn may_look_at_others(&self) -> bool {
        self.by_pid.values().any(Voice::changes_user)
            && self
                .looked_in_vain
                .is_none_or(|then| then.elapsed() >= PAUSE)
    }

    fn departed(&self, pid: i32, uid: u32, waits: impl Fn(Run) -> bool) -> Option<Heard> {
        let mut of_that_user = self
            .by_pid
            .values()
            .filter(|voice| voice.user == Some(uid) && waits(voice.run));
        let run = of_that_user.next()?.run;
        let alone = of_that_user.next().is_none();
        let gone = alone && !Path::new(&format!("/proc/{pid}")).exists();
        gone.then_some(Heard { run, gone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervision::Id;

    /// A process that was, and whose number nobody has: it is above the kernel's greatest.
    const GONE: i32 = i32::MAX;
    const WEB: Run = Run::new(Id(0), 1);
    const DB: Run = Run::new(Id(1), 1);
    const SHOP: Run = Run::new(Id(2), 1);

    fn ready(pid: i32, uid: u32) -> Notification {
        let state = vec![("READY".to_owned(), "1".to_owned())];
        Notification { pid, uid, state }
    }

    /// A root daemon and its programs, with main processes that nobody is: above the greatest.
    fn voices(of: &[(Run, i32, u32)]) -> Voices {
        let mut voices = Voices::new(0);
        for (run, pid, user) in of {
            let user = Some(*user);
            voices.by_pid.insert(*pid, Voice { run: *run, user });
            voices.pids.insert(*run, *pid);
        }
        voices
    }

    fn speaker(voices: &mut Voices, of: &Notification) -> Option<Run> {
        voices.place(of, |_| true).map(|heard| heard.run)
    }

    #[test]
    fn a_main_process_is_heard_as_its_own_user_as_root_and_as_the_daemons() {
        let (web, shop) = (GONE - 1, GONE - 2);
        let mut voices = voices(&[(WEB, web, 33), (SHOP, shop, 0)]);
        for uid in [0, 33] {
            assert_eq!(speaker(&mut voices, &ready(web, uid)), Some(WEB));
        }
        assert_eq!(speaker(&mut voices, &ready(web, 1000)), None);
        // It was root and may have become anybody.
        assert_eq!(speaker(&mut voices, &ready(shop, 1000)), Some(SHOP));
        voices.forget(WEB);
        assert_eq!(speaker(&mut voices, &ready(web, 1000)), None);
    }

    #[test]
    fn a_sender_that_is_gone_is_believed_only_for_the_one_program_of_its_user_that_waits() {
        let programs = [(WEB, GONE - 1, 33), (DB, GONE - 2, 5), (SHOP, GONE - 3, 33)];
        let mut two = voices(&programs[..2]);
        assert_eq!(speaker(&mut two, &ready(GONE, 33)), Some(WEB));
        assert_eq!(speaker(&mut two, &ready(GONE, 5)), Some(DB));
        for uid in [0, 65_534] {
            assert_eq!(speaker(&mut two, &ready(GONE, uid)), None, "uid {uid}");
        }
        let alive_and_a_stranger = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(speaker(&mut two, &ready(alive_and_a_stranger, 33)), None);

        let mut three = voices(&programs);
        assert_eq!(speaker(&mut three, &ready(GONE, 33)), None, "which of two?");
        let heard = three.place(&ready(GONE, 33), |run| run == SHOP);
        let placed = Heard {
            run: SHOP,
            gone: true,
        };
        assert_eq!(heard, Some(placed), "only one of them waits");
    }

    #[test]
    fn strangers_are_counted_and_told_of_once_in_a_while() {
        let mut voices = voices(&[(WEB, GONE - 1, 33)]);
        assert_eq!(voices.strangers(), None);
        for _ in 0..3 {
            assert_eq!(speaker(&mut voices, &ready(1, 1000)), None);
        }
        let status = vec![("STATUS".to_owned(), "hello".to_owned())];
        let chatter = Notification {
            state: status,
            ..ready(1, 1000)
        };
        assert_eq!(speaker(&mut voices, &chatter), None);
        let told = voices.strangers().expect("the first time at once");
        assert_eq!((told.count, told.pid, told.uid), (3, 1, 1000));
        assert_eq!(speaker(&mut voices, &ready(1, 1000)), None);
        assert_eq!(voices.strangers(), None, "not again so soon");
    }
}
