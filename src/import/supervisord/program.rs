//! `[program:x]`: one section, one program or several.

use super::ini::Section;
use super::options::Options;
use super::{MIDDLE, Shared, command, logs, place, place_of, policy};
use crate::import::command::Command;
use crate::import::draft::{Program, Table, texts};
use crate::import::note::{At, Notes};

/// Beyond this, one section does not become that many.
const MOST: i64 = 1_000;

/// Translates a section; returns each program with its rank.
pub(super) fn translate(
    section: &Section,
    shared: &mut Shared<'_>,
    notes: &mut Notes,
) -> Vec<(i64, Program)> {
    let (_, wanted) = section.parts();
    let count = count(section, shared, notes);
    if let Some((group, _)) = shared.groups.get(wanted) {
        let text = format!("what supervisorctl calls {group}:NAME is NAME here");
        notes.says("", &place_of(section), text);
    }
    let alike = count.number == 1 || !mentions_number(section);
    if alike {
        let name = given_name(section, wanted, shared, notes);
        let made = one(section, (&name, count.start, count.number), shared, notes);
        return made
            .map(|(rank, mut program)| {
                if count.number > 1 {
                    program.keys.set("instances", count.number);
                    let text = format!("its processes are called {name}/0, {name}/1, …");
                    notes.says(&name, &count.at, text);
                }
                (rank, program)
            })
            .into_iter()
            .collect();
    }
    let digits = (count.start + count.number - 1).to_string().len().max(2);
    let programs: Vec<(i64, Program)> = (count.start..count.start + count.number)
        .filter_map(|number| {
            let name = shared.names.give(&format!("{wanted}_{number:0digits$}"));
            one(section, (&name, number, count.number), shared, notes)
        })
        .collect();
    if let Some((_, first)) = programs.first() {
        let text = "its processes differ by %(process_num), so each has become a program";
        notes.says(&first.name, &count.at, text);
    }
    programs
}

struct Count {
    number: i64,
    start: i64,
    at: At,
}

fn count(section: &Section, shared: &Shared<'_>, notes: &mut Notes) -> Count {
    let (_, name) = section.parts();
    let mut options = Options::new(section, &shared.scope, name);
    let start = options
        .number("numprocs_start", notes)
        .map_or(0, |g| g.value);
    let given = options.number("numprocs", notes);
    let mut number = given.as_ref().map_or(1, |given| given.value);
    let at = given.map_or_else(|| place_of(section), |given| given.at);
    if !(1..=MOST).contains(&number) {
        let text = format!("a program has 1 to {MOST} instances here; 1 is written");
        notes.differs(name, &at, text);
        number = 1;
    }
    Count { number, start, at }
}

/// Says whether the processes of a section differ in more than their names.
fn mentions_number(section: &Section) -> bool {
    let mut others = section.options.iter().filter(|o| o.key != "process_name");
    others.any(|option| option.value.contains("%(process_num)"))
}

fn given_name(
    section: &Section,
    wanted: &str,
    shared: &mut Shared<'_>,
    notes: &mut Notes,
) -> String {
    let name = shared.names.give(wanted);
    if name != wanted {
        let text = format!("it is called {name} here: {}", crate::config::NAME_RULE);
        notes.differs(&name, &place_of(section), text);
    }
    if let Some(option) = section.get("process_name") {
        let plain = ["%(program_name)s", wanted];
        if !plain.contains(&option.value.trim()) {
            let text = format!("it is called {name} here, after its section");
            notes.says(&name, &place(&section.name, option), text);
        }
    }
    name
}

fn one(
    section: &Section,
    (name, number, numprocs): (&str, i64, i64),
    shared: &mut Shared<'_>,
    notes: &mut Notes,
) -> Option<(i64, Program)> {
    let (kind, wanted) = section.parts();
    let mut scope = shared.scope.clone();
    let group = shared.groups.get(wanted);
    let group = group.map_or(wanted, |(group, _)| group.as_str());
    scope.texts.insert("program_name", wanted.to_owned());
    scope.texts.insert("group_name", group.to_owned());
    scope.numbers = [("process_num", number), ("numprocs", numprocs)].into();
    let mut keys = Table::default();
    let mut line = Command::default();
    command::environment(
        section,
        name,
        (shared, &mut scope),
        (&mut line, &mut keys),
        notes,
    );
    let mut options = Options::new(section, &scope, name);
    for known in ["environment", "numprocs", "numprocs_start", "process_name"] {
        options.raw(known);
    }
    line.words = command::words(&mut options, notes)?;
    options.raw("command");
    shared.homeless |= has_relative_path(section);
    let places = &shared.places;
    if let Some(given) = options.text("directory", notes) {
        keys.set("working_directory", places.fit(&given.value));
    } else {
        shared.homeless = true;
    }
    identity(&mut options, &mut keys, notes);
    policy::restarts(&mut options, &mut keys, notes);
    policy::stopping(&mut options, &mut keys, notes);
    let sizes = &mut shared.logs;
    logs::translate(&mut options, (places, sizes), &mut line, &mut keys, notes);
    let rank = rank(&mut options, notes);
    let url = options.text("serverurl", notes);
    if let Some(given) = url.filter(|given| !given.value.eq_ignore_ascii_case("auto")) {
        let text = "SUPERVISOR_SERVER_URL is not set; set it in environment if something reads it";
        notes.lacks(name, &given.at, text);
    }
    if kind == "fcgi-program" {
        fastcgi(section, &mut options, &mut keys, notes);
    }
    options.leftovers(notes);
    if keys.get("autostart").is_none() && kind == "fcgi-program" {
        keys.set("autostart", false);
    }
    if line.needs_shell() {
        let at = section.get("command").map(|o| place(&section.name, o));
        let text = "sh gives it its variables and redirections, then becomes it (exec)";
        notes.says(name, &at.unwrap_or_else(|| place_of(section)), text);
    }
    keys.set("command", texts(line.argv()));
    let name = name.to_owned();
    Some((rank, Program { name, keys }))
}

/// Says whether a path of a section starts where supervisord was started.
fn has_relative_path(section: &Section) -> bool {
    let keys = ["directory", "stdout_logfile", "stderr_logfile"];
    keys.into_iter()
        .filter_map(|key| section.get(key))
        .any(|option| {
            let path = option.value.trim().to_ascii_lowercase();
            let words = ["", "auto", "none", "off", "syslog"];
            !path.starts_with(['/', '%']) && !words.contains(&path.as_str())
        })
}

fn identity(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    if let Some(given) = options.text("user", notes).filter(|g| !g.value.is_empty()) {
        keys.set_user(given.value);
    }
    if let Some(mask) = options.read("umask", "it must be an octal mask", umask, notes) {
        keys.set("umask", mask.value);
    }
}

/// Reads a mask, and writes it as the config takes it.
pub(super) fn umask(text: &str) -> Option<String> {
    let digits = text.trim_start_matches("0o");
    let mask = u32::from_str_radix(digits, 8).ok()?;
    (mask <= 0o777).then(|| format!("{mask:03o}"))
}

fn rank(options: &mut Options<'_>, notes: &mut Notes) -> i64 {
    let table = options.table.clone();
    let Some(given) = options.number("priority", notes) else {
        return MIDDLE;
    };
    let text = "programs are written in the order of their priorities and started in it, without \
                waiting, as there; they are stopped all at once. Where one needs another, say \
                `after`";
    notes.differs(&table, &given.at, text);
    given.value
}

fn fastcgi(section: &Section, options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let table = options.table.clone();
    for key in ["socket", "socket_owner", "socket_mode", "socket_backlog"] {
        if let Some(option) = options.raw(key) {
            let text = "no listening socket is made and passed to a program; let the program \
                        bind it, or use spawn-fcgi or a socket unit of systemd";
            notes.lacks(&table, &options.at(option), text);
        }
    }
    keys.set("autostart", false);
    let text = "it expects its listening socket as descriptor 0, which it does not get here, so \
                it is not started by itself";
    notes.differs(&table, &place_of(section), text);
}
