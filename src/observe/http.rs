//! The read-only pages: `/metrics`, health, readiness, discovery and the status page.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::auth::Verdict;
use super::exposition::Reader;
use super::protection::Protection;
use super::serving::MOST_CONNECTIONS;
use super::{ProcessMetrics, browsers, status_page};

const PING_TIMEOUT: Duration = Duration::from_secs(2);

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

    pub(super) fn protection(&self) -> Arc<Protection> {
        Arc::clone(&self.protection.borrow())
    }

    /// Returns the number of scrapes answered since the daemon began: 0 when nobody ever
    /// scraped. One that waits for the final two notes the number and waits for two more.
    #[must_use]
    pub fn scrapes(&self) -> watch::Receiver<u64> {
        self.scrapes.subscribe()
    }
}

pub(super) type Answer = Response<Full<Bytes>>;
/// A request, and what there is to know of where it comes from.
pub(super) struct Asked {
    pub request: Request<Incoming>,
    /// Who asks, where that has an address.
    pub client: Option<IpAddr>,
    /// It came to an address that only this machine can reach.
    pub at_home: bool,
}

impl App {
    pub(super) async fn answer(self: Arc<Self>, asked: Asked) -> Answer {
        let began = Instant::now();
        let request = &asked.request;
        let (page, handler) = Page::of(request.uri().path());
        let method = method_label(request.method());
        let mut answer = match self.judge(request.headers(), asked.client).await {
            Verdict::Unknown => ask_for_password(),
            Verdict::Wait(seconds) => refuse_for(seconds),
            Verdict::Welcome if method == "other" => refuse_method(),
            Verdict::Welcome if page == Page::Status && is_led_astray(&asked) => refuse_name(),
            Verdict::Welcome => self.page(page, request.headers()).await,
        };
        browsers::restrain(answer.headers_mut());
        let code = answer.status().as_u16();
        self.metrics.http(handler, code, method, began.elapsed());
        if method == "HEAD" {
            answer = without_body(answer);
        } else if page == Page::Metrics && code == 200 {
            self.scrapes.send_modify(|count| *count += 1);
        }
        answer
    }

    /// Says that there is no room, whatever was asked.
    pub(super) async fn turn_away(self: Arc<Self>, Asked { request, .. }: Asked) -> Answer {
        let began = Instant::now();
        let (_, handler) = Page::of(request.uri().path());
        let mut answer = refuse_crowd();
        browsers::restrain(answer.headers_mut());
        let code = answer.status().as_u16();
        let method = method_label(request.method());
        self.metrics.http(handler, code, method, began.elapsed());
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

/// Tells whether a browser may have been led here by somebody who calls this machine by another name.
/// Only the page for people is kept from it: a scraper may use any name, and what it gets names no
/// more than programs.
fn is_led_astray(asked: &Asked) -> bool {
    asked.at_home && !browsers::means_this_machine(asked.request.headers())
}

fn refuse_name() -> Answer {
    let text_of_it = "the status page is for this machine alone: \
                      ask by localhost, 127.0.0.1 or [::1], not by another name\n";
    text(StatusCode::MISDIRECTED_REQUEST, text_of_it)
}

fn refuse_crowd() -> Answer {
    let text_of_it = format!("busy: {MOST_CONNECTIONS} other connections are being answered\n");
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, text_of_it);
    let headers = answer.headers_mut();
    headers.insert(RETRY_AFTER, 1.into());
    headers.insert(CONNECTION, header("close"));
    answer
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "other",
    }
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
