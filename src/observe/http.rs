//! The read-only HTTP server: `/metrics`, health, readiness, discovery and the status page.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER,
    VARY, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::auth::Verdict;
use super::deadline::Deadline;
use super::exposition::Reader;
use super::protection::Protection;
use super::{ProcessMetrics, status_page};

const MOST_CONNECTIONS: usize = 64;
/// How long a connection beyond that waits for its turn before it is closed.
const TURN: Duration = Duration::from_secs(1);
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
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long answers under way may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Asks the loop for a sign of life; `false` when it cannot be asked.
pub type Alive = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// What is served.
pub struct App {
    reader: Reader,
    metrics: ProcessMetrics,
    alive: Alive,
    scrapes: watch::Sender<u64>,
    protection: watch::Sender<Arc<Protection>>,
}

impl App {
    /// Makes one.
    #[must_use]
    pub fn new(reader: Reader, metrics: ProcessMetrics, alive: Alive) -> Self {
        Self {
            reader,
            metrics,
            alive,
            scrapes: watch::Sender::new(0),
            protection: watch::Sender::default(),
        }
    }

    /// Puts a protection in force: TLS for connections from here on, passwords for requests.
    pub fn protect(&self, protection: Protection) {
        self.protection.send_replace(Arc::new(protection));
    }

    fn protection(&self) -> Arc<Protection> {
        Arc::clone(&self.protection.borrow())
    }

    /// Returns the number of scrapes answered since the daemon began: 0 when nobody ever
    /// scraped. One that waits for the final two notes the number and waits for two more.
    #[must_use]
    pub fn scrapes(&self) -> watch::Receiver<u64> {
        self.scrapes.subscribe()
    }
}

/// Where to listen. Both have to be non-blocking.
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
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
        connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
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
    connections: Arc<Semaphore>,
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
        let turn = timeout(TURN, Arc::clone(&self.connections).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return;
        };
        let app = Arc::clone(&self.app);
        let client = client(address);
        let watcher = self.graceful.watcher();
        let stream = Deadline::new(stream, WRITE_TIMEOUT);
        tokio::spawn(async move {
            let tls = app.protection().tls.clone();
            match tls {
                None => converse(stream, app, client, watcher).await,
                Some(tls) => {
                    let handshake = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        converse(stream, app, client, watcher).await;
                    }
                }
            }
            drop(turn);
        });
    }
}

fn tcp_client(address: SocketAddr) -> Option<IpAddr> {
    Some(address.ip())
}

async fn converse<S>(stream: S, app: Arc<App>, client: Option<IpAddr>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request, client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MOST_HEADERS)
        .max_header_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that breaks off or talks nonsense is its own business.
    let _ = watcher.watch(connection).await;
}

type Answer = Response<Full<Bytes>>;

impl App {
    async fn answer(&self, request: Request<Incoming>, client: Option<IpAddr>) -> Answer {
        let began = Instant::now();
        let (page, handler) = Page::of(request.uri().path());
        let method = match *request.method() {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            _ => "other",
        };
        let mut answer = match self.judge(request.headers(), client).await {
            Verdict::Unknown => ask_for_password(),
            Verdict::Wait(seconds) => refuse_for(seconds),
            Verdict::Welcome if method == "other" => refuse_method(),
            Verdict::Welcome => self.page(page, request.headers()).await,
        };
        let code = answer.status().as_u16();
        self.metrics.http(handler, code, method, began.elapsed());
        if method == "HEAD" {
            answer = without_body(answer);
        } else if page == Page::Metrics && code == 200 {
            self.scrapes.send_modify(|count| *count += 1);
        }
        answer
    }

    async fn judge(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Verdict {
        match &self.protection().accounts {
            None => Verdict::Welcome,
            Some(accounts) => accounts.judge(headers, client).await,
        }
    }

    async fn page(&self, page: Page, headers: &HeaderMap) -> Answer {
        match page {
            Page::Metrics => self.exposition(accepts_gzip(headers)),
            Page::Healthy => match timeout(PING_TIMEOUT, (self.alive)()).await {
                Ok(true) => text(StatusCode::OK, "healthy\n"),
                Ok(false) | Err(_) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the supervision loop does not answer\n",
                ),
            },
            Page::Ready => {
                let published = self.reader.published();
                match published.missing() {
                    missing if missing.is_empty() => text(StatusCode::OK, "ready\n"),
                    missing => {
                        let body = format!("not ready: {}\n", missing.join(", "));
                        text(StatusCode::SERVICE_UNAVAILABLE, body)
                    }
                }
            }
            Page::Discovery => self.discovery(),
            Page::Status => {
                let body = status_page::render(&self.reader.status());
                typed(StatusCode::OK, "text/html; charset=utf-8", body)
            }
            Page::Other => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn exposition(&self, gzip: bool) -> Answer {
        match self.reader.exposition(gzip) {
            Ok(body) => {
                let mut answer = typed(StatusCode::OK, super::CONTENT_TYPE, body);
                let headers = answer.headers_mut();
                headers.insert(VARY, header("accept-encoding"));
                if gzip {
                    headers.insert(CONTENT_ENCODING, header("gzip"));
                }
                answer
            }
            Err(problem) => {
                let body = format!("cannot encode the metrics: {problem}\n");
                text(StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        }
    }

    /// The scrape addresses that programs declare, as Prometheus' http_sd wants them.
    fn discovery(&self) -> Answer {
        let published = self.reader.published();
        let targets = published.programs().filter_map(|program| {
            let about = &program.about;
            let labels = serde_json::json!({
                "program": about.name, "replica": about.replica.to_string(),
            });
            let address = about.metrics_address.as_ref()?;
            Some(serde_json::json!({ "targets": [address], "labels": labels }))
        });
        let body = serde_json::Value::Array(targets.collect()).to_string();
        typed(StatusCode::OK, "application/json", body)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Metrics,
    Healthy,
    Ready,
    Discovery,
    Status,
    Other,
}

impl Page {
    /// Returns the page of a path, and its name in labels.
    fn of(path: &str) -> (Self, &'static str) {
        match path {
            "/metrics" => (Self::Metrics, "metrics"),
            "/-/healthy" => (Self::Healthy, "healthy"),
            "/-/ready" => (Self::Ready, "ready"),
            "/sd" => (Self::Discovery, "sd"),
            "/" => (Self::Status, "status"),
            _ => (Self::Other, "other"),
        }
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut any = false;
    for offer in values.flat_map(|value| value.split(',')) {
        let (name, quality) = offer.split_once(';').unwrap_or((offer, "q=1"));
        let quality = quality.trim().strip_prefix("q=").unwrap_or("1");
        let wanted = quality.trim().parse::<f32>().is_ok_and(|q| q > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return wanted,
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

fn ask_for_password() -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, "unauthorized\n");
    let headers = answer.headers_mut();
    headers.insert(WWW_AUTHENTICATE, header("Basic realm=\"eternal\""));
    answer
}

fn refuse_for(seconds: u64) -> Answer {
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords\n");
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    answer
}

fn refuse_method() -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    answer.headers_mut().insert(ALLOW, header("GET, HEAD"));
    answer
}

fn without_body(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let length = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
    parts.headers.insert(CONTENT_LENGTH, length.into());
    Response::from_parts(parts, Full::default())
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(code, "text/plain; charset=utf-8", body)
}

fn typed(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, header(kind));
    answer
}

const fn header(value: &'static str) -> hyper::header::HeaderValue {
    hyper::header::HeaderValue::from_static(value)
}
