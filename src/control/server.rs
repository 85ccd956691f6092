//! The daemon's side of the control socket: who may speak, what may be asked, how it is answered.
//!
//! It decides nothing about programs. Questions go to the closures of a [`Backend`]; orders go to
//! the loop as [`Command`]s, and the answer waits until the order is carried out.

mod body;
mod failure;
mod patience;
mod query;
pub mod reserve;
mod route;
mod socket;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use super::api;

use body::Endless;
use patience::Patience;
use reserve::Claim;
pub use socket::{BindError, bind};

/// Connections served at the same time; one more is answered with 503.
pub const MAX_CONNECTIONS: usize = 64;
/// Of those, whoever listens for as long as they like: events, and logs that are followed. The rest is
/// for orders and questions, so that no number of listeners locks a person out.
pub const MAX_LISTENERS: usize = 48;
/// Connections that may have the daemon's last descriptors, for one answer each; others wait outside.
const SEATS_IN_NEED: usize = 4;
/// How long a peer with one of the last descriptors may take over the head of its request.
const HEADER_DEADLINE_IN_NEED: Duration = Duration::from_secs(2);
/// How long a peer that is behind may take over an answer that has an end.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections being turned away at the same time; one more is closed without a word.
const MAX_REFUSALS: usize = 16;
/// How long a peer may take over the head of a request, and idle between two.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How long answers under way may take once the server is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// Keeps an accept loop without free descriptors from spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the head of a request, and of what is read ahead.
const MAX_HEAD: usize = 64 * 1024;

/// A future that can be stored and sent to another thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the loop is told to do. Each carries where its answer goes.
#[derive(Debug)]
pub enum Command {
    /// Start, stop or restart a program; answered when it is ready, or gone.
    Program {
        /// What to do.
        verb: api::Verb,
        /// To whom.
        target: Target,
        /// Where the answer goes. Nobody listens when the person did not want to wait.
        reply: oneshot::Sender<Result<api::Done, Refusal>>,
    },
    /// Read the config again and apply it.
    Reload {
        /// Restart every program, as SIGHUP does.
        restart: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<api::Reloaded, Refusal>>,
    },
    /// Say whether all is well; that there is an answer says that the loop turns.
    Health {
        /// Where the answer goes.
        reply: oneshot::Sender<api::Health>,
    },
    /// Stop every program and end.
    Shutdown {
        /// Answered when everything is gone, right before the process ends.
        reply: oneshot::Sender<()>,
    },
}

/// The program an order is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The program's name in the config.
    pub name: String,
    /// One replica of it; `None`: all of them.
    pub replica: Option<u32>,
}

/// Why the loop did not do what it was told, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing (404).
    NotFound(String),
    /// It contradicts what is going on, such as a start while the daemon stops (409).
    Conflict(String),
    /// What was asked is wrong in itself, such as a bad config (422).
    Invalid(String),
    /// It was tried and failed, such as a program that did not become ready (500).
    Failed(String),
}

/// Which captured lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Of this program; `None`: of all.
    pub program: Option<String>,
    /// How many past lines, at most.
    pub lines: usize,
    /// Lines yet to come, too.
    pub follow: bool,
}

/// Past lines, oldest first, and where the coming ones arrive if they are wanted.
pub type Logs = (Vec<api::LogLine>, Option<mpsc::Receiver<api::LogLine>>);

/// Returns the status of this moment.
pub type AskStatus = Arc<dyn Fn() -> api::Status + Send + Sync>;
/// Returns the crashes of one program or of all, oldest first.
pub type AskCrashes = Arc<dyn Fn(Option<&str>) -> Vec<api::Crash> + Send + Sync>;
/// Looks up captured lines.
pub type AskLogs = Arc<dyn Fn(LogQuery) -> BoxFuture<Logs> + Send + Sync>;

/// What the daemon lends to the server.
#[derive(Clone)]
pub struct Backend {
    /// Everything there is to know at this moment.
    pub status: AskStatus,
    /// The crash history, of one program or of all, oldest first.
    pub crashes: AskCrashes,
    /// Captured lines.
    pub logs: AskLogs,
    /// Lifecycle events as they happen; every listener subscribes here.
    pub events: broadcast::Sender<api::EventRecord>,
    /// Orders for the loop.
    pub commands: mpsc::Sender<Command>,
}

/// Serves a listener until `stop` completes, then lets answers under way finish for at most 2 s.
///
/// # Errors
/// Only when the listener cannot be handed to the runtime.
pub async fn serve(
    listener: StdUnixListener,
    backend: Backend,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (ending, watched) = watch::channel(false);
    let connections = GracefulShutdown::new();
    let door = Door::new(route::Desk::new(backend, watched));
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            come = door.receive(&listener) => if let Some(peer) = come {
                door.admit(peer, connections.watcher());
            },
        }
    }
    drop(listener);
    let _ = ending.send(true);
    // A peer that does not read its answer must not keep the daemon alive.
    let _ = tokio::time::timeout(DRAIN_DEADLINE, connections.shutdown()).await;
    Ok(())
}

/// Decides who comes in.
struct Door {
    desk: Arc<route::Desk>,
    owner: u32,
    seats: Arc<Semaphore>,
    last_seats: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// Somebody who has come.
struct Peer {
    stream: UnixStream,
    /// Has one of the last descriptors, and the right to one answer that has an end.
    last_seat: Option<OwnedSemaphorePermit>,
}

/// How a peer is received.
#[derive(Clone, Debug)]
enum Admission {
    Welcome,
    Refused(failure::Failure),
}

impl Door {
    fn new(desk: route::Desk) -> Self {
        Self {
            desk: Arc::new(desk),
            owner: nix::unistd::geteuid().as_raw(),
            seats: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            last_seats: Arc::new(Semaphore::new(SEATS_IN_NEED)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        }
    }

    /// Waits for the next who comes. While only the last descriptors are left, nobody who may give orders
    /// is sent away: the next waits for one of the last seats, the others for their turn, in the queue of
    /// the socket.
    async fn receive(&self, listener: &UnixListener) -> Option<Peer> {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return None;
        };
        let last_seat = if reserve::allows(Claim::Order) {
            None
        } else if self.stranger(&stream).is_some() {
            return None;
        } else {
            let seat = Arc::clone(&self.last_seats).acquire_owned().await;
            Some(seat.ok()?)
        };
        Some(Peer { stream, last_seat })
    }

    fn admit(&self, peer: Peer, watcher: Watcher) {
        let (admission, semaphore) = match self.stranger(&peer.stream) {
            Some(failure) => (Admission::Refused(failure), &self.refusals),
            None if self.seats.available_permits() == 0 => (
                Admission::Refused(failure::Failure::crowded()),
                &self.refusals,
            ),
            None => (Admission::Welcome, &self.seats),
        };
        let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() else {
            return;
        };
        tokio::spawn(converse(
            peer,
            Arc::clone(&self.desk),
            admission,
            (permit, watcher),
        ));
    }

    /// Says why a peer may not speak to this daemon: only its own user and root may.
    fn stranger(&self, stream: &UnixStream) -> Option<failure::Failure> {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.owner || peer.uid() == 0 => None,
            Ok(peer) => Some(failure::Failure::stranger(peer.uid(), self.owner)),
            Err(error) => Some(failure::Failure::unknown_peer(&error)),
        }
    }
}

/// Serves one connection; its errors are the peer's.
async fn converse(
    Peer { stream, last_seat }: Peer,
    desk: Arc<route::Desk>,
    admission: Admission,
    (_permit, watcher): (OwnedSemaphorePermit, Watcher),
) {
    let in_need = last_seat.is_some();
    let endless = Arc::<AtomicBool>::default();
    let stream = Patience::new(stream, WRITE_DEADLINE, Arc::clone(&endless));
    let service = service_fn(move |request| {
        let (desk, endless) = (Arc::clone(&desk), Arc::clone(&endless));
        let admission = admission.clone();
        async move {
            let mut answer = match admission {
                Admission::Welcome => desk.answer(request).await,
                Admission::Refused(failure) => failure.into_last_response(),
            };
            let mut goes_on = answer.extensions().get::<Endless>().is_some();
            if goes_on && in_need {
                answer = failure::Failure::in_need().into_last_response();
                goes_on = false;
            }
            endless.store(goes_on, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(!in_need)
        .header_read_timeout(if in_need {
            HEADER_DEADLINE_IN_NEED
        } else {
            HEADER_DEADLINE
        })
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let _ = watcher.watch(connection).await;
    drop(last_seat);
}
