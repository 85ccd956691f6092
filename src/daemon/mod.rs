//! The daemon: puts the rooms together, runs the loop, and takes everything down again.

mod births;
mod commands;
mod core;
mod crash_records;
mod environment;
mod errands;
mod falls;
mod farewell;
mod health;
mod herald;
pub mod inspection;
mod last_status;
mod linger;
mod mode;
mod orders;
mod outcomes;
mod outside;
mod progress;
pub mod questions;
mod readiness;
mod recovery;
mod reload;
mod slots;
mod state;
mod task;
mod turn;
mod upwards;
mod voices;
mod watchdog;
mod web;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use self::core::Core;
use self::turn::{Alarm, Inbox};
use crate::config::{Listen, Loaded, Origins, Sources};
use crate::control::api::Progress;
use crate::control::server::{self, Backend};
use crate::observe::{
    self, App, CrashHistory, DaemonEvent, Identity, Observer, Sampler, Setup, Tracing,
};
use crate::os::children::Children;
use crate::os::logs::Logs;
use crate::os::notify::Systemd;
use crate::os::pid_file::{Found, PidFile, PidFileError};
use crate::os::session::Foreground;
use crate::os::signals::{Signal, Signals};
use crate::os::survivors::Search;
use crate::os::threads;
use crate::os::{self, session};
use crate::supervision::{Fleet, Outbox, Outcome, Request};
use crate::text;
use herald::Herald;
use slots::Slot;

/// Orders and pings that may wait for the loop.
const QUEUE: usize = 256;
/// What is left to write when the daemon ends may take this long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The last spans may take this long.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What the command line asks of the daemon.
#[derive(Debug)]
pub struct Start {
    /// Where the config comes from, for reloads.
    pub sources: Sources,
    /// The config.
    pub loaded: Loaded,
    /// Run in the background: leave the terminal, report progress on standard output.
    pub detached: bool,
    /// The command line, without the program's own name.
    pub arguments: Vec<String>,
}

/// Why the daemon could not start.
struct Refusal {
    message: String,
    /// 1: something is in the way that may pass; 2: the configuration cannot work here.
    code: u8,
}

impl Refusal {
    /// As the command hears it that started us in the background.
    fn progress(&self) -> Progress {
        Progress {
            message: self.message.clone(),
            outcome: Some(false),
            code: Some(self.code),
        }
    }
}

/// Supervises until there is nothing left to do; returns the exit code (contract, section 1).
#[must_use]
pub fn run(start: Start) -> u8 {
    let detached = start.detached;
    match prepare_and_run(start) {
        Ok(code) => code,
        Err(refusal) => {
            if detached {
                herald::say(&refusal.progress());
            } else {
                eprintln!("eternal: {}", refusal.message);
            }
            refusal.code
        }
    }
}

fn prepare_and_run(mut start: Start) -> Result<u8, Refusal> {
    os::memory::be_frugal();
    // Only `eternal config` asks; the daemon would keep it as long as it lives.
    start.loaded.origins = Origins::default();
    if start.detached {
        session::leave_terminal().map_err(|error| refuse(1, "leave the terminal", &error))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refuse(1, "start the event loop", &error))?;
    let foreground = Foreground::find();
    // Before anything that takes time: without handlers PID 1 ignores these signals.
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(|error| refuse(1, "handle signals", &error))?
    };
    let nofile = os::raise_nofile();
    let config = &start.loaded.config;
    let pid_file =
        PidFile::acquire(&config.daemon.pid_file).map_err(|error| pid_file_refusal(&error))?;
    let protection =
        outside::protection(&config.metrics).map_err(|error| refuse_plainly(2, &error))?;
    let listener = outside::listen(&config.metrics)?;
    let tracing = Tracing::start(
        config.tracing.otlp_endpoint.as_deref(),
        env!("CARGO_PKG_VERSION"),
    )
    .map_err(|error| refuse_plainly(2, &error))?;
    let logs = outside::start_logs(config, start.detached, tracing.as_ref())?;
    let control = server::bind(&config.daemon.socket).map_err(|error| refuse_plainly(1, &error))?;
    if let Err(errno) = nofile {
        tracing::warn!("cannot raise the limit of open files: {errno}");
    }
    for warning in &start.loaded.warnings {
        tracing::warn!("{warning}");
    }
    if !matches!(pid_file.found(), Found::None) {
        tracing::warn!("replaced a {}", pid_file.found());
    }
    let socket = config.daemon.socket.clone();
    let open = Open {
        foreground,
        signals,
        listener,
        protection,
        logs: logs.clone(),
        control,
        found: pid_file.found(),
    };
    let metrics = start.loaded.config.metrics.listen.clone();
    let result = runtime.block_on(supervise(start, open, tracing.as_ref()));
    // The sockets may be a newer daemon's only if the pid file was, and its lock is ours.
    outside::remove_socket(&socket);
    if let Some(Listen::Unix(path)) = metrics {
        outside::remove_socket(&path);
    }
    pid_file.release();
    if let Some(tracing) = tracing {
        tracing.close(LAST_SPANS);
    }
    logs.shutdown(LAST_WORDS);
    result
}

/// What was opened before anything was started.
struct Open {
    foreground: Option<Foreground>,
    signals: Signals,
    listener: Option<observe::Listener>,
    protection: observe::Protection,
    logs: Logs,
    control: std::os::unix::net::UnixListener,
    /// What was there instead of our pid file.
    found: Found,
}

async fn supervise(start: Start, open: Open, tracing: Option<&Tracing>) -> Result<u8, Refusal> {
    let systemd = Systemd::from_env();
    let (installation, journal, found) = state::open(&start.loaded.config.daemon, open.found)?;
    let mut children = Children::new(installation.token(), Instant::now)
        .map_err(|error| refuse_plainly(1, &error))?;
    children.use_cgroups(outside::cgroups(start.loaded.config.daemon.cgroups)?);
    let notifications = outside::notify_socket(&start.loaded.config)?;
    let history = CrashHistory::load(found.crashes.join("\n").as_bytes());
    let scraping = open.listener.is_some();
    let sampler = outside::sampler(
        installation.token().to_owned(),
        children.endings(),
        children.cgroups().accounts(),
    );
    let mut observer = observe(&start, sampler, (scraping, systemd.is_there()))?;
    if let Some(tracing) = tracing {
        tracing.count_losses(observer.metrics());
        observer.trace(tracing.spans());
    }

    let (web, asks_on) =
        web::Web::start().map_err(|error| refuse(1, "start a thread for HTTP", &error))?;
    let (commands, orders) = mpsc::channel(QUEUE);
    let (ping, pings) = mpsc::channel(QUEUE);
    let (probed, ready) = mpsc::channel(QUEUE);
    let app = Arc::new(App::new(
        observer.reader(),
        observer.metrics(),
        outside::alive(ping),
    ));
    app.protect(open.protection);
    observer
        .metrics()
        .listens_to(&Signal::ALL.map(Signal::name));
    let reader = observer.reader();
    let backend = Backend {
        status: Arc::new(move || reader.status()),
        crashes: {
            let history = history.clone();
            Arc::new(move |program| history.query(program))
        },
        logs: web::ask_logs(open.logs.clone()),
        events: observer.events(),
        commands,
    };
    let metrics = open.listener.map(|listener| (listener, Arc::clone(&app)));

    let (births, looked_up) = births::Births::new();
    let mut inbox = Inbox {
        signals: open.signals,
        commands: orders,
        notifications,
        heard: Vec::new(),
        deaf: false,
        probed: ready,
        looked_up,
        pings,
        falls: threads::falls(),
        alarm: Alarm::default(),
    };
    let config = start.loaded.config;
    let now = Instant::now();
    let recorded = found.running.into_iter().collect();
    let search = Search::new(installation, recorded, children.cgroups().left_overs());
    let recovery = recovery::Recovery::new(search, &config)
        .map_err(|error| refuse(1, "watch what an earlier daemon left", &error))?;
    // The last that can be refused at once: from here on it alone speaks to whoever started us.
    let herald = start.detached.then(Herald::start).transpose();
    let herald = herald.map_err(|error| refuse(1, "start a thread for reports", &error))?;
    let mut core = Core {
        mode: mode::Mode::Recovering(Box::new(recovery)),
        fleet: Fleet::default(),
        ending: false,
        maimed: false,
        out: Outbox::new(),
        put_off: Outbox::new(),
        untold: VecDeque::new(),
        slots: BTreeMap::new(),
        changed: BTreeSet::new(),
        children,
        turns: observer.metrics().turns(),
        observer,
        app: Arc::clone(&app),
        logs: open.logs,
        journal: journal.clone(),
        health: health::Health::new(probed.clone(), asks_on.clone()),
        watchdogs: watchdog::Watchdogs::new(probed.clone()),
        voices: voices::Voices::new(nix::unistd::geteuid().as_raw()),
        crashes: crash_records::CrashRecords::new(history, journal.clone(), probed.clone()),
        readiness: readiness::Readiness::new(
            inbox.notifications.address().to_owned(),
            probed,
            asks_on.clone(),
        ),
        births,
        commands: commands::Commands::default(),
        orders: orders::Orders::default(),
        reloads: reload::Reloads::new(start.sources, config.file.as_deref()),
        start_up: progress::StartUp::new(herald),
        ends: outcomes::Ends::default(),
        watchdog_due: systemd.watchdog_interval().map(|within| now + within),
        statistics_due: config.daemon.stats_interval.map(|every| now + every),
        systemd,
        foreground: open.foreground,
        status_line: String::new(),
        inherited: environment::Inherited::from_env(),
        config,
    };
    core.populate();
    core.publish();
    let last = last_status::LastStatus::new(&core.config.daemon.state_dir);
    asks_on.spawn(last.clone().keep(core.observer.reader()));
    let web = web.serve(metrics, open.control, backend);
    let outcome = match core.run(&mut inbox).await {
        Ok(outcome) => outcome,
        Err(refusal) => {
            if let Some(herald) = core.start_up.take_herald() {
                herald.report(refusal.progress());
                herald.finish(LAST_WORDS);
            }
            web.end();
            return Err(refusal);
        }
    };
    let code = match outcome {
        Outcome::Stopped | Outcome::Completed => u8::from(core.maimed),
        Outcome::Failed | Outcome::Unkillable => 1,
    };
    core.observer.tell(&DaemonEvent::Ended { code });
    core.crashes.are_noted(LAST_WORDS).await;
    if let Some(herald) = core.start_up.take_herald() {
        herald.finish(LAST_WORDS);
    }
    core.orders.everything_is_gone();
    web.end();
    let status = core.observer.reader().outline();
    let why = core.observer.why_it_ends(outcome, &status);
    last.end(status, (code, why), LAST_WORDS);
    journal.close(LAST_WORDS);
    Ok(code)
}

fn observe(
    start: &Start,
    usage: Sampler,
    (scraping, service): (bool, bool),
) -> Result<Observer, Refusal> {
    let config = &start.loaded.config;
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("ETERNAL_REVISION")
            .unwrap_or_default()
            .to_owned(),
        rustc: option_env!("ETERNAL_RUSTC").unwrap_or_default().to_owned(),
        arguments: start.arguments.clone(),
        directory: start.sources.directory.display().to_string(),
        config_file: config.file.as_ref().map(|file| file.display().to_string()),
        metrics_address: config
            .metrics
            .listen
            .as_ref()
            .filter(|_| scraping)
            .map(outside::address),
        service,
        unit: service.then(session::service_unit).flatten(),
        since: Instant::now(),
        started_at: SystemTime::now(),
    };
    let setup = Setup {
        identity,
        usage,
        own_usage: outside::own_sampler(),
    };
    Observer::new(setup).map_err(|error| refuse(1, "set up the metrics", &error))
}

impl Core {
    /// Adds every configured replica.
    fn populate(&mut self) {
        for program in self.config.programs.clone() {
            let program = Arc::new(program);
            for replica in 0..program.instances {
                let slot = Slot {
                    program: Arc::clone(&program),
                    replica,
                };
                // One that cannot be opened is a failed start of its program, not of all.
                let log = self.logs.later(slot.log_source());
                self.adopt(slot, log);
            }
        }
        // Whoever scrapes before anything is started finds every series, at zero.
        self.observer.publish([]);
    }

    fn start_all(&mut self) {
        self.observer.tell(&DaemonEvent::Started {
            programs: self.slots.len(),
        });
        let slots = self.slots.iter();
        let starting: Vec<_> = slots.filter(|(_, slot)| slot.program.autostart).collect();
        for (id, slot) in &starting {
            self.start_up.expect(**id, slot);
        }
        let starting: Vec<_> = starting.into_iter().map(|(id, _)| *id).collect();
        for id in starting {
            self.request(Request::Start(id));
        }
    }
}

fn pid_file_refusal(error: &PidFileError) -> Refusal {
    match error {
        PidFileError::Held { .. } | PidFileError::HeldByNewborn { .. } => refuse_plainly(1, error),
        PidFileError::NotAFile { .. }
        | PidFileError::Contested { .. }
        | PidFileError::System { .. } => refuse_plainly(2, error),
    }
}

/// An error that says itself what could not be done.
fn refuse_plainly(code: u8, error: &dyn Error) -> Refusal {
    Refusal {
        message: text::with_causes(error),
        code,
    }
}

fn refuse(code: u8, operation: &str, error: &(impl Display + ?Sized)) -> Refusal {
    Refusal {
        message: format!("cannot {operation}: {error}"),
        code,
    }
}
