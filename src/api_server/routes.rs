//! What is answered: the table of routes, and those that are there to be looked at.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::chaos::{self, Chaos};
use super::connection::Facts;
use super::error::{Answer, ApiError, json_answer};
use super::health;
use super::server::Server;

/// The largest body that is read, in bytes.
pub(super) const MOST_BODY: usize = 1 << 20;

/// One path and the one method it has.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) action: Action,
}

/// What a route does.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Index,
    Health,
    Metrics,
    Time,
    Echo,
    Chaos(Chaos),
}

impl Route {
    /// Tells whether clients are limited here. Probes and scrapes must get through when it matters.
    pub(super) fn is_limited(&self) -> bool {
        match self.action {
            Action::Health | Action::Metrics => false,
            Action::Index | Action::Time | Action::Echo | Action::Chaos(_) => true,
        }
    }

    /// Returns the value of `Allow`; HEAD comes with every GET.
    pub(super) fn allow(&self) -> &'static str {
        if self.method == Method::GET {
            "GET, HEAD"
        } else {
            "POST"
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }
}

/// Returns the routes that are offered.
pub(super) fn table(with_chaos: bool) -> Vec<Route> {
    let get = |path, about, action| Route {
        method: Method::GET,
        path,
        about,
        action,
    };
    let post = |path, about, action| Route {
        method: Method::POST,
        path,
        about,
        action,
    };
    let mut table = vec![
        get("/", "this index", Action::Index),
        get(
            "/health",
            "state, memory, errors and requests",
            Action::Health,
        ),
        get("/metrics", "Prometheus metrics", Action::Metrics),
        get("/api/time", "the time", Action::Time),
        post("/api/echo", "what was sent", Action::Echo),
    ];
    if with_chaos {
        let chaos = |path, about, chaos| post(path, about, Action::Chaos(chaos));
        table.extend([
            chaos("/chaos/exit", "exits; ?code=N, else 1", Chaos::Exit),
            chaos("/chaos/abort", "dies by SIGABRT", Chaos::Abort),
            chaos("/chaos/segfault", "dies by SIGSEGV", Chaos::Segfault),
            chaos("/chaos/hang", "lives but answers nothing more", Chaos::Hang),
            chaos("/chaos/leak", "keeps memory; ?mib=N, else 64", Chaos::Leak),
            chaos("/chaos/panic", "panics in the request", Chaos::Panic),
            chaos(
                "/chaos/slow",
                "takes its time; ?seconds=N, else 1",
                Chaos::Slow,
            ),
        ]);
    }
    table
}

/// Answers a request that found its route.
pub(super) async fn answer(
    server: &Server,
    facts: &Facts,
    action: Action,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    match action {
        Action::Index => Ok(ok(&index(server.routes()))),
        Action::Health => Ok(ok(&health::document(&server.statistics.snapshot()))),
        Action::Metrics => metrics(server),
        Action::Time => Ok(ok(&time())),
        Action::Echo => echo(server, facts, request).await,
        Action::Chaos(chaos) => chaos::answer(chaos, request.uri().query().unwrap_or("")).await,
    }
}

fn ok(document: &Value) -> Answer {
    json_answer(StatusCode::OK, document.to_string())
}

fn index(routes: &[Route]) -> Value {
    let routes: Vec<Value> = routes
        .iter()
        .map(|route| {
            json!({ "method": route.method.as_str(), "path": route.path, "about": route.about })
        })
        .collect();
    json!({ "service": "api-server", "version": env!("CARGO_PKG_VERSION"), "routes": routes })
}

fn metrics(server: &Server) -> Result<Answer, ApiError> {
    let text = server
        .statistics
        .render()
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut answer = json_answer(StatusCode::OK, text);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(answer)
}

fn time() -> Value {
    let now = jiff::Timestamp::now();
    json!({ "time": now.to_string(), "unixSeconds": now.as_second() })
}

async fn echo(
    server: &Server,
    facts: &Facts,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.map(str::to_owned);
    let body = read_body(server, facts, request.into_body()).await?;
    let is_json = kind
        .as_deref()
        .is_some_and(|kind| kind.starts_with("application/json"));
    let content: Value = if is_json {
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?
    } else {
        Value::from(String::from_utf8_lossy(&body))
    };
    Ok(ok(
        &json!({ "contentType": kind, "bytes": body.len(), "body": content }),
    ))
}

/// Reads a body to its end, or says why not: too large, too slow, broken off.
async fn read_body(server: &Server, facts: &Facts, body: Incoming) -> Result<Bytes, ApiError> {
    let whole = Limited::new(body, MOST_BODY).collect();
    match tokio::time::timeout(server.read_timeout, whole).await {
        Err(_elapsed) => Err(ApiError::request_timeout()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::payload_too_large(MOST_BODY))
        }
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the body is malformed: {error}"
        ))),
        Ok(Ok(body)) => {
            facts.set_body_read();
            Ok(body.to_bytes())
        }
    }
}
