//! Addresses: where to listen, where to look whether a program is ready, where to send traces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::model::{Check, Listen, Ready};
use super::node::{Kind, Node};
use super::problem::{Fault, did_you_mean};
use super::values::{Read, absolute, duration, text};

/// The longest path that fits `sun_path` with its closing NUL, in bytes.
pub(super) const LONGEST_SOCKET_PATH: usize = 107;

/// Reads `metrics.listen`.
pub(super) fn listen(node: &Node, base: &Path) -> Read<Option<Listen>> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(Fault::new(node, "must have a path after \"unix:\""));
        }
        return Ok(Some(Listen::Unix(absolute(base, path))));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(Listen::Tcp(address)));
    }
    let refuse = || Fault::new(node, "must be HOST:PORT, \"unix:/path\" or \"\"");
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| refuse().help("the port is missing: \"127.0.0.1:10477\""))?;
    let port: u16 = port
        .parse()
        .map_err(|_| refuse().help("the port must be a number from 0 to 65535"))?;
    match host {
        // Not resolved: what a name means may differ between the check and the start.
        "localhost" => Ok(Some(Listen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))),
        "" => Err(refuse().help(format!(
            "say where: \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" or \"[::]:{port}\" for every address"
        ))),
        _ if host.contains(':') => Err(refuse().help(format!("put an IPv6 address in brackets: \"[{}]:{port}\"", host.trim_matches(['[', ']'])))),
        _ => Err(refuse().help("the host must be an IP address or localhost")),
    }
}

/// Reads `ready`.
pub(super) fn ready(node: &Node) -> Read<Ready> {
    let refuse = || {
        Fault::new(
            node,
            "must be \"alive:DURATION\", \"immediately\", \"exit\", \"notify\", \"tcp://HOST:PORT\", \"http://HOST:PORT/PATH\" or \"exec:COMMAND ARG…\"",
        )
    };
    let Kind::Text(_) = node.kind else {
        return Err(refuse());
    };
    let text = text(node)?;
    match text.as_str() {
        "immediately" => return Ok(Ready::Immediately),
        "notify" => return Ok(Ready::Notify),
        "exit" => return Ok(Ready::Exit),
        _ => {}
    }
    if let Some(length) = text.strip_prefix("alive:") {
        return alive(node, length);
    }
    if let Some(check) = check(node, &text, refuse)? {
        return Ok(Ready::Check(check));
    }
    if text == "alive" {
        return Err(refuse().help("say how long: \"alive:1s\""));
    }
    Err(
        match did_you_mean(&text, ["immediately", "notify", "exit"]) {
            Some(guess) => refuse().help(format!("did you mean {guess:?}?")),
            None => refuse(),
        },
    )
}

/// Reads how long a program has to stay up.
fn alive(node: &Node, length: &str) -> Read<Ready> {
    let text = Node {
        place: node.place.clone(),
        kind: Kind::Text(length.to_owned()),
    };
    match duration(&text) {
        Ok(least) if !least.is_zero() => Ok(Ready::Alive(least)),
        Ok(_) => Err(Fault::new(node, "must be longer than 0 after \"alive:\"")
            .help("\"immediately\" is ready as soon as it runs")),
        Err(_) => Err(Fault::new(node, "must have a duration after \"alive:\"")
            .help("as in \"alive:1s\" or \"alive:500ms\"")),
    }
}

/// Reads `health_check`.
pub(super) fn health_check(node: &Node) -> Read<Option<Check>> {
    let refuse = || {
        Fault::new(
            node,
            "must be \"tcp://HOST:PORT\", \"http://HOST:PORT/PATH\", \"exec:COMMAND ARG…\" or \"\"",
        )
    };
    let Kind::Text(_) = node.kind else {
        return Err(refuse());
    };
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    check(node, &text, refuse)?.ok_or_else(refuse).map(Some)
}

/// Reads a check; `None` when it is none of the three kinds.
fn check(node: &Node, text: &str, refuse: impl Fn() -> Fault) -> Read<Option<Check>> {
    if let Some(rest) = text.strip_prefix("tcp://") {
        return Ok(Some(Check::Tcp(host_port(node, rest)?)));
    }
    if let Some(rest) = text.strip_prefix("http://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        if path.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(Fault::new(node, "must have a path without spaces")
                .help("write other characters as %XX"));
        }
        return Ok(Some(Check::Http {
            authority: host_port(node, authority)?,
            path: path.to_owned(),
        }));
    }
    if let Some(rest) = text.strip_prefix("exec:") {
        let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(Fault::new(node, "must have a command after \"exec:\""));
        }
        // It is split at white space and nothing else: a quote would silently mean itself.
        if rest.contains(['"', '\'', '\\', '$', '`']) {
            return Err(Fault::new(
                node,
                "must not have quotes or other shell signs after \"exec:\"",
            )
            .help("there is no shell: words are split at white space; put the rest in a script"));
        }
        return Ok(Some(Check::Exec(words)));
    }
    if text.starts_with("https://") {
        return Err(refuse().help("https is not spoken here: use http:// on the loopback, or exec: with a client of yours"));
    }
    Ok(None)
}

/// Reads a `HOST:PORT` that is to be connected to; the host may be a name.
pub(super) fn target(node: &Node) -> Read<Option<String>> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    host_port(node, &text).map(Some)
}

fn host_port(node: &Node, text: &str) -> Read<String> {
    const EXAMPLE: &str = "as in 127.0.0.1:3000, localhost:3000 or [::1]:3000";
    let refuse = |rule: &str| Fault::new(node, rule).help(EXAMPLE);
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| refuse("must have a host and a port"))?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(refuse("must have a port from 1 to 65535"));
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if !valid {
        return Err(refuse(
            "must have a host name or an address before the port",
        ));
    }
    Ok(text.to_owned())
}

/// Reads `tracing.otlp_endpoint`.
pub(super) fn endpoint(node: &Node) -> Read<Option<String>> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest)
            if !rest.is_empty()
                && !rest.starts_with('/')
                && !text.contains(char::is_whitespace) =>
        {
            Ok(Some(text))
        }
        _ => {
            Err(Fault::new(node, "must be a URL, or \"\"").help("as in \"http://127.0.0.1:4318\""))
        }
    }
}
