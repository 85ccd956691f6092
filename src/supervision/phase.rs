//! The phases of a program: the data each of them owns.

use std::time::{Duration, Instant};

use super::vocabulary::{Ailment, Cause, State};
use super::{Id, Run};

/// Where a program stands. The contract's states are a view of it.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Stopped,
    Waiting {
        dependency: Id,
    },
    Spawning {
        run: Run,
        cause: Option<Cause>,
        asked: Option<Next>,
        birth: Birth,
    },
    Starting {
        life: Life,
        until: Until,
    },
    Running {
        life: Life,
    },
    Ending(Ending),
    Backoff {
        until: Instant,
        delay: Duration,
        cause: Option<Cause>,
    },
    Failed {
        retry_at: Option<Instant>,
    },
    Completed,
    Removed,
}

/// What a run that is not ready yet comes to by time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It is ready then: it has stayed up.
    Ready(Instant),
    /// It is ended then, unless it has shown that it is ready.
    GivenUp(Instant),
    /// Nothing: it is ready when it has ended well.
    Done,
}

/// A start that is under way: nobody knows yet whether the program is executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub since: Instant,
    pub stage: Stage,
}

/// How far a start has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// It may still be quick.
    Fresh { hangs_at: Instant },
    /// It takes so long that this was told.
    Hanging { give_up_at: Instant },
    /// It got SIGKILL.
    Killed {
        since: Instant,
        alarm_at: Option<Instant>,
    },
}

/// A run with its process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub run: Run,
    pub pid: i32,
    pub since: Instant,
    pub ready: bool,
}

/// A run that has to go, with everything it started.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub life: Life,
    /// The main process is still there; otherwise only descendants are.
    pub main_alive: bool,
    pub intent: Intent,
    pub asked_at: Instant,
    pub grace: Grace,
    pub next: Next,
}

/// Why a run is being ended: part of the reason its exit will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Stop,
    Restart,
    StartTimeout,
    Ailing(Ailment),
    /// Its main process has ended by itself; what it left behind has to go.
    Leftovers,
}

/// How far the ending has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Grace {
    Polite {
        kill_at: Instant,
    },
    Killed {
        since: Instant,
        alarm_at: Option<Instant>,
    },
}

/// What follows when everything of a run is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Stay down.
    Down,
    /// Be forgotten.
    Gone,
    /// Start at once.
    Up(Option<Cause>),
    /// Ask the policy when the main process has ended.
    Judge,
    /// The policy has spoken.
    Wait {
        until: Instant,
        delay: Duration,
        cause: Cause,
    },
    /// The policy has spoken.
    Fail { retry_at: Option<Instant> },
    /// The policy has spoken.
    Complete,
}

impl Phase {
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Spawning { birth, .. } => match birth.stage {
                Stage::Fresh { hangs_at } => Some(hangs_at),
                Stage::Hanging { give_up_at } => Some(give_up_at),
                Stage::Killed { alarm_at, .. } => alarm_at,
            },
            Self::Starting {
                until: Until::Ready(at) | Until::GivenUp(at),
                ..
            } => Some(*at),
            Self::Ending(Ending {
                grace: Grace::Polite { kill_at },
                ..
            }) => Some(*kill_at),
            Self::Ending(Ending {
                grace: Grace::Killed { alarm_at, .. },
                ..
            }) => *alarm_at,
            Self::Backoff { until, .. } => Some(*until),
            Self::Failed { retry_at } => *retry_at,
            Self::Stopped
            | Self::Waiting { .. }
            | Self::Starting {
                until: Until::Done, ..
            }
            | Self::Running { .. }
            | Self::Completed
            | Self::Removed => None,
        }
    }

    /// When it will be ready, if it stays up.
    pub fn ready_at(&self) -> Option<Instant> {
        if let Self::Starting {
            until: Until::Ready(at),
            ..
        } = self
        {
            Some(*at)
        } else {
            None
        }
    }

    /// What people are told of the deadline: that a start may be found to hang is nothing yet.
    pub fn announced(&self) -> Option<Instant> {
        if let Self::Spawning { birth, .. } = self
            && let Stage::Fresh { .. } = birth.stage
        {
            return None;
        }
        self.deadline()
    }

    pub fn state(&self) -> State {
        match self {
            Self::Stopped | Self::Removed => State::Stopped,
            Self::Spawning {
                birth:
                    Birth {
                        stage: Stage::Killed { .. },
                        ..
                    },
                ..
            } => State::Stopping,
            Self::Waiting { .. } | Self::Spawning { .. } | Self::Starting { .. } => State::Starting,
            Self::Running { .. } => State::Running,
            Self::Ending(_) => State::Stopping,
            Self::Backoff { .. } => State::Backoff,
            Self::Failed { .. } => State::Failed,
            Self::Completed => State::Completed,
        }
    }

    /// Somebody wants it up: it is, is to be, or failed to be.
    pub fn is_desired(&self) -> bool {
        match self {
            Self::Waiting { .. }
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. } => true,
            Self::Spawning { asked, .. } => !matches!(asked, Some(Next::Down | Next::Gone)),
            Self::Ending(ending) => {
                !matches!(ending.next, Next::Down | Next::Gone | Next::Complete)
            }
            Self::Stopped | Self::Completed | Self::Removed => false,
        }
    }

    /// The delay in force.
    pub fn delay(&self) -> Option<Duration> {
        if let Self::Backoff { delay, .. } = self {
            Some(*delay)
        } else {
            None
        }
    }

    /// Whom it waits for.
    pub fn dependency(&self) -> Option<Id> {
        if let Self::Waiting { dependency } = self {
            Some(*dependency)
        } else {
            None
        }
    }

    /// The run whose main process is alive.
    pub fn life(&self) -> Option<Life> {
        match self {
            Self::Starting { life, .. } | Self::Running { life } => Some(*life),
            Self::Ending(ending) if ending.main_alive => Some(ending.life),
            Self::Ending(_)
            | Self::Stopped
            | Self::Waiting { .. }
            | Self::Spawning { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Completed
            | Self::Removed => None,
        }
    }
}
