//! Basic authentication, as in the Prometheus exporter toolkit: every page asks for it.
//!
//! A bcrypt check takes a good part of a second on purpose. So it runs off the event loop, one at
//! a time, a client may ask for only a few, and the last password that was right is remembered,
//! which makes every scrape but the first free.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, oneshot};

use super::protection::{ProtectionError, ReadFile};

/// The `metrics.basic_auth_file`, as messages name it.
const FILE: &str = "the password file";
/// Passwords that a client may try at once …
const TRIES: NonZeroU32 = NonZeroU32::new(5).expect("it is not zero");
/// … and how long it waits for each further one.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// From this many clients on, those that waited long enough are forgotten.
const MANY_CLIENTS: usize = 1024;
/// Longer names and passwords are not looked at.
const MOST_CREDENTIALS: usize = 1024;

/// What the credentials of a request are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are right.
    Welcome,
    /// There are none, or they are wrong.
    Unknown,
    /// The client tried too often; seconds until the next try.
    Wait(u64),
}

/// The greatest cost that `htpasswd` makes: ten seconds a login, where 31 would take a day.
const COSTLIEST: u32 = 17;

/// Who may look.
pub(super) struct Accounts {
    accounts: BTreeMap<String, Account>,
    /// What the password of an unknown user is checked against: the wait must not tell them apart.
    stranger: String,
    tries: DefaultKeyedRateLimiter<IpAddr>,
    /// One check at a time: guessing may take one core, not all of them.
    turn: Semaphore,
}

struct Account {
    hash: String,
    /// The last password that was right.
    known: Mutex<Option<Vec<u8>>>,
}

impl Account {
    fn knows(&self, password: &[u8]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .as_deref()
            .is_some_and(|known| bool::from(known.ct_eq(password)))
    }

    fn remember(&self, password: &[u8]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(password.to_owned());
    }
}

impl Accounts {
    /// Reads `user: bcrypt-hash` lines. Empty lines, `#` comments and the heading
    /// `basic_auth_users:` of the toolkit's own file are skipped, quotes around a value removed.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, has a line of another kind, or no user.
    pub(super) fn load(file: &Path, read: ReadFile) -> Result<Self, ProtectionError> {
        let text = read(file).and_then(|bytes| {
            let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
            String::from_utf8(bytes).map_err(not_text)
        });
        let text = text.map_err(|error| ProtectionError::read(FILE, file, error))?;
        Self::parse(&text).map_err(|reason| ProtectionError::wrong(FILE, file, reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut accounts = BTreeMap::new();
        let mut costliest: Option<(u32, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line == "basic_auth_users:" {
                continue;
            }
            let (user, hash) = line
                .split_once(':')
                .map(|(user, hash)| (unquoted(user), unquoted(hash)))
                .filter(|(user, _)| !user.is_empty())
                .ok_or_else(|| format!("line {number}: it must be `user: bcrypt-hash`"))?;
            let parts = HashParts::from_str(hash).map_err(|_| {
                format!(
                    "line {number}: the password of {user} is not a bcrypt hash; \
                     `htpasswd -nB {user}` makes one"
                )
            })?;
            if parts.get_cost() > COSTLIEST {
                return Err(format!(
                    "line {number}: the hash of {user} has cost {}; it must be at most {COSTLIEST}, \
                     as each step doubles the time of a login",
                    parts.get_cost()
                ));
            }
            let account = Account {
                hash: hash.to_owned(),
                known: Mutex::new(None),
            };
            if accounts.insert(user.to_owned(), account).is_some() {
                return Err(format!("line {number}: {user} is there twice"));
            }
            if costliest
                .as_ref()
                .is_none_or(|(cost, _)| *cost < parts.get_cost())
            {
                costliest = Some((parts.get_cost(), hash.to_owned()));
            }
        }
        let Some((_, stranger)) = costliest else {
            return Err("there is no user in it".to_owned());
        };
        let quota = Quota::with_period(TRY_AGAIN)
            .expect("a second is not zero")
            .allow_burst(TRIES);
        Ok(Self {
            accounts,
            stranger,
            tries: RateLimiter::hashmap(quota),
            turn: Semaphore::new(1),
        })
    }

    /// Judges the credentials of a request; `client` is `None` on a Unix socket.
    pub(super) async fn judge(
        self: &Arc<Self>,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Verdict {
        let Some((user, password)) = credentials(headers) else {
            return Verdict::Unknown;
        };
        let account = self.accounts.get(&user);
        if account.is_some_and(|account| account.knows(&password)) {
            return Verdict::Welcome;
        }
        if let Some(seconds) = self.too_many_tries(client) {
            return Verdict::Wait(seconds);
        }
        let Ok(_turn) = self.turn.acquire().await else {
            return Verdict::Unknown;
        };
        // Whoever came first with the same password has had it checked meanwhile.
        if account.is_some_and(|account| account.knows(&password)) {
            return Verdict::Welcome;
        }
        match self.compare(user, password).await {
            Some(true) => Verdict::Welcome,
            Some(false) => Verdict::Unknown,
            None => Verdict::Wait(1),
        }
    }

    /// Compares on a thread of its own, since that takes long; `None` when none is to be had.
    async fn compare(self: &Arc<Self>, user: String, password: Vec<u8>) -> Option<bool> {
        let this = Arc::clone(self);
        let (done, verdict) = oneshot::channel();
        // Not on tokio's threads: where there is no room for one those panic.
        std::thread::Builder::new()
            .name("password".into())
            .spawn(move || {
                let _ = done.send(this.check(&user, &password));
            })
            .ok()?;
        verdict.await.ok()
    }

    fn check(&self, user: &str, password: &[u8]) -> bool {
        let account = self.accounts.get(user);
        let hash = account.map_or(&self.stranger, |account| &account.hash);
        let right = bcrypt::verify(password, hash).unwrap_or(false);
        match account {
            Some(account) if right => {
                account.remember(password);
                true
            }
            Some(_) | None => false,
        }
    }

    fn too_many_tries(&self, client: Option<IpAddr>) -> Option<u64> {
        if self.tries.len() >= MANY_CLIENTS {
            self.tries.retain_recent();
        }
        let client = subscriber(client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        let refusal = self.tries.check_key(&client).err()?;
        let wait = refusal.wait_time_from(self.tries.clock().now());
        Some(wait.as_secs() + 1)
    }
}

/// Returns what one client owns: an IPv4 address, or the /64 that any IPv6 host picks from.
fn subscriber(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// Returns the name and the password that a request brings.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    if value.len() > MOST_CREDENTIALS {
        return None;
    }
    let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.truncate(colon);
    Some((String::from_utf8(decoded).ok()?, password))
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        bcrypt::hash("secret", 4).expect("4 is the least cost")
    }

    fn reason(text: &str) -> String {
        match Accounts::parse(text) {
            Ok(_) => "it is fine".to_owned(),
            Err(reason) => reason,
        }
    }

    #[test]
    fn the_file_may_be_ours_the_toolkits_or_htpasswds() {
        let hash = hash();
        let ours = format!("# scrapers\nprom: {hash}\n\nann: {hash}\n");
        let toolkit = format!("basic_auth_users:\n    prom: {hash}\n    \"ann\": '{hash}'\n");
        let htpasswd = format!("prom:{hash}\nann:{hash}\n");
        for text in [ours, toolkit, htpasswd] {
            let accounts = Accounts::parse(&text).expect("a file of a known kind");
            let users: Vec<&String> = accounts.accounts.keys().collect();
            assert_eq!(users, ["ann", "prom"], "{text}");
            assert!(accounts.check("ann", b"secret"), "{text}");
            assert!(!accounts.check("ann", b"Secret"), "{text}");
            assert!(!accounts.check("bob", b"secret"), "{text}");
        }
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_line_and_without_its_secrets() {
        let hash = hash();
        let plain = reason(&format!("prom: {hash}\nann: hunter2\n"));
        let costly = reason(&format!("ann: {}\n", hash.replacen("$04$", "$31$", 1)));
        assert!(
            costly.starts_with("line 1: the hash of ann has cost 31; it must be at most 17"),
            "{costly}"
        );
        assert!(plain.starts_with("line 2: the password of ann is not a bcrypt hash"));
        assert!(!plain.contains("hunter2"), "{plain}");
        assert_eq!(
            reason("tls_server_config\n"),
            "line 1: it must be `user: bcrypt-hash`"
        );
        assert_eq!(
            reason(&format!("a: {hash}\na: {hash}\n")),
            "line 2: a is there twice"
        );
        assert_eq!(reason("# nobody\n"), "there is no user in it");
    }

    #[test]
    fn what_is_no_basic_authorization_is_none() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
            credentials(&headers)
        };
        let encoded = STANDARD.encode("prom:a:b");
        let known = Some(("prom".to_owned(), b"a:b".to_vec()));
        assert_eq!(with(&format!("Basic {encoded}")), known);
        assert_eq!(with(&format!("basic  {encoded}")), known);
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Basic %%%",
            "Bearer abcd",
            "Basic YWJj",
        ] {
            assert_eq!(with(wrong), None, "{wrong}");
        }
        assert_eq!(with(&format!("Basic {}", "YWJj".repeat(300))), None);
    }

    #[test]
    fn a_client_that_guesses_has_to_wait_and_others_have_not() {
        let accounts = Accounts::parse(&format!("prom: {}", hash())).expect("one user");
        let (bad, good) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..TRIES.get() {
            assert_eq!(accounts.too_many_tries(Some(bad)), None);
        }
        assert_eq!(accounts.too_many_tries(Some(bad)), Some(1));
        assert_eq!(accounts.too_many_tries(Some(good)), None);
        assert_eq!(accounts.too_many_tries(None), None);
    }
}
