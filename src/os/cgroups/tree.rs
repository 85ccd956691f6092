//! Our part of the tree of cgroups.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::limits::{Limits, Setting};
use super::place::Place;
use super::{Accounts, LeftOvers, SUPERVISOR, accounts, files, ownership};

/// What is turned on for all: memory and processes, whose counts tell why something ended, and
/// storage. The processor is divided another way once its controller is on, so that waits until
/// somebody wants a limit.
const COUNTED: [&str; 3] = ["memory", "pids", "io"];

#[derive(Debug)]
pub(super) struct Tree {
    base: Place,
    /// We moved to `supervisor` ourselves, and move back at the end.
    moved: bool,
    /// The controllers that were asked for, with why they are not on.
    controllers: BTreeMap<&'static str, Result<(), String>>,
    pub(super) accounts: Accounts,
}

impl Tree {
    pub(super) fn claim() -> Result<Self, String> {
        let own = ownership::find(Place::own()?)?;
        let mut tree = Self {
            moved: !own.settled,
            base: own.base,
            controllers: BTreeMap::new(),
            accounts: Accounts::default(),
        };
        if tree.moved {
            tree.move_in()?;
            if let Some(starter) = own.starter {
                // Whether it went shows with the controllers: they need the cgroup to be empty.
                let supervisor = tree.directory(SUPERVISOR);
                let _ = files::write(&supervisor, "cgroup.procs", &starter.to_string());
            }
        }
        for controller in COUNTED {
            let on = tree.turn_on(controller);
            tree.controllers.insert(controller, on);
        }
        let memory = matches!(tree.controllers.get("memory"), Some(Ok(())));
        tree.accounts = Accounts::new(tree.base.path.clone(), memory);
        Ok(tree)
    }

    /// Takes any directory for a tree.
    #[cfg(test)]
    pub(super) fn at(directory: &std::path::Path) -> Self {
        Self {
            base: Place {
                directory: directory.to_owned(),
                path: "/".into(),
            },
            moved: false,
            controllers: BTreeMap::new(),
            accounts: Accounts::default(),
        }
    }

    fn move_in(&self) -> Result<(), String> {
        let ours = self.directory(SUPERVISOR);
        let failed = |what: &str, error: &io::Error| {
            format!("cannot {what} {}: {}", ours.display(), files::cause(error))
        };
        match fs::create_dir(&ours) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &error));
            }
            Err(_) | Ok(()) => {}
        }
        files::write(&ours, "cgroup.procs", "0").map_err(|error| {
            let _ = fs::remove_dir(&ours);
            failed("move to", &error)
        })
    }

    /// Turns a controller on for the cgroups below, or says why it is not.
    fn turn_on(&self, controller: &str) -> Result<(), String> {
        let base = &self.base.directory;
        let available = files::read(base, "cgroup.controllers").unwrap_or_default();
        let here = self.base.path.display();
        if !available.split_ascii_whitespace().any(|c| c == controller) {
            return Err(format!("{here} has no {controller} controller"));
        }
        files::write(base, "cgroup.subtree_control", &format!("+{controller}")).map_err(|error| {
            let cause = files::cause(&error);
            format!("cannot turn on the {controller} controller of {here}: {cause}")
        })
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.base.directory.join(name)
    }

    /// Opens a cgroup, making it if it is not there; tells whether it was made.
    pub(super) fn open(&self, name: &str) -> Result<(OwnedFd, bool), String> {
        let directory = self.directory(name);
        let open = || {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let mut options = fs::OpenOptions::new();
            options.read(true).custom_flags(flags).open(&directory)
        };
        let (opened, fresh) = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (fs::create_dir(&directory).and_then(|()| open()), true)
            }
            other => (other, false),
        };
        opened.map(|file| (file.into(), fresh)).map_err(|error| {
            let cause = files::cause(&error);
            format!("cannot make {}: {cause}", directory.display())
        })
    }

    /// Puts limits in force where they differ from those that are (`None`: unknown). Returns which
    /// could not be, and why.
    pub(super) fn limit(
        &mut self,
        name: &str,
        in_force: Option<Limits>,
        wanted: Limits,
    ) -> Option<String> {
        let before = in_force.map(Limits::settings);
        let mut refused: Vec<String> = Vec::new();
        for (i, setting) in wanted.settings().into_iter().enumerate() {
            let same = before.as_ref().and_then(|all| all.get(i)) == Some(&setting);
            if same {
                continue;
            }
            if let Err(reason) = self.set(name, &setting)
                && setting.is_set()
            {
                refused.push(format!("{setting}: {reason}"));
            }
        }
        (!refused.is_empty()).then(|| refused.join("; "))
    }

    fn set(&mut self, name: &str, setting: &Setting) -> Result<(), String> {
        let on = match self.controllers.get(setting.controller) {
            Some(on) => on.clone(),
            None if !setting.is_set() => return Ok(()),
            None => {
                let on = self.turn_on(setting.controller);
                self.controllers.insert(setting.controller, on.clone());
                on
            }
        };
        on?;
        files::write(&self.directory(name), setting.file, &setting.text()).map_err(|error| {
            let file = self.directory(name).join(setting.file);
            let cause = files::cause(&error);
            format!(
                "cannot write {} to {}: {cause}",
                setting.text(),
                file.display()
            )
        })
    }

    pub(super) fn oom_kills(&self, name: &str) -> Option<u64> {
        accounts::oom_kills(&self.directory(name))
    }

    /// Kills all of a cgroup at once; false where the kernel (before 5.14) cannot.
    pub(super) fn kill(&self, name: &str) -> bool {
        files::write(&self.directory(name), "cgroup.kill", "1").is_ok()
    }

    /// Removes a cgroup if nobody lives there.
    pub(super) fn remove(&self, name: &str) {
        // Whoever lives there keeps it: the next daemon finds it, or systemd removes it.
        let _ = files::remove(&self.directory(name));
    }

    pub(super) fn left_overs(&self) -> LeftOvers {
        LeftOvers {
            base: Some(self.base.directory.clone()),
        }
    }

    pub(super) fn leave(&self) {
        let base = &self.base.directory;
        for controller in self.controllers.keys() {
            let _ = files::write(base, "cgroup.subtree_control", &format!("-{controller}"));
        }
        // Whoever put us into `supervisor` made it.
        if self.moved && files::write(base, "cgroup.procs", "0").is_ok() {
            let _ = fs::remove_dir(self.directory(SUPERVISOR));
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<&str> = self
            .controllers
            .iter()
            .filter(|(_, on)| on.is_ok())
            .map(|(name, _)| *name)
            .collect();
        let on = if on.is_empty() {
            "no controllers".to_owned()
        } else {
            format!("controllers {}", on.join(", "))
        };
        write!(f, "{} with {on}", self.base.path.display())
    }
}
