//! One request, from the limit to the count.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Version};

use super::connection::Facts;
use super::error::{Answer, ApiError};
use super::limit::Verdict;
use super::routes::{self, MOST_BODY, Route};
use super::server::Server;
use super::statistics::{Answered, OTHER};
use super::{client, log};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");

/// Answers a request and counts it. Never fails and never panics, whatever the route does.
pub(super) async fn answer(
    server: &Server,
    facts: &Facts,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let began = Instant::now();
    let _in_progress = server.statistics.begin();
    facts.begin_request(request.body().is_end_stream());
    let route = server.route(request.uri().path());
    let path = route.map_or(OTHER, |route| route.path);
    let method = request.method().clone();
    let client = client::address(peer, request.headers(), &server.trusted_proxies);

    let answer = limited(server, facts, client, route, request).await;

    let answered = Answered {
        method: &method,
        path,
        status: answer.status(),
        took: began.elapsed(),
        size: answer.body().size_hint().exact().unwrap_or(0),
    };
    server.statistics.record(&answered);
    if answered.status.is_server_error() {
        log::line(
            "ERROR",
            format_args!("{method} {path} answered {}", answered.status.as_u16()),
        );
    }
    facts.end_request();
    Ok(answer)
}

/// Lets the limiter have its say, and tells the client what it said.
async fn limited(
    server: &Server,
    facts: &Facts,
    client: IpAddr,
    route: Option<&Route>,
    request: Request<Incoming>,
) -> Answer {
    let limiter = match (&server.limiter, route) {
        (Some(limiter), Some(route)) if route.is_limited() => limiter,
        (Some(limiter), None) => limiter,
        (Some(_) | None, _) => return routed(server, facts, route, request).await,
    };
    let (mut answer, remaining) = match limiter.check(client) {
        Verdict::Pass { remaining } => (routed(server, facts, route, request).await, remaining),
        Verdict::Wait { seconds } => (ApiError::rate_limited(seconds).into_answer(), 0),
    };
    answer
        .headers_mut()
        .insert(LIMIT, HeaderValue::from(limiter.burst()));
    answer
        .headers_mut()
        .insert(REMAINING, HeaderValue::from(remaining));
    answer
}

async fn routed(
    server: &Server,
    facts: &Facts,
    route: Option<&Route>,
    request: Request<Incoming>,
) -> Answer {
    let answer = async {
        let route = route.ok_or_else(ApiError::not_found)?;
        if !route.allows(request.method()) {
            return Err(ApiError::method_not_allowed(route.allow()));
        }
        check_head(request.version(), request.headers())?;
        routes::answer(server, facts, route.action, request).await
    };
    match caught(answer).await {
        Some(answer) => answer.unwrap_or_else(ApiError::into_answer),
        None => ApiError::internal("the server made a mistake").into_answer(),
    }
}

/// Checks what can be refused before the body comes. HTTP/1.1 demands a Host (RFC 9112, 3.2).
fn check_head(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    if version == Version::HTTP_11 && !headers.contains_key(HOST) {
        return Err(ApiError::bad_request("the Host header is missing"));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MOST_BODY) {
        return Err(ApiError::payload_too_large(MOST_BODY));
    }
    Ok(())
}

/// Returns `None` if the future panics; the panic hook has told why.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        // The future is dropped after a panic, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_panic) => Poll::Ready(None),
        }
    })
    .await
}
