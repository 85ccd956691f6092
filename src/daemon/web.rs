//! The web thread: /metrics, the control socket and questions to servers, away from the loop.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::{oneshot, watch};

use crate::control::api;
use crate::control::server::{self, AskLogs, Backend, LogQuery};
use crate::observe::{self, App, Listener};
use crate::os::logs::{Line, Logs, Query};
use crate::os::threads;

/// What the thread is called.
const NAME: &str = "web";

/// The thread, what it waits for, and how to end it.
pub(super) struct Web {
    job: oneshot::Sender<Job>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What it is to serve.
struct Job {
    metrics: Option<(Listener, Arc<App>)>,
    control: UnixListener,
    backend: Backend,
}

impl Web {
    /// Starts the thread. Tasks can be given to it from here on.
    ///
    /// # Errors
    ///
    /// When there is no thread or no event loop to be had.
    pub fn start() -> io::Result<(Self, Handle)> {
        let (stop, stopped) = watch::channel(false);
        let (job, order) = oneshot::channel();
        let (ready, begun) = std::sync::mpsc::sync_channel(1);
        // Its event loop is made and dropped there: here it could be dropped inside another.
        let thread = threads::spawn(NAME, move || match event_loop() {
            Ok(runtime) => {
                let _ = ready.send(Ok(runtime.handle().clone()));
                runtime.block_on(work(order, stopped));
                // A look-up on another thread is not waited for.
                runtime.shutdown_background();
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        let handle = begun.recv().unwrap_or_else(|_| {
            let what = "the thread ended at once";
            Err(io::Error::other(what))
        })?;
        Ok((Self { job, stop, thread }, handle))
    }

    /// Lets it serve.
    pub fn serve(
        self,
        metrics: Option<(Listener, Arc<App>)>,
        control: UnixListener,
        backend: Backend,
    ) -> Serving {
        // A thread that is gone has said so.
        let _ = self.job.send(Job {
            metrics,
            control,
            backend,
        });
        Serving {
            stop: self.stop,
            thread: self.thread,
        }
    }
}

/// The thread at work.
pub(super) struct Serving {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Finishes the answers under way and ends the thread.
    pub fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

fn event_loop() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Serves until it is told to stop.
async fn work(order: oneshot::Receiver<Job>, stopped: watch::Receiver<bool>) {
    let Ok(job) = order.await else {
        return;
    };
    let ended = |mut stopped: watch::Receiver<bool>| async move {
        // A sender that is gone means the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let control = server::serve(job.control, job.backend, ended(stopped.clone()));
    let served = match job.metrics {
        Some((listener, app)) => {
            // The first that cannot go on is told of, though the other one could.
            let metrics = observe::serve(listener, app, ended(stopped));
            tokio::try_join!(metrics, control).map(drop)
        }
        None => control.await,
    };
    if let Err(error) = served {
        threads::fell(NAME, format!("cannot serve HTTP: {error}"));
    }
}

/// Looks captured lines up in the log room.
pub(super) fn ask_logs(logs: Logs) -> AskLogs {
    Arc::new(
        move |LogQuery {
                  program,
                  lines,
                  follow,
              }| {
            let logs = logs.clone();
            Box::pin(async move {
                // Asked for first, so that nothing falls between the past and the future.
                let coming = follow.then(|| logs.follow(program.clone()));
                let past = logs
                    .tail(Query { program, lines })
                    .await
                    .unwrap_or_default();
                let coming = coming.map(|mut from| {
                    let (to, lines) = tokio::sync::mpsc::channel(256);
                    tokio::spawn(async move {
                        while let Some(line) = from.recv().await {
                            if to.send(to_api(line)).await.is_err() {
                                break;
                            }
                        }
                    });
                    lines
                });
                (past.into_iter().map(to_api).collect(), coming)
            })
        },
    )
}

pub(super) fn to_api(line: Line) -> api::LogLine {
    api::LogLine {
        at: line.at.map(observe::rfc3339),
        program: line.program,
        stream: line.stream.label().to_owned(),
        line: line.line,
    }
}
