//! Options of the command line: the last layer.

use super::layers::{Gathering, typed};
use super::load::Mode;
use super::node::Place;
use super::problem::{Problem, Text};
use super::schema::{self, Section};

/// Options of the command line, as they were typed; each wins over file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the option of its name, and the key of its name in the file"
)]
pub struct Flags {
    pub name: Option<String>,
    pub restart: Option<String>,
    pub max_restarts: Option<String>,
    pub restart_delay: Option<String>,
    pub crash_threshold: Option<String>,
    pub crash_window: Option<String>,
    pub stop_timeout: Option<String>,
    pub log_file: Option<String>,
    pub pid_file: Option<String>,
    pub metrics_listen: Option<String>,
    pub stats_interval: Option<String>,
    pub linger: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
    pub socket: Option<String>,
}

/// An option that sets a key: its name, section, key and text.
type Option_<'a> = (&'static str, Section, &'static str, &'a Option<String>);

impl Flags {
    fn list(&self) -> [Option_<'_>; 14] {
        use Section::{Daemon, Metrics, Program};
        [
            ("--restart", Program, "restart", &self.restart),
            (
                "--max-restarts",
                Program,
                "max_restarts",
                &self.max_restarts,
            ),
            (
                "--restart-delay",
                Program,
                "restart_delay",
                &self.restart_delay,
            ),
            (
                "--crash-threshold",
                Program,
                "crash_threshold",
                &self.crash_threshold,
            ),
            (
                "--crash-window",
                Program,
                "crash_window",
                &self.crash_window,
            ),
            (
                "--stop-timeout",
                Program,
                "stop_timeout",
                &self.stop_timeout,
            ),
            ("--log-file", Daemon, "log_file", &self.log_file),
            ("--pid-file", Daemon, "pid_file", &self.pid_file),
            ("--metrics-listen", Metrics, "listen", &self.metrics_listen),
            (
                "--stats-interval",
                Daemon,
                "stats_interval",
                &self.stats_interval,
            ),
            ("--linger", Metrics, "linger", &self.linger),
            ("--log-format", Daemon, "log_format", &self.log_format),
            ("--log-level", Daemon, "log_level", &self.log_level),
            ("--socket", Daemon, "socket", &self.socket),
        ]
    }
}

/// Adds the options as a layer.
pub(super) fn gather(into: &mut Gathering, flags: &Flags, mode: &Mode) {
    into.next_layer();
    let edit = |text: &Text| {
        format!(
            "set it in [programs.NAME] or [defaults] of {}",
            text.path.display()
        )
    };
    if let (Some(name), Mode::File(text)) = (&flags.name, mode) {
        let place = Place::Flag {
            name: "--name",
            text: name.as_str().into(),
        };
        let problem = Problem::new(
            place,
            "--name is for a command after --, and a configuration file is used",
            "this name",
        );
        into.problems
            .push(problem.help(format!("programs are named in {}", text.path.display())));
    }
    for (flag, section, name, text) in flags.list() {
        let (Some(value), Some(key)) = (text, schema::find(section, name)) else {
            continue;
        };
        let place = Place::Flag {
            name: flag,
            text: value.as_str().into(),
        };
        let node = match typed(key, value, &place) {
            Ok(node) => node,
            Err(problem) => {
                into.problems.push(*problem);
                continue;
            }
        };
        match (section, mode) {
            (Section::Program, Mode::File(text)) => {
                let title =
                    format!("{flag} is for a command after --, and a configuration file is used");
                into.problems
                    .push(Problem::new(place, title, "this option").help(edit(text)));
            }
            (Section::Program, Mode::Command(_, program)) => into.set_program(program, name, node),
            (Section::Daemon | Section::Metrics | Section::Tracing, _) => {
                into.set(section.table(), name, node)
            }
        }
    }
}
