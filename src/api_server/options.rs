//! What the server can be told, and how the texts of the command line are read.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::client::Network;

/// Says how the server listens and what it lets through.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes any free one and the start line tells which.
    pub listen: SocketAddr,
    /// Offers `POST /chaos/…`: ways to die on request, for demonstrations.
    pub chaos: bool,
    /// Requests one client may make in the long run; `None` turns the limit off.
    pub rate: Option<Rate>,
    /// Requests one client may make at once before `rate` bites.
    pub burst: NonZeroU32,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// How long a client may take to send its head, and again to send its body.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
            chaos: false,
            rate: Some(Rate::per_second(
                const { NonZeroU32::new(100).expect("100 is not 0") },
            )),
            burst: const { NonZeroU32::new(200).expect("200 is not 0") },
            trusted_proxies: Vec::new(),
            read_timeout: Duration::from_secs(10),
        }
    }
}

/// A sustained rate of requests, written `100/s`, `600/m`, `1000/h`, or `100` (a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

impl Rate {
    /// Allows `count` requests a second.
    pub const fn per_second(count: NonZeroU32) -> Self {
        Self {
            count,
            per: Duration::from_secs(1),
        }
    }

    /// Returns the time in which one request is earned; at least a nanosecond.
    pub(super) fn interval(self) -> Duration {
        (self.per / self.count.get()).max(Duration::from_nanos(1))
    }
}

/// Tells why a text is no [`Rate`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("rate {text:?} is not a whole number above 0 with an optional /s, /m or /h")]
pub struct RateError {
    text: String,
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError {
            text: text.to_owned(),
        };
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(error()),
        };
        let count = count.trim().parse().map_err(|_| error())?;
        Ok(Self {
            count,
            per: Duration::from_secs(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_in_every_unit() {
        for (text, interval) in [
            ("100/s", Duration::from_millis(10)),
            ("50", Duration::from_millis(20)),
            ("60 / m", Duration::from_secs(1)),
            ("2/h", Duration::from_secs(1800)),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!(rate.interval(), interval, "{text}");
        }
    }

    #[test]
    fn a_rate_that_means_nothing_is_refused_with_its_text() {
        for text in ["", "0/s", "-1/s", "1/d", "x/s", "1.5/s", "99999999999"] {
            let error = text.parse::<Rate>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
