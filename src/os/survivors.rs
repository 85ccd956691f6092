//! Processes that an earlier daemon left behind, because it was killed itself.
//!
//! A process counts as a survivor when the environment it was started with carries the token of our
//! installation, when it lives in a cgroup that we make for programs, or when it is on record and
//! proves to be one of ours; and when it belongs to the family of such a one: a descendant, or a member
//! of the session or process group of one. We, our ancestors and whoever shares our session are never
//! survivors. A record alone is nothing: who can write one could have anybody ended.

mod clearing;
mod proof;
mod watched;

use std::collections::{HashMap, HashSet};
use std::io;
use std::thread;
use std::time::Duration;

use super::cgroups::{LeftOver, LeftOvers};
use super::family::{self, Marker};
use super::identity::Identity;
use super::installation::Installation;
use super::procfs::{self, Stat};

pub use clearing::{Clearing, Farewell, News};

/// How often, and after which pause, a look that failed for want of something is repeated: half a second.
const ATTEMPTS: u32 = 50;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);

/// A process of an earlier daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Who it is.
    pub identity: Identity,
    /// The recorded name of its program; what it was told itself, or else the command's name, where
    /// nothing is recorded.
    pub name: String,
    /// How it was found.
    pub how: How,
}

/// How a survivor was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was on record, and proved to be what the record says.
    Recorded,
    /// Its environment carries our token.
    Marked,
    /// It lives in a cgroup of ours.
    InCgroup,
    /// It belongs to the family of one of the others, or did when that one was found.
    Family,
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Search {
    /// Whose processes.
    pub installation: Installation,
    /// What is on record: to be proved.
    pub recorded: HashMap<Identity, String>,
    /// The cgroups of an earlier daemon.
    pub cgroups: LeftOvers,
    /// Who was found before: what they do to hide changes nothing.
    known: HashMap<Identity, String>,
    /// The sessions that those led, so that members are known when the leader is gone.
    sessions: HashMap<i32, String>,
}

/// What a search has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those to be ended.
    pub survivors: Vec<Survivor>,
    /// Those on record that live and do not prove to be ours.
    pub unproven: Vec<(Identity, String)>,
    /// Those that are just executing a program, so that nobody can tell yet whose they are.
    pub unsure: Vec<Identity>,
    /// A living daemon of our installation whose children some of them are.
    pub rival: Option<i32>,
    /// The sessions that survivors lead.
    sessions: HashMap<i32, String>,
    left_over: Vec<LeftOver>,
}

impl Search {
    /// Makes one.
    #[must_use]
    pub fn new(
        installation: Installation,
        recorded: HashMap<Identity, String>,
        cgroups: LeftOvers,
    ) -> Self {
        Self {
            installation,
            recorded,
            cgroups,
            known: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    /// Looks through all processes. May wait for a process whose memory is slow to answer.
    #[must_use]
    pub fn run(&self) -> Found {
        let left_over = self.cgroups.list();
        let in_cgroups: HashMap<i32, &str> = left_over
            .iter()
            .flat_map(|left| left.pids.iter().map(|pid| (*pid, left.program.as_str())))
            .collect();
        let world = World::read();
        let mut found = Found::default();
        let mut survivors: HashMap<i32, Survivor> = HashMap::new();
        for stat in world.candidates() {
            let identity = Identity::from_stat(stat);
            match self.judge(stat, identity, &in_cgroups, &world) {
                Judgement::Ours(name, how) => {
                    let survivor = Survivor {
                        identity,
                        name,
                        how,
                    };
                    survivors.insert(stat.pid, survivor);
                }
                Judgement::Unproven(name) => found.unproven.push((identity, name)),
                Judgement::NotYet => found.unsure.push(identity),
                Judgement::Foreign => {}
            }
        }
        while world.add_family(&mut survivors) {}
        found
            .unproven
            .retain(|(who, _)| !survivors.contains_key(&who.pid()));
        found
            .unsure
            .retain(|who| !survivors.contains_key(&who.pid()));
        found.rival = world.rival(&survivors, &self.installation);
        found.sessions = survivors
            .values()
            .filter(|survivor| world.leads_a_session(survivor.identity.pid()))
            .map(|survivor| (survivor.identity.pid(), survivor.name.clone()))
            .collect();
        found.survivors = survivors.into_values().collect();
        found
            .survivors
            .sort_unstable_by_key(|survivor| survivor.identity);
        found.left_over = left_over;
        found
    }

    fn judge(
        &self,
        stat: &Stat,
        identity: Identity,
        in_cgroups: &HashMap<i32, &str>,
        world: &World,
    ) -> Judgement {
        if let Some(name) = self.known.get(&identity) {
            return Judgement::Ours(name.clone(), How::Family);
        }
        let recorded = self.recorded.get(&identity).cloned();
        if let Some(program) = in_cgroups.get(&stat.pid) {
            // The name on record tells replicas apart.
            let name = recorded.unwrap_or_else(|| (*program).to_owned());
            return Judgement::Ours(name, How::InCgroup);
        }
        match family::marker(stat.pid) {
            Marker::Of(mark) if self.installation.owns(stat.pid, &mark) => {
                let name = recorded.unwrap_or_else(|| proof::program_name(stat.pid));
                return Judgement::Ours(name, How::Marked);
            }
            Marker::NotYet => return Judgement::NotYet,
            Marker::Of(_) | Marker::None => {}
        }
        let led = self.sessions.get(&stat.session);
        if let Some(name) = led.filter(|_| world.no_leader(stat.session)) {
            return Judgement::Ours(name.clone(), How::Family);
        }
        match recorded {
            Some(name) if proof::is_bereft_of_its_daemon(stat) => {
                Judgement::Ours(name, How::Recorded)
            }
            Some(name) => Judgement::Unproven(name),
            None => Judgement::Foreign,
        }
    }
}

/// Whose a process is, looked at by itself.
enum Judgement {
    Ours(String, How),
    Unproven(String),
    NotYet,
    Foreign,
}

/// All processes at one moment.
struct World {
    stats: HashMap<i32, Stat>,
    /// We and our ancestors.
    spared: HashSet<i32>,
    /// Our own session, where whoever started us lives.
    session: i32,
}

/// Who is missed runs beside the one that is started in its place: what we only lack at this moment is
/// waited for.
fn patiently<T>(look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        match look() {
            Err(error) if procfs::is_passing(&error) => thread::sleep(ATTEMPT_PAUSE),
            seen => return seen,
        }
    }
    look()
}

impl World {
    fn read() -> Self {
        let pids = patiently(procfs::all_pids);
        let stats: HashMap<i32, Stat> = pids
            .into_iter()
            .flatten()
            .filter_map(|pid| patiently(|| Stat::read(pid)).ok())
            .map(|stat| (stat.pid, stat))
            .collect();
        // 0 is the kernel, 1 the first of this namespace: never ours to end.
        let mut spared = HashSet::from([0, 1]);
        let mut at = std::process::id() as i32;
        let session = stats.get(&at).map_or(0, |stat| stat.session);
        while spared.insert(at) {
            at = stats.get(&at).map_or(0, |stat| stat.parent);
        }
        Self {
            stats,
            spared,
            session,
        }
    }

    fn candidates(&self) -> impl Iterator<Item = &Stat> {
        self.stats.values().filter(|stat| {
            stat.is_running() && !self.spared.contains(&stat.pid) && stat.session != self.session
        })
    }

    /// A session whose leader is gone, or a zombie, keeps its number reserved as long as it has
    /// members.
    fn no_leader(&self, id: i32) -> bool {
        !self.stats.get(&id).is_some_and(Stat::is_running)
    }

    fn leads_a_session(&self, pid: i32) -> bool {
        self.stats.get(&pid).is_some_and(|stat| stat.session == pid)
    }

    /// Finds a living daemon of the same pid file among the parents of survivors.
    fn rival(&self, found: &HashMap<i32, Survivor>, ours: &Installation) -> Option<i32> {
        let parents = found.keys().filter_map(|pid| self.stats.get(pid));
        let parents: HashSet<i32> = parents
            .map(|stat| stat.parent)
            .filter(|parent| !self.spared.contains(parent) && !found.contains_key(parent))
            .collect();
        parents.into_iter().find(|parent| ours.is_daemon(*parent))
    }

    /// Adds relatives, one generation at a time; false when there are no more.
    fn add_family(&self, found: &mut HashMap<i32, Survivor>) -> bool {
        let mut leagues: HashMap<i32, String> = HashMap::new();
        for survivor in found.values() {
            let Some(stat) = self.stats.get(&survivor.identity.pid()) else {
                continue;
            };
            for id in [stat.session, stat.group] {
                // Session and group ids are pids, so one table does. With a leader that is not a
                // survivor it is somebody else's, such as the shell of a daemon in the foreground.
                if id > 1 && (found.contains_key(&id) || self.no_leader(id)) {
                    leagues.insert(id, survivor.name.clone());
                }
            }
        }
        let relatives: Vec<Survivor> = self
            .candidates()
            .filter(|stat| !found.contains_key(&stat.pid))
            .filter_map(|stat| {
                let parent = found.get(&stat.parent).map(|survivor| &survivor.name);
                let league = || {
                    leagues
                        .get(&stat.session)
                        .or_else(|| leagues.get(&stat.group))
                };
                let name = parent.or_else(league)?.clone();
                Some(Survivor {
                    identity: Identity::from_stat(stat),
                    name,
                    how: How::Family,
                })
            })
            .collect();
        let more = !relatives.is_empty();
        found.extend(
            relatives
                .into_iter()
                .map(|survivor| (survivor.identity.pid(), survivor)),
        );
        more
    }
}
