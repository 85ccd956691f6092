//! Which path means what, and how each is answered.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use matchit::Router;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use super::body::{Body, json, json_line, stream};
use super::failure::Failure;
use super::query::{Parameters, decode};
use super::{Backend, Command, LogQuery, MAX_LISTENERS, Target};
use crate::control::api;
use crate::control::names::no_such_program;

/// No order has a body worth more; bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a peer may take over a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of `/v1/logs` when the request does not say.
const DEFAULT_LINES: u32 = 50;
/// Lines of `/v1/logs` at most.
const MAX_LINES: u32 = 100_000;

type Answer = Result<Response<Body>, Failure>;

#[derive(Clone, Copy, Debug)]
enum Route {
    Status,
    Health,
    Crashes,
    Logs,
    Events,
    Program,
    Reload,
    Shutdown,
}

impl Route {
    const ALL: [(&'static str, Self); 8] = [
        ("/v1/status", Self::Status),
        ("/v1/health", Self::Health),
        ("/v1/crashes", Self::Crashes),
        ("/v1/logs", Self::Logs),
        ("/v1/events", Self::Events),
        ("/v1/programs/{name}/{verb}", Self::Program),
        ("/v1/reload", Self::Reload),
        ("/v1/shutdown", Self::Shutdown),
    ];

    fn method(self) -> Method {
        match self {
            Self::Status | Self::Health | Self::Crashes | Self::Logs | Self::Events => Method::GET,
            Self::Program | Self::Reload | Self::Shutdown => Method::POST,
        }
    }

    fn allow(self) -> &'static str {
        if self.method() == Method::GET {
            "GET"
        } else {
            "POST"
        }
    }

    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Health | Self::Events => &[],
            Self::Crashes => &["program"],
            Self::Logs => &["program", "lines", "follow"],
            Self::Program => &["replica", "wait"],
            Self::Reload => &["restart", "wait"],
            Self::Shutdown => &["wait"],
        }
    }
}

/// Answers requests of those who were let in.
pub(super) struct Desk {
    backend: Backend,
    router: Router<Route>,
    listeners: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

impl Desk {
    pub(super) fn new(backend: Backend, ending: watch::Receiver<bool>) -> Self {
        let mut router = Router::new();
        for (path, route) in Route::ALL {
            router
                .insert(path, route)
                .expect("the table of routes has no conflict");
        }
        Self {
            backend,
            router,
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            ending,
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.dispatch(request)
            .await
            .unwrap_or_else(Failure::into_response)
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let found = self.router.at(path).map_err(|_| no_such_path(path))?;
        let route = *found.value;
        if head.method != route.method() {
            return Err(Failure::method(path, route.allow()));
        }
        let parameters = Parameters::parse(head.uri.query(), route.parameters())?;
        discard(body).await?;
        match route {
            Route::Status => Ok(json(StatusCode::OK, &(self.backend.status)())),
            Route::Health => self.health().await,
            Route::Crashes => self.crashes(&parameters),
            Route::Logs => self.logs(&parameters).await,
            Route::Events => self.events(),
            Route::Program => {
                let name = found.params.get("name").unwrap_or_default();
                let verb = found.params.get("verb").unwrap_or_default();
                let verb = api::Verb::parse(verb).ok_or_else(|| no_such_path(path))?;
                self.order(verb, target(name, &parameters)?, &parameters)
                    .await
            }
            Route::Reload => self.reload(&parameters).await,
            Route::Shutdown => self.shutdown(&parameters).await,
        }
    }

    async fn health(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Health { reply }).await?;
        let health = answer.await.map_err(|_| Failure::ending())?;
        Ok(json(StatusCode::OK, &health))
    }

    fn crashes(&self, parameters: &Parameters) -> Answer {
        let program = parameters.text("program");
        let crashes = (self.backend.crashes)(program);
        // A program that left the config keeps its history.
        if let Some(name) = program.filter(|_| crashes.is_empty()) {
            self.must_know(name)?;
        }
        Ok(json(StatusCode::OK, &api::Crashes { crashes }))
    }

    async fn logs(&self, parameters: &Parameters) -> Answer {
        let program = parameters.text("program").map(str::to_owned);
        if let Some(name) = &program {
            self.must_know(name)?;
        }
        let lines = parameters
            .number("lines", MAX_LINES)?
            .unwrap_or(DEFAULT_LINES);
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        let follow = parameters.switch("follow", false)?;
        let seat = follow.then(|| self.listener()).transpose()?;
        let (past, coming) = (self.backend.logs)(LogQuery {
            program,
            lines,
            follow,
        })
        .await;
        let (sender, response) = stream("application/x-ndjson", seat);
        tokio::spawn(pour_lines(past, coming, sender, self.ending.clone()));
        Ok(response)
    }

    /// Takes a seat among those that listen for as long as they like.
    fn listener(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let seat = Arc::clone(&self.listeners).try_acquire_owned();
        seat.map_err(|_| Failure::many_listeners())
    }

    fn events(&self) -> Answer {
        let seat = self.listener()?;
        let (sender, response) = stream("text/event-stream", Some(seat));
        let events = self.backend.events.subscribe();
        tokio::spawn(pour_events(events, sender, self.ending.clone()));
        Ok(response)
    }

    async fn order(&self, verb: api::Verb, target: Target, parameters: &Parameters) -> Answer {
        let wait = parameters.switch("wait", true)?;
        if !wait {
            // Nobody will hear the loop's own answer, so what can be known is checked here.
            self.must_know(&target.name)?;
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Program {
            verb,
            target,
            reply,
        })
        .await?;
        if !wait {
            return Ok(accepted());
        }
        let done = answer.await.map_err(|_| Failure::ending())??;
        Ok(json(StatusCode::OK, &done))
    }

    async fn reload(&self, parameters: &Parameters) -> Answer {
        let restart = parameters.switch("restart", false)?;
        let wait = parameters.switch("wait", true)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reload { restart, reply }).await?;
        if !wait {
            return Ok(accepted());
        }
        let reloaded = answer.await.map_err(|_| Failure::ending())??;
        Ok(json(StatusCode::OK, &reloaded))
    }

    async fn shutdown(&self, parameters: &Parameters) -> Answer {
        let wait = parameters.switch("wait", true)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Shutdown { reply }).await?;
        if !wait {
            return Ok(accepted());
        }
        answer.await.map_err(|_| Failure::ending())?;
        let messages = vec!["every program is gone and the daemon ends".to_owned()];
        Ok(json(StatusCode::OK, &api::Done { ok: true, messages }))
    }

    async fn send(&self, command: Command) -> Result<(), Failure> {
        self.backend
            .commands
            .send(command)
            .await
            .map_err(|_| Failure::ending())
    }

    fn must_know(&self, name: &str) -> Result<(), Failure> {
        let status = (self.backend.status)();
        if status
            .programs
            .iter()
            .any(|program| program.is_called(name))
        {
            return Ok(());
        }
        let known = status.programs.iter().map(|program| program.name.as_str());
        Err(Failure::not_found(no_such_program(name, known)))
    }
}

fn no_such_path(path: &str) -> Failure {
    Failure::not_found(format!("there is nothing at {path}"))
}

fn accepted() -> Response<Body> {
    let messages = vec!["accepted".to_owned()];
    json(StatusCode::ACCEPTED, &api::Done { ok: true, messages })
}

/// Reads `web`, `web/1` (as `web%2F1`) and `?replica=1`.
fn target(name: &str, parameters: &Parameters) -> Result<Target, Failure> {
    let name = decode(name)?;
    let by_parameter = parameters.number("replica", u32::MAX)?;
    let Some((program, replica)) = name.split_once('/') else {
        return Ok(Target {
            name,
            replica: by_parameter,
        });
    };
    let replica: u32 = replica
        .parse()
        .map_err(|_| Failure::bad_request(format!("{name:?} is not PROGRAM or PROGRAM/REPLICA")))?;
    if by_parameter.is_some_and(|other| other != replica) {
        return Err(Failure::bad_request(format!(
            "{name:?} contradicts the parameter \"replica\""
        )));
    }
    Ok(Target {
        name: program.to_owned(),
        replica: Some(replica),
    })
}

/// Reads a body to its end, so that the connection can be used again; no request needs one.
async fn discard(body: Incoming) -> Result<(), Failure> {
    match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a request body is at most {MAX_BODY} bytes"),
        )),
        Ok(Err(error)) => Err(Failure::bad_request(format!(
            "cannot read the request body: {error}"
        ))),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the request body did not arrive within {} s",
                BODY_DEADLINE.as_secs()
            ),
        )),
    }
}

/// Writes past lines, then coming ones until the peer leaves or the daemon ends.
async fn pour_lines(
    past: Vec<api::LogLine>,
    coming: Option<mpsc::Receiver<api::LogLine>>,
    sender: mpsc::Sender<Bytes>,
    mut ending: watch::Receiver<bool>,
) {
    for line in past {
        if sender.send(json_line(&line)).await.is_err() {
            return;
        }
    }
    let Some(mut coming) = coming else { return };
    loop {
        let line = tokio::select! {
            biased;
            line = coming.recv() => line,
            () = sender.closed() => return,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        let Some(line) = line else { return };
        if sender.send(json_line(&line)).await.is_err() {
            return;
        }
    }
}

/// Writes events until the peer leaves or the daemon ends. A peer that is too slow is told how
/// many it missed.
async fn pour_events(
    mut events: broadcast::Receiver<api::EventRecord>,
    sender: mpsc::Sender<Bytes>,
    mut ending: watch::Receiver<bool>,
) {
    let mut at = String::new();
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            () = sender.closed() => return,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => api::EventRecord {
                at: at.clone(),
                program: String::new(),
                kind: "missed".to_owned(),
                message: format!("{missed} events were missed because they were read too slowly"),
            },
            Err(broadcast::error::RecvError::Closed) => return,
        };
        at.clone_from(&event.at);
        if sender.send(server_sent(&event)).await.is_err() {
            return;
        }
    }
}

/// Writes an event as `event:`, `data:` and an empty line. JSON holds no line break.
fn server_sent(event: &api::EventRecord) -> Bytes {
    let kind: String = event
        .kind
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    let data = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_is_too_slow_is_told_how_many_events_it_missed() {
        let (events, listener) = broadcast::channel(2);
        for number in 0..5 {
            let record = api::EventRecord {
                at: String::new(),
                program: "web".to_owned(),
                kind: "started\n".to_owned(),
                message: format!("number {number}"),
            };
            events.send(record).expect("a listener");
        }
        drop(events);
        let (_ending, watched) = watch::channel(false);
        let (sender, mut pieces) = mpsc::channel(8);
        pour_events(listener, sender, watched).await;
        let mut text = String::new();
        while let Some(piece) = pieces.recv().await {
            text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
        }
        assert!(text.starts_with("event: missed\ndata: {"), "{text}");
        assert!(text.contains("3 events were missed"), "{text}");
        assert!(text.contains("event: started\ndata: {"), "{text}");
        assert_eq!(text.matches("\n\n").count(), 3);
    }
}
