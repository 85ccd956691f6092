//! Recovery: what an earlier daemon left is ended before anything is started, because a second copy
//! beside it would be worse than a late start. The daemon answers meanwhile.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::Refusal;
use super::core::Core;
use super::mode::Mode;
use crate::config::Config;
use crate::control::server::{self, Command};
use crate::observe::DaemonEvent;
use crate::os::survivors::{Clearing, Farewell, News, Search, Survivor};

/// How those are ended whose program is not configured any more.
const DEFAULT: Farewell = Farewell {
    signal: nix::libc::SIGTERM,
    grace: Duration::from_secs(5),
};

/// The time from the start of the daemon to that of its programs.
pub(super) struct Recovery {
    pub clearing: Clearing,
    /// A SIGHUP came meanwhile: it is obeyed when the programs are started.
    pub reload: bool,
    /// Orders that came while nobody was found yet.
    pub held: Vec<Command>,
    /// The search hangs, so that nobody can be given a grace.
    hangs: bool,
}

impl Recovery {
    /// Begins to end what the search finds, each as the config says of its program.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an epoll instance.
    pub fn new(search: Search, config: &Config) -> io::Result<Self> {
        let farewell = |program: &crate::config::Program| Farewell {
            signal: program.stop_signal,
            grace: program.policy.stop_timeout,
        };
        let programs = config.programs.iter();
        let farewells: HashMap<String, Farewell> = programs
            .map(|program| (program.name.clone(), farewell(program)))
            .collect();
        // The name on record is that of a replica: `web/1`.
        let farewell = move |name: &str| {
            let program = name.split('/').next().unwrap_or(name);
            farewells.get(program).copied().unwrap_or(DEFAULT)
        };
        Ok(Self {
            clearing: Clearing::new(search, farewell, Instant::now())?,
            reload: false,
            held: Vec::new(),
            hangs: false,
        })
    }

    /// The daemon is to end, `again` or for the first time: each is left its grace the first time.
    pub fn hurry(&mut self, again: bool) {
        if again || self.hangs {
            self.clearing.hurry(Instant::now());
        }
    }

    /// Tells whether nobody is known yet who has to go: most often nobody is.
    pub fn is_only_looking(&self) -> bool {
        !self.hangs && !self.clearing.has_looked()
    }

    /// Answers an order that has to wait.
    pub fn not_yet(&self) -> server::Refusal {
        let (count, names) = self.clearing.left();
        let names: Vec<&str> = names.into_iter().collect();
        let who = if names.is_empty() {
            "is still looking for what an earlier one left".to_owned()
        } else {
            format!(
                "is still ending what an earlier one left: {} (processes: {count})",
                names.join(", ")
            )
        };
        server::Refusal::Conflict(format!(
            "the daemon {who}; its programs are started after that: try again then"
        ))
    }
}

impl Core {
    /// Does what is due.
    pub(super) fn advance_recovery(&mut self) {
        let Mode::Recovering(recovery) = &mut self.mode else {
            return;
        };
        for news in recovery.clearing.advance(Instant::now()) {
            self.recovered(news);
        }
        if let Mode::Recovering(recovery) = &mut self.mode
            && !recovery.is_only_looking()
        {
            let held = std::mem::take(&mut recovery.held);
            held.into_iter().for_each(|command| self.command(command));
        }
    }

    fn recovered(&mut self, news: News) {
        match news {
            News::Found(survivors) => self.found(survivors),
            News::Unproven(identity, name) => {
                let message = format!(
                    "process {} is on record as {name}, but nothing shows that it was started here: it is left alone",
                    identity.pid()
                );
                self.observer.tell(&DaemonEvent::Trouble { message });
            }
            News::Rival(pid) => {
                let refusal = rival(pid, &self.config);
                self.mode = Mode::Over(Err(refusal));
            }
            News::Hangs => {
                let message = "the search for what an earlier daemon left waits for a process that does not answer";
                let message = message.to_owned();
                self.observer.tell(&DaemonEvent::Trouble { message });
                let ending = self.fleet.is_shutting_down();
                if let Mode::Recovering(recovery) = &mut self.mode {
                    recovery.hangs = true;
                    recovery.hurry(ending);
                }
            }
            News::Left(left) => {
                let (pid, name) = (left.identity.pid(), left.name);
                let message = format!("process {pid} of {name} outlives SIGKILL");
                self.observer.tell(&DaemonEvent::Trouble { message });
            }
            News::Over { count } => self.begin_to_supervise(count),
        }
    }

    fn found(&mut self, survivors: Vec<Survivor>) {
        let count = survivors.len();
        self.observer.tell(&DaemonEvent::SurvivorsFound { count });
        for survivor in survivors {
            let (pid, name) = (survivor.identity.pid(), survivor.name);
            tracing::warn!(pid, "an earlier daemon left {name}");
        }
        let line = format!("ending what an earlier daemon left, processes: {count}");
        self.systemd_says(|systemd| systemd.status(&line));
    }

    /// Nothing is left of the earlier daemon, of which so many processes were ended.
    fn begin_to_supervise(&mut self, ended: usize) {
        if ended > 0 {
            self.observer
                .tell(&DaemonEvent::SurvivorsEnded { count: ended });
        }
        let before = std::mem::replace(&mut self.mode, Mode::Supervising);
        let Mode::Recovering(recovery) = before else {
            return;
        };
        if !self.fleet.is_shutting_down() {
            self.start_all();
            if recovery.reload {
                self.reload(true, None);
            }
        }
        for command in recovery.held {
            self.command(command);
        }
    }
}

fn rival(pid: i32, config: &Config) -> Refusal {
    let pid_file = config.daemon.pid_file.display();
    Refusal {
        message: format!(
            "another eternal (pid {pid}) lives and runs the programs of this installation, though its pid file {pid_file} was removed: `kill -TERM {pid}` stops it and them"
        ),
        code: 1,
    }
}
