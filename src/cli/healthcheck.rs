//! `eternal healthcheck`: one question, answered by the exit code, for a container without a shell.
//!
//! The listener of `/metrics` is asked first, since it is what others see. Where it is off, wants a
//! password or does not answer (its address changes only with the next start of the daemon), the
//! control socket is asked, and there the supervision loop itself.

mod any_certificate;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::arguments::SourcesArgs;
use super::output::Output;
use super::{Complaint, DONE, FAILED, place};
use crate::config::{Listen, Metrics};
use crate::control::api::Done;
use crate::control::client::Client;
use crate::text::with_causes;

/// Bytes of an answer that are read; it is a line.
const MOST: usize = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Does the supervision loop turn?
    Healthy,
    /// Is every program that starts with the daemon ready?
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
        }
    }

    fn yes(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Ready => "ready",
        }
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Asks whether the daemon is healthy or, with `ready`, whether its programs are. The code is 0 or 1
/// and nothing else: container engines reserve the others.
pub(super) async fn execute(
    ready: bool,
    seconds: u64,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<u8, Complaint> {
    let question = if ready {
        Question::Ready
    } else {
        Question::Healthy
    };
    let limit = Duration::from_secs(seconds);
    let asked = tokio::time::timeout(limit, ask(question, limit / 2, sources, output));
    let unwell = |reason: String| Complaint::new(FAILED, format!("unhealthy: {reason}"));
    match asked.await {
        Ok(Ok(())) => {
            if output.is_json() {
                let messages = vec![question.yes().to_owned()];
                output.json(&Done { ok: true, messages })?;
            } else {
                output.line(question.yes())?;
            }
            Ok(DONE)
        }
        Ok(Err(reason)) => Err(unwell(reason)),
        Err(_) => Err(unwell(format!("no answer within {seconds} s"))),
    }
}

/// Asks the listener, for at most `patience`, then the control socket.
async fn ask(
    question: Question,
    patience: Duration,
    sources: &SourcesArgs,
    output: &mut Output,
) -> Result<(), String> {
    let Ok(loaded) = place::load(sources) else {
        // Somebody edits the config: that is no reason to end a container that works.
        let found = place::find(sources, output);
        let place = found.map_err(|complaint| complaint.message.unwrap_or_default())?;
        return ask_socket(question, &place.client).await;
    };
    let config = loaded.config;
    let listener = ask_listener(question, &config.metrics);
    if let Ok(Some(answer)) = tokio::time::timeout(patience, listener).await {
        return answer;
    }
    ask_socket(question, &Client::new(config.daemon.socket)).await
}

/// Asks the listener; `None` when it has no answer for us.
async fn ask_listener(question: Question, metrics: &Metrics) -> Option<Result<(), String>> {
    let (status, body) = get(metrics, question.path()).await?.ok()?;
    match status {
        StatusCode::OK => Some(Ok(())),
        StatusCode::SERVICE_UNAVAILABLE => Some(Err(body.trim_end().to_owned())),
        // A password, too many guesses, or somebody else's server where we listen no more.
        _ => None,
    }
}

async fn ask_socket(question: Question, client: &Client) -> Result<(), String> {
    let health = client.health().await;
    let health = health.map_err(|error| with_causes(&error))?;
    if question == Question::Healthy || health.not_ready.is_empty() {
        return Ok(());
    }
    Err(format!("not ready: {}", health.not_ready.join(", ")))
}

/// Gets a page from the listener; `None` when the config has no address to connect to.
async fn get(metrics: &Metrics, path: &str) -> Option<Result<(StatusCode, String), Cause>> {
    if metrics.basic_auth_file.is_some() {
        return None;
    }
    let tls = metrics.tls_cert.is_some();
    match metrics.listen.as_ref()? {
        Listen::Tcp(address) if address.port() == 0 => None,
        Listen::Tcp(address) => Some(get_over_tcp(reachable(*address), path, tls).await),
        Listen::Unix(socket) => Some(match UnixStream::connect(socket).await {
            Ok(stream) => speak(stream, path, tls).await,
            Err(error) => Err(error.into()),
        }),
    }
}

async fn get_over_tcp(
    address: SocketAddr,
    path: &str,
    tls: bool,
) -> Result<(StatusCode, String), Cause> {
    speak(TcpStream::connect(address).await?, path, tls).await
}

/// Every address is listened on: the loopback is one of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn speak<S>(stream: S, path: &str, tls: bool) -> Result<(StatusCode, String), Cause>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if tls {
        exchange(any_certificate::shake_hands(stream).await?, path).await
    } else {
        exchange(stream, path).await
    }
}

async fn exchange<S>(stream: S, path: &str) -> Result<(StatusCode, String), Cause>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; its error, if any, also reaches the one who reads the answer.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.headers().contains_key(RETRY_AFTER) {
        return Err("the listener has too many guests".into());
    }
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_on_the_loopback_of_its_family() {
        for (listens, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("10.1.2.3:4", "10.1.2.3:4"),
        ] {
            let address = listens.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), reached);
        }
    }
}
