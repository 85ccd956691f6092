//! Values with parts: arrays and tables.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a rule names the kinds of value that it takes and refuses all others alike"
)]

use std::collections::BTreeMap;

use super::model::Limit;
use super::node::{Kind, Node, quote};
use super::problem::{Fault, did_you_mean};
use super::values::{Read, text};

fn items(node: &Node, rule: &str) -> Read<Vec<Node>> {
    match &node.kind {
        Kind::Array(items) => Ok(items.clone()),
        _ => Err(Fault::new(node, rule)),
    }
}

/// Reads exit codes.
pub(super) fn codes(node: &Node) -> Read<Vec<i32>> {
    let items = items(node, "must be an array of exit codes, as [0, 78]")?;
    items
        .iter()
        .map(|item| match item.kind {
            Kind::Integer(code @ 0..=255) => i32::try_from(code).map_err(|_| Fault::new(item, "")),
            _ => Err(Fault::new(item, "must hold exit codes from 0 to 255")),
        })
        .collect()
}

/// Reads the names of other programs.
pub(super) fn names(node: &Node) -> Read<Vec<String>> {
    let items = items(node, "must be an array of program names, as [\"db\"]")?;
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in &items {
        let name = text(item).map_err(|fault| Fault {
            rule: "must hold program names".to_owned(),
            ..fault
        })?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Reads names of environment variables: each whole, or its beginning followed by `*`.
pub(super) fn variables(node: &Node) -> Read<Vec<String>> {
    const RULE: &str = "must hold names of variables, each whole or its beginning and a *";
    let rule = "must be an array of names of variables, as [\"DATABASE_URL\", \"AWS_*\"]";
    let items = items(node, rule)?;
    let mut names = Vec::with_capacity(items.len());
    for item in &items {
        let Kind::Text(name) = &item.kind else {
            return Err(Fault::new(item, RULE));
        };
        let begin = name.strip_suffix('*').unwrap_or(name);
        if name.is_empty() || begin.contains(['=', '*', '\0']) {
            return Err(Fault::new(item, RULE));
        }
        names.push(name.clone());
    }
    Ok(names)
}

/// Reads a command line: words, the first of which is the program.
pub(super) fn command(node: &Node) -> Read<Vec<String>> {
    const RULE: &str = "must be an array of strings that is not empty";
    if let Kind::Text(line) = &node.kind {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| format!("{word:?}"))
            .collect();
        let example = if words.is_empty() {
            r#""./server", "--port", "3000""#.to_owned()
        } else {
            words.join(", ")
        };
        return Err(Fault::new(node, "must be an array of strings")
            .help(format!("no shell: write it as an array, e.g. [{example}]")));
    }
    let items = items(node, RULE)?;
    let words: Vec<String> = items
        .iter()
        .map(|item| match item.kind {
            Kind::Text(_) => text(item),
            _ => Err(Fault::new(item, "must hold strings only")
                .help(format!("put it in quotes: \"{}\"", item.show()))),
        })
        .collect::<Read<_>>()?;
    match words.first() {
        None => Err(Fault {
            found: "found an empty array".to_owned(),
            ..Fault::new(node, RULE)
        }),
        Some(first) if first.is_empty() => Err(Fault::new(
            &items[0],
            "must begin with the name of a program",
        )),
        Some(_) => Ok(words),
    }
}

/// Reads environment variables. Their values never appear in a message.
pub(super) fn environment(node: &Node) -> Read<BTreeMap<String, String>> {
    let Kind::Table(entries) = &node.kind else {
        return Err(Fault::new(node, "must be a table, as { PORT = \"3000\" }").secret());
    };
    let mut variables = BTreeMap::new();
    for (name, place, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            let fault = Fault::new(
                value,
                format!(
                    "has the name {} for a variable, which may not be empty or contain '=' or NUL",
                    quote(name.split('=').next().unwrap_or_default())
                ),
            )
            .secret();
            return Err(Fault {
                place: place.clone(),
                ..fault
            });
        }
        let text = match &value.kind {
            Kind::Text(text) if !text.contains('\0') => text.clone(),
            Kind::Text(_) => {
                return Err(Fault::new(value, format!("has a NUL byte in {name}")).secret());
            }
            Kind::Integer(number) => number.to_string(),
            Kind::Bool(truth) => truth.to_string(),
            Kind::Float(_) | Kind::Array(_) | Kind::Table(_) | Kind::Other(_) => {
                return Err(Fault::new(
                    value,
                    format!("has a value for {name} that is not a string"),
                )
                .secret()
                .help("put it in quotes"));
            }
        };
        variables.insert(name.clone(), text);
    }
    Ok(variables)
}

/// The limits that Linux has, by their name without `RLIMIT_`, in lower case. The layer rule keeps
/// the kernel's numbers for them in another room; the daemon, which sees both, tests that they agree.
pub const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads resource limits.
pub(super) fn limits(node: &Node) -> Read<BTreeMap<String, Limit>> {
    let Kind::Table(entries) = &node.kind else {
        return Err(Fault::new(node, "must be a table, as { nofile = 65536 }"));
    };
    let mut limits = BTreeMap::new();
    for (name, place, value) in entries {
        if !LIMITS.contains(&name.as_str()) {
            let fault = Fault::new(value, format!("has no limit {}", quote(name)));
            let help = did_you_mean(name, LIMITS).map_or_else(
                || format!("the limits are {}", LIMITS.join(", ")),
                |guess| format!("did you mean `{guess}`?"),
            );
            return Err(Fault {
                place: place.clone(),
                found: "unknown limit".to_owned(),
                ..fault.help(help)
            });
        }
        limits.insert(name.clone(), limit(name, value)?);
    }
    Ok(limits)
}

fn limit(name: &str, node: &Node) -> Read<Limit> {
    let Kind::Table(parts) = &node.kind else {
        return bound(name, node).map(|both| Limit {
            soft: both,
            hard: both,
        });
    };
    let part = |which: &str| {
        parts
            .iter()
            .find(|(key, _, _)| key == which)
            .map(|(_, _, value)| value)
    };
    let (Some(soft), Some(hard), 2) = (part("soft"), part("hard"), parts.len()) else {
        return Err(Fault::new(
            node,
            format!("takes exactly soft and hard in {name}, as {{ soft = 1024, hard = 65536 }}"),
        ));
    };
    let limit = Limit {
        soft: bound(name, soft)?,
        hard: bound(name, hard)?,
    };
    if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
        return Err(Fault::new(
            soft,
            format!("has a soft limit above the hard one in {name}"),
        ));
    }
    Ok(limit)
}

fn bound(name: &str, node: &Node) -> Read<Option<u64>> {
    match &node.kind {
        Kind::Text(word) if word == "unlimited" => Ok(None),
        Kind::Integer(number @ 0..) => Ok(Some(number.unsigned_abs())),
        _ => Err(Fault::new(
            node,
            format!("takes a whole number, \"unlimited\" or {{ soft, hard }} for {name}"),
        )),
    }
}
