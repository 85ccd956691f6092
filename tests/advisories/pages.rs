//! What a browser gets: nothing that runs, nothing that another site may show, keep or read, and
//! nothing that changes anything.

use std::fmt::Write as _;
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use base64::Engine as _;

use crate::world::{DEADLINE, World, eventually};
use crate::{address, exchange};

const PORT: u16 = 9000;

/// Elements of the status page of ours. Whatever else is on it came from a name.
const OURS: &[&str] = &[
    "a", "b", "body", "br", "h1", "head", "html", "meta", "p", "small", "span", "style", "table",
    "tbody", "td", "th", "thead", "title", "tr",
];

/// Prints every element and every attribute that a parser finds.
const PARSER: &str = r#"
import html.parser, sys
class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
        print(tag, *(name for name, _ in attributes))
    def handle_comment(self, data): print("comment")
    def handle_pi(self, data): print("instruction")
Reader().feed(sys.stdin.read())
"#;

fn listening(at: &str, rest: &str) -> World {
    World::new(&format!("[metrics]\nlisten = \"{at}:{PORT}\"\n{rest}"))
}

fn ask(at: &str, request: &[u8]) -> Option<(String, String)> {
    let stream = TcpStream::connect((at, PORT)).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    exchange(stream, request)
}

fn get(at: &str, path: &str, host: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    ask(at, request.as_bytes()).expect("an answer")
}

fn elements(page: &str) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("page.html");
    std::fs::write(&file, page).expect("written");
    let parsed = Command::new("python3")
        .args(["-c", PARSER])
        .stdin(std::fs::File::open(&file).expect("the page"))
        .output()
        .expect("python3 parses");
    assert!(parsed.status.success(), "{parsed:?}");
    let text = String::from_utf8_lossy(&parsed.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn names_and_messages_with_markup_become_no_element_of_the_page() {
    let at = address();
    let world = listening(
        &at,
        "[defaults]\nready = 'immediately'\nrestart_delay = '10ms'\ncrash_threshold = 1\n\
         [programs.a]\ncommand = ['./<script>alert(1)<i>']\n\
         [programs.b]\ncommand = ['sleep', '1000']\nworking_directory = '<img src=x onerror=alert(1)>'\n\
         [programs.c]\ncommand = ['sh', '-c', 'echo \"<script>\" >&2; exit 3']\n\
         [programs.d]\ncommand = ['sleep', '1000']\nuser = '<iframe>&lt;x&#60;svg onload=x>'\n\
         [programs.e]\ncommand = ['sleep', '1000']\n",
    );
    let _daemon = world.run();
    for failed in ["a", "b", "c", "d"] {
        world.is(failed, "failed");
    }
    let (_, page) = get(&at, "/", "localhost");
    assert!(page.contains("&lt;img src=x onerror"), "{page}");
    let found = elements(&page);
    assert!(found.len() > 50, "{found:?}");
    for element in found {
        let mut words = element.split(' ');
        let tag = words.next().unwrap_or_default();
        assert!(OURS.contains(&tag), "{element}: {page}");
        assert!(words.all(|name| !name.starts_with("on")), "{element}");
    }
}

#[test]
fn every_answer_tells_a_browser_to_run_frame_keep_and_pass_on_nothing() {
    let at = address();
    let world = listening(&at, "[programs.e]\ncommand = ['sleep', '1000']\n");
    let _daemon = world.run();
    for (path, host) in [
        ("/", "localhost"),
        ("/", "evil.example"),
        ("/metrics", "localhost"),
        ("/sd", "localhost"),
        ("/-/ready", "localhost"),
        ("/-/healthy", "localhost"),
        ("/none", "localhost"),
    ] {
        let (head, _) = get(&at, path, host);
        for header in [
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: {header}: {head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
    }
}

#[test]
fn the_style_of_the_page_is_the_one_that_its_policy_allows() {
    let at = address();
    let world = listening(&at, "[programs.e]\ncommand = ['sleep', '1000']\n");
    let _daemon = world.run();
    let request = b"GET / HTTP/1.0\r\n\r\n";
    let mut stream = TcpStream::connect((at.as_str(), PORT)).expect("a connection");
    let mut answer = String::new();
    std::io::Write::write_all(&mut stream, request).expect("sent");
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    let (_, from) = answer.split_once("<style>").expect("a style");
    let (style, _) = from.split_once("</style>").expect("its end");
    world.write("style", style);
    let sum = Command::new("sha256sum")
        .arg(world.path("style"))
        .output()
        .expect("coreutils");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    let bytes: Vec<u8> = (0..32)
        .map(|n| u8::from_str_radix(&sum[2 * n..2 * n + 2], 16).expect("hexadecimal"))
        .collect();
    let hash = base64::engine::general_purpose::STANDARD.encode(bytes);
    assert!(
        answer.contains(&format!("style-src 'sha256-{hash}'")),
        "it would be {hash}"
    );
    assert!(!answer.contains("style="), "no style beside it");
}

#[test]
fn a_page_that_calls_this_machine_by_another_name_does_not_get_the_status_page() {
    let at = address();
    let world = listening(&at, "[programs.secret]\ncommand = ['sleep', '1000']\n");
    let _daemon = world.run();
    for host in [
        "localhost",
        &format!("{at}:{PORT}"),
        "[::1]:9000",
        "127.0.0.1",
    ] {
        let (head, page) = get(&at, "/", host);
        assert!(head.starts_with("http/1.1 200"), "{host}: {head}");
        assert!(page.contains("secret"), "{page}");
    }
    for host in [
        "evil.example",
        "evil.example:9000",
        "127.0.0.1.evil.example",
        "",
    ] {
        let (head, page) = get(&at, "/", host);
        assert!(head.starts_with("http/1.1 421"), "{host}: {head}");
        assert!(
            page.contains("localhost") && !page.contains("secret"),
            "{page}"
        );
    }
    // What a scraper reads names programs and no more, and scrapers have names of all kinds.
    let (head, _) = get(&at, "/metrics", "prometheus.internal");
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

/// What is there to change: who runs, since when, how often it was started.
fn state(world: &World) -> String {
    world.until("everything runs", |status| {
        let mut text = String::new();
        for program in &status.programs {
            let (name, pid, starts) = (&program.display_name, program.pid?, program.starts);
            let _ = write!(text, "{name} {pid} {starts} {};", program.desired_running);
        }
        Some(format!("{text} {:?}", status.daemon.last_reload.is_some()))
    })
}

/// A request of a seed: now and then hardly one at all.
fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    const METHODS: &[&str] = &[
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "STOP",
        "get",
        "P\u{f6}ST",
    ];
    const PATHS: &[&str] = &[
        "/",
        "/metrics",
        "/sd",
        "/-/ready",
        "/-/healthy",
        "/-/quit",
        "/-/reload",
        "/v1/status",
        "/v1/shutdown",
        "/v1/reload",
        "/v1/programs/e/stop",
        "/v1/programs/e/restart",
        "/RPC2",
        "//",
        "/../../etc/passwd",
        "*",
        "http://x/v1/shutdown",
        "/metrics?x=1",
        "/%2e%2e/%00",
        "",
    ];
    const HEADERS: &[&str] = &[
        "x: y",
        "content-length: 5",
        "transfer-encoding: chunked",
        "upgrade: h2c",
        "expect: 100-continue",
        "x-http-method-override: DELETE",
        "authorization: Basic AAAA",
        "content-length: -1",
        ": :",
        "host: y",
    ];
    let one = |random: &mut fastrand::Rng, of: &[&str]| of[random.usize(..of.len())].to_owned();
    let mut text = format!(
        "{} {} HTTP/1.1\r\nhost: x\r\n",
        one(random, METHODS),
        one(random, PATHS)
    );
    for _ in 0..random.usize(..4) {
        let _ = write!(text, "{}\r\n", one(random, HEADERS));
    }
    text.push_str("connection: close\r\n\r\nhello");
    let mut bytes = text.into_bytes();
    if random.u8(..) < 64 {
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

/// The series of the pages, without their values.
fn series(at: &str) -> Vec<String> {
    let (_, text) = get(at, "/metrics", "x");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("eternal_http_") || line.contains("handler="));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[test]
fn nothing_that_can_be_sent_over_tcp_changes_anything_or_makes_a_series() {
    let at = address();
    let world = listening(
        &at,
        "[programs.e]\ncommand = ['sleep', '1000']\n[programs.f]\ncommand = ['sleep', '1000']\n",
    );
    let _daemon = world.run();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let before = state(&world);
    let mut answered = 0;
    for _ in 0..3_000 {
        let asked = request(&mut random);
        let stream = TcpStream::connect((at.as_str(), PORT)).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        // No more than this comes, whatever the request promises.
        std::io::Write::write_all(&mut &stream, &asked).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let Some((head, _)) = exchange(&stream, &[]) else {
            continue;
        };
        answered += 1;
        let changing = [&b"POST"[..], b"PUT", b"DELETE", b"PATCH"];
        if changing.iter().any(|method| asked.starts_with(method)) {
            assert!(
                !head.starts_with("http/1.1 2"),
                "{head}: {}",
                String::from_utf8_lossy(&asked)
            );
        }
    }
    assert!(answered > 1_500, "{answered}");
    assert_eq!(state(&world), before, "seed {seed}");
    let once = series(&at);
    assert!(!once.is_empty() && once.len() < 600, "{}", once.len());
    for line in once {
        assert!(!line.contains("STOP") && !line.contains("RPC2"), "{line}");
    }
    eventually("it still answers", || {
        Some(get(&at, "/-/healthy", "x")).filter(|(head, _)| head.contains("200"))
    });
}
