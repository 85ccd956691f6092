//! `[program:x]`: one section, one program or several.

use std::str::FromStr;

use nix::sys::signal::Signal;

use super::expand::pairs;
use super::ini::Section;
use super::logs;
use super::options::{Given, Options};
use super::restarts::Retries;
use super::{MIDDLE, Shared, place, place_of, seconds};
use crate::import::command::{Command, Piece, Word};
use crate::import::draft::{Program, Table, texts, variables};
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
    let mut command = Command::default();
    environment(
        section,
        name,
        (shared, &mut scope),
        (&mut command, &mut keys),
        notes,
    );
    let mut options = Options::new(section, &scope, name);
    for known in ["environment", "numprocs", "numprocs_start", "process_name"] {
        options.raw(known);
    }
    command.words = words(&mut options, notes)?;
    options.raw("command");
    let places = &shared.places;
    if let Some(given) = options.text("directory", notes) {
        keys.set("working_directory", places.fit(&given.value));
    } else {
        shared.homeless = true;
    }
    identity(&mut options, &mut keys, notes);
    restarts(&mut options, &mut keys, notes);
    stopping(&mut options, &mut keys, notes);
    let sizes = &mut shared.logs;
    logs::translate(
        &mut options,
        (places, sizes),
        &mut command,
        &mut keys,
        notes,
    );
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
    if command.needs_shell() {
        let at = section.get("command").map(|o| place(&section.name, o));
        let text = "sh gives it its variables and redirections, then leaves its place to it";
        notes.says(name, &at.unwrap_or_else(|| place_of(section)), text);
    }
    keys.set("command", texts(command.argv()));
    let name = name.to_owned();
    Some((rank, Program { name, keys }))
}

/// Reads `environment`, after that of `[supervisord]`.
fn environment(
    section: &Section,
    name: &str,
    (shared, scope): (&Shared<'_>, &mut super::expand::Scope),
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    let mut all = shared.environment.clone();
    scope.own.clone_from(&all);
    if let Some(option) = section.get("environment") {
        let read = read_environment(&option.value, scope);
        match read {
            Ok(list) => {
                for (variable, value) in list {
                    match value.as_slice() {
                        [] => {
                            all.insert(variable, String::new());
                        }
                        [Piece::Text(text)] => {
                            all.insert(variable, text.clone());
                        }
                        // It is inherited.
                        [Piece::Variable(same)] if *same == variable => {
                            all.remove(&variable);
                        }
                        _ => command.exports.push((variable, value)),
                    }
                }
            }
            Err(why) => {
                let at = place(&section.name, option);
                notes.lacks(name, &at, format!("it {why}; supervisord refuses this too"));
            }
        }
    }
    scope.own.clone_from(&all);
    all.retain(|variable, _| !variable.is_empty());
    if !all.is_empty() {
        keys.set("environment", variables(&all));
    }
}

fn read_environment(
    text: &str,
    scope: &super::expand::Scope,
) -> Result<Vec<(String, Word)>, String> {
    pairs(text)?
        .into_iter()
        .map(|(name, value)| Ok((name, scope.expand(&value)?)))
        .collect()
}

/// Reads `command`, whose words are those of a shell that knows quotes only.
fn words(options: &mut Options<'_>, notes: &mut Notes) -> Option<Vec<Word>> {
    let table = options.table.clone();
    let Some(option) = options.raw("command") else {
        let text =
            "it has no command, so there is no such program here; supervisord refuses it too";
        notes.lacks("", &place_of(options.section), text);
        return None;
    };
    let at = options.at(option);
    let split = options
        .scope
        .expand(&option.value)
        .and_then(|pieces| split(&pieces));
    match split {
        Ok(words) if !words.is_empty() => Some(words),
        Ok(_) => {
            notes.lacks("", &at, "it is empty, so there is no such program here");
            None
        }
        Err(why) => {
            let text = format!("it {why}, so there is no such program here: {table}");
            notes.lacks("", &at, text);
            None
        }
    }
}

/// Splits into words. A variable stands behind a sign of its own while the line is split.
fn split(pieces: &[Piece]) -> Result<Vec<Word>, String> {
    const FIRST_SIGN: u32 = 0xF_0000;
    let mut line = String::new();
    let mut signs: Vec<(String, bool)> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Variable(name) | Piece::Words(name) => {
                let number = u32::try_from(signs.len()).unwrap_or(u32::MAX);
                let sign = FIRST_SIGN.checked_add(number).and_then(char::from_u32);
                let alone = line.is_empty() || line.ends_with(char::is_whitespace);
                line.push(sign.ok_or("has too many variables")?);
                signs.push((name.clone(), alone));
            }
        }
    }
    let words = shlex::split(&line).ok_or("has a quote that is not closed")?;
    let sign = |c: char| {
        let number = u32::from(c).checked_sub(FIRST_SIGN)?;
        signs.get(usize::try_from(number).ok()?)
    };
    Ok(words
        .iter()
        .map(|word| {
            let mut pieces: Word = Vec::new();
            for c in word.chars() {
                match (sign(c), pieces.last_mut()) {
                    (Some((name, true)), _) if word.chars().count() == 1 => {
                        pieces.push(Piece::Words(name.clone()));
                    }
                    (Some((name, _)), _) => pieces.push(Piece::Variable(name.clone())),
                    (None, Some(Piece::Text(text))) => text.push(c),
                    (None, _) => pieces.push(Piece::Text(c.to_string())),
                }
            }
            if pieces.is_empty() {
                pieces.push(Piece::Text(String::new()));
            }
            pieces
        })
        .collect())
}

fn identity(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    if let Some(given) = options.text("user", notes).filter(|g| !g.value.is_empty()) {
        keys.set("user", given.value);
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

fn restarts(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let table = options.table.clone();
    if options.truth("autostart", notes).is_some_and(|g| !g.value) {
        keys.set("autostart", false);
    }
    let mode = |text: &str| match text.to_ascii_lowercase().as_str() {
        "unexpected" => Some("on-failure"),
        other => super::options::truth(other).map(|on| if on { "always" } else { "never" }),
    };
    let rule = "it must be true, false or unexpected";
    let mode = options.read("autorestart", rule, mode, notes);
    let mode = mode.map_or("on-failure", |given| given.value);
    if mode != "on-failure" {
        keys.set("restart", mode);
    }
    let codes = options.read(
        "exitcodes",
        "it must be exit codes from 0 to 255",
        codes,
        notes,
    );
    if let Some(given) = codes.filter(|given| given.value != [0]) {
        keys.set("success_exit_codes", given.value);
    }
    let mut retries = Retries::default();
    let startsecs = options.number("startsecs", notes);
    let startretries = options.number("startretries", notes);
    if let Some(given) = &startsecs {
        retries.startsecs = given.value;
    }
    if let Some(given) = &startretries {
        retries.startretries = given.value;
    }
    if startsecs.is_some() || startretries.is_some() {
        retries.write_difference(keys);
    }
    if let Some(given) = startsecs.filter(|_| retries.is_endless() && mode != "never") {
        keys.set("on_crash_loop", "retry");
        keys.set("retry_after", "1s");
        let text = "0 means that no end is too soon: it is never given up, as on_crash_loop = \
                    \"retry\" says; its crashes are counted and alerted on all the same";
        notes.differs(&table, &given.at, text);
    }
    if let Some(given) = startretries.filter(|given| given.value <= 0) {
        let text = "a start that fails is tried once more, so that a crash after a long run is not \
                    the last; crash_threshold = 1 would give up at the first of either";
        notes.differs(&table, &given.at, text);
    }
}

fn codes(text: &str) -> Option<Vec<i64>> {
    let codes: Option<Vec<i64>> = text
        .split(',')
        .map(str::trim)
        .filter(|code| !code.is_empty())
        .map(|code| code.parse().ok().filter(|code| (0..=255).contains(code)))
        .collect();
    codes.filter(|codes| !codes.is_empty())
}

fn stopping(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let table = options.table.clone();
    let rule = "it must be a signal, as TERM";
    let signal = options.read("stopsignal", rule, signal, notes);
    if let Some(given) = signal.filter(|given| given.value != "SIGTERM") {
        keys.set("stop_signal", given.value);
    }
    if let Some(given) = options.number("stopwaitsecs", notes) {
        keys.set_length(
            "stop_timeout",
            seconds(given.value.clamp(0, i64::from(u32::MAX))),
        );
    }
    let stop = options.truth("stopasgroup", notes);
    let kill = options.truth("killasgroup", notes);
    let (stops, kills) = (is_true(&stop), is_true(&kill));
    if stops {
        keys.set("kill_mode", "family");
    } else if let (true, Some(given)) = (kills, &kill) {
        let text = "kill_mode = \"process\" tells only the main process to stop, as \
                    stopasgroup = false does, and kills only it; \"family\" tells and kills \
                    every descendant";
        notes.differs(&table, &given.at, text);
    }
    if let (true, Some(given), false) = (stops, &kill, kills) {
        let text = "supervisord refuses it together with stopasgroup = true";
        notes.lacks(&table, &given.at, text);
    }
}

fn is_true(given: &Option<Given<bool>>) -> bool {
    given.as_ref().is_some_and(|given| given.value)
}

fn signal(text: &str) -> Option<String> {
    if let Ok(number) = text.parse::<i32>() {
        let signal = Signal::try_from(number).ok()?;
        return Some(signal.as_str().to_owned());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    Signal::from_str(&name).ok().map(|s| s.as_str().to_owned())
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
