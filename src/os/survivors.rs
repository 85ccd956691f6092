//! Processes that an earlier daemon left behind, because it was killed itself.
//!
//! A process counts as a survivor when it is one of the recorded identities, when the environment
//! it was started with carries our marker, or when it belongs to the family of such a one: a
//! descendant, or a member of the session or process group of one. We, our ancestors and whoever
//! shares our session are never survivors.

mod ending;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread;
use std::time::Duration;

use super::family::{self, Marker};
use super::identity::Identity;
use super::procfs::{Stat, pids};

pub use ending::{Ended, end};

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
    /// It was on record.
    Recorded,
    /// Its environment carries our marker.
    Marked,
    /// It belongs to the family of one of the others.
    Family,
}

/// Finds what an earlier daemon with this installation marker left behind.
///
/// `recorded` are the identities it wrote down, each with its program's display name.
#[must_use]
pub fn find(marker: &str, recorded: &[(Identity, String)]) -> Vec<Survivor> {
    search(marker, recorded, &HashMap::new())
}

/// Sessions that were seen to belong to a living survivor during this search, with its name.
type Sessions = HashMap<i32, String>;

fn search(marker: &str, recorded: &[(Identity, String)], sessions: &Sessions) -> Vec<Survivor> {
    let world = World::read();
    let mut found: HashMap<i32, Survivor> = HashMap::new();
    let recorded: HashMap<Identity, &String> = recorded.iter().map(|(i, n)| (*i, n)).collect();
    for stat in world.candidates() {
        let identity = Identity::from_stat(stat);
        let (name, how) = if let Some(name) = recorded.get(&identity) {
            ((*name).clone(), How::Recorded)
        } else if let Some(name) = sessions
            .get(&stat.session)
            .filter(|_| world.no_leader(stat.session))
        {
            (name.clone(), How::Family)
        } else if !marker.is_empty() && is_marked(stat.pid, marker) {
            (program_name(stat.pid), How::Marked)
        } else {
            continue;
        };
        found.insert(
            stat.pid,
            Survivor {
                identity,
                name,
                how,
            },
        );
    }
    while world.add_family(&mut found) {}
    let mut found: Vec<Survivor> = found.into_values().collect();
    found.sort_unstable_by_key(|survivor| survivor.identity);
    found
}

/// All processes at one moment.
struct World {
    stats: HashMap<i32, Stat>,
    /// We and our ancestors.
    spared: HashSet<i32>,
    /// Our own session, where whoever started us lives.
    session: i32,
}

impl World {
    fn read() -> Self {
        let stats: HashMap<i32, Stat> = pids()
            .filter_map(|pid| Stat::read(pid).ok())
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

/// How often, and how far apart, to look at a process that is just executing a program: in all more
/// than a slow disk takes, less than what makes a start suspicious.
const LOOKS: u32 = 200;
const APART: Duration = Duration::from_millis(1);

/// Tells whether a process was started with this installation's marker.
fn is_marked(pid: i32, marker: &str) -> bool {
    for _ in 0..LOOKS {
        match family::marker(pid) {
            Marker::Of(run) => {
                return run
                    .strip_prefix(marker)
                    .is_some_and(|run| run.starts_with(':'));
            }
            Marker::None => return false,
            Marker::NotYet => thread::sleep(APART),
        }
    }
    false
}

/// The program that it was started for, as it was told; else the command's name.
fn program_name(pid: i32) -> String {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .find_map(|pair| pair.strip_prefix(b"ETERNAL_PROGRAM="))
        .map_or_else(
            || command_name(pid),
            |name| String::from_utf8_lossy(name).into_owned(),
        )
}

fn command_name(pid: i32) -> String {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => String::from_utf8_lossy(&name).trim_end().to_owned(),
        Err(_) => String::from("unknown"),
    }
}
