//! The asking side of the control socket, typed.

mod owner;

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api;

/// How long a daemon may take over a question, and over accepting a connection. Orders may take as
/// long as the program they are for.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket at all.
    #[error("no daemon is running (no socket at {})", socket.display())]
    NoSocket {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// The socket is a leftover: nobody listens on it.
    #[error("no daemon is running (nobody answers at {})", socket.display())]
    NobodyListens {
        /// The socket.
        socket: PathBuf,
    },
    /// A daemon may be there, but we may not speak to it.
    #[error("cannot use the control socket {}: {reason}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// What the system or the daemon said.
        reason: String,
    },
    /// The connection could not be made.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon said no; its own sentence.
    #[error("{error}")]
    Refused {
        /// The HTTP status code.
        status: u16,
        /// Why, as the daemon put it.
        error: String,
    },
    /// The daemon did not answer in time.
    #[error("the daemon did not answer {what} within {} s", deadline.as_secs())]
    Timeout {
        /// Method and path.
        what: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// The connection broke before the answer was complete.
    #[error("the daemon broke off its answer to {what}")]
    Broken {
        /// Method and path.
        what: String,
        /// What happened.
        source: hyper::Error,
    },
    /// The answer is not what the API promises.
    #[error("cannot understand the daemon's answer to {what}")]
    Malformed {
        /// Method and path.
        what: String,
        /// What was expected.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether there is certainly no daemon.
    #[must_use]
    pub fn is_no_daemon(&self) -> bool {
        matches!(self, Self::NoSocket { .. } | Self::NobodyListens { .. })
    }

    /// Whether the daemon says that what was named does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Speaks to the daemon behind one socket; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Returns the socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for everything there is to know.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<api::Status, ClientError> {
        self.ask("/v1/status".to_owned()).await
    }

    /// Asks the supervision loop whether all is well; a loop that is stuck does not answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn health(&self) -> Result<api::Health, ClientError> {
        self.ask("/v1/health".to_owned()).await
    }

    /// Asks for the crash history of one program or of all, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`]; not found when neither a program nor a crash has this name.
    pub async fn crashes(&self, program: Option<&str>) -> Result<api::Crashes, ClientError> {
        let mut path = "/v1/crashes".to_owned();
        if let Some(program) = program {
            path = format!("{path}?program={}", encode(program));
        }
        self.ask(path).await
    }

    /// Starts, stops or restarts a program, `web` or `web/1`, and waits until it is done.
    ///
    /// # Errors
    /// See [`ClientError`]; refused when there is no such program or it failed to come up.
    pub async fn order(&self, verb: api::Verb, program: &str) -> Result<api::Done, ClientError> {
        self.tell(format!(
            "/v1/programs/{}/{}",
            encode(program),
            verb.as_str()
        ))
        .await
    }

    /// Has the config read again and applied.
    ///
    /// # Errors
    /// See [`ClientError`]; refused when the config is bad.
    pub async fn reload(&self, restart: bool) -> Result<api::Reloaded, ClientError> {
        self.tell(format!("/v1/reload?restart={restart}")).await
    }

    /// Stops the daemon; returns when every program is gone, right before the daemon is.
    ///
    /// # Errors
    /// See [`ClientError`]; `Broken` when the daemon ended without an answer.
    pub async fn shutdown(&self) -> Result<api::Done, ClientError> {
        self.tell("/v1/shutdown".to_owned()).await
    }

    /// Asks for captured lines: the last `lines` of one program or of all, then, with `follow`, the
    /// coming ones as they come.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(
        &self,
        program: Option<&str>,
        lines: u32,
        follow: bool,
    ) -> Result<Stream<api::LogLine>, ClientError> {
        let mut path = format!("/v1/logs?lines={lines}&follow={follow}");
        if let Some(program) = program {
            path = format!("{path}&program={}", encode(program));
        }
        self.stream(path).await
    }

    /// Listens to lifecycle events from this moment on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self) -> Result<Stream<api::EventRecord>, ClientError> {
        self.stream("/v1/events".to_owned()).await
    }

    async fn ask<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        let what = format!("GET {path}");
        within(&what, async {
            let response = self.send(Method::GET, &path, &what).await?;
            read(response.into_body(), &what).await
        })
        .await
    }

    async fn tell<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        let what = format!("POST {path}");
        let response = self.send(Method::POST, &path, &what).await?;
        read(response.into_body(), &what).await
    }

    async fn stream<T>(&self, path: String) -> Result<Stream<T>, ClientError> {
        let what = format!("GET {path}");
        let response = within(&what, self.send(Method::GET, &path, &what)).await?;
        Ok(Stream {
            what,
            body: response.into_body(),
            buffer: VecDeque::new(),
            searched: 0,
            items: PhantomData,
        })
    }

    /// Sends one request and waits for the head of the answer; one that is not a success is an
    /// error with the daemon's own words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        what: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |source| ClientError::Broken {
            what: what.to_owned(),
            source,
        };
        let stream = within(what, self.connect()).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the connection; its error, if any, also reaches the one who reads the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .expect("paths are percent-encoded");
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response
            .into_body()
            .collect()
            .await
            .map_err(broken)?
            .to_bytes();
        let error = serde_json::from_slice(&text).map_or_else(
            |_| format!("the daemon answered {what} with {status}"),
            |problem: api::Problem| problem.error,
        );
        if status == hyper::StatusCode::FORBIDDEN {
            return Err(ClientError::Forbidden {
                socket: self.socket.clone(),
                reason: error,
            });
        }
        Err(ClientError::Refused {
            status: status.as_u16(),
            error,
        })
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = self.reach().await?;
        let forbidden = |reason| ClientError::Forbidden {
            socket: self.socket.clone(),
            reason,
        };
        let peer = stream
            .peer_cred()
            .map_err(|error| forbidden(error.to_string()))?;
        if self.is_trusted(peer.uid()) {
            return Ok(stream);
        }
        let reason = format!(
            "user {} answers there, who is neither root nor you",
            peer.uid()
        );
        Err(forbidden(reason))
    }

    /// Anybody may have put a socket there. Root also asks daemons of others, where the directory of
    /// the socket is theirs.
    fn is_trusted(&self, peer: u32) -> bool {
        let we = nix::unistd::geteuid();
        let directory = || {
            self.socket
                .parent()
                .and_then(|parent| parent.metadata().ok())
        };
        peer == 0
            || peer == we.as_raw()
            || (we.is_root() && directory().is_some_and(|directory| directory.uid() == peer))
    }

    async fn reach(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|source| {
            let (socket, kind) = (self.socket.clone(), source.kind());
            if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                ClientError::NoSocket { socket }
            } else if kind == io::ErrorKind::ConnectionRefused {
                ClientError::NobodyListens { socket }
            } else if kind == io::ErrorKind::PermissionDenied {
                let reason = format!("{source}{}", owner::whose(&socket));
                ClientError::Forbidden { socket, reason }
            } else {
                ClientError::Connect { socket, source }
            }
        })
    }
}

/// Items that arrive one a line: NDJSON, or the `data:` lines of server-sent events.
#[derive(Debug)]
pub struct Stream<T> {
    what: String,
    body: Incoming,
    buffer: VecDeque<u8>,
    /// Bytes at the front of the buffer that are known to hold no line end.
    searched: usize,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Stream<T> {
    /// Waits for the next item; `None` when the daemon has no more.
    ///
    /// # Errors
    /// When the connection breaks or an item is not what the API promises.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some(line) = self.line() {
                if let Some(item) = payload(&line) {
                    return serde_json::from_slice(item).map(Some).map_err(|source| {
                        ClientError::Malformed {
                            what: self.what.clone(),
                            source,
                        }
                    });
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend(data);
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Broken {
                        what: self.what.clone(),
                        source,
                    });
                }
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.buffer.range(self.searched..);
        let Some(end) = fresh.into_iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(line)
    }
}

/// Returns the JSON of a line, if it carries any.
fn payload(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let line = line
        .strip_prefix(b"data:")
        .unwrap_or(line)
        .trim_ascii_start();
    line.starts_with(b"{").then_some(line)
}

async fn read<T: DeserializeOwned>(body: Incoming, what: &str) -> Result<T, ClientError> {
    let text = body
        .collect()
        .await
        .map_err(|source| ClientError::Broken {
            what: what.to_owned(),
            source,
        })?
        .to_bytes();
    serde_json::from_slice(&text).map_err(|source| ClientError::Malformed {
        what: what.to_owned(),
        source,
    })
}

async fn within<T>(
    what: &str,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(ANSWER_DEADLINE, answer)
        .await
        .unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                what: what.to_owned(),
                deadline: ANSWER_DEADLINE,
            })
        })
}

/// Percent-encodes everything but letters, digits and what a program's name may hold.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
