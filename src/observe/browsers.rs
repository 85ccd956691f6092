//! What a browser has to be told, and whom it must not be taken in by.
//!
//! Anybody's web page can make a browser ask a port of this machine. What comes back is closed to that
//! page (no CORS), unless its own name has been pointed at 127.0.0.1 meanwhile (DNS rebinding): then the
//! browser sends that name in `Host`, and that is how it is found out.

use std::net::IpAddr;

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// The style of the status page is the one thing that runs or loads; the hash is that of its text.
const POLICY: &str = "default-src 'none'; style-src 'sha256-duK0bMOf6RCDfpQATKBAD4Wo3fRegI9saI9agzKDW7k='; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ON_EVERY_ANSWER: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Adds what tells a browser to run, frame, keep and pass on nothing.
pub(super) fn restrain(headers: &mut HeaderMap) {
    for (name, value) in ON_EVERY_ANSWER {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Tells whether who asks meant this machine: by the name `localhost` or by one of its loopback
/// addresses. A request without `Host` is no browser's.
pub(super) fn means_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(is_loopback),
        (Some(_), Some(_)) => false,
    }
}

/// Takes `HOST` and `HOST:PORT`, IPv6 in brackets.
fn is_loopback(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (name, port) = match inside {
        Some((address, port)) => (address, port.strip_prefix(':').unwrap_or(port)),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let is_address = || name.parse::<IpAddr>().is_ok_and(|at| at.is_loopback());
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    is_port && (name.eq_ignore_ascii_case("localhost") || is_address())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        means_this_machine(&headers)
    }

    #[test]
    fn this_machine_is_meant_by_its_own_names_alone() {
        for host in [
            "localhost",
            "LocalHost:10477",
            "127.0.0.1",
            "127.0.0.1:10477",
            "127.8.8.8:1",
            "[::1]",
            "[::1]:10477",
        ] {
            assert!(asked(&[host]), "{host}");
        }
        assert!(asked(&[]), "HTTP/1.0");
        for host in [
            "",
            "evil.example",
            "evil.example:10477",
            "localhost.evil.example",
            "127.0.0.1.evil.example:10477",
            "127.0.0.1@evil.example",
            "localhost:10477@evil.example",
            "[::1].evil.example",
            "[::1]x:1",
            "10.0.0.1",
            "0.0.0.0",
        ] {
            assert!(!asked(&[host]), "{host:?}");
        }
        assert!(!asked(&["localhost", "evil.example"]), "two of them");
    }
}
