//! The web thread: /metrics and the control socket, away from the loop.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::control::api;
use crate::control::server::{self, AskLogs, Backend, LogQuery};
use crate::observe::{self, App, Listener};
use crate::os::logs::{Line, Logs, Query};

/// The thread and how to end it.
pub(super) struct Web {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Web {
    /// Starts serving, and `keep` beside it.
    ///
    /// # Errors
    ///
    /// When there is no thread or no event loop to be had.
    pub fn start(
        metrics: Option<(Listener, Arc<App>)>,
        control: UnixListener,
        backend: Backend,
        keep: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = async move {
            let ended = |mut stopped: watch::Receiver<bool>| async move {
                // A sender that is gone means the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            tokio::spawn(keep);
            let control = server::serve(control, backend, ended(stopped.clone()));
            match metrics {
                Some((listener, app)) => {
                    let (metrics, control) =
                        tokio::join!(observe::serve(listener, app, ended(stopped)), control);
                    metrics.and(control)
                }
                None => control.await,
            }
        };
        let thread = std::thread::Builder::new()
            .name("web".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve) {
                    tracing::error!("cannot serve HTTP: {error}");
                }
                // A disk that stands still would be waited for otherwise.
                runtime.shutdown_background();
            })?;
        Ok(Self { stop, thread })
    }

    /// Finishes the answers under way and ends the thread.
    pub fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.thread.join();
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
