//! Every error a client can get, as JSON with a status, a code and a message.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;

/// What the server sends: always known in full, so `Content-Length` and HEAD are exact.
pub(super) type Answer = Response<Full<Bytes>>;

/// An error answer before it is written out.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            header: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "no such path; GET / lists them",
        )
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path answers {allow}");
        let mut error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        );
        error.header = Some((ALLOW, HeaderValue::from_static(allow)));
        error
    }

    pub(super) fn request_timeout() -> Self {
        let message = "the request took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub(super) fn payload_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    /// Refuses a client that may come back in `seconds`.
    pub(super) fn rate_limited(seconds: u64) -> Self {
        let message = format!("too many requests; try again in {seconds} s");
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        error.header = Some((RETRY_AFTER, HeaderValue::from(seconds)));
        error
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// Stands for a refusal of the HTTP parser, which knows only the status.
    pub(super) fn of_parser(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::URI_TOO_LONG => ("uri_too_long", "the request target is too long"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("headers_too_large", "the request head is too large")
            }
            _ => ("bad_request", "this is not an HTTP/1 request"),
        };
        Self::new(status, code, message)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the JSON body.
    pub(super) fn body(&self) -> String {
        let error = json!({
            "status": self.status.as_u16(), "code": self.code, "message": self.message,
        });
        json!({ "error": error }).to_string()
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = json_answer(self.status, self.body());
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// Builds an answer whose body is JSON text.
pub(super) fn json_answer(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
