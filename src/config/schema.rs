//! Every key there is, with its default: the one table that strictness, layering, the README and
//! `eternal config` read.

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[daemon]`.
    Daemon,
    /// `[metrics]`.
    Metrics,
    /// `[tracing]`.
    Tracing,
    /// `[programs.NAME]`, and `[defaults]`.
    Program,
}

impl Section {
    /// Returns the name of the table in which the default lives: programs take theirs from
    /// `[defaults]`.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Metrics => "metrics",
            Self::Tracing => "tracing",
            Self::Program => "defaults",
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it belongs to.
    pub section: Section,
    /// Its name.
    pub name: &'static str,
    /// Its default as TOML; empty: it has none, and is unset.
    pub default: &'static str,
    /// What it does, in a few words.
    pub doc: &'static str,
    pub(super) shape: Shape,
}

/// How the text of a variable or a flag is read as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it stands.
    Text,
    /// A number if it looks like one, otherwise as it stands.
    Number,
    /// As TOML.
    Toml,
}

/// Returns every key, in the order of the documentation.
#[must_use]
pub const fn reference() -> &'static [Key] {
    KEYS
}

/// Returns the names of the keys of a section.
pub(super) fn names(section: Section) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter(move |key| key.section == section)
        .map(|key| key.name)
}

/// Finds a key.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
}

/// The sections that have their own table, as it is written.
pub(super) const TABLES: [(&str, Section); 4] = [
    ("daemon", Section::Daemon),
    ("metrics", Section::Metrics),
    ("tracing", Section::Tracing),
    ("defaults", Section::Program),
];

const fn key(
    section: Section,
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    shape: Shape,
) -> Key {
    Key {
        section,
        name,
        default,
        doc,
        shape,
    }
}

use Section::{Daemon as D, Metrics as M, Program as P, Tracing as T};
use Shape::{Number as N, Text as S, Toml as X};

const KEYS: &[Key] = &[
    key(
        D,
        "pid_file",
        r#""daemon.pid""#,
        "locked while running; a stale one is detected and replaced",
        S,
    ),
    key(
        D,
        "log_file",
        r#""logs/daemon.log""#,
        "\"\" = only stderr; directories are created",
        S,
    ),
    key(D, "log_format", r#""text""#, "text | json", S),
    key(
        D,
        "log_level",
        r#""info""#,
        "error | warn | info | debug | trace",
        S,
    ),
    key(D, "log_max_size", r#""50MiB""#, "rotate at this size", N),
    key(
        D,
        "log_keep",
        "10",
        "rotated files kept beside the current one, compressed",
        N,
    ),
    key(
        D,
        "stats_interval",
        r#""5m""#,
        "the statistics line; 0 = only on SIGUSR2 and at shutdown",
        N,
    ),
    key(
        D,
        "socket",
        r#""daemon.sock""#,
        "control socket, mode 0600; at most 107 bytes",
        S,
    ),
    key(
        D,
        "state_dir",
        r#""state""#,
        "crash history, identities of running programs",
        S,
    ),
    key(
        D,
        "cgroups",
        r#""auto""#,
        "auto | off | required: a cgroup for each replica, where the machine lets us",
        S,
    ),
    key(
        M,
        "listen",
        r#""127.0.0.1:10477""#,
        "HOST:PORT | unix:/path | \"\" = off",
        S,
    ),
    key(
        M,
        "linger",
        r#""30s""#,
        "after a give-up, serve the final numbers at most this long; 0 = off",
        N,
    ),
    key(
        M,
        "tls_cert",
        "",
        "server certificate chain (PEM); together with tls_key",
        S,
    ),
    key(
        M,
        "tls_key",
        "",
        "server private key (PEM); together with tls_cert",
        S,
    ),
    key(M, "basic_auth_file", "", "user: bcrypt-hash pairs", S),
    key(
        T,
        "otlp_endpoint",
        r#""""#,
        "OTLP/HTTP endpoint; \"\" = off",
        S,
    ),
    key(
        P,
        "command",
        "",
        "the program and its arguments, an array; no shell",
        X,
    ),
    key(P, "working_directory", r#"".""#, "where it runs", S),
    key(P, "environment", "{}", "added to what is inherited", X),
    key(P, "env_file", "", "KEY=VALUE lines, read at every start", S),
    key(
        P,
        "pass_environment",
        "[]",
        "what a program with a user inherits besides PATH, LANG, LANGUAGE, LC_*, TERM and TZ",
        X,
    ),
    key(
        P,
        "user",
        r#""""#,
        "user name or number; \"\" = the daemon's",
        S,
    ),
    key(
        P,
        "group",
        r#""""#,
        "group name or number; \"\" = the daemon's or the user's",
        S,
    ),
    key(
        P,
        "umask",
        r#""022""#,
        "file mode creation mask, an octal string",
        S,
    ),
    key(P, "nice", "", "-20 to 19; unset = the daemon's", N),
    key(
        P,
        "oom_score_adj",
        "",
        "-1000 to 1000; unset = the daemon's",
        N,
    ),
    key(
        P,
        "limits",
        "{}",
        "rlimits: NAME = number | \"unlimited\" | { soft, hard }",
        X,
    ),
    key(
        P,
        "memory_max",
        r#""unlimited""#,
        "memory of a whole replica, a size; beyond it the kernel kills",
        N,
    ),
    key(
        P,
        "pids_max",
        r#""unlimited""#,
        "processes and threads of a whole replica",
        N,
    ),
    key(
        P,
        "cpu_max",
        r#""unlimited""#,
        "processor time of a whole replica: \"50%\" of one, or a number of them",
        N,
    ),
    key(P, "autostart", "true", "started with the daemon", X),
    key(P, "instances", "1", "replicas, 1 to 1000", N),
    key(
        P,
        "after",
        "[]",
        "start when these are ready; stop in reverse",
        X,
    ),
    key(
        P,
        "restart",
        r#""always""#,
        "always | on-failure | never",
        S,
    ),
    key(
        P,
        "max_restarts",
        r#""unlimited""#,
        "unlimited, or the number of automatic restarts",
        N,
    ),
    key(
        P,
        "restart_delay",
        r#""1s""#,
        "the first restart waits exactly this",
        N,
    ),
    key(
        P,
        "restart_delay_max",
        r#""30s""#,
        "later ones double up to this",
        N,
    ),
    key(
        P,
        "restart_jitter",
        "0.1",
        "give or take this share, from the second on; 0 to 1",
        N,
    ),
    key(
        P,
        "stable_after",
        r#""60s""#,
        "up this long: the delay starts over",
        N,
    ),
    key(P, "crash_threshold", "5", "give up at this many crashes", N),
    key(
        P,
        "crash_window",
        r#""60s""#,
        "within this much run time (waiting does not count)",
        N,
    ),
    key(
        P,
        "on_crash_loop",
        r#""give-up""#,
        "give-up | retry (again every retry_after)",
        S,
    ),
    key(
        P,
        "retry_after",
        r#""5m""#,
        "from a give-up to the next try",
        N,
    ),
    key(
        P,
        "success_exit_codes",
        "[0]",
        "everything else is a crash",
        X,
    ),
    key(
        P,
        "no_restart_exit_codes",
        "[]",
        "exit codes after which it is not started again",
        X,
    ),
    key(
        P,
        "stop_signal",
        r#""SIGTERM""#,
        "by name, such as SIGINT or SIGRTMIN+3, or by number",
        N,
    ),
    key(P, "kill_mode", r#""family""#, "family | process", S),
    key(
        P,
        "stop_timeout",
        r#""5s""#,
        "from the stop signal to SIGKILL; 0 = kill at once",
        N,
    ),
    key(
        P,
        "start_timeout",
        r#""30s""#,
        "from spawn to ready, where readiness is checked",
        N,
    ),
    key(
        P,
        "ready",
        r#""alive:1s""#,
        "alive:DURATION | immediately | exit | notify | tcp://HOST:PORT | http://HOST:PORT/PATH | exec:COMMAND ARG…; with restart = \"never\" the default is exit",
        S,
    ),
    key(
        P,
        "health_check",
        r#""""#,
        "\"\" = none | tcp://HOST:PORT | http://HOST:PORT/PATH | exec:COMMAND ARG…",
        S,
    ),
    key(
        P,
        "health_interval",
        r#""10s""#,
        "from ready to the first check, and from each check to the next",
        N,
    ),
    key(
        P,
        "health_timeout",
        r#""5s""#,
        "a check that takes longer has failed",
        N,
    ),
    key(
        P,
        "health_failures",
        "3",
        "failed checks in a row at which the program is ended, which is a crash",
        N,
    ),
    key(
        P,
        "watchdog",
        "0",
        "the longest silence between two WATCHDOG=1 (sd_notify); 0 = off",
        N,
    ),
    key(
        P,
        "critical",
        "false",
        "its giving up brings the daemon down",
        X,
    ),
    key(
        P,
        "log_file",
        r#""""#,
        "\"\" = into the daemon log, prefixed with the name",
        S,
    ),
    key(
        P,
        "metrics_address",
        "",
        "HOST:PORT where the program itself is scraped; published on /sd",
        S,
    ),
];
