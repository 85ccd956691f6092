//! Probes of readiness and health: one attempt each, so that the daemon decides about the next.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::text;

use super::names;

/// The first pause between two attempts.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// The longest pause between two attempts.
const LAST_DELAY: Duration = Duration::from_millis(250);
/// Bytes of an HTTP answer, up to the end of its head, at most.
const MOST_READ: usize = 64 * 1024;

/// Tries once, for at most so long, to connect to `HOST:PORT`.
///
/// # Errors
///
/// What was tried and why it failed, fit for a log line after "not ready: ".
pub async fn tcp(authority: &str, limit: Duration) -> Result<(), String> {
    within(
        limit,
        &format!("connect to {authority}"),
        connect(authority),
    )
    .await
    .map(drop)
}

/// Asks `http://AUTHORITY/PATH` once, for at most so long; only a 2xx answer will do.
///
/// # Errors
///
/// What was tried and why it failed, fit for a log line after "not ready: ".
pub async fn http(authority: &str, path: &str, limit: Duration) -> Result<(), String> {
    // A query may hold a token, and the log and the status page are read by others.
    let shown = path.split('?').next().unwrap_or_default();
    let url = format!("http://{authority}{shown}");
    let exchange = async {
        let stream = connect(authority).await?;
        let status = get(stream, authority, path)
            .await
            .map_err(|error| format!("{url}: {}", text::with_causes(&*error)))?;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{url} answered {status}"))
        }
    };
    within(limit, &url, exchange).await
}

/// Returns the pause after the given attempt (the first is 0): 10 ms, doubling to 250 ms.
#[must_use]
pub fn retry_delay(attempt: u32) -> Duration {
    FIRST_DELAY
        .saturating_mul(1 << attempt.min(10))
        .min(LAST_DELAY)
}

async fn connect(authority: &str) -> Result<TcpStream, String> {
    let addresses = names::resolve(authority)
        .await
        .map_err(|error| format!("connect to {authority}: {error}"))?;
    // By address: given a name the runtime would make a thread for each attempt, and a resolver
    // that is dead would keep them all.
    let stream = TcpStream::connect(&*addresses)
        .await
        .map_err(|error| format!("connect to {authority}: {error}"))?;
    // A connect to a free local port can pick that very port as its own and reach itself.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) if local != peer => Ok(stream),
        (Ok(_), Ok(_)) => Err(format!("connect to {authority}: nobody listens")),
        (Err(error), _) | (_, Err(error)) => Err(format!("connect to {authority}: {error}")),
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

async fn get(stream: TcpStream, authority: &str, path: &str) -> Result<hyper::StatusCode, Cause> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(Bounded::new(stream))).await?;
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("eternal/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    // The connection is driven here, not spawned: dropping the probe ends it.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status()),
        end = &mut connection => {
            end?;
            Ok(answer.await?.status())
        }
    }
}

/// A stream of which only so much is read: an answer may come in pieces for ever, as one that is put
/// off with `100 Continue` again and again.
struct Bounded {
    stream: TcpStream,
    left: usize,
}

impl Bounded {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            left: MOST_READ,
        }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let what = format!("it sent {MOST_READ} bytes without an answer in them");
            return Poll::Ready(Err(io::Error::other(what)));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        self.left = self.left.saturating_sub(into.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    attempt: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!("{what}: no answer in {limit:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(future)
    }

    /// Answers one request with `answer` and returns its address and, on join, what was asked.
    fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut asked = Vec::new();
            let mut chunk = [0; 512];
            while !asked.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut chunk).expect("read");
                asked.extend_from_slice(&chunk[..n]);
            }
            stream.write_all(answer.as_bytes()).expect("write");
            String::from_utf8(asked).expect("text")
        });
        (address, thread)
    }

    #[test]
    fn a_listener_is_ready_and_a_closed_port_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        assert_eq!(block_on(tcp(&address, LIMIT)), Ok(()));
        drop(listener);
        let error = block_on(tcp(&address, LIMIT)).expect_err("closed");
        assert!(
            error.contains(&address) && error.contains("refused"),
            "{error}"
        );
    }

    #[test]
    fn only_a_2xx_answer_is_ready() {
        let (address, server) = serve("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(block_on(http(&address, "/health?deep=1", LIMIT)), Ok(()));
        let asked = server.join().expect("server");
        assert!(
            asked.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");

        let (address, server) =
            serve("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        let error = block_on(http(&address, "/", LIMIT)).expect_err("503");
        assert_eq!(
            error,
            format!("http://{address}/ answered 503 Service Unavailable")
        );
        server.join().expect("server");
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error_with_its_cause() {
        let (address, server) = serve("SSH-2.0-OpenSSH\r\n\r\n");
        let error = block_on(http(&address, "/", LIMIT)).expect_err("not http");
        assert!(error.contains("HTTP"), "{error}");
        server.join().expect("server");
    }

    #[test]
    fn a_server_that_never_answers_costs_a_bounded_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let short = Duration::from_millis(250);
        let error = block_on(http(&address, "/", short)).expect_err("silence");
        assert_eq!(error, format!("http://{address}/: no answer in 250ms"));
    }

    #[test]
    fn a_server_that_puts_its_answer_off_for_ever_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            // An answer to nothing would be refused for that.
            stream.read_exact(&mut [0]).expect("a question");
            while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
        });
        let error = block_on(http(&address, "/", 60 * LIMIT)).expect_err("no answer");
        assert!(error.contains("65536 bytes without an answer"), "{error}");
        server.join().expect("the connection is closed");
    }

    #[test]
    fn a_name_is_looked_up_and_one_that_does_not_exist_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        assert_eq!(block_on(tcp(&format!("localhost:{port}"), LIMIT)), Ok(()));
        let nobody = "name.invalid:80";
        let error = block_on(tcp(nobody, 60 * LIMIT)).expect_err("no such host");
        assert!(
            error.starts_with(&format!("connect to {nobody}: ")),
            "{error}"
        );
    }

    #[test]
    fn retries_start_fast_and_settle() {
        let delays: Vec<u128> = (0..7).map(|n| retry_delay(n).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 250, 250]);
        assert_eq!(retry_delay(u32::MAX).as_millis(), 250);
    }
}
