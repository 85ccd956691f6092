//! Rules that concern more than one key: programs that wait for each other, files that collide.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::addresses::LONGEST_SOCKET_PATH;
use super::layers::Layers;
use super::model::{Config, Listen};
use super::node::Place;
use super::problem::{Problem, did_you_mean};

/// Checks a configuration each of whose values is fine on its own.
pub(super) fn check(config: &Config, layers: &Layers, problems: &mut Vec<Problem>) {
    instances(config, problems);
    dependencies(config, layers, problems);
    files(config, layers, problems);
    socket_paths(config, layers, problems);
}

fn instances(config: &Config, problems: &mut Vec<Problem>) {
    const MOST: u64 = 10_000;
    let total: u64 = config
        .programs
        .iter()
        .map(|program| u64::from(program.instances))
        .sum();
    if total > MOST {
        let title =
            format!("there are {total} program instances in all; at most {MOST} can be supervised");
        problems.push(Problem::new(Place::BuiltIn, title, ""));
    }
}

fn place_of(layers: &Layers, path: (&str, &str)) -> Place {
    layers
        .section(path.0)
        .get(path.1)
        .map_or(Place::BuiltIn, |node| node.place.clone())
}

/// Returns where each program says whom it waits for.
fn after_places(layers: &Layers) -> HashMap<&str, Place> {
    let defaults = place_of(layers, ("defaults", "after"));
    layers
        .programs()
        .map(|(name, _, keys)| {
            (
                name,
                keys.get("after")
                    .map_or_else(|| defaults.clone(), |node| node.place.clone()),
            )
        })
        .collect()
}

fn dependencies(config: &Config, layers: &Layers, problems: &mut Vec<Problem>) {
    let numbers: HashMap<&str, usize> = config
        .programs
        .iter()
        .enumerate()
        .map(|(i, p)| (p.name.as_str(), i))
        .collect();
    let places = after_places(layers);
    let mut edges: Vec<Vec<usize>> = vec![Vec::new(); config.programs.len()];
    for (from, program) in config.programs.iter().enumerate() {
        let place = || {
            places
                .get(program.name.as_str())
                .cloned()
                .unwrap_or(Place::BuiltIn)
        };
        for name in &program.after {
            match numbers.get(name.as_str()) {
                Some(to) if *to == from => {
                    let title = format!(
                        "`programs.{}.after` must not name the program itself",
                        program.name
                    );
                    problems.push(Problem::new(place(), title, "it would wait for itself"));
                }
                Some(to) => edges[from].push(*to),
                None => {
                    let title = format!(
                        "`programs.{}.after` names {name:?}, which is not a program",
                        program.name
                    );
                    let mut problem = Problem::new(place(), title, "no such program");
                    problem.help =
                        did_you_mean(name, numbers.keys().copied().filter(|n| *n != program.name))
                            .map(|guess| format!("did you mean {guess:?}?"));
                    problems.push(problem);
                }
            }
        }
    }
    for cycle in cycles(&edges) {
        let name = |number: &usize| config.programs[*number].name.as_str();
        let first = cycle.first().map_or("", name);
        let mut names: Vec<&str> = cycle.iter().map(name).collect();
        names.push(first);
        let place = places.get(first).cloned().unwrap_or(Place::BuiltIn);
        let title = format!("programs wait for each other: {}", names.join(" -> "));
        problems.push(
            Problem::new(place, title, "none of them could ever start")
                .help("take one of these names out of `after`"),
        );
    }
}

/// Returns a warning for each program that starts with the daemon and waits for one that does not.
pub(super) fn vain_waits(config: &Config) -> Vec<String> {
    let by_hand = config.programs.iter().filter(|program| !program.autostart);
    let by_hand: HashSet<&str> = by_hand.map(|program| program.name.as_str()).collect();
    let mut warnings = Vec::new();
    for program in config.programs.iter().filter(|program| program.autostart) {
        let others = program.after.iter();
        warnings.extend(others.filter(|other| by_hand.contains(other.as_str())).map(|other| {
            let name = &program.name;
            format!("programs.{name}: waits for {other}, which is not started by itself (autostart = false)")
        }));
    }
    warnings
}

/// Finds the circles in a graph: one for each way back into the path being walked. Without
/// recursion, as a chain may be 10,000 long.
fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::No; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        if seen[start] != Seen::No {
            continue;
        }
        seen[start] = Seen::OnPath;
        let mut path = vec![(start, 0)];
        while let Some((at, next)) = path.last_mut() {
            let Some(to) = edges[*at].get(*next).copied() else {
                seen[*at] = Seen::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match seen[to] {
                Seen::No => {
                    seen[to] = Seen::OnPath;
                    path.push((to, 0));
                }
                Seen::OnPath => {
                    found.push(
                        path.iter()
                            .map(|(node, _)| *node)
                            .skip_while(|node| *node != to)
                            .collect(),
                    );
                }
                Seen::Done => {}
            }
        }
    }
    found
}

/// Refuses one file for two purposes. Programs may share a log, also with the daemon.
fn files(config: &Config, layers: &Layers, problems: &mut Vec<Problem>) {
    let mut taken: BTreeMap<&Path, String> = BTreeMap::new();
    let daemon = &config.daemon;
    let socket = match &config.metrics.listen {
        Some(Listen::Unix(path)) => Some(path.as_path()),
        Some(Listen::Tcp(_)) | None => None,
    };
    let own = [
        ("daemon", "pid_file", Some(daemon.pid_file.as_path())),
        ("daemon", "socket", Some(daemon.socket.as_path())),
        ("daemon", "state_dir", Some(daemon.state_dir.as_path())),
        ("metrics", "listen", socket),
        ("daemon", "log_file", daemon.log_file.as_deref()),
    ];
    for (table, key, path) in own {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            continue;
        };
        if let Some(other) = taken.get(path) {
            problems.push(collision(
                &format!("{table}.{key}"),
                other,
                (place_of(layers, (table, key)), path),
            ));
        } else {
            taken.insert(path, format!("{table}.{key}"));
        }
    }
    for (program, (name, _, keys)) in config.programs.iter().zip(layers.programs()) {
        let Some(path) = &program.log_file else {
            continue;
        };
        if let Some(other) = taken
            .get(path.as_path())
            .filter(|other| *other != "daemon.log_file")
        {
            let place = keys.get("log_file").map_or_else(
                || place_of(layers, ("defaults", "log_file")),
                |node| node.place.clone(),
            );
            problems.push(collision(
                &format!("programs.{name}.log_file"),
                other,
                (place, path),
            ));
        }
    }
}

fn collision(key: &str, other: &str, (place, path): (Place, &Path)) -> Problem {
    Problem::new(
        place,
        format!("`{key}` is the same file as `{other}`"),
        format!("both are {}", path.display()),
    )
}

fn socket_paths(config: &Config, layers: &Layers, problems: &mut Vec<Problem>) {
    let metrics = match &config.metrics.listen {
        Some(Listen::Unix(path)) => Some(path),
        Some(Listen::Tcp(_)) | None => None,
    };
    for (table, key, path) in [
        ("daemon", "socket", Some(&config.daemon.socket)),
        ("metrics", "listen", metrics),
    ] {
        let Some(path) = path else { continue };
        let bytes = path.as_os_str().as_bytes().len();
        if bytes > LONGEST_SOCKET_PATH {
            let title = format!(
                "`{table}.{key}` is a path of {bytes} bytes; a socket's may have at most {LONGEST_SOCKET_PATH}"
            );
            let problem = Problem::new(
                place_of(layers, (table, key)),
                title,
                format!("it is {}", path.display()),
            );
            problems.push(problem.help("use a shorter one, as /run/eternal/daemon.sock"));
        }
    }
}
