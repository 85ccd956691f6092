//! The catalogue of `/metrics`: read off the exposition of an example in which everything there can
//! be is there, so that it cannot say anything else than the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::resources::Usage;
use super::{About, HealthTally, Identity, Observer, Setup, StreamCounts};
use crate::supervision::{Event, Exit, ExitReason, Id, Run, State, View, WaitStatus};

/// A family of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels, without the `le` of histograms.
    pub labels: BTreeSet<String>,
    /// What it means, in a sentence.
    pub help: String,
}

/// Returns every family that `/metrics` can have, by name.
///
/// # Errors
///
/// When the example cannot be made or encoded, which is a mistake in the metrics themselves.
pub fn catalogue() -> io::Result<BTreeMap<String, Described>> {
    let mut observer = example().map_err(io::Error::other)?;
    // One ended by a code and one by a signal, waiting to be started; one that runs.
    let ends = [
        WaitStatus::Exited { code: 1 },
        WaitStatus::Signaled {
            signal: 9,
            core_dumped: false,
            oom: false,
        },
    ];
    for (id, status) in (0..).map(Id).zip(ends) {
        observer.add(id, about());
        observer.record(id, &Event::Exited(exit(status)));
        observer.publish([(id, view(State::Backoff))]);
    }
    let started = Event::Started {
        run: Run(1),
        pid: 1,
        cause: None,
    };
    observer.add(Id(2), about());
    observer.record(Id(2), &started);
    observer.publish([(Id(2), view(State::Running))]);
    let metrics = observer.metrics();
    metrics.http("metrics", 200, "GET", Duration::ZERO);
    metrics.listens_to(&["SIGTERM"]);
    let text = observer.reader().exposition(false)?;
    Ok(read_off(&String::from_utf8_lossy(&text)))
}

/// Returns the families of an exposition, by name. Label values may hold no comma.
#[must_use]
pub fn read_off(text: &str) -> BTreeMap<String, Described> {
    let mut families: BTreeMap<String, Described> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some((of, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            name = of;
            families.entry(of.to_owned()).or_default().help = help.to_owned();
        } else if let Some((of, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            name = of;
            families.entry(of.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels
                .split(',')
                .filter_map(|l| Some(l.split_once("=\"")?.0));
            let family = families.entry(name.to_owned()).or_default();
            let names = names.filter(|label| *label != "le");
            family.labels.extend(names.map(str::to_owned));
        }
    }
    families
}

fn example() -> Result<Observer, metrics_exporter_prometheus::BuildError> {
    let usage = Usage {
        processes: 1,
        max_fds: 1,
        oom_kills: Some(0),
        ..Usage::default()
    };
    let identity = Identity {
        version: String::new(),
        revision: String::new(),
        rustc: String::new(),
        arguments: Vec::new(),
        directory: String::new(),
        config_file: None,
        metrics_address: None,
        service: false,
        unit: None,
        since: Instant::now(),
        started_at: SystemTime::now(),
    };
    Observer::new(Setup {
        identity,
        usage: Arc::new(move |wanted| vec![usage; wanted.len()]),
        own_usage: Arc::new(move || Some(usage)),
    })
}

fn about() -> About {
    About {
        name: "example".to_owned(),
        replica: 0,
        display_name: "example".to_owned(),
        command: vec!["example".to_owned()],
        restart_policy: "always",
        user: String::new(),
        config_hash: String::new(),
        autostart: true,
        crash_budget: 1,
        crash_window: Duration::ZERO,
        metrics_address: None,
        log_counters: Arc::new(|| [StreamCounts::default(); 2]),
        health: Some(Arc::new(HealthTally::new("tcp"))),
    }
}

fn exit(status: WaitStatus) -> Exit {
    Exit {
        run: Run(1),
        pid: 1,
        reason: ExitReason::ExitCode,
        status,
        at: Instant::now(),
        ran: Duration::ZERO,
        was_ready: true,
    }
}

fn view(state: State) -> View {
    let now = Instant::now();
    View {
        state,
        desired: true,
        ready: false,
        run: (state == State::Running).then_some((Run(1), 1, now)),
        ran: Duration::ZERO,
        crashes: Vec::new(),
        deadline: Some(now),
        ready_at: None,
        failed_starts: 0,
        backoff: None,
        why: "an example",
        waits_for: None,
    }
}
