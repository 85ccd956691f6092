//! Names of hosts, looked up where waiting harms nobody.
//!
//! The C library's look-up cannot be broken off, and a resolver that is dead makes it wait for ever.
//! So each look-up has a thread of its own that ends with it, there are a few at most, and whoever
//! asks for a name that is being looked up waits for the same answer: a name without an answer costs
//! one thread, however often it is asked for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;

/// Look-ups at the same time.
const MOST: usize = 4;

type Found = Result<Vec<SocketAddr>, String>;

/// The look-ups under way, and where each answer will be.
static UNDER_WAY: Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>> =
    Mutex::new(BTreeMap::new());

/// Finds the addresses of `HOST:PORT`. Those in numbers, and `localhost` (RFC 6761), need no look-up.
///
/// # Errors
///
/// Why there is none, fit for a log line.
pub(super) async fn resolve(authority: &str) -> Found {
    if let Ok(address) = authority.parse() {
        return Ok(vec![address]);
    }
    let port = authority
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok());
    if let Some(port) = port {
        let (four, six) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        return Ok(vec![(four, port).into(), (six, port).into()]);
    }
    let mut answer = ask(authority)?;
    let found = answer.wait_for(Option::is_some).await;
    // A thread that ends without an answer has broken off.
    let found = found.ok().and_then(|found| found.clone());
    found.unwrap_or_else(|| Err(format!("the look-up of {authority} broke off")))
}

fn ask(authority: &str) -> Result<watch::Receiver<Option<Found>>, String> {
    let mut under_way = under_way();
    if let Some(answer) = under_way.get(authority) {
        return Ok(answer.clone());
    }
    if under_way.len() >= MOST {
        return Err(format!(
            "cannot look up {authority}: {MOST} other names are being looked up, and none has an answer"
        ));
    }
    let (to, answer) = watch::channel(None);
    let name = authority.to_owned();
    thread::Builder::new()
        .name("resolver".into())
        .spawn(move || {
            // Made here: without a thread there is nothing under way to be over.
            let lookup = Lookup(name);
            let found = lookup.0.to_socket_addrs();
            to.send_replace(Some(match found {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(error.to_string()),
            }));
            drop(lookup);
        })
        .map_err(|error| format!("cannot look up {authority}: no thread for it: {error}"))?;
    under_way.insert(authority.to_owned(), answer.clone());
    Ok(answer)
}

/// Is no longer under way when this is dropped, however it ends.
struct Lookup(String);

impl Drop for Lookup {
    fn drop(&mut self) {
        under_way().remove(&self.0);
    }
}

fn under_way() -> MutexGuard<'static, BTreeMap<String, watch::Receiver<Option<Found>>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}
