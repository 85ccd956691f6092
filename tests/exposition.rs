//! What a scraper sees: the exposition and the HTTP server, over a real socket.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use eternal::observe::{
    About, App, Identity, Listener, Observer, Setup, StreamCounts, Usage, serve,
};
use eternal::supervision::{
    Cause, Event, Exit, ExitReason, FailureKind, Id, Rule, Run, SpawnFailure, State, View,
    WaitStatus,
};

fn observer() -> Observer {
    let identity = Identity {
        version: "0.0.0".to_owned(),
        revision: "abc".to_owned(),
        rustc: "1".to_owned(),
        arguments: vec!["run".to_owned()],
        directory: "/".to_owned(),
        config_file: None,
        metrics_address: None,
        service: false,
        unit: None,
        since: Instant::now(),
        started_at: SystemTime::now(),
    };
    let usage = Usage {
        cpu_user_seconds: 1.5,
        resident_bytes: 4096,
        oom_kills: Some(0),
        max_fds: 1024,
        processes: 1,
        ..Usage::default()
    };
    Observer::new(Setup {
        identity,
        usage: Arc::new(move |wanted| wanted.iter().map(|_| usage).collect()),
        own_usage: Arc::new(move || Some(usage)),
    })
    .expect("the exporter takes its buckets")
}

fn about(name: &str) -> About {
    About {
        name: name.to_owned(),
        replica: 0,
        display_name: name.to_owned(),
        command: vec![format!("/srv/{name}")],
        restart_policy: "always",
        user: String::new(),
        config_hash: "c0ffee".to_owned(),
        autostart: true,
        crash_budget: 5,
        crash_window: Duration::from_secs(60),
        metrics_address: Some("127.0.0.1:3000".to_owned()),
        health: None,
        log_counters: Arc::new(|| {
            [
                StreamCounts {
                    lines: 3,
                    bytes: 30,
                    dropped: 0,
                },
                StreamCounts::default(),
            ]
        }),
    }
}

fn view(state: State) -> View {
    View {
        state,
        desired: true,
        ready: state == State::Running,
        run: (state == State::Running).then(|| (Run(1), 4242, Instant::now())),
        ran: Duration::ZERO,
        crashes: Vec::new(),
        deadline: None,
        ready_at: None,
        failed_starts: 0,
        backoff: None,
        why: "testing",
        waits_for: None,
    }
}

fn exit(reason: ExitReason, code: i32) -> Event {
    Event::Exited(Exit {
        run: Run(1),
        pid: 4242,
        reason,
        status: WaitStatus::Exited { code },
        at: Instant::now(),
        ran: Duration::from_millis(12_400),
        was_ready: true,
    })
}

fn scrape(observer: &Observer) -> String {
    let text = observer
        .reader()
        .exposition(false)
        .expect("the metrics can be encoded");
    String::from_utf8(text).expect("the exposition is UTF-8")
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|l| l.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Feeds the text to `promtool check metrics`, and returns all that it has to say.
fn promtool(text: &str) -> Option<String> {
    let install = [
        "-c",
        "command -v promtool || apt-get install -y --no-install-recommends prometheus",
    ];
    let there = Command::new("sh")
        .args(install)
        .output()
        .is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("skipped: neither promtool nor apt-get can be had");
        return None;
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child
        .stdin
        .take()
        .expect("its stdin is a pipe")
        .write_all(text.as_bytes())
        .expect("it reads");
    let out = child.wait_with_output().expect("promtool ends");
    Some(format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    ))
}

#[test]
fn promtool_has_nothing_to_say_whatever_the_programs_are_called() {
    for count in [0_u32, 1, 2, 100] {
        let mut observer = observer();
        for n in 0..count {
            let name = match n {
                0 => "we\"b\\\n{}".to_owned(),
                1 => "a".repeat(64),
                _ => format!("p{n}.:@-é"),
            };
            observer.add(Id(n), about(&name));
            observer.record(
                Id(n),
                &Event::Started {
                    run: Run(1),
                    pid: 1,
                    cause: Some(Cause::Crash),
                },
            );
            observer.publish([(Id(n), view(State::Running))]);
        }
        observer.metrics().turns().woke(Duration::from_micros(70));
        let text = scrape(&observer);
        let types: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .filter_map(|l| l.split(' ').next())
            .collect();
        let mut sorted = types.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(types, sorted, "every family once, and in order");
        let helps = text.lines().filter(|l| l.starts_with("# HELP ")).count();
        assert_eq!(helps, types.len(), "every family has help");
        if let Some(said) = promtool(&text) {
            assert_eq!(said, "", "with {count} programs");
        }
    }
}

#[test]
fn no_series_is_there_twice() {
    let mut observer = observer();
    observer.add(Id(0), about("a"));
    observer.add(
        Id(1),
        About {
            replica: 1,
            ..about("a")
        },
    );
    observer.publish([(Id(0), view(State::Running)), (Id(1), view(State::Backoff))]);
    let text = scrape(&observer);
    let mut seen = HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').expect("a sample has a value").0;
        assert!(seen.insert(series.to_owned()), "{series} is there twice");
    }
}

#[test]
fn every_series_is_zero_at_the_first_scrape_and_gone_after_removal() {
    let mut observer = observer();
    observer.add(Id(70), about("web"));
    observer.publish([]);
    let text = scrape(&observer);
    let base = "program=\"web\",replica=\"0\"";
    for reason in ExitReason::ALL {
        let label = reason.label();
        for family in ["exits_total", "last_exit_reason"] {
            let series = format!("eternal_program_{family}{{{base},reason=\"{label}\"}}");
            assert_eq!(value(&text, &series), Some(0.0), "{series}");
        }
    }
    for cause in Cause::ALL {
        let series = format!(
            "eternal_program_restarts_total{{{base},cause=\"{}\"}}",
            cause.label()
        );
        assert_eq!(value(&text, &series), Some(0.0), "{series}");
    }
    for kind in FailureKind::ALL {
        let series = format!(
            "eternal_program_start_failures_total{{{base},reason=\"{}\"}}",
            kind.label()
        );
        assert_eq!(value(&text, &series), Some(0.0), "{series}");
    }
    let one: Vec<_> = State::ALL
        .iter()
        .filter(|s| {
            value(
                &text,
                &format!("eternal_program_state{{{base},state=\"{}\"}}", s.label()),
            ) == Some(1.0)
        })
        .collect();
    assert_eq!(one, [&State::Stopped]);
    for family in [
        "uptime_seconds_total",
        "starts_total",
        "crashes_total",
        "gave_up_total",
        "stop_escalations_total",
        "read_bytes_total",
    ] {
        assert_eq!(
            value(&text, &format!("eternal_program_{family}{{{base}}}")),
            Some(0.0),
            "{family}"
        );
    }
    assert!(
        !text.contains("last_exit_timestamp"),
        "nothing has ended yet"
    );
    observer.remove(Id(70));
    assert!(!scrape(&observer).contains("program=\"web\""));
}

#[test]
fn a_crash_is_counted_told_and_recorded_with_its_verdict() {
    let mut observer = observer();
    let mut events = observer.events().subscribe();
    observer.add(Id(0), about("web"));
    assert_eq!(
        observer.record(
            Id(0),
            &Event::Started {
                run: Run(1),
                pid: 4242,
                cause: None
            }
        ),
        None
    );
    assert_eq!(observer.record(Id(0), &exit(ExitReason::ExitCode, 3)), None);
    let backing_off = Event::BackingOff {
        delay: Duration::from_secs(2),
        cause: Cause::Crash,
        crashes_left: 4,
    };
    let crash = observer
        .record(Id(0), &backing_off)
        .expect("the verdict is known");
    assert_eq!(
        (crash.verdict.as_str(), crash.description.as_str()),
        ("restart in 2s", "exit code 3")
    );
    assert_eq!((crash.code, crash.pid), (Some(3), Some(4242)));
    let failure = SpawnFailure {
        kind: FailureKind::Exec,
        transient: false,
        message: "cannot execute /srv/web: no such file".to_owned(),
    };
    observer.record(
        Id(0),
        &Event::StartFailed {
            run: Run(2),
            cause: Some(Cause::Crash),
            failure,
        },
    );
    let gave_up = Event::GaveUp {
        rule: Rule::CrashLoop,
        limit: 5,
        retry: None,
    };
    let crash = observer
        .record(Id(0), &gave_up)
        .expect("the verdict is known");
    assert_eq!(
        crash.verdict,
        "gave up: crash loop: 5 crashes within 1m of run time"
    );
    assert_eq!(
        observer.record(
            Id(0),
            &Event::Failed {
                reason: "crash loop"
            }
        ),
        None,
        "told once"
    );
    observer.publish([(
        Id(0),
        View {
            crashes: vec![Duration::ZERO; 2],
            ..view(State::Failed)
        },
    )]);

    let status = &observer.reader().status().programs[0];
    assert_eq!((status.starts, status.restarts, status.crashes), (2, 1, 2));
    assert_eq!(
        status.why,
        "crash loop: 5 crashes within 1m of run time; last: cannot execute /srv/web: no such file"
    );
    assert_eq!(
        status.next.as_deref(),
        Some("`eternal start web` tries it again")
    );
    assert_eq!(status.crash_budget_remaining, 3);
    let text = scrape(&observer);
    let base = "program=\"web\",replica=\"0\"";
    for (series, expected) in [
        (format!("eternal_program_crashes_total{{{base}}}"), 2.0),
        (
            format!("eternal_program_exits_total{{{base},reason=\"exit_code\"}}"),
            1.0,
        ),
        (
            format!("eternal_program_exits_total{{{base},reason=\"spawn_error\"}}"),
            1.0,
        ),
        (
            format!("eternal_program_last_exit_reason{{{base},reason=\"spawn_error\"}}"),
            1.0,
        ),
        (format!("eternal_program_gave_up_total{{{base}}}"), 1.0),
        (
            format!("eternal_program_crash_budget_remaining{{{base}}}"),
            3.0,
        ),
        (
            format!("eternal_program_run_duration_seconds_bucket{{{base},le=\"30\"}}"),
            1.0,
        ),
        ("eternal_programs{state=\"failed\"}".to_owned(), 1.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series}");
    }
    let kinds: Vec<String> = std::iter::from_fn(|| events.try_recv().ok())
        .map(|e| e.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            "started",
            "exited",
            "backing_off",
            "start_failed",
            "gave_up",
            "failed"
        ]
    );
}

#[test]
fn restart_latency_leaves_the_delay_out_and_knows_only_restarts() {
    let mut observer = observer();
    observer.add(Id(0), about("web"));
    let count = |observer: &mut Observer| {
        observer.publish([]);
        value(
            &scrape(observer),
            "eternal_program_restart_latency_seconds_count{program=\"web\",replica=\"0\"}",
        )
    };
    let started = |cause| Event::Started {
        run: Run(2),
        pid: 1,
        cause,
    };
    let wait = |delay| Event::BackingOff {
        delay,
        cause: Cause::Crash,
        crashes_left: 4,
    };
    observer.record(Id(0), &started(None));
    assert_eq!(
        count(&mut observer),
        Some(0.0),
        "a first start is no restart"
    );
    observer.record(Id(0), &exit(ExitReason::ExitCode, 1));
    observer.record(Id(0), &wait(Duration::ZERO));
    observer.record(Id(0), &started(Some(Cause::Crash)));
    assert_eq!(count(&mut observer), Some(1.0));
    observer.record(Id(0), &exit(ExitReason::ExitCode, 1));
    observer.record(Id(0), &wait(Duration::from_secs(3600)));
    observer.record(Id(0), &started(Some(Cause::Operator)));
    assert_eq!(count(&mut observer), Some(1.0), "the delay was cut short");
}

#[test]
fn run_time_never_goes_back_even_if_a_run_was_seen_longer_than_it_was() {
    let mut observer = observer();
    observer.add(Id(0), about("web"));
    let hour = Duration::from_secs(3600);
    let began = Instant::now()
        .checked_sub(hour)
        .expect("the machine is up for an hour, or the clock starts high");
    observer.publish([(
        Id(0),
        View {
            run: Some((Run(1), 1, began)),
            ..view(State::Running)
        },
    )]);
    let series = "eternal_program_uptime_seconds_total{program=\"web\",replica=\"0\"}";
    let before = value(&scrape(&observer), series).expect("it is there");
    assert!(before >= 3600.0);
    let ran = hour.saturating_sub(Duration::from_millis(5));
    observer.publish([(
        Id(0),
        View {
            ran,
            ..view(State::Backoff)
        },
    )]);
    assert_eq!(value(&scrape(&observer), series), Some(before));
}

#[test]
fn crashes_older_than_the_window_of_run_time_no_longer_count() {
    let mut observer = observer();
    observer.add(Id(0), about("web"));
    let crashes = vec![
        Duration::from_secs(39),
        Duration::from_secs(40),
        Duration::from_secs(100),
    ];
    let view = View {
        ran: Duration::from_secs(100),
        crashes,
        ..view(State::Backoff)
    };
    observer.publish([(Id(0), view)]);
    assert_eq!(
        observer.reader().status().programs[0].crash_budget_remaining,
        3
    );
}

struct Served {
    address: SocketAddr,
    observer: Observer,
    app: Arc<App>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    done: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(programs: u32) -> Self {
        let alive: eternal::observe::Alive = Arc::new(|| Box::pin(async { true }));
        Self::with_loop(programs, alive)
    }

    fn with_loop(programs: u32, alive: eternal::observe::Alive) -> Self {
        let mut observer = observer();
        for n in 0..programs {
            observer.add(Id(n), about(&format!("p{n}")));
        }
        observer.publish((0..programs).map(|n| (Id(n), view(State::Running))));
        let app = Arc::new(App::new(observer.reader(), observer.metrics(), alive));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        listener
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&app);
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            let stopped = async { drop(stopped.await) };
            runtime
                .block_on(serve(Listener::Tcp(listener), shared, stopped))
                .expect("it serves");
        });
        Self {
            address,
            observer,
            app,
            stop: Some(stop),
            done: Some(done),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout can be set");
        stream
    }

    fn ask(&self, head: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect();
        let request = format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        let mut answer = Vec::new();
        // A refused request may be cut off by a reset after its answer.
        let _ = stream.read_to_end(&mut answer);
        let end = answer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map_or(answer.len(), |i| i + 4);
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        (head, answer[end..].to_vec())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(done) = self.done.take() {
            let _ = done.join();
        }
    }
}

#[test]
fn the_pages_answer_as_the_contract_says() {
    let mut served = Served::start(2);
    let (head, body) = served.ask("GET /metrics HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 200")
            && head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .expect("a length")
        .to_owned();
    assert_eq!(length, body.len().to_string());
    let (head, zipped) = served.ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: br;q=1, GZIP;q=0.5");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped[..])
        .read_to_string(&mut text)
        .expect("it is gzip");
    assert!(text.contains("eternal_program_up{program=\"p0\",replica=\"0\"} 1\n"));
    assert!(
        !served
            .ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip;q=0")
            .0
            .contains("content-encoding")
    );
    let (head, body) = served.ask("HEAD /metrics HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-length: ") && body.is_empty(),
        "{head}"
    );
    let (head, _) = served.ask("POST /metrics HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 405") && head.contains("allow: get, head"),
        "{head}"
    );
    assert!(
        served
            .ask("GET /nothing HTTP/1.1")
            .0
            .starts_with("http/1.1 404")
    );
    assert!(
        served
            .ask("GET /-/healthy HTTP/1.1")
            .0
            .starts_with("http/1.1 200")
    );
    assert!(
        served
            .ask("GET /-/ready HTTP/1.1")
            .0
            .starts_with("http/1.1 200")
    );
    served.observer.publish([(Id(1), view(State::Backoff))]);
    let (head, body) = served.ask("GET /-/ready HTTP/1.1");
    assert!(
        head.starts_with("http/1.1 503") && body == b"not ready: p1\n",
        "{head}"
    );
    let (_, body) = served.ask("GET /sd HTTP/1.1");
    let targets: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
    assert_eq!(targets[0]["targets"][0], "127.0.0.1:3000");
    served.observer.add(Id(2), about("<script>"));
    served.observer.publish([]);
    let (head, body) = served.ask("GET / HTTP/1.1");
    let page = String::from_utf8(body).expect("it is UTF-8");
    assert!(
        head.contains("text/html") && page.contains("&lt;script&gt;") && !page.contains("<script"),
        "{page}"
    );
    assert_eq!(
        *served.app.scrapes().borrow(),
        3,
        "GETs of /metrics that were answered"
    );
}

#[test]
fn nonsense_is_refused_and_the_server_goes_on() {
    let served = Served::start(1);
    for nonsense in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = served.connect();
        stream
            .write_all(nonsense.as_bytes())
            .expect("the server reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{nonsense:?}");
    }
    let huge = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(40_000));
    assert!(served.ask(&huge).0.starts_with("http/1.1 431"));
    let many = format!("GET /metrics HTTP/1.1{}", "\r\nX: y".repeat(80));
    assert!(served.ask(&many).0.starts_with("http/1.1 431"));
    assert!(
        served
            .ask("GET /metrics HTTP/1.1")
            .0
            .starts_with("http/1.1 200")
    );
}

#[test]
fn a_reader_that_never_reads_is_cut_off_and_holds_up_nobody() {
    let served = Served::start(500);
    let mut slow = served.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("the server reads");
    let began = Instant::now();
    assert!(
        served
            .ask("GET /-/healthy HTTP/1.1")
            .0
            .starts_with("http/1.1 200")
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "others are served meanwhile"
    );
    let (tell, told) = mpsc::channel();
    let watcher = slow.try_clone().expect("a socket can be cloned");
    std::thread::spawn(move || {
        // Written bytes are refused once the server has closed its end.
        let mut watcher = watcher;
        while watcher.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_millis(200));
        }
        let _ = tell.send(());
    });
    told.recv_timeout(Duration::from_secs(25))
        .expect("the connection is closed after its deadline");
}

#[test]
fn a_silent_connection_is_closed() {
    let served = Served::start(1);
    let mut stream = served.connect();
    stream.write_all(b"GET /met").expect("the server reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn the_silent_however_many_keep_no_scraper_out() {
    let served = Served::start(1);
    let mut kept = served.connect();
    let mut again = move || {
        kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut start = [0; 15];
        kept.read_exact(&mut start)?;
        // The rest is not waited for: another request may follow at once.
        Ok::<_, std::io::Error>(start)
    };
    assert_eq!(&again().expect("it is served"), b"HTTP/1.1 200 OK");
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
    silent[150].write_all(b"GET /met").expect("it is taken");
    for _ in 0..5 {
        let (head, _) = served.ask("GET /metrics HTTP/1.1");
        assert!(head.starts_with("http/1.1 200"), "{head:?}");
    }
    again().expect("one that is kept alive was not turned out for them");
    let took = began.elapsed();
    // They would be cut off after five seconds anyway.
    assert!(took < Duration::from_secs(4), "{took:?}");
    let mut end = Vec::new();
    let first = silent[0].read_to_end(&mut end);
    assert!(first.is_err() || end.is_empty(), "nothing was said to it");
    assert!(began.elapsed() < Duration::from_secs(4), "it made room");
}

#[test]
fn a_full_house_says_so_at_once() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (arrives, arrived) = mpsc::channel();
    let closed = Arc::clone(&gate);
    let served = Served::with_loop(
        1,
        Arc::new(move || {
            let _ = arrives.send(());
            let gate = Arc::clone(&closed);
            Box::pin(async move { gate.acquire().await.is_ok() })
        }),
    );
    let mut busy: Vec<TcpStream> = (0..64).map(|_| served.connect()).collect();
    for stream in &mut busy {
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("the server reads");
    }
    for _ in &busy {
        let patience = Duration::from_secs(20);
        arrived.recv_timeout(patience).expect("all are asking");
    }
    let refused = served.ask("GET /metrics HTTP/1.1");
    assert!(refused.0.starts_with("http/1.1 503"), "{}", refused.0);
    assert!(refused.0.contains("retry-after: 1\r\n"), "{}", refused.0);
    assert_eq!(
        refused.1,
        b"busy: 64 other connections are being answered\n"
    );
    gate.add_permits(1);
    for stream in &mut busy {
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("nobody was cut off");
        assert_eq!(&start, b"HTTP/1.1 200", "they are answered all the same");
    }
    let (head, body) = served.ask("GET /metrics HTTP/1.1");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let counted = "eternal_http_requests_total{handler=\"metrics\",code=\"503\",method=\"GET\"}";
    assert!(String::from_utf8_lossy(&body).contains(counted));
}

#[test]
fn two_scrapes_at_once_agree() {
    let mut observer = observer();
    for n in 0..50 {
        observer.add(Id(n), about(&format!("p{n}")));
    }
    observer.publish([]);
    let program_lines = |reader: eternal::observe::Reader| {
        let text = reader
            .exposition(false)
            .expect("the metrics can be encoded");
        let text = String::from_utf8(text).expect("the exposition is UTF-8");
        text.lines()
            .filter(|l| l.starts_with("eternal_program"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (one, two) = (observer.reader(), observer.reader());
    let first = std::thread::spawn(move || program_lines(one));
    let second = program_lines(two);
    assert_eq!(first.join().expect("no panic"), second);
}

/// `cargo test --release --test exposition -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_thousand_programs_are_scraped_in_a_tenth_of_a_second() {
    let mut observer = observer();
    for n in 0..1000 {
        observer.add(Id(n), about(&format!("program-{n}")));
    }
    observer.publish((0..1000).map(|n| (Id(n), view(State::Running))));
    let reader = observer.reader();
    for gzip in [false, true] {
        let mut took: Vec<Duration> = Vec::new();
        let mut size = 0;
        for _ in 0..10 {
            let began = Instant::now();
            size = reader
                .exposition(gzip)
                .expect("the metrics can be encoded")
                .len();
            took.push(began.elapsed());
        }
        took.sort_unstable();
        println!(
            "gzip {gzip}: {size} bytes, fastest {:?}, median {:?}, slowest {:?}",
            took[0], took[5], took[9]
        );
    }
    let collector = eternal::observe::ProgramCollector::new(observer.reader());
    let collector = collector.expect("the names are valid");
    let began = Instant::now();
    let model = prometheus::core::Collector::collect(&collector);
    let text = prometheus::TextEncoder::new().encode_to_string(&model);
    let size = text.expect("the model is sound").len();
    println!("the model: {size} bytes, {:?}", began.elapsed());
    drop(model);
    let began = Instant::now();
    for n in 0..1000 {
        observer.publish([(Id(n), view(State::Running))]);
    }
    println!("publish: {:?} each", began.elapsed() / 1000);
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!(
        "{}",
        peak.lines()
            .find(|l| l.starts_with("VmHWM"))
            .unwrap_or_default()
    );
}
