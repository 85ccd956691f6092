//! Token buckets, one for each client, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::options::Rate;

/// How many clients are remembered: about half a MiB.
const MOST_CLIENTS: usize = 10_000;

/// What the limiter says about one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Goes through; `remaining` more may follow at once.
    Pass { remaining: u32 },
    /// Has to wait this many whole seconds, at least one.
    Wait { seconds: u64 },
}

/// Decides for every client how many requests it may make.
pub(super) struct Limiter {
    buckets: RateLimiter<IpAddr, Buckets, DefaultClock, StateInformationMiddleware>,
    burst: NonZeroU32,
}

impl Limiter {
    pub(super) fn new(rate: Rate, burst: NonZeroU32) -> Self {
        let quota = Quota::with_period(rate.interval())
            .expect("an interval is at least a nanosecond")
            .allow_burst(burst);
        let buckets = RateLimiter::new(quota, Buckets::new(MOST_CLIENTS), DefaultClock::default());
        Self { buckets, burst }
    }

    /// Returns how many requests a client that was silent for long may make at once.
    pub(super) fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// Takes one token from the client's bucket.
    pub(super) fn check(&self, client: IpAddr) -> Verdict {
        match self.buckets.check_key(&subscriber(client)) {
            Ok(state) => Verdict::Pass {
                remaining: state.remaining_burst_capacity(),
            },
            Err(refusal) => {
                let wait = refusal.wait_time_from(self.buckets.clock().now());
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Verdict::Wait {
                    seconds: seconds.max(1),
                }
            }
        }
    }
}

/// Returns what one subscriber owns: an IPv4 address, or the /64 that any IPv6 host picks from.
fn subscriber(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

/// The buckets by client. When full it forgets the half that has the most tokens back, which
/// are the clients that a fresh bucket favours least.
struct Buckets {
    most: usize,
    filled_at: Mutex<HashMap<IpAddr, Nanos>>,
}

impl Buckets {
    fn new(most: usize) -> Self {
        Self {
            most,
            filled_at: Mutex::new(HashMap::new()),
        }
    }
}

impl StateStore for Buckets {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut filled_at = self
            .filled_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = filled_at.get(client).copied();
        let (outcome, after) = measure(before)?;
        if before.is_none() && filled_at.len() >= self.most {
            forget_half(&mut filled_at);
        }
        filled_at.insert(*client, after);
        Ok(outcome)
    }
}

fn forget_half(filled_at: &mut HashMap<IpAddr, Nanos>) {
    let mut times: Vec<Nanos> = filled_at.values().copied().collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    filled_at.retain(|_, time| *time > *median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: &str, burst: u32) -> Limiter {
        let burst = NonZeroU32::new(burst).expect("burst");
        Limiter::new(rate.parse().expect("rate"), burst)
    }

    #[test]
    fn a_client_gets_its_burst_and_then_waits() {
        let limiter = limiter("1/h", 3);
        let client = IpAddr::from([192, 0, 2, 1]);
        for remaining in [2, 1, 0] {
            assert_eq!(limiter.check(client), Verdict::Pass { remaining });
        }
        let Verdict::Wait { seconds } = limiter.check(client) else {
            panic!("a fourth request went through");
        };
        assert!((3590..=3600).contains(&seconds), "{seconds}");
        assert_eq!(
            limiter.check(IpAddr::from([192, 0, 2, 2])),
            Verdict::Pass { remaining: 2 }
        );
    }

    #[test]
    fn addresses_of_one_ipv6_subscriber_share_a_bucket() {
        let limiter = limiter("1/h", 1);
        let check = |text: &str| limiter.check(text.parse().expect("address"));
        assert_eq!(check("2001:db8:0:1::1"), Verdict::Pass { remaining: 0 });
        assert!(matches!(
            check("2001:db8:0:1:ffff::2"),
            Verdict::Wait { .. }
        ));
        assert_eq!(check("2001:db8:0:2::1"), Verdict::Pass { remaining: 0 });
        assert_eq!(check("10.0.0.1"), Verdict::Pass { remaining: 0 });
        assert!(matches!(check("::ffff:10.0.0.1"), Verdict::Wait { .. }));
    }

    #[test]
    fn memory_stays_bounded_and_the_busiest_client_is_not_forgotten() {
        let store = Buckets::new(100);
        let touch = |client: u32, until: u64| {
            let _: Result<(), ()> = store
                .measure_and_replace(&IpAddr::from(client.to_be_bytes()), |_| {
                    Ok(((), Nanos::from(until)))
                });
        };
        touch(u32::MAX, u64::MAX);
        for client in 0..10_000 {
            touch(client, u64::from(client));
            let buckets = store.filled_at.lock().expect("lock");
            assert!(buckets.len() <= 100, "{} clients are kept", buckets.len());
            assert!(buckets.contains_key(&IpAddr::from([255; 4])));
        }
    }
}
