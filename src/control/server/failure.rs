//! Answers that are not a success.

use std::io;

use hyper::header::{ALLOW, CONNECTION, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::{Body, json};
use super::{MAX_CONNECTIONS, MAX_LISTENERS, Refusal};
use crate::control::api::Problem;

/// A status code of 4xx or 5xx and the sentence that goes with it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: String,
    allow: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            allow: None,
        }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn ending() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is ending and takes no more orders",
        )
    }

    pub(super) fn method(path: &str, allow: &'static str) -> Self {
        let error = format!("{path} only answers {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, error)
        }
    }

    pub(super) fn stranger(peer: u32, owner: u32) -> Self {
        let error =
            format!("uid {peer} may not control this daemon: only uid {owner} and root may");
        Self::new(StatusCode::FORBIDDEN, error)
    }

    pub(super) fn unknown_peer(error: &io::Error) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!("cannot tell who is asking: {error}"),
        )
    }

    pub(super) fn crowded() -> Self {
        let error = format!("{MAX_CONNECTIONS} connections are open already; try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn in_need() -> Self {
        let error = "the daemon has only its last descriptors left, and nobody may listen on one of \
                     these; try again when a program has ended";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_owned())
    }

    pub(super) fn many_listeners() -> Self {
        let error = format!("{MAX_LISTENERS} listen already, as many as may; try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &Problem { error: self.error });
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    /// Makes it the only answer this connection gets.
    pub(super) fn into_last_response(self) -> Response<Body> {
        let mut response = self.into_response();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(error) => Self::not_found(error),
            Refusal::Conflict(error) => Self::new(StatusCode::CONFLICT, error),
            Refusal::Invalid(error) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error),
            Refusal::Failed(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}
