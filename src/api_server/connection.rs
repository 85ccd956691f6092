//! One client's bytes: hyper in the middle, and the last word where hyper has none.
//!
//! hyper answers what it cannot parse with an empty 400, and closes without a word on a client
//! that is too slow. Here both become JSON like every other error: [`Wire`] keeps hyper's empty
//! refusal back, and the task that owns the connection writes ours.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::Watcher;
use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd as _;
use tokio::net::TcpStream;

use super::error::ApiError;
use super::server::Server;
use super::service;

/// How long a client gets to take our last answer before the socket closes.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the connection knows that hyper does not tell.
#[derive(Default)]
pub(super) struct Facts {
    /// Bytes have come that no request accounts for.
    head_begun: AtomicBool,
    /// A body, or the rest of one, was left unread.
    body_unread: AtomicBool,
    /// The status that hyper itself refused with; 0 is none.
    refused: AtomicU16,
}

impl Facts {
    pub(super) fn begin_request(&self, has_no_body: bool) {
        self.head_begun.store(false, Relaxed);
        self.body_unread.store(!has_no_body, Relaxed);
    }

    pub(super) fn set_body_read(&self) {
        self.body_unread.store(false, Relaxed);
    }

    pub(super) fn end_request(&self) {
        self.head_begun.store(false, Relaxed);
    }

    /// Returns what to say at the end of a connection that hyper gave up on.
    fn refusal(&self, outcome: Result<(), hyper::Error>) -> Option<ApiError> {
        let error = outcome.err()?;
        match StatusCode::from_u16(self.refused.load(Relaxed)) {
            Ok(status) => Some(ApiError::of_parser(status)),
            // An idle connection that times out is closed without a word, as everywhere.
            Err(_) if error.is_timeout() => self
                .head_begun
                .load(Relaxed)
                .then(ApiError::request_timeout),
            Err(_) if error.is_parse() => Some(ApiError::of_parser(StatusCode::BAD_REQUEST)),
            Err(_) => None,
        }
    }
}

/// Serves one client until it leaves, is refused, or the watcher says that it is enough.
pub(super) async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) {
    let _ = stream.set_nodelay(true);
    let stream = Arc::new(stream);
    let facts = Arc::new(Facts::default());
    let wire = Wire {
        stream: Arc::clone(&stream),
        facts: Arc::clone(&facts),
    };
    let outcome = {
        let peer: IpAddr = peer.ip();
        let (server, facts) = (&server, &facts);
        let service = service_fn(move |request| {
            let (server, facts) = (Arc::clone(server), Arc::clone(facts));
            async move { service::answer(&server, &facts, peer, request).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(server.read_timeout)
            .serve_connection(wire, service);
        watcher.watch(connection).await
    };
    let refusal = facts.refusal(outcome);
    if let Some(error) = &refusal {
        server.statistics.record_refusal(error.status());
    }
    if refusal.is_some() || facts.body_unread.load(Relaxed) {
        let _ = tokio::time::timeout(LAST_WORD, last_word(&stream, refusal)).await;
    }
}

/// Says it, then reads on to the end: a socket closed over unread bytes resets the connection, and
/// the client would lose the answer.
async fn last_word(stream: &TcpStream, refusal: Option<ApiError>) -> io::Result<()> {
    if let Some(error) = refusal {
        write_all(stream, render(&error).as_bytes()).await?;
    }
    shutdown(stream.as_raw_fd(), Shutdown::Write)?;
    let mut chunk = [0; 8192];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn render(error: &ApiError) -> String {
    let body = error.body();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
        .map(|date| format!("date: {date}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{date}\r\n{body}",
        error.status(),
        body.len(),
    )
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The socket as hyper sees it.
struct Wire {
    stream: Arc<TcpStream>,
    facts: Arc<Facts>,
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; 8192];
        let room = buffer.remaining().min(chunk.len());
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(&mut chunk[..room]) {
                Ok(read) => {
                    buffer.put_slice(&chunk[..read]);
                    self.facts.head_begun.fetch_or(read > 0, Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = refusal_of_hyper(bytes) {
            self.facts.refused.store(status.as_u16(), Relaxed);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Leaves the socket open for the last word; it closes with the connection's task.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Recognises the refusal that hyper writes by itself: a client error without a body, which no
/// route of ours ever answers.
fn refusal_of_hyper(bytes: &[u8]) -> Option<StatusCode> {
    let rest = bytes
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok()?;
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let is_empty = head
        .split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii() == b"content-length: 0");
    (status.is_client_error() && is_empty).then_some(status)
}
