//! Finding out that a program is ready: each way ends as the same input.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::Ready;
use crate::os::children::{Children, Launch, Stdio};
use crate::os::notify::Notification;
use crate::os::{notify, probe};
use crate::supervision::{Id, Run, WaitStatus};

/// Slots of readiness commands are told from those of programs by this bit.
const PROBE: u32 = 1 << 31;

/// What a probe has found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// The program is ready.
    Ready(Run),
    /// Its readiness command should be tried once more.
    TryAgain(Run),
}

/// Runs that have not said or shown yet that they are ready.
pub(super) struct Readiness {
    notify_address: String,
    found: mpsc::Sender<Found>,
    awaited: HashMap<Run, Awaited>,
    /// Readiness commands under way, by their own run.
    commands: HashMap<Run, Run>,
    probes: u32,
}

struct Awaited {
    pid: i32,
    attempts: u32,
    /// The task that asks again and again, or waits to.
    task: Option<AbortHandle>,
    command: Option<(Run, Launch)>,
    by_notification: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Readiness {
    pub fn new(notify_address: String, found: mpsc::Sender<Found>) -> Self {
        Self {
            notify_address,
            found,
            awaited: HashMap::new(),
            commands: HashMap::new(),
            probes: 0,
        }
    }

    /// What programs find in NOTIFY_SOCKET.
    pub fn notify_address(&self) -> &str {
        &self.notify_address
    }

    /// Begins to wait for a run. `command` is how its readiness command would be launched.
    pub fn begin(
        &mut self,
        run: Run,
        pid: i32,
        ready: &Ready,
        command: Option<Launch>,
    ) -> Option<Found> {
        let task = match ready {
            Ready::Immediately => return None,
            Ready::Notify | Ready::Exec(_) => None,
            Ready::Tcp(authority) => Some(self.ask_tcp(run, authority.clone())),
            Ready::Http { authority, path } => {
                Some(self.ask_http(run, authority.clone(), path.clone()))
            }
        };
        let by_notification = *ready == Ready::Notify;
        let is_command = command.is_some();
        let command = command.map(|launch| (run, launch));
        self.awaited.insert(
            run,
            Awaited {
                pid,
                attempts: 0,
                task,
                command,
                by_notification,
            },
        );
        is_command.then_some(Found::TryAgain(run))
    }

    /// It is ready, or gone: nobody asks any more. A readiness command under way is to be killed.
    pub fn forget(&mut self, run: Run) -> Option<Run> {
        self.awaited.remove(&run)?;
        self.commands
            .iter()
            .find(|(_, of)| **of == run)
            .map(|(command, _)| *command)
    }

    /// Starts the readiness command of a run once more.
    pub fn try_command(&mut self, run: Run, children: &mut Children) {
        let Some(Awaited {
            command: Some((_, launch)),
            ..
        }) = self.awaited.get(&run)
        else {
            return;
        };
        self.probes = self.probes.wrapping_add(1);
        let command = Run::new(Id(PROBE | run.id().0), self.probes);
        let started = silence()
            .is_ok_and(|stdio| children.spawn(command.id(), command, launch, stdio).is_ok());
        if started {
            self.commands.insert(command, run);
        } else {
            self.wait_and_try_again(run);
        }
    }

    /// Takes the end of a readiness command.
    pub fn command_ended(&mut self, command: Run, status: WaitStatus) -> Option<Found> {
        let run = self.commands.remove(&command)?;
        if status.code() == Some(0) {
            return self.awaited.contains_key(&run).then_some(Found::Ready(run));
        }
        self.wait_and_try_again(run);
        None
    }

    /// Whether a run is the one of a readiness command.
    pub fn is_command(id: Id) -> bool {
        id.0 & PROBE != 0
    }

    /// Finds the run that a READY=1 speaks for: its main process or a descendant of it sent it.
    pub fn who_is_ready(&self, notification: &Notification) -> Option<Run> {
        if !notification.is_ready() {
            return None;
        }
        let by_itself = self
            .awaited
            .iter()
            .find(|(_, a)| a.by_notification && a.pid == notification.pid);
        let by_descent = || {
            self.awaited
                .iter()
                .find(|(_, a)| a.by_notification && notify::belongs(notification.pid, a.pid))
        };
        by_itself
            .or_else(by_descent)
            .map(|(run, _)| *run)
            .or_else(|| self.only_one_if_gone(notification.pid))
    }

    /// A sender that is gone, as `systemd-notify` always is, can be placed only where a single
    /// program is waited for.
    fn only_one_if_gone(&self, pid: i32) -> Option<Run> {
        let mut waiting = self.awaited.iter().filter(|(_, a)| a.by_notification);
        let (run, _) = waiting.next()?;
        let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists();
        (gone && waiting.next().is_none()).then_some(*run)
    }

    fn ask_tcp(&self, run: Run, authority: String) -> AbortHandle {
        let found = self.found.clone();
        tokio::spawn(async move {
            let mut attempt = 0;
            while probe::tcp(&authority).await.is_err() {
                tokio::time::sleep(probe::retry_delay(attempt)).await;
                attempt += 1;
            }
            let _ = found.send(Found::Ready(run)).await;
        })
        .abort_handle()
    }

    fn ask_http(&self, run: Run, authority: String, path: String) -> AbortHandle {
        let found = self.found.clone();
        tokio::spawn(async move {
            let mut attempt = 0;
            while probe::http(&authority, &path).await.is_err() {
                tokio::time::sleep(probe::retry_delay(attempt)).await;
                attempt += 1;
            }
            let _ = found.send(Found::Ready(run)).await;
        })
        .abort_handle()
    }

    fn wait_and_try_again(&mut self, run: Run) {
        let found = self.found.clone();
        let Some(awaited) = self.awaited.get_mut(&run) else {
            return;
        };
        let delay = probe::retry_delay(awaited.attempts);
        awaited.attempts += 1;
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = found.send(Found::TryAgain(run)).await;
        });
        awaited.task = Some(task.abort_handle());
    }
}

/// What a readiness command says is for nobody.
fn silence() -> std::io::Result<Stdio> {
    let null = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .map(Into::into)
    };
    Ok(Stdio {
        stdout: null()?,
        stderr: null()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that was, and whose number nobody has: it is above the kernel's greatest.
    const GONE: i32 = i32::MAX;

    fn says_ready(pid: i32) -> Notification {
        let state = vec![("READY".to_owned(), "1".to_owned())];
        Notification { pid, state }
    }

    #[test]
    fn a_sender_that_is_gone_is_believed_only_where_one_program_is_waited_for() {
        let (found, _news) = mpsc::channel(1);
        let mut readiness = Readiness::new(String::new(), found);
        let (web, db) = (Run::new(Id(0), 1), Run::new(Id(1), 1));
        assert_eq!(readiness.who_is_ready(&says_ready(GONE)), None);
        assert!(readiness.begin(web, 1, &Ready::Notify, None).is_none());
        assert_eq!(readiness.who_is_ready(&says_ready(GONE)), Some(web));
        let alive_and_a_stranger = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(
            readiness.who_is_ready(&says_ready(alive_and_a_stranger)),
            None
        );
        assert!(readiness.begin(db, 2, &Ready::Notify, None).is_none());
        assert_eq!(readiness.who_is_ready(&says_ready(GONE)), None);
        assert_eq!(readiness.who_is_ready(&says_ready(2)), Some(db));
    }
}
