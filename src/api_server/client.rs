//! Who is asking: the client's address, seen through the proxies that are trusted.

use std::net::IpAddr;
use std::str::FromStr;

use hyper::HeaderMap;

/// A range of addresses, written `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Tells whether `address` lies in the range; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Tells why a text is no [`Network`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("network {text:?} is not an IP address with an optional /prefix")]
pub struct NetworkError {
    text: String,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError {
            text: text.to_owned(),
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| error())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse().map_err(|_| error())?,
            None => widest,
        };
        if prefix > widest {
            return Err(error());
        }
        Ok(Self { address, prefix })
    }
}

/// Returns the address that a request is answered for.
///
/// `X-Forwarded-For` is a list to which every proxy appends its peer, so only what trusted proxies
/// appended is true: from the right, the first hop that is not a trusted proxy. Anything further
/// left is what the client wrote itself.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_proxy = |address| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.into_iter().rev() {
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            if !is_proxy(client) {
                return client;
            }
            let Some(hop) = std::str::from_utf8(hop).ok().and_then(parse_hop) else {
                return client;
            };
            client = hop;
        }
    }
    client
}

/// Reads one hop: an address, alone or with a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop
        .strip_prefix('[')
        .and_then(|hop| hop.strip_suffix(']'))
        .unwrap_or(hop);
    bare.parse::<IpAddr>()
        .or_else(|_| {
            hop.parse::<std::net::SocketAddr>()
                .map(|address| address.ip())
        })
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().expect("header value"));
        }
        let trusted: Vec<Network> = trusted
            .iter()
            .map(|network| network.parse().expect("network"))
            .collect();
        address(peer.parse().expect("peer"), &headers, &trusted).to_string()
    }

    #[test]
    fn a_forwarded_for_from_a_stranger_is_not_believed() {
        assert_eq!(seen("9.9.9.9", &["1.1.1.1"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(seen("9.9.9.9", &["1.1.1.1"], &[]), "9.9.9.9");
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, 1.1.1.1"], &proxies), "1.1.1.1");
        assert_eq!(
            seen("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.2.2.2"], &proxies),
            "1.1.1.1"
        );
        assert_eq!(
            seen("10.0.0.1", &["6.6.6.6", "1.1.1.1", "fd00::2"], &proxies),
            "1.1.1.1"
        );
        assert_eq!(
            seen("::ffff:10.0.0.1", &["1.1.1.1:4711"], &proxies),
            "1.1.1.1"
        );
        assert_eq!(
            seen("10.0.0.1", &["[2001:db8::1]:443"], &proxies),
            "2001:db8::1"
        );
    }

    #[test]
    fn an_unreadable_hop_ends_the_chain_at_the_last_proxy() {
        let proxies = ["10.0.0.0/8"];
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, unknown"], &proxies),
            "10.0.0.1"
        );
        assert_eq!(seen("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(
            seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &proxies),
            "10.0.0.3"
        );
    }

    #[test]
    fn a_network_of_any_prefix_contains_what_it_should() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().expect("network");
            network.contains(address.parse().expect("address"))
        };
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("192.168.4.0/23", "192.168.5.9"));
        assert!(!contains("192.168.4.0/23", "192.168.6.0"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "10.0.0.1"));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x"] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
