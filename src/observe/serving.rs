//! Connections: who is let in, for how long, and what each may send.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::crowd::{Crowd, Guest, SLOW, Seat};
use super::deadline::Deadline;
use super::http::{Answer, App, Asked};
use crate::control::server::reserve::{self, Claim};

/// Served at the same time. One more takes the place of one that says nothing, or gets a 503.
pub(super) const MOST_CONNECTIONS: usize = 64;
/// Being turned away at the same time; one more is closed without a word.
const MOST_REFUSALS: usize = 16;
/// How long being turned away may take, from the connection on.
const REFUSAL: Duration = Duration::from_secs(2);
/// From the connection to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte to the end of the headers, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const MOST_HEADERS: usize = 64;
const MOST_HEADER_BYTES: usize = 16 * 1024;
/// For a whole answer, from the moment the peer falls behind.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers under way may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where to listen. Both have to be non-blocking.
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Tells whether only processes of this machine get here, browsers among them.
    fn is_at_home(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|at| at.ip().is_loopback()),
            // No browser speaks to a Unix socket; a proxy in front of it has names of its own.
            Self::Unix(_) => false,
        }
    }
}

/// Serves until `stop` is done, then finishes the answers under way, for a second at most.
///
/// # Errors
///
/// When the listener cannot be used with this runtime.
pub async fn serve(
    listener: Listener,
    app: Arc<App>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Server {
        app,
        crowd: Arc::new(Crowd::new(MOST_CONNECTIONS)),
        at_home: listener.is_at_home(),
        refusals: Arc::new(Semaphore::new(MOST_REFUSALS)),
        graceful: GracefulShutdown::new(),
    };
    let mut stop = pin!(stop);
    match listener {
        Listener::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            tokio::select! {
                () = &mut stop => {}
                () = async { loop { server.admit(listener.accept().await, tcp_client).await } } => {}
            }
        }
        Listener::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            tokio::select! {
                () = &mut stop => {}
                () = async { loop { server.admit(listener.accept().await, |_| None).await } } => {}
            }
        }
    }
    // Those that are not done by then are cut off with the runtime.
    let _ = timeout(FAREWELL, server.graceful.shutdown()).await;
    Ok(())
}

struct Server {
    app: Arc<App>,
    crowd: Arc<Crowd>,
    at_home: bool,
    refusals: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Server {
    async fn admit<S, A>(&self, accepted: io::Result<(S, A)>, client: fn(A) -> Option<IpAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok((stream, address)) = accepted else {
            return sleep(ACCEPT_PAUSE).await;
        };
        let in_need = !reserve::allows(Claim::Client);
        let visitor = Visitor {
            app: Arc::clone(&self.app),
            client: client(address),
            at_home: self.at_home,
            watcher: self.graceful.watcher(),
        };
        if let Some(seat) = self.crowd.enter(in_need) {
            tokio::spawn(visitor.sit_down(stream, seat));
        } else if !in_need && let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() {
            let crowd = Arc::clone(&self.crowd);
            tokio::spawn(async move {
                // Whoever does not read has to make room by then.
                sleep(SLOW).await;
                if let Some(seat) = crowd.enter(!reserve::allows(Claim::Client)) {
                    drop(turn);
                    return visitor.sit_down(stream, seat).await;
                }
                let refusing = visitor.converse(stream, Arc::default(), App::turn_away);
                let _ = timeout(REFUSAL, refusing).await;
                drop(turn);
            });
        }
        if in_need {
            // Whoever had to leave does so before the next is let in.
            yield_now().await;
        }
    }
}

fn tcp_client(address: SocketAddr) -> Option<IpAddr> {
    Some(address.ip())
}

/// Somebody who has come, and what there is to know for the conversation.
struct Visitor {
    app: Arc<App>,
    client: Option<IpAddr>,
    at_home: bool,
    watcher: Watcher,
}

impl Visitor {
    /// Is served until the place is somebody else's.
    async fn sit_down<S>(self, stream: S, seat: Seat)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::select! {
            () = self.converse(stream, seat.guest(), App::answer) => {}
            () = seat.lost() => {}
        }
    }

    async fn converse<S, F>(self, stream: S, guest: Arc<Guest>, answer: fn(Arc<App>, Asked) -> F)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let stream = Deadline::new(stream, WRITE_TIMEOUT, Arc::clone(&guest));
        let tls = self.app.protection().tls.clone();
        match tls {
            None => self.speak(stream, guest, answer).await,
            Some(tls) => {
                let handshake = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
                if let Ok(Ok(stream)) = handshake {
                    self.speak(stream, guest, answer).await;
                }
            }
        }
    }

    async fn speak<S, F>(self, stream: S, guest: Arc<Guest>, answer: fn(Arc<App>, Asked) -> F)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let service = service_fn(move |request| {
            guest.asks();
            let guest = Arc::clone(&guest);
            let asked = Asked {
                request,
                client: self.client,
                at_home: self.at_home,
            };
            let answering = answer(Arc::clone(&self.app), asked);
            async move {
                let answer = answering.await;
                guest.is_answered();
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(MOST_HEADERS)
            .max_header_size(MOST_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // A peer that breaks off or talks nonsense is its own business.
        let _ = self.watcher.watch(connection).await;
    }
}
