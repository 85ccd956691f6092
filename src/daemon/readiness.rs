//! Finding out that a program is ready: each way ends as the same input.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::commands::{Commands, Purpose};
use super::reload::Looked;
use super::task::{Task, caught};
use super::{health, watchdog};
use crate::config::{Check, Ready};
use crate::os::children::{Children, Prepared};
use crate::os::probe;
use crate::supervision::{Id, Run, WaitStatus};

/// How long a connection may take: whoever listens accepts at once.
const TCP_LIMIT: Duration = Duration::from_secs(1);
/// How long a whole HTTP exchange may take: health pages that look at a database are slower.
const HTTP_LIMIT: Duration = Duration::from_secs(5);

/// What has been found out about a program.
#[derive(Debug)]
pub(super) enum Found {
    /// The program is ready.
    Ready(Run),
    /// Its readiness command should be tried once more.
    TryAgain(Run),
    /// Its health check has something to say.
    Health(health::Report),
    /// A configuration has been looked at.
    Looked(Box<Looked>),
    /// What a program said last is known, or takes too long, and somebody waits for it.
    LastWords(Id),
    /// It has not been heard of for as long as its watchdog allows.
    Silent(watchdog::Silence),
}

/// Runs that have not said or shown yet that they are ready.
pub(super) struct Readiness {
    notify_address: String,
    found: mpsc::Sender<Found>,
    /// The thread that asks servers.
    asks_on: Handle,
    awaited: HashMap<Run, Awaited>,
}

struct Awaited {
    /// It has to say it.
    speaks: bool,
    attempts: u32,
    /// Asks again and again, or waits to.
    task: Option<Task>,
    /// How the readiness command is launched, and the one under way.
    launch: Option<Prepared>,
    command: Option<Run>,
}

impl Readiness {
    pub fn new(notify_address: String, found: mpsc::Sender<Found>, asks_on: Handle) -> Self {
        Self {
            notify_address,
            found,
            asks_on,
            awaited: HashMap::new(),
        }
    }

    /// Where whatever is found out is told.
    pub fn found(&self) -> mpsc::Sender<Found> {
        self.found.clone()
    }

    /// What programs find in NOTIFY_SOCKET.
    pub fn notify_address(&self) -> &str {
        &self.notify_address
    }

    /// Begins to wait for a run. `launch` is how its readiness command would be launched.
    pub fn begin(&mut self, run: Run, ready: &Ready, launch: Option<Prepared>) -> Option<Found> {
        let task = match ready {
            // These show by themselves.
            Ready::Immediately | Ready::Alive(_) | Ready::Exit => return None,
            Ready::Notify | Ready::Check(Check::Exec(_)) => None,
            Ready::Check(Check::Tcp(authority)) => Some(self.ask_tcp(run, authority.clone())),
            Ready::Check(Check::Http { authority, path }) => {
                Some(self.ask_http(run, authority.clone(), path.clone()))
            }
        };
        let is_command = launch.is_some();
        self.awaited.insert(
            run,
            Awaited {
                speaks: *ready == Ready::Notify,
                attempts: 0,
                task,
                launch,
                command: None,
            },
        );
        is_command.then_some(Found::TryAgain(run))
    }

    /// It is ready, or gone: nobody asks any more. A readiness command under way is to be killed.
    pub fn forget(&mut self, run: Run) -> Option<Run> {
        self.awaited.remove(&run)?.command
    }

    /// Starts the readiness command of a run once more.
    pub fn try_command(&mut self, run: Run, commands: &mut Commands, children: &mut Children) {
        let Some(awaited) = self.awaited.get_mut(&run) else {
            return;
        };
        let Some(launch) = &awaited.launch else {
            return;
        };
        awaited.command = commands
            .start((Purpose::Readiness, run), launch, children)
            .ok();
        if awaited.command.is_none() {
            self.wait_and_try_again(run);
        }
    }

    /// Takes the end of the readiness command of a run.
    pub fn command_ended(&mut self, run: Run, status: WaitStatus) -> Option<Found> {
        self.awaited.get_mut(&run)?.command = None;
        if status.code() == Some(0) {
            return Some(Found::Ready(run));
        }
        self.wait_and_try_again(run);
        None
    }

    /// The readiness command of a run could not be started.
    pub fn command_failed(&mut self, run: Run) {
        if let Some(awaited) = self.awaited.get_mut(&run) {
            awaited.command = None;
        }
        self.wait_and_try_again(run);
    }

    /// Tells whether a run is waited for that has to say itself that it is ready.
    pub fn waits_for_word_of(&self, run: Run) -> bool {
        self.awaited.get(&run).is_some_and(|awaited| awaited.speaks)
    }

    fn ask_tcp(&self, run: Run, authority: String) -> Task {
        let found = self.found.clone();
        Task::spawn_on(&self.asks_on, async move {
            let mut attempt = 0;
            while caught(probe::tcp(&authority, TCP_LIMIT)).await.is_err() {
                tokio::time::sleep(probe::retry_delay(attempt)).await;
                attempt += 1;
            }
            let _ = found.send(Found::Ready(run)).await;
        })
    }

    fn ask_http(&self, run: Run, authority: String, path: String) -> Task {
        let found = self.found.clone();
        Task::spawn_on(&self.asks_on, async move {
            let mut attempt = 0;
            while caught(probe::http(&authority, &path, HTTP_LIMIT))
                .await
                .is_err()
            {
                tokio::time::sleep(probe::retry_delay(attempt)).await;
                attempt += 1;
            }
            let _ = found.send(Found::Ready(run)).await;
        })
    }

    fn wait_and_try_again(&mut self, run: Run) {
        let found = self.found.clone();
        let Some(awaited) = self.awaited.get_mut(&run) else {
            return;
        };
        let delay = probe::retry_delay(awaited.attempts);
        awaited.attempts += 1;
        awaited.task = Some(Task::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = found.send(Found::TryAgain(run)).await;
        }));
    }
}
