//! The real control server over a real socket, with a pretended loop behind it.
//!
//! The daemon's process is a `sleep` that ends at the shutdown order. Programs: `web` with two
//! replicas, the second in back-off; `hare`, obeys at once; `tortoise`, whose orders are carried out
//! only when one for `hare` has come; `broken`, which never comes up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use eternal::control::api::{
    Crash, DaemonStatus, Done, EventRecord, Health, LogLine, ProgramStatus, Reloaded, Status,
};
use eternal::control::server::{self, Backend, BoxFuture, Command, LogQuery, Logs, Refusal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// A server on a thread of its own, until it is dropped or told to shut down.
pub struct FakeDaemon {
    directory: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    followers: watch::Receiver<usize>,
}

impl FakeDaemon {
    /// Starts it; it answers when this returns.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = server::bind(&directory.path().join("daemon.sock")).expect("a socket");
        let (stop, stopped) = watch::channel(false);
        let (counter, followers) = watch::channel(0);
        let own_stop = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(serve(listener, own_stop, stopped, counter));
        });
        Self {
            directory,
            thread: Some(thread),
            stop,
            followers,
        }
    }

    /// Where the socket is, and nothing else.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("daemon.sock")
    }

    /// How many followers of logs are connected, as it changes.
    pub fn followers(&self) -> watch::Receiver<usize> {
        self.followers.clone()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    stop: watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
    followers: watch::Sender<usize>,
) {
    let sleeper = Process::new("sleep").arg("600").spawn().expect("sleep");
    let pid = sleeper.id();
    let sleeper = Arc::new(Mutex::new(sleeper));
    let (commands, inbox) = mpsc::channel(8);
    let events = broadcast::Sender::new(16);
    let backend = Backend {
        status: Arc::new(move || status(pid)),
        crashes: Arc::new(|program| {
            crashes()
                .into_iter()
                .filter(|crash| program.is_none_or(|p| p == crash.program))
                .collect()
        }),
        logs: Arc::new(move |query| logs(query, followers.clone())),
        events: events.clone(),
        commands,
    };
    tokio::spawn(pretend(inbox, events, Arc::clone(&sleeper), stop));
    let stop = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    server::serve(listener, backend, stop)
        .await
        .expect("it serves");
    end(&sleeper);
}

fn end(sleeper: &Mutex<Child>) {
    let mut sleeper = sleeper.lock().expect("nobody panicked");
    let _ = sleeper.kill();
    let _ = sleeper.wait();
}

async fn pretend(
    mut inbox: mpsc::Receiver<Command>,
    events: broadcast::Sender<EventRecord>,
    sleeper: Arc<Mutex<Child>>,
    stop: watch::Sender<bool>,
) {
    let mut waiting = Vec::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Program {
                verb,
                target,
                reply,
            } => {
                let replica = target
                    .replica
                    .map_or(String::new(), |replica| format!("/{replica}"));
                let message = format!("{} {}{replica}", verb.as_str(), target.name);
                let _ = events.send(EventRecord {
                    at: "2026-11-23T00:00:00Z".to_owned(),
                    program: target.name.clone(),
                    kind: "ordered".to_owned(),
                    message: message.clone(),
                });
                obey(&target.name, Order { message, reply }, &mut waiting);
            }
            Command::Reload {
                restart: true,
                reply,
            } => {
                let _ = reply.send(Err(Refusal::Invalid("eternal.toml:3: no such key".into())));
            }
            Command::Reload {
                restart: false,
                reply,
            } => {
                let added = vec!["new".to_owned()];
                let _ = reply.send(Ok(Reloaded {
                    added,
                    unchanged: 4,
                    ..Reloaded::default()
                }));
            }
            Command::Health { reply } => {
                let not_ready = vec!["broken".to_owned()];
                let _ = reply.send(Health { not_ready });
            }
            Command::Shutdown { reply } => {
                let _ = reply.send(());
                let _ = stop.send(true);
                end(&sleeper);
            }
        }
    }
}

struct Order {
    message: String,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

impl Order {
    fn done(self) {
        let messages = vec![self.message];
        let _ = self.reply.send(Ok(Done { ok: true, messages }));
    }

    fn refuse(self, refusal: Refusal) {
        let _ = self.reply.send(Err(refusal));
    }
}

fn obey(program: &str, order: Order, waiting: &mut Vec<Order>) {
    match program {
        "tortoise" => waiting.push(order),
        "hare" => {
            order.done();
            waiting.drain(..).for_each(Order::done);
        }
        "web" => order.done(),
        "broken" => order.refuse(Refusal::Failed("broken: exit code 3".to_owned())),
        other => order.refuse(Refusal::NotFound(format!("no {other}"))),
    }
}

fn logs(query: LogQuery, followers: watch::Sender<usize>) -> BoxFuture<Logs> {
    let line = |program: &str, number: usize| LogLine {
        at: Some(format!("2026-11-23T00:00:{number:02}Z")),
        program: program.to_owned(),
        stream: if number.is_multiple_of(2) {
            "stderr"
        } else {
            "stdout"
        }
        .to_owned(),
        line: format!("line {number}"),
    };
    let program = query.program.unwrap_or_else(|| "web/0".to_owned());
    Box::pin(async move {
        let past = (1..=query.lines.min(9))
            .map(|number| line(&program, number))
            .collect();
        if !query.follow {
            return (past, None);
        }
        let (sender, receiver) = mpsc::channel(4);
        followers.send_modify(|followers| *followers += 1);
        tokio::spawn(async move {
            for number in 10..13 {
                let _ = sender.send(line(&program, number)).await;
            }
            sender.closed().await;
            followers.send_modify(|followers| *followers -= 1);
        });
        (past, Some(receiver))
    })
}

fn crashes() -> Vec<Crash> {
    vec![Crash {
        at: "2026-11-23T00:00:00Z".to_owned(),
        program: "web".to_owned(),
        replica: 1,
        pid: Some(4711),
        reason: "exit_code".to_owned(),
        code: Some(3),
        signal: None,
        description: "exit code 3".to_owned(),
        ran_seconds: 12.34,
        verdict: "restart in 2 s".to_owned(),
        last_output: vec!["the last word".to_owned()],
    }]
}

fn status(pid: u32) -> Status {
    let program = |name: &str, replica: u32, display_name: &str, state: &str| ProgramStatus {
        name: name.to_owned(),
        replica,
        display_name: display_name.to_owned(),
        state: state.to_owned(),
        ready: state == "running",
        desired_running: true,
        pid: (state == "running").then_some(100),
        uptime_seconds: (state == "running").then_some(273_600.0),
        run_time_seconds: 273_600.0,
        started_at: None,
        starts: 1,
        restarts: 0,
        restarts_by_cause: BTreeMap::new(),
        crashes: 0,
        exits: BTreeMap::new(),
        crash_budget: 5,
        crash_budget_remaining: 5,
        memory_bytes: Some(12_900_000),
        cpu_seconds: None,
        last_exit: None,
        why: "because".to_owned(),
        next: (state == "backoff").then(|| "restart in 2 s".to_owned()),
        next_restart_seconds: None,
        health_failing: None,
        limits_not_in_force: None,
        command: vec!["./server".to_owned()],
    };
    Status {
        daemon: DaemonStatus {
            version: "0.1.0".to_owned(),
            pid,
            started_at: "2026-11-23T00:00:00Z".to_owned(),
            uptime_seconds: 12.34,
            config_file: None,
            last_reload: None,
            stopping: false,
            metrics_address: Some("127.0.0.1:10477".to_owned()),
            arguments: vec!["run".to_owned(), "--detached".to_owned()],
            directory: "/".to_owned(),
            service: false,
            unit: None,
        },
        programs: vec![
            program("web", 0, "web/0", "running"),
            program("web", 1, "web/1", "backoff"),
            program("hare", 0, "hare", "running"),
            program("tortoise", 0, "tortoise", "running"),
            program("broken", 0, "broken", "failed"),
        ],
    }
}
