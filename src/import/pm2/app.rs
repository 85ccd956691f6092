//! One app, one program.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::options::{Given, Options, Unstable};
use super::tree::{Kind, Node};
use super::{Shared, shown};
use crate::import::command::Command;
use crate::import::draft::{Program, Table, texts, variables};
use crate::import::note::{At, Notes};

/// What runs a file of this ending.
const INTERPRETERS: [(&str, &str); 12] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("sh", "bash"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("coffee", "coffee"),
    ("ls", "lsc"),
    ("ts", "bun"),
    ("tsx", "bun"),
];

/// Options that need nothing here: where it is said why, it is told.
const NOT_NEEDED: [(&[&str], &str); 9] = [
    (&["force"], ""),
    (&["vizion"], ""),
    (&["automation", "pmx"], ""),
    (&["windows_hide"], ""),
    (&["disable_trace"], ""),
    (&["namespace"], "there are no namespaces; it is left out"),
    (
        &["time", "log_date_format"],
        "lines in the daemon's log have a time; a log_file holds lines as the program wrote them",
    ),
    (
        &["source_map_support", "disable_source_map_support"],
        "say --enable-source-maps to node in `command`",
    ),
    (
        &["kill_retry_time"],
        "a process is watched by its pidfd, not asked again and again",
    ),
];

/// Options that have no equivalent, with what to do instead.
const LACKING: [(&[&str], &str); 16] = [
    (
        &["watch"],
        "files are not watched; let a tool such as nodemon or watchexec be the command, or say `eternal restart NAME` after a change",
    ),
    (&["ignore_watch"], "files are not watched"),
    (&["watch_options"], "files are not watched"),
    (&["watch_delay"], "files are not watched"),
    (&["max_memory_restart"], MEMORY),
    (
        &["cron_restart", "cron"],
        "there is no calendar; let cron or a timer of systemd say `eternal restart NAME`",
    ),
    (
        &["shutdown_with_message"],
        "there is no IPC channel; the program is told by stop_signal",
    ),
    (
        &["pid_file", "pid"],
        "there is one pid file, that of the daemon; `eternal status NAME --json` has each pid",
    ),
    (
        &["log_type"],
        "daemon.log_format = \"json\" makes the daemon's log JSON; a log_file holds lines as the program wrote them",
    ),
    (
        &["filter_env"],
        "a program gets the daemon's environment and its own; start the daemon with less (`env -i`)",
    ),
    (&["post_update"], "nothing is updated here"),
    (
        &[
            "trace",
            "deep_monitoring",
            "v8",
            "event_loop_inspector",
            "io",
        ],
        "the pm2.io agent is not there; /metrics says what the process uses",
    ),
    (&["install_url"], "nothing is installed here"),
    (&["append_env_to_name"], "write the name that is wanted"),
    (&["write"], "nothing writes the configuration"),
    (&["username"], "PM2 sets it; `user` says who runs it"),
];

/// The one place that says what `max_memory_restart` has become.
const MEMORY: &str = "there is no limit of memory that restarts a program; a hard one is \
                      limits = { as = BYTES } (address space), or MemoryMax= of the daemon's unit";

/// Translates an app.
pub(super) fn translate(app: &Node, shared: &mut Shared<'_>, notes: &mut Notes) -> Option<Program> {
    let mut options = Options::new(app, &shared.request.file, String::new());
    let script = options.raw(&["script", "exec", "cmd", "command"]);
    let given = options.raw(&["name"]).and_then(|(_, node)| node.scalar());
    let prefix = options.raw(&["name_prefix"]).and_then(|(_, n)| n.scalar());
    let script = script.and_then(|(at, node)| Some((at, node.scalar()?)));
    let of_script = || {
        let script = script.as_ref().map_or("", |(_, script)| script.as_str());
        let stem = Path::new(script).file_stem();
        stem.map_or(String::new(), |stem| stem.to_string_lossy().into_owned())
    };
    let wanted = prefix.unwrap_or_default() + &given.unwrap_or_else(of_script);
    options.name.clone_from(&wanted);
    let Some((at, script)) = script else {
        let text = "it has no script, so there is no such program here; PM2 refuses it too";
        notes.lacks("", &options.whole(), text);
        return None;
    };
    if script == "serve" {
        let text = "it is PM2's own server of static files, so there is no such program here; let \
                    one of yours be the command";
        notes.lacks("", &at, text);
        return None;
    }
    let name = shared.names.give(&wanted);
    options.name.clone_from(&name);
    if name != wanted {
        let at = options.raw(&["name"]).map_or(at.clone(), |(at, _)| at);
        let text = format!("it is called {name} here: {}", crate::config::NAME_RULE);
        notes.differs(&name, &at, text);
    }
    let mut keys = Table::default();
    let cwd = options.text(&["cwd"], notes);
    let directory = cwd.as_ref().map_or("", |given| given.value.as_str());
    let directory = shared.places.source().join(directory);
    let (mut command, interpreter) = command((&script, &at), &directory, &mut options, notes);
    if let Some(given) = cwd {
        keys.set("working_directory", shared.places.fit(&given.value));
    } else if shared.places.fit(".") != "." {
        keys.set("working_directory", shared.places.fit("."));
    }
    environment(&mut options, shared, &interpreter, &mut keys, notes);
    replicas(&mut options, &interpreter, (&mut command, &mut keys), notes);
    restarts(&mut options, &mut keys, notes);
    stopping(&mut options, &mut keys, notes);
    logs(&mut options, shared, (&mut command, &mut keys), notes);
    rest(&mut options, notes);
    if command.needs_shell() {
        let text = "sh gives it its variables and redirections, then leaves its place to it";
        notes.says(&name, &options.whole(), text);
    }
    keys.set("command", texts(command.argv()));
    Some(Program { name, keys })
}

/// Makes the command line: interpreter, its arguments, script, its arguments.
fn command(
    (script, at): (&str, &At),
    directory: &Path,
    options: &mut Options<'_>,
    notes: &mut Notes,
) -> (Command, String) {
    let name = options.name.clone();
    let own = ["exec_interpreter", "interpreter"];
    let interpreter = options
        .text(&own, notes)
        .map(|given| (given.value, given.at));
    let its_arguments = options.words(&["node_args", "interpreter_args"], notes);
    let arguments = options.words(&["args"], notes);
    if script.trim().contains(' ') {
        if !arguments.is_empty() {
            notes.says(
                &name,
                at,
                "PM2 gives a script with spaces to bash, without its args",
            );
        }
        let words = ["bash", "-c", script].map(str::to_owned);
        return (Command::plain(words), "bash".to_owned());
    }
    let ending = Path::new(script).extension().and_then(|e| e.to_str());
    let usual = INTERPRETERS
        .iter()
        .find(|(known, _)| Some(*known) == ending)
        .map(|(_, interpreter)| (*interpreter).to_owned());
    let given = interpreter.is_some();
    let chosen = match interpreter {
        Some((own, at)) => match own.split_once('@') {
            Some((own, version)) => {
                let text = format!(
                    "versions are not chosen here: {own} is the one in the daemon's PATH; name \
                     the file of {version} in `command` if it matters"
                );
                notes.differs(&name, &at, text);
                Some(own.to_owned())
            }
            None => Some(own).filter(|own| own != "none"),
        },
        None => usual,
    };
    if chosen.as_deref() == Some("python3") {
        notes.says(
            &name,
            at,
            "python3 runs it; PM2 takes python where there is one",
        );
    }
    if chosen.as_deref() == Some("bun") && ending == Some("ts") {
        notes.says(
            &name,
            at,
            "bun runs it, as in PM2 where there is one; else say node or ts-node in `command`",
        );
    }
    let chosen = match chosen {
        None if ending.is_none() && !given => unnamed(script, at, (options, directory), notes),
        chosen => chosen,
    };
    let mut words: Vec<String> = chosen.iter().cloned().collect();
    if chosen.is_some() {
        words.extend(its_arguments);
        words.push(script.to_owned());
    } else {
        words.push(local(script, ending, directory));
    }
    words.extend(arguments);
    (Command::plain(words), chosen.unwrap_or_default())
}

/// Decides what runs a file whose name has no ending: as PM2, node unless it is a binary. A word
/// without a file is a command in `PATH`.
fn unnamed(
    script: &str,
    at: &At,
    (options, directory): (&Options<'_>, &Path),
    notes: &mut Notes,
) -> Option<String> {
    const START: usize = 1024;
    let file = std::fs::File::open(directory.join(script));
    let mut start = Vec::new();
    let read = file.and_then(|file| file.take(START as u64).read_to_end(&mut start));
    if read.is_err() && !script.contains('/') {
        return None;
    }
    if start.contains(&0) {
        return None;
    }
    let text = if read.is_err() {
        "the file cannot be read now: node is taken to run it, as PM2 does with what is no binary"
    } else {
        "node runs it, as PM2 does with what is no binary"
    };
    notes.says(&options.name, at, text);
    Some("node".to_owned())
}

/// A file beside the configuration is found by its path, not in `PATH`.
fn local(script: &str, ending: Option<&str>, directory: &Path) -> String {
    let beside = ending.is_some() || directory.join(script).is_file();
    if beside && !script.contains('/') {
        format!("./{script}")
    } else {
        script.to_owned()
    }
}

/// Reads `env`, and that of `--env`.
fn environment(
    options: &mut Options<'_>,
    shared: &Shared<'_>,
    interpreter: &str,
    keys: &mut Table,
    notes: &mut Notes,
) {
    let name = options.name.clone();
    let mut all = BTreeMap::new();
    if interpreter.contains("python") {
        all.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    }
    if let Some((at, node)) = options.raw(&["env"]) {
        add_variables(node, &at, &name, &mut all, notes);
    }
    let chosen = shared
        .environment
        .map(|environment| format!("env_{environment}"));
    let mut found = false;
    for (key, node) in options.app.members() {
        if !key.starts_with("env_") || node.kind == Kind::Null {
            continue;
        }
        let Some((at, node)) = options.raw(&[key]) else {
            continue;
        };
        if Some(key) == chosen.as_ref() {
            found = true;
            add_variables(node, &at, &name, &mut all, notes);
        } else {
            let environment = key.trim_start_matches("env_");
            let text = format!(
                "one configuration has one environment; import with --env {environment} to get \
                 this one"
            );
            notes.lacks(&name, &at, text);
        }
    }
    if let (Some(chosen), false) = (chosen, found) {
        let text = format!("it has no {chosen}, which --env asks for; it gets its env");
        notes.differs(&name, &options.whole(), text);
    }
    if let Some(given) = options.text(&["port"], notes) {
        all.insert("PORT".to_owned(), given.value);
    }
    if !all.is_empty() {
        keys.set("environment", variables(&all));
    }
}

fn add_variables(
    node: &Node,
    at: &At,
    name: &str,
    all: &mut BTreeMap<String, String>,
    notes: &mut Notes,
) {
    if !matches!(node.kind, Kind::Map(_)) {
        notes.lacks(name, at, "it must be an object of variables");
        return;
    }
    for (key, value) in node.members() {
        let valid = !key.is_empty() && !key.contains(['=', '\0']);
        // JavaScript writes what is not there as these words.
        let text = match value.kind {
            Kind::Null => "null".to_owned(),
            Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Map(_) => shown(value),
        };
        if valid && !text.contains('\0') {
            all.insert(key.clone(), text);
        } else {
            notes.lacks(
                name,
                at,
                format!("{key:?} cannot be the name of a variable"),
            );
        }
    }
}

fn replicas(
    options: &mut Options<'_>,
    interpreter: &str,
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    const MOST: i64 = 1_000;
    let name = options.name.clone();
    let mode = options.text(&["exec_mode"], notes);
    options.raw(&["execute_command"]);
    let count = |node: &Node| match node.scalar().as_deref() {
        Some("max") => Some(0),
        _ => super::options::number(node),
    };
    let given = options.read(&["instances"], "a number or \"max\"", count, notes);
    let runtime = interpreter.ends_with("node") || interpreter.ends_with("bun");
    let cluster = match &mode {
        Some(mode) => mode.value.starts_with("cluster"),
        None => given.is_some() && runtime,
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = i64::try_from(processors).unwrap_or(1);
    let wanted = match &given {
        Some(given) if given.value <= 0 => (processors + given.value).max(1),
        Some(given) => given.value.min(MOST),
        None => 1,
    };
    let at = given.or(mode.map(|mode| Given {
        value: 0,
        at: mode.at,
    }));
    if let (true, true, Some(given)) = (cluster, wanted > 1, &at) {
        let text = format!(
            "cluster mode has no equivalent: PM2's processes share one port, replicas do not. \
             One is started. If it does not listen, or on a port of its own \
             (ETERNAL_REPLICA), set instances = {wanted}; else use node:cluster in it"
        );
        notes.lacks(&name, &given.at, text);
    } else if wanted > 1 {
        keys.set("instances", wanted);
    }
    let counted = at.filter(|given| given.value <= 0 && keys.get("instances").is_some());
    if let Some(given) = counted {
        let text = format!("{wanted}: this machine has {processors} processors");
        notes.differs(&name, &given.at, text);
    }
    numbering(options, (command, keys), notes);
}

/// Sets the variables that tell a replica its number.
fn numbering(
    options: &mut Options<'_>,
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    let variable = options.text(&["instance_var"], notes);
    let counted = options.text(&["increment_var"], notes);
    let several = keys.get("instances").is_some();
    let name = variable
        .as_ref()
        .map_or("NODE_APP_INSTANCE", |given| given.value.as_str());
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if (several || variable.is_some()) && is_name(name) {
        command
            .before
            .push(format!("{name}=$ETERNAL_REPLICA; export {name}"));
    }
    let Some(given) = counted else { return };
    let first = keys
        .get("environment")
        .and_then(|environment| environment.get(&given.value)?.as_str()?.parse::<i64>().ok());
    match first.filter(|_| is_name(&given.value)) {
        Some(first) => {
            let name = given.value;
            let sum = format!("{name}=$(({first} + ETERNAL_REPLICA)); export {name}");
            command.before.push(sum);
        }
        None => {
            let text = "there is no number of this name in env to count from";
            notes.lacks(&options.name, &given.at, text);
        }
    }
}

fn restarts(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let name = options.name.clone();
    if options
        .truth(&["autorestart"], notes)
        .is_some_and(|g| !g.value)
    {
        keys.set("restart", "never");
    }
    if options
        .truth(&["autostart"], notes)
        .is_some_and(|g| !g.value)
    {
        keys.set("autostart", false);
    }
    let mut unstable = Unstable::default();
    let min = options.milliseconds(&["min_uptime"], notes);
    let max = options.number(&["max_restarts"], notes);
    if let Some(given) = &min {
        unstable.min_uptime = given.value;
    }
    if let Some(given) = &max {
        unstable.max_restarts = given.value;
        let text = format!(
            "it is crash_threshold: crashes within {} of run time, whenever they come; a \
             number for the whole life is max_restarts",
            crate::config::length(
                unstable
                    .min_uptime
                    .saturating_mul(u32::try_from(given.value.max(1)).unwrap_or(u32::MAX))
            )
        );
        notes.says(&name, &given.at, text);
    }
    if min.is_some() || max.is_some() {
        unstable.write(keys);
    }
    let codes = |node: &Node| {
        let code = |node| super::options::number(node).filter(|code| (0..=255).contains(code));
        node.items().iter().map(code).collect::<Option<Vec<i64>>>()
    };
    if let Some(given) = options.read(&["stop_exit_codes"], "exit codes", codes, notes) {
        let clean: Vec<i64> = [0]
            .into_iter()
            .chain(given.value.iter().copied().filter(|c| *c != 0))
            .collect();
        keys.set("no_restart_exit_codes", given.value);
        keys.set("success_exit_codes", clean);
    }
    let constant = options.milliseconds(&["restart_delay"], notes);
    let growing = options.milliseconds(&["exp_backoff_restart_delay"], notes);
    if let Some(given) = growing.filter(|given| !given.value.is_zero()) {
        keys.set_length("restart_delay", given.value);
        keys.set_length(
            "restart_delay_max",
            given.value.max(Duration::from_secs(15)),
        );
        keys.set("restart_jitter", 0.0);
        keys.set_length("stable_after", Duration::from_secs(30));
        let text = "waits double up to 15 s; PM2's grow by half";
        notes.differs(&name, &given.at, text);
    } else if let Some(given) = constant {
        keys.set_length("restart_delay", given.value);
        keys.set_length("restart_delay_max", given.value);
        keys.set("restart_jitter", 0.0);
    }
}

fn stopping(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let name = options.name.clone();
    if let Some(given) = options.milliseconds(&["kill_timeout"], notes) {
        keys.set_length("stop_timeout", given.value);
    }
    if options
        .truth(&["treekill"], notes)
        .is_some_and(|g| !g.value)
    {
        keys.set("kill_mode", "process");
    }
    let waits = options
        .truth(&["wait_ready"], notes)
        .filter(|given| given.value);
    let listens = options.milliseconds(&["listen_timeout"], notes);
    if let Some(given) = &waits {
        let text = "there is no IPC channel for process.send('ready'); say ready = \"notify\" and \
                    let it send READY=1 (sd_notify), or ready = \"tcp://127.0.0.1:PORT\" or \
                    \"http://127.0.0.1:PORT/health\"";
        notes.lacks(&name, &given.at, text);
    }
    if let Some(given) = listens {
        if given.value.is_zero() {
            notes.lacks(&name, &given.at, "start_timeout is longer than zero");
        } else {
            keys.set_length("start_timeout", given.value);
            let text = "a program that is not ready by then has crashed; PM2 takes it for ready. \
                        It counts once `ready` is set";
            notes.differs(&name, &given.at, text);
        }
    }
    let user = options
        .text(&["uid", "user"], notes)
        .filter(|g| !g.value.is_empty());
    if let Some(given) = user {
        keys.set("user", given.value);
    }
    let group = options
        .text(&["gid"], notes)
        .filter(|g| !g.value.is_empty());
    if let Some(given) = group {
        keys.set("group", given.value);
    }
}

fn logs(
    options: &mut Options<'_>,
    shared: &Shared<'_>,
    (command, keys): (&mut Command, &mut Table),
    notes: &mut Notes,
) {
    let name = options.name.clone();
    let out = options.text(&["out_file", "out", "output", "out_log"], notes);
    let err = options.text(
        &["error_file", "error", "err", "err_file", "err_log"],
        notes,
    );
    let both = options.text(&["log_file", "log"], notes);
    let merged = options.truth(&["merge_logs", "combine_logs"], notes);
    let path = |given: &Option<Given<String>>| given.as_ref().map(|given| given.value.clone());
    let none = options
        .truth(&["disable_logs"], notes)
        .is_some_and(|given| given.value);
    if none {
        command.redirections.push(">/dev/null 2>&1");
        return;
    }
    let nowhere = |path: &String| matches!(path.as_str(), "/dev/null" | "NULL");
    let (out_path, err_path) = (path(&out), path(&err));
    // PM2's own file for both is /dev/null unless it is asked for one.
    let both = both.filter(|given| !nowhere(&given.value) && given.value != "false");
    let whole = match both.as_ref().map(|given| given.value.as_str()) {
        Some("true") | None => None,
        Some(path) => Some(path.to_owned()),
    };
    match (
        out_path.as_ref().is_some_and(nowhere),
        err_path.as_ref().is_some_and(nowhere),
    ) {
        (true, true) if whole.is_none() => command.redirections.push(">/dev/null 2>&1"),
        (true, false) if whole.is_none() => command.redirections.push(">/dev/null"),
        (false, true) if whole.is_none() => command.redirections.push("2>/dev/null"),
        _ => {}
    }
    let files = [&whole, &out_path, &err_path];
    let file = files.into_iter().flatten().find(|path| !nowhere(path));
    if let Some(file) = file {
        keys.set("log_file", place(file, shared));
    }
    for (given, other) in [(&both, ""), (&out, ""), (&err, "its stderr goes there too")] {
        let Some(given) = given else { continue };
        if Some(&given.value) == file || nowhere(&given.value) || given.value == "true" {
            continue;
        }
        let text = format!("a program has one log_file; {other}");
        let text = text.trim_end_matches("; ");
        notes.differs(&name, &given.at, text);
    }
    if keys.get("instances").is_some() && file.is_some() && !merged.is_some_and(|g| g.value) {
        let at = out.or(err).or(both);
        if let Some(given) = at {
            let text = "the replicas write into one file; PM2 gives each its own unless \
                        merge_logs is set";
            notes.differs(&name, &given.at, text);
        }
    }
}

/// Writes the path of a log, which starts at the home directory where it begins with `~`.
fn place(path: &str, shared: &Shared<'_>) -> String {
    let home = shared.request.environment.get("HOME");
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => shared.places.fit(path),
    }
}

/// Names every option that is left.
fn rest(options: &mut Options<'_>, notes: &mut Notes) {
    let name = options.name.clone();
    for (names, text) in NOT_NEEDED {
        if let Some((at, _)) = options.raw(names).filter(|_| !text.is_empty()) {
            notes.says(&name, &at, text);
        }
        spare(options, names);
    }
    for (names, text) in LACKING {
        for one in names {
            let found = options.raw(&[one]).filter(|(_, node)| !is_off(node));
            if let Some((at, _)) = found {
                notes.lacks(&name, &at, text);
            }
        }
    }
    for (at, _) in options.leftovers() {
        notes.lacks(&name, &at, "PM2 has no such option and ignores it");
    }
}

/// Marks every spelling of an option as read.
fn spare(options: &mut Options<'_>, names: &[&str]) {
    for name in names {
        options.raw(&[name]);
    }
}

/// Says whether an option asks for nothing.
fn is_off(node: &Node) -> bool {
    match &node.kind {
        Kind::Null | Kind::Bool(false) | Kind::Integer(0) => true,
        Kind::Text(text) => matches!(text.as_str(), "" | "false" | "0"),
        Kind::List(items) => items.is_empty(),
        Kind::Map(members) => members.is_empty(),
        Kind::Bool(true) | Kind::Integer(_) | Kind::Float(_) => false,
    }
}
