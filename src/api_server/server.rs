//! The socket, the signals, and the life of the whole server.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use matchit::Router;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use super::client::Network;
use super::limit::Limiter;
use super::options::Options;
use super::routes::{self, Route};
use super::statistics::{Snapshot, Statistics};
use super::{connection, log};

/// How long active requests may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after a failed accept, so that a lack of descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections served at once; further ones wait in the backlog of the socket.
const MOST_CONNECTIONS: usize = 1024;

/// Tells why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address that was asked for.
        listen: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime could not be built.
    #[error("cannot start the runtime of the API server")]
    Runtime(#[source] io::Error),
    /// Signals could not be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// A route cannot be matched.
    #[error("cannot route {path}")]
    Route {
        /// The pattern of the route.
        path: &'static str,
        /// What is wrong with it.
        source: matchit::InsertError,
    },
    /// The metrics contradict each other.
    #[error("cannot register the metrics")]
    Metrics(#[source] prometheus::Error),
}

/// What every connection needs.
pub(super) struct Server {
    pub(super) statistics: Statistics,
    pub(super) limiter: Option<Limiter>,
    pub(super) trusted_proxies: Vec<Network>,
    pub(super) read_timeout: Duration,
    routes: Vec<Route>,
    router: Router<usize>,
}

impl Server {
    fn new(options: Options) -> Result<Self, ServerError> {
        let routes = routes::table(options.chaos);
        let mut router = Router::new();
        for (index, route) in routes.iter().enumerate() {
            let path = route.path;
            router
                .insert(path, index)
                .map_err(|source| ServerError::Route { path, source })?;
        }
        let labels = routes.iter().map(|route| (&route.method, route.path));
        Ok(Self {
            statistics: Statistics::new(labels).map_err(ServerError::Metrics)?,
            limiter: options.rate.map(|rate| Limiter::new(rate, options.burst)),
            trusted_proxies: options.trusted_proxies,
            read_timeout: options.read_timeout,
            routes,
            router,
        })
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Returns the route of a path, whatever the method.
    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        self.router
            .at(path)
            .ok()
            .map(|found| &self.routes[*found.value])
    }
}

/// Serves on a runtime of its own until SIGTERM or SIGINT, and tells how that ended: 0 after a
/// graceful stop, 1 with the reason on standard error.
pub fn run(options: Options) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServerError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(options)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Writes an error and its causes on one line of standard error.
fn report(error: &ServerError) {
    use std::io::Write as _;
    let mut line = format!("error: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(io::stderr(), "{line}");
}

/// Serves until SIGTERM or SIGINT, then lets active requests finish for at most two seconds.
///
/// Tells the supervisor READY=1 once it listens, and WATCHDOG=1 while it serves. A second signal ends the wait.
///
/// # Errors
/// [`ServerError`] if it could not start; once it listens, it does not fail.
pub async fn serve(options: Options) -> Result<(), ServerError> {
    let mut stop = StopSignals::new().map_err(ServerError::Signals)?;
    let listen = options.listen;
    let server = Arc::new(Server::new(options)?);
    let cannot_listen = |source| ServerError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;

    log::line(
        "INFO",
        format_args!("listening on http://{address}, pid {}", std::process::id()),
    );
    notify(NotifyState::Ready);

    let connections = GracefulShutdown::new();
    let name = tokio::select! {
        name = stop.next() => name,
        () = accept(listener, &server, &connections) => "end of the socket",
        () = say_alive() => "end of time",
    };

    notify(NotifyState::Stopping);
    log::line(
        "INFO",
        format_args!(
            "stopping on {name}, {} requests active",
            server.statistics.snapshot().in_progress
        ),
    );
    let ended = tokio::select! {
        () = connections.shutdown() => "every request finished",
        () = tokio::time::sleep(DRAIN) => "requests were cut off",
        name = stop.next() => name,
    };
    log::line(
        "INFO",
        format_args!(
            "stopped, {ended}: {}",
            summary(&server.statistics.snapshot())
        ),
    );
    Ok(())
}

/// Accepts clients for ever.
async fn accept(listener: TcpListener, server: &Arc<Server>, connections: &GracefulShutdown) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // The semaphore is never closed, so the loop ends only with the future.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, peer): (TcpStream, SocketAddr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::line("WARN", format_args!("cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (server, watcher) = (Arc::clone(server), connections.watcher());
        tokio::spawn(async move {
            connection::serve(server, stream, peer, watcher).await;
            drop(place);
        });
    }
}

/// Says WATCHDOG=1 twice as often as the supervisor wants to hear it, if it does. From the task that
/// accepts, so that a server that hangs falls silent.
async fn say_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        notify(NotifyState::Watchdog);
        tokio::time::sleep(limit / 2).await;
    }
}

/// Tells the supervisor, if there is one that wants to know. A supervisor that is gone is its own problem.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::line(
            "WARN",
            format_args!("cannot notify the supervisor: {error}"),
        );
    }
}

/// Renders the final statistics.
fn summary(now: &Snapshot) -> String {
    let by_status: Vec<String> = now
        .by_status
        .iter()
        .map(|(status, count)| format!("{status}={count}"))
        .collect();
    format!(
        "uptime={}s requests={} errors={} status [{}]",
        now.uptime.as_secs(),
        now.requests(),
        now.errors,
        by_status.join(" "),
    )
}

/// The signals that ask for a graceful stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
