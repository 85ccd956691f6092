//! Bodies: a whole JSON document, or lines as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::failure::Failure;

/// What every answer carries.
pub(super) type Body = Either<Full<Bytes>, Lines>;

/// Pieces of a stream waiting to be written, at most; a slow reader slows the writer.
const AHEAD: usize = 64;

/// A body whose pieces come one by one and are flushed as they come.
pub(super) struct Lines {
    pieces: mpsc::Receiver<Bytes>,
    /// Its place among the listeners, if it has no end of its own.
    _seat: Option<OwnedSemaphorePermit>,
}

/// Marks an answer that goes on for as long as somebody listens, however slowly.
#[derive(Clone, Copy)]
pub(super) struct Endless;

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces
            .poll_recv(task)
            .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Makes a streaming answer and the end its pieces are put into, which knows when the peer left.
///
/// One that has no end of its own comes with a seat among the listeners.
pub(super) fn stream(
    content_type: &'static str,
    seat: Option<OwnedSemaphorePermit>,
) -> (mpsc::Sender<Bytes>, Response<Body>) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let endless = seat.is_some();
    let mut response = Response::new(Either::Right(Lines {
        pieces,
        _seat: seat,
    }));
    if endless {
        response.extensions_mut().insert(Endless);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    (sender, response)
}

/// Makes an answer of one JSON document, ended by a newline for those who read it with curl.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut text = match serde_json::to_vec(value) {
        Ok(text) => text,
        Err(error) => {
            return Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot write the answer as JSON: {error}"),
            )
            .into_response();
        }
    };
    text.push(b'\n');
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Writes a value as one line of JSON, newline included.
pub(super) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}
