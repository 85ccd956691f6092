//! How many of an app, when they start again and how they stop.

use std::time::Duration;

use super::options::{Given, Options, Unstable};
use super::tree::Node;
use crate::import::command::Command;
use crate::import::draft::Table;
use crate::import::note::Notes;

pub(super) fn replicas(
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
    if !several && !name.is_empty() && !name.contains(['=', '\0']) {
        // Code asks whether it is the first.
        keys.add_variable(name, "0");
    }
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if several && is_name(name) {
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

pub(super) fn restarts(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
    let name = options.name.clone();
    if options
        .truth(&["autorestart"], notes)
        .is_some_and(|g| !g.value)
    {
        keys.set("restart", "never");
        // It may be a server all the same: its end is not what others wait for.
        keys.set("ready", "alive:1s");
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

pub(super) fn stopping(options: &mut Options<'_>, keys: &mut Table, notes: &mut Notes) {
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
            if given.value < Duration::from_secs(1) {
                // The time to be up by default does not fit into it.
                keys.set("ready", "immediately");
            }
            let text = "a program that is not ready by then has crashed; PM2 takes it for ready. \
                        It counts once `ready` is set";
            notes.differs(&name, &given.at, text);
        }
    }
    let user = options
        .text(&["uid", "user"], notes)
        .filter(|g| !g.value.is_empty());
    if let Some(given) = user {
        keys.set_user(given.value);
    }
    let group = options
        .text(&["gid"], notes)
        .filter(|g| !g.value.is_empty());
    if let Some(given) = group {
        keys.set("group", given.value);
    }
}
