//! What a config asks of the unit that runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::arguments::SystemdUnit;
use super::super::{Complaint, USAGE};
use crate::config::{Config, Listen, Program, Ready};

/// Last words, last spans and the journal of processes, after the last program is gone.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Reading the config, opening everything, finding what an earlier daemon left.
const SETTING_UP: Duration = Duration::from_secs(30);
/// Where nobody writes because a program happens to run there.
const SYSTEM: [&str; 9] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr",
];

/// What a unit has to say, but for what all units say.
#[derive(Debug)]
pub(super) struct Needs {
    /// Our own binary.
    pub executable: PathBuf,
    /// The config file.
    pub file: PathBuf,
    /// The daemon's user; `None`: root, for programs that have users of their own.
    pub user: Option<String>,
    /// At least until every program is ready, at the start or at a reload, in turn.
    pub start: Duration,
    /// At least until every program is gone and the final numbers are scraped.
    pub stop: Duration,
    /// Directories that systemd makes and gives to the daemon: the setting's name, the names below
    /// `/run`, `/var/lib`, `/var/cache` and `/var/log`.
    pub directories: BTreeMap<&'static str, BTreeSet<String>>,
    /// Other directories that are written to.
    pub writable: BTreeSet<PathBuf>,
    /// Something is in a home directory.
    pub homes: bool,
    /// Something is in `/tmp` or `/var/tmp`.
    pub tmp: bool,
    /// The journal has the only copy of the log.
    pub journal_only: bool,
    /// Beyond those for other users.
    pub capabilities: Vec<&'static str>,
    /// What the unit does and its reader may not expect.
    pub warnings: Vec<String>,
}

impl Needs {
    /// Reads the needs off a config.
    ///
    /// # Errors
    /// Without a config file: a service would depend on the directory it happens to start in. With a
    /// word that would end its line: what follows would be a setting of its own.
    pub fn of(config: &Config, executable: &Path, wanted: &SystemdUnit) -> Result<Self, Complaint> {
        let Some(file) = &config.file else {
            return Err(Complaint::new(
                USAGE,
                "a unit needs a config file, and there is none: name it with --config",
            ));
        };
        let foreign = |name: &Option<String>| name.as_ref().is_some_and(|n| *n != wanted.run_as);
        let switching = wanted.users
            || wanted.run_as == "root"
            || config
                .programs
                .iter()
                .any(|program| foreign(&program.user) || foreign(&program.group));
        let mut needs = Self {
            executable: executable.to_owned(),
            file: file.clone(),
            user: (!switching).then(|| wanted.run_as.clone()),
            start: SETTING_UP + one_after_the_other(&config.programs),
            stop: LAST_WORDS + config.metrics.linger + longest_chain(&config.programs),
            directories: BTreeMap::new(),
            writable: BTreeSet::new(),
            homes: false,
            tmp: false,
            journal_only: config.daemon.log_file.is_none(),
            capabilities: Vec::new(),
            warnings: Vec::new(),
        };
        needs.place_own_directories(config);
        needs.place_directories_of_programs(config);
        needs.look_at_what_is_read(config);
        for program in &config.programs {
            needs.look_at_privileges(program);
        }
        needs.every_word_stays_in_its_line(&wanted.run_as)?;
        Ok(needs)
    }

    /// A unit has no way to write these, quoted or not.
    fn every_word_stays_in_its_line(&self, run_as: &str) -> Result<(), Complaint> {
        let refused = |what: String| Err(Complaint::new(USAGE, what));
        let odd = |c: char| c.is_whitespace() || c.is_control() || "%:/".contains(c);
        if run_as.is_empty() || run_as.contains(odd) {
            return refused(format!("--run-as {run_as:?} is not the name of a user"));
        }
        let directories = self.directories.values().flatten().map(PathBuf::from);
        let mut paths = [self.executable.clone(), self.file.clone()]
            .into_iter()
            .chain(self.writable.iter().cloned())
            .chain(directories);
        let odd = |path: &PathBuf| path.to_str().is_none_or(|p| p.contains(char::is_control));
        match paths.find(odd) {
            Some(path) => refused(format!(
                "a unit cannot name {path:?}: it has a control character, or is not UTF-8"
            )),
            None => Ok(()),
        }
    }

    /// What the daemon writes is made and owned by systemd where systemd has a place for it.
    fn place_own_directories(&mut self, config: &Config) {
        let daemon = &config.daemon;
        let mut own = vec![parent(&daemon.pid_file), parent(&daemon.socket)];
        own.push(daemon.state_dir.clone());
        own.extend(daemon.log_file.as_deref().map(parent));
        if let Some(Listen::Unix(path)) = &config.metrics.listen {
            own.push(parent(path));
        }
        for directory in own {
            let place = [
                ("RuntimeDirectory", "/run"),
                ("StateDirectory", "/var/lib"),
                ("CacheDirectory", "/var/cache"),
                ("LogsDirectory", "/var/log"),
            ]
            .into_iter()
            .find_map(|(setting, top)| Some((setting, below(&directory, top)?)));
            match place {
                Some((setting, name)) => {
                    self.directories.entry(setting).or_default().insert(name);
                }
                None => {
                    self.writable.insert(directory);
                }
            }
        }
    }

    /// Theirs are never given to systemd, which would make the daemon their owner.
    fn place_directories_of_programs(&mut self, config: &Config) {
        for program in &config.programs {
            // The default, the config's own directory, says nothing about writing.
            let chosen = program.working_directory != config.base;
            let working = chosen.then(|| program.working_directory.clone());
            let log = program.log_file.as_deref().map(parent);
            self.writable.extend(working.into_iter().chain(log));
        }
        let made: Vec<PathBuf> = self.made().collect();
        let all = self.writable.clone();
        self.writable.retain(|directory| {
            let within = |other: &&PathBuf| directory.starts_with(other) && directory != *other;
            directory != Path::new("/")
                && !SYSTEM.iter().any(|system| directory.starts_with(system))
                && !made.iter().any(|other| directory.starts_with(other))
                && !all.iter().any(|other| within(&other))
        });
    }

    /// The directories that systemd makes.
    fn made(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().flat_map(|(setting, names)| {
            let top = match *setting {
                "RuntimeDirectory" => "/run",
                "StateDirectory" => "/var/lib",
                "CacheDirectory" => "/var/cache",
                _ => "/var/log",
            };
            names.iter().map(move |name| Path::new(top).join(name))
        })
    }

    fn look_at_what_is_read(&mut self, config: &Config) {
        let programs = config.programs.iter().flat_map(|program| {
            // Arguments, too: a script is one of its interpreter's.
            let words = program.command.iter().map(PathBuf::from);
            let working = Some(program.working_directory.clone());
            words.chain(working).chain(program.env_file.clone())
        });
        let mut used: Vec<PathBuf> = programs.collect();
        let metrics = &config.metrics;
        let protection = [
            &metrics.tls_cert,
            &metrics.tls_key,
            &metrics.basic_auth_file,
        ];
        used.extend(protection.into_iter().flatten().cloned());
        used.extend([self.executable.clone(), self.file.clone()]);
        used.extend(self.writable.iter().cloned());
        let any = |tops: &[&str]| {
            used.iter()
                .any(|path| tops.iter().any(|top| path.starts_with(top)))
        };
        self.homes = any(&["/home", "/root", "/run/user"]);
        self.tmp = any(&["/tmp", "/var/tmp"]);
    }

    fn look_at_privileges(&mut self, program: &Program) {
        let wanted = [
            (
                "CAP_SYS_NICE",
                "nice",
                program.nice.is_some_and(|nice| nice < 0),
            ),
            (
                "CAP_SYS_RESOURCE",
                "oom_score_adj",
                program.oom_score_adj.is_some_and(|score| score < 0),
            ),
            // Whether a hard limit has to be raised is known where the unit runs.
            (
                "CAP_SYS_RESOURCE",
                "limits",
                self.user.is_none() && !program.limits.is_empty(),
            ),
        ];
        for (capability, key, _) in wanted.into_iter().filter(|(_, _, needed)| *needed) {
            match &self.user {
                Some(user) => self.warnings.push(format!(
                    "{}: `{key}` needs {capability}, which the user {user} does not have: \
                     --users runs the daemon as root with it",
                    program.name
                )),
                None if !self.capabilities.contains(&capability) => {
                    self.capabilities.push(capability);
                }
                None => {}
            }
        }
        if program.ready == Ready::Exit {
            self.warnings.push(format!(
                "{}: the service is up when it has ended: raise TimeoutStartSec= if that may take long",
                program.name
            ));
        }
        if self.user.is_none() && program.user.is_none() {
            self.warnings.push(format!(
                "{}: without `user` it runs as root, as the daemon does",
                program.name
            ));
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// What is left of a path below a directory; `None` for the directory itself and all others.
fn below(path: &Path, top: &str) -> Option<String> {
    let rest = path.strip_prefix(top).ok()?.to_str()?;
    (!rest.is_empty() && rest != "user" && !rest.starts_with("user/")).then(|| rest.to_owned())
}

/// As in a rolling restart, and as in ending what an earlier daemon left.
fn one_after_the_other(programs: &[Program]) -> Duration {
    let each = |program: &Program| {
        let policy = &program.policy;
        let start = match program.ready {
            Ready::Immediately => Duration::ZERO,
            Ready::Alive(least) => least,
            // What runs to its end takes the time it takes: as much as others at least.
            Ready::Notify | Ready::Check(_) | Ready::Exit => policy.start_timeout,
        };
        (policy.stop_timeout + start).saturating_mul(program.instances)
    };
    programs.iter().map(each).sum()
}

/// Programs stop in the reverse of `after`, the others at once: the longest way through counts.
fn longest_chain(programs: &[Program]) -> Duration {
    let by_name: BTreeMap<&str, &Program> = programs.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut known = BTreeMap::new();
    programs
        .iter()
        .map(|program| chain(program, &by_name, &mut known))
        .max()
        .unwrap_or_default()
}

/// A valid config has no circles.
fn chain<'a>(
    program: &'a Program,
    by_name: &BTreeMap<&str, &'a Program>,
    known: &mut BTreeMap<&'a str, Duration>,
) -> Duration {
    if let Some(length) = known.get(program.name.as_str()) {
        return *length;
    }
    let before = program
        .after
        .iter()
        .filter_map(|name| by_name.get(name.as_str()))
        .map(|other| chain(other, by_name, known))
        .max();
    let length = program.policy.stop_timeout + before.unwrap_or_default();
    known.insert(&program.name, length);
    length
}
