//! Restart policy: what one program's history says about its next start.

use std::time::Duration;


/// When and whether a program is started again.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// After which ends it is started again.
    pub restart: RestartMode,
    /// Automatic restarts of every kind, since a person last started it; `None` is unlimited.
    pub max_restarts: Option<u32>,
    /// The first restart waits exactly this.
    pub restart_delay: Duration,
    /// Later ones double up to this.
    pub restart_delay_max: Duration,
    /// Give or take this share of the delay, from the second on; 0 to 1.
    pub restart_jitter: f64,
    /// A run of this length starts the delays over.
    pub stable_after: Duration,
    /// Crashes within the window at which it is given up; 1 or more.
    pub crash_threshold: u32,
    /// Run time (not waiting time) within which crashes count.
    pub crash_window: Duration,
    /// What giving up means.
    pub on_crash_loop: OnCrashLoop,
    /// Exit codes that are not crashes.
    pub success_exit_codes: Vec<i32>,
    /// Exit codes after which it is not started again.
    pub no_restart_exit_codes: Vec<i32>,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// From spawn to ready; only where readiness is checked.
    pub start_timeout: Duration,
    /// It has to say or show that it is ready; otherwise it is as soon as it runs.
    pub gated: bool,
    /// Its giving up brings the daemon down even if others run.
    pub critical: bool,
}

impl Default for Policy {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            restart: RestartMode::Always,
            max_restarts: None,
            restart_delay: Duration::from_secs(1),
            restart_delay_max: Duration::from_secs(30),
            restart_jitter: 0.1,
            stable_after: Duration::from_secs(60),
            crash_threshold: 5,
            crash_window: Duration::from_secs(60),
            on_crash_loop: OnCrashLoop::GiveUp,
            success_exit_codes: vec![0],
            no_restart_exit_codes: Vec::new(),
            stop_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(30),
            gated: false,
            critical: false,
        }
    }
}

/// After which ends a program is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartMode {
    /// After every end.
    Always,
    /// After a crash.
    OnFailure,
    /// After none.
    Never,
}

/// What a crash loop leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrashLoop {
    /// It stays down.
    GiveUp,
    /// It is tried again this long after each give-up.
    Retry {
        /// From the give-up to the next try.
        after: Duration,
    },
}
