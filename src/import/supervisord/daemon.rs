//! The sections that are not programs: the daemon itself, its servers and its clients.

use super::ini::{Ini, Opt, Section};
use super::options::Options;
use super::program::umask;
use super::{MIDDLE, Shared, place, place_of};
use crate::import::draft::Draft;
use crate::import::note::Notes;

/// Translates or names every section but programs and `[include]`.
pub(super) fn translate(ini: &Ini, shared: &mut Shared<'_>, draft: &mut Draft, notes: &mut Notes) {
    for section in &ini.sections {
        let (kind, name) = section.parts();
        match (kind, name) {
            ("supervisord", "") => supervisord(section, shared, draft, notes),
            ("unix_http_server", "") => unix_server(section, shared, draft, notes),
            ("inet_http_server", "") => each(section, notes, |_| {
                Some(
                    "there is no control over TCP: `eternal` speaks to the control socket \
                     (over SSH from afar); the status page and /metrics, which can only be \
                     read, are at metrics.listen",
                )
            }),
            ("supervisorctl", "") => client(section, notes),
            ("rpcinterface", _) => rpc(section, name, notes),
            ("group", _) if !name.is_empty() => group(section, name, shared, notes),
            ("eventlistener", _) => listener(section, notes),
            ("program" | "fcgi-program", _) | ("include", "") => {}
            _ => {
                notes.lacks(
                    "",
                    &place_of(section),
                    "supervisord does not know this section",
                );
                each(section, notes, |_| {
                    Some("supervisord does not know its section")
                });
            }
        }
    }
}

/// Says the same of every option, where there is something to say.
fn each(section: &Section, notes: &mut Notes, text: impl Fn(&Opt) -> Option<&'static str>) {
    for option in &section.options {
        if let Some(text) = text(option) {
            notes.lacks("", &place(&section.name, option), text);
        }
    }
}

fn supervisord(section: &Section, shared: &mut Shared<'_>, draft: &mut Draft, notes: &mut Notes) {
    let scope = shared.scope.clone();
    let mut options = Options::new(section, &scope, "daemon");
    for (key, ours) in [("logfile", "log_file"), ("pidfile", "pid_file")] {
        if let Some(given) = options.text(key, notes) {
            let nowhere = [
                "/dev/null",
                "/dev/stdout",
                "/dev/stderr",
                "/dev/fd/1",
                "/dev/fd/2",
            ];
            if ours == "log_file" && nowhere.contains(&given.value.as_str()) {
                draft.daemon.set(ours, "");
                let text = "the log goes to stderr only, which `eternal run` needs";
                notes.differs("daemon", &given.at, text);
            } else if !given.value.is_empty() {
                draft.daemon.set(ours, shared.places.fit(&given.value));
            }
        }
    }
    let to_file = !matches!(draft.daemon.get("log_file"), Some(v) if v.as_str() == Some(""));
    let (bytes, backups) = (
        options.bytes("logfile_maxbytes", notes),
        options.bytes("logfile_backups", notes),
    );
    if to_file {
        shared.logs.file(bytes, backups);
    }
    let level = |text: &str| match text.to_ascii_lowercase().as_str() {
        "critical" | "error" => Some("error"),
        "warn" | "warning" => Some("warn"),
        "info" => Some("info"),
        "debug" => Some("debug"),
        "trace" | "blather" => Some("trace"),
        _ => None,
    };
    let level = options.read("loglevel", "it is no level", level, notes);
    if let Some(given) = level.filter(|given| given.value != "info") {
        draft.daemon.set("log_level", given.value);
    }
    if let Some(mask) = options.read("umask", "it must be an octal mask", umask, notes) {
        draft.defaults.set("umask", mask.value);
    }
    environment(&mut options, shared, notes);
    surroundings(&mut options, shared, draft, notes);
    manners(&mut options, notes);
    options.leftovers(notes);
}

fn environment(options: &mut Options<'_>, shared: &mut Shared<'_>, notes: &mut Notes) {
    let Some(option) = options.raw("environment") else {
        return;
    };
    let at = options.at(option);
    match super::expand::pairs(&option.value) {
        Ok(pairs) => {
            for (name, value) in pairs {
                match options.scope.now(&value) {
                    Ok((value, _)) => {
                        shared.environment.insert(name, value);
                    }
                    Err(why) => notes.lacks("defaults", &at, format!("{name} {why}")),
                }
            }
        }
        Err(why) => notes.lacks("defaults", &at, format!("it {why}")),
    }
}

fn surroundings(
    options: &mut Options<'_>,
    shared: &mut Shared<'_>,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    const USUAL_FILES: i64 = 1024;
    let user = options.text("user", notes);
    if let Some(given) = user.filter(|given| !given.value.is_empty()) {
        if given.value == "root" {
            let text = "programs run as the daemon's user, which is root if root starts it";
            notes.says("", &given.at, text);
        } else {
            draft.defaults.set_user(given.value);
            let text = "programs run as this user; the daemon runs as whoever starts it (User= \
                        of its systemd unit)";
            notes.differs("defaults", &given.at, text);
        }
    }
    if let Some(given) = options
        .text("directory", notes)
        .filter(|g| !g.value.is_empty())
    {
        draft
            .defaults
            .set("working_directory", shared.places.fit(&given.value));
    }
    if let Some(given) = options.number("minfds", notes) {
        if given.value > USUAL_FILES {
            let limits: toml::Table = [("nofile".to_owned(), given.value.into())]
                .into_iter()
                .collect();
            draft.defaults.set("limits", limits);
            let text = "programs get exactly this limit, not at least this";
            notes.differs("defaults", &given.at, text);
        } else {
            let text = "the usual limit is as high, and is left alone";
            notes.says("", &given.at, text);
        }
    }
    if let Some(given) = options.number("minprocs", notes) {
        let text = "the limit of the user is left alone; set limits = { nproc = … } to change it";
        notes.says("", &given.at, text);
    }
}

/// The options of `[supervisord]` that are about how it goes about its work.
fn manners(options: &mut Options<'_>, notes: &mut Notes) {
    if let Some(given) = options.truth("nodaemon", notes) {
        let verb = if given.value { "run" } else { "start" };
        let text = format!("say `eternal {verb}`; `run` stays in the foreground, `start` does not");
        notes.says("", &given.at, text);
    }
    if let Some(given) = options.truth("silent", notes).filter(|g| g.value) {
        let text = "`eternal run` logs to stderr too; `eternal start` logs to the file only";
        notes.lacks("", &given.at, text);
    }
    let identifier = options.text("identifier", notes);
    if let Some(given) = identifier.filter(|given| given.value != "supervisor") {
        let text = "a daemon has no name; socket and pid file tell daemons apart";
        notes.lacks("", &given.at, text);
    }
    if let Some(given) = options.truth("nocleanup", notes) {
        let text = "nothing is ever cleaned up at the start; `log_keep` bounds old log files";
        notes.says("", &given.at, text);
    }
    if let Some(given) = options.text("childlogdir", notes) {
        let text = "there is no directory of automatic log files: a program without log_file \
                    writes into the daemon's log";
        notes.lacks("", &given.at, text);
    }
    if let Some(given) = options.truth("strip_ansi", notes).filter(|g| g.value) {
        let text = "colours are kept in log files; let the program write none (NO_COLOR=1)";
        notes.lacks("", &given.at, text);
    }
}

fn unix_server(section: &Section, shared: &mut Shared<'_>, draft: &mut Draft, notes: &mut Notes) {
    const LONGEST: usize = 107;
    let mut options = Options::new(section, &shared.scope, "daemon");
    if let Some(given) = options.text("file", notes) {
        let path = shared.places.fit(&given.value);
        if path.len() > LONGEST || path.is_empty() {
            let text = format!("a socket's path has 1 to {LONGEST} bytes; daemon.sock is used");
            notes.lacks("daemon", &given.at, text);
        } else {
            draft.daemon.set("socket", path);
            let text = "the same path, another protocol: `eternal` speaks HTTP with JSON to it, \
                        supervisorctl cannot. Stop supervisord before starting this";
            notes.differs("daemon", &given.at, text);
        }
    }
    for (key, text) in [
        ("chmod", "the socket's mode is 0600"),
        (
            "chown",
            "the socket belongs to the daemon's user; that user and root may use it",
        ),
        (
            "username",
            "there is no password: the peer's user id decides, the daemon's or root",
        ),
        (
            "password",
            "there is no password: the peer's user id decides, the daemon's or root",
        ),
    ] {
        let option = options.raw(key);
        let usual = option.is_some_and(|option| key == "chmod" && option.value.ends_with("700"));
        if let Some(option) = option.filter(|_| !usual) {
            notes.lacks("", &options.at(option), text);
        }
    }
    options.leftovers(notes);
}

fn client(section: &Section, notes: &mut Notes) {
    for option in &section.options {
        let at = place(&section.name, option);
        match option.key.as_str() {
            "serverurl" => {
                let text = "`eternal` finds the socket by the config file, or by --socket";
                notes.says("", &at, text);
            }
            "username" | "password" => {
                notes.lacks("", &at, "there is no password on the control socket");
            }
            _ => notes.lacks(
                "",
                &at,
                "there is no interactive shell: `eternal VERB NAME…`",
            ),
        }
    }
}

fn rpc(section: &Section, name: &str, notes: &mut Notes) {
    for option in &section.options {
        let at = place(&section.name, option);
        let usual = name == "supervisor" && option.key == "supervisor.rpcinterface_factory";
        if usual {
            let text = "not needed: the control socket speaks HTTP with JSON";
            notes.says("", &at, text);
        } else {
            let text = "there are no plug-ins for the control interface";
            notes.lacks("", &at, text);
        }
    }
}

fn group(section: &Section, name: &str, shared: &mut Shared<'_>, notes: &mut Notes) {
    let scope = shared.scope.clone();
    let mut options = Options::new(section, &scope, "");
    let rank = options.number("priority", notes);
    if let Some(given) = options.text("programs", notes) {
        let members: Vec<&str> = given.value.split([',', '\n']).map(str::trim).collect();
        let rank = rank.map_or(MIDDLE, |given| given.value);
        for member in members.iter().filter(|member| !member.is_empty()) {
            let place = (name.to_owned(), rank);
            let other = shared.groups.insert((*member).to_owned(), place);
            if let Some((other, _)) = other {
                let text = format!(
                    "{member} is in the group {other} too, and runs once for each there; here it \
                     runs once, as of {name}"
                );
                notes.differs("", &given.at, text);
            }
        }
        let text = format!(
            "there are no groups: name the programs, as in `eternal restart {}`",
            members.join(" ")
        );
        notes.lacks("", &given.at, text);
    }
    options.leftovers(notes);
}

fn listener(section: &Section, notes: &mut Notes) {
    let text = "there are no event listeners, so there is no such program here; GET /v1/events on \
                the control socket tells what happens, and alerts come from /metrics";
    notes.lacks("", &place_of(section), text);
    each(section, notes, |option| {
        let ends = option.key == "events" && option.value.contains("PROCESS_STATE");
        Some(if ends {
            "if it ends supervisord when a program fails, say critical = true in that program: \
             the daemon ends with 1 when it gives it up. Nothing ends the daemon at a clean end \
             while others run"
        } else {
            "it belongs to an event listener, which has no equivalent"
        })
    });
}
