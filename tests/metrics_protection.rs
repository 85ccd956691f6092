//! TLS and passwords on the metrics listener: the real daemon, real certificates, real sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// More than a loaded machine needs for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// An authority that people may trust.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes a certificate for 127.0.0.1 and its key.
    fn issue(&self, directory: &Path) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::write(directory.join("tls.crt"), certificate.pem()).expect("the file is written");
        fs::write(directory.join("tls.key"), key.serialize_pem()).expect("the file is written");
    }

    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn accounts(directory: &Path, users: &[(&str, &str, u32)]) {
    let lines = users.iter().map(|(user, password, cost)| {
        let hash = bcrypt::hash(password, *cost).expect("a cost that bcrypt knows");
        format!("{user}: {hash}\n")
    });
    let text: String = lines.collect();
    fs::write(directory.join("accounts"), text).expect("the file is written");
}

const PROTECTED: &str = "tls_cert = 'tls.crt'\ntls_key = 'tls.key'\nbasic_auth_file = 'accounts'\n";

fn write_config(directory: &Path, address: SocketAddr, protection: &str) {
    let text = format!(
        "[metrics]\nlisten = '{address}'\n{protection}\n\
         [programs.a]\ncommand = ['sh', '-c', 'echo >started; exec sleep 1000']\n"
    );
    fs::write(directory.join("eternal.toml"), text).expect("the file is written");
}

fn eternal(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eternal"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_remove("ETERNAL_CONFIG")
        .stdin(Stdio::null());
    command
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

struct Daemon {
    directory: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
}

impl Daemon {
    fn start(directory: tempfile::TempDir, protection: &str) -> Self {
        let address = free_address();
        write_config(directory.path(), address, protection);
        let child = eternal(directory.path(), &["run"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let daemon = Self {
            directory,
            address,
            child,
        };
        let began = Instant::now();
        while !daemon.directory.path().join("started").exists() {
            assert!(began.elapsed() < PATIENCE, "the program is started");
            std::thread::yield_now();
        }
        daemon
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn reload(&self) -> Output {
        eternal(self.path(), &["reload"])
            .output()
            .expect("the command runs")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = eternal(self.path(), &["stop"]).output();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    stream
}

/// Returns the whole answer, or why there is none.
fn ask(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    path: &str,
    credentials: Option<(&str, &str)>,
) -> std::io::Result<String> {
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let connection = ClientConnection::new(Arc::clone(tls), name).expect("a client");
    let mut stream = StreamOwned::new(connection, connect(address));
    let authorization = credentials.map_or_else(String::new, |(user, password)| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Authorization: Basic {text}\r\n")
    });
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n"
    )?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).expect("a status line")
}

fn protected(users: &[(&str, &str, u32)]) -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    authority.issue(directory.path());
    accounts(directory.path(), users);
    (directory, authority)
}

#[test]
fn every_page_asks_for_the_right_password() {
    let (directory, authority) = protected(&[("prom", "secret", 4)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let tls = authority.trusted();
    for path in ["/metrics", "/-/healthy", "/-/ready", "/sd", "/", "/none"] {
        let without = ask(daemon.address, &tls, path, None).expect("an answer");
        assert_eq!(status(&without), "401", "{path}");
        let asks = without.contains("www-authenticate: Basic realm=\"eternal\"");
        assert!(asks, "{without}");
        let right = Some(("prom", "secret"));
        let with = ask(daemon.address, &tls, path, right).expect("an answer");
        assert_ne!(status(&with), "401", "{path}");
    }
    for wrong in [("prom", "Secret"), ("ann", "secret"), ("", "")] {
        let answer = ask(daemon.address, &tls, "/metrics", Some(wrong)).expect("an answer");
        assert_eq!(status(&answer), "401", "{wrong:?}");
    }
    let body = ask(daemon.address, &tls, "/metrics", Some(("prom", "secret"))).expect("an answer");
    assert!(body.contains("code=\"401\""), "refusals are counted");
}

#[test]
fn a_guesser_has_to_wait_and_who_is_known_has_not() {
    let (directory, authority) = protected(&[("prom", "secret", 4)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let tls = authority.trusted();
    let right = || ask(daemon.address, &tls, "/metrics", Some(("prom", "secret")));
    assert_eq!(status(&right().expect("an answer")), "200");
    let guesses: Vec<String> = (0..20)
        .map(|n| {
            let guess = n.to_string();
            ask(daemon.address, &tls, "/metrics", Some(("prom", &guess))).expect("an answer")
        })
        .collect();
    let refused = guesses.iter().find(|answer| status(answer) == "429");
    let refused = refused.expect("twenty guesses are too many");
    assert!(refused.contains("retry-after: "), "{refused}");
    assert_eq!(status(&right().expect("an answer")), "200");
}

#[test]
fn a_slow_check_holds_nobody_else_up() {
    // In a debug build cost 12 takes seconds, in a release a good part of one.
    let (directory, authority) = protected(&[("prom", "secret", 4), ("slow", "other", 12)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let (address, tls) = (daemon.address, authority.trusted());
    let known = Some(("prom", "secret"));
    ask(address, &tls, "/metrics", known).expect("an answer");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let answer = ask(address, &tls, "/metrics", Some(("slow", "wrong")));
            (
                status(&answer.expect("an answer")).to_owned(),
                Instant::now(),
            )
        });
        let mut last = Instant::now();
        for _ in 0..5 {
            ask(address, &tls, "/-/healthy", known).expect("an answer");
            last = Instant::now();
        }
        let (code, answered) = slow.join().expect("it is answered");
        assert_eq!(code, "401");
        assert!(last < answered, "the others did not wait for it");
    });
}

#[test]
fn who_does_not_trust_the_authority_is_not_served_and_the_next_is() {
    let (directory, authority) = protected(&[("prom", "secret", 4)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let stranger = Authority::new().trusted();
    let error = ask(daemon.address, &stranger, "/metrics", None).expect_err("it is not trusted");
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
    let mut plain = connect(daemon.address);
    write!(plain, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(
        !answer.starts_with(b"HTTP"),
        "nothing goes out in clear text"
    );
    let tls = authority.trusted();
    let answer = ask(daemon.address, &tls, "/metrics", Some(("prom", "secret")));
    assert_eq!(status(&answer.expect("an answer")), "200");
}

#[test]
fn who_never_shakes_hands_is_cut_off_and_holds_nobody_up() {
    let (directory, authority) = protected(&[("prom", "secret", 4)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect(daemon.address)).collect();
    let answer = ask(
        daemon.address,
        &authority.trusted(),
        "/metrics",
        Some(("prom", "secret")),
    );
    assert_eq!(status(&answer.expect("an answer")), "200");
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "{took:?}: after five seconds they are cut off anyway"
    );
    for stream in &mut silent {
        let ended = stream.read(&mut [0; 16]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let timed_out = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "the server ended it");
    }
}

#[test]
fn a_reload_takes_new_files_and_refuses_wrong_ones_changing_nothing() {
    let (directory, authority) = protected(&[("prom", "secret", 4)]);
    let daemon = Daemon::start(directory, PROTECTED);
    let old = authority.trusted();
    let code = |tls: &Arc<ClientConfig>, password: &str| {
        ask(daemon.address, tls, "/metrics", Some(("prom", password)))
            .map(|answer| status(&answer).to_owned())
    };
    assert_eq!(code(&old, "secret").expect("an answer"), "200");

    let key = fs::read(daemon.path().join("tls.key")).expect("the key");
    fs::write(daemon.path().join("tls.key"), "nonsense").expect("the file is written");
    accounts(daemon.path(), &[("prom", "changed", 4)]);
    let refused = daemon.reload();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{message}");
    assert!(message.contains("tls.key: the file has none"), "{message}");
    assert_eq!(code(&old, "secret").expect("an answer"), "200");
    assert_eq!(code(&old, "changed").expect("an answer"), "401");

    fs::write(daemon.path().join("tls.key"), key).expect("the file is written");
    let renewed = Authority::new();
    renewed.issue(daemon.path());
    let applied = daemon.reload();
    let message = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "{message}");
    let new = renewed.trusted();
    assert_eq!(code(&new, "changed").expect("an answer"), "200");
    assert_eq!(code(&new, "secret").expect("an answer"), "401");
    code(&old, "changed").expect_err("the certificate is another");
}

#[test]
fn a_wrong_file_ends_the_start_before_anything_is_started() {
    let other = KeyPair::generate().expect("a key").serialize_pem();
    let cases: [(&str, &[u8], &str); 7] = [
        (
            "tls.crt",
            b"",
            "the certificate DIR/tls.crt: there is no PEM certificate in it",
        ),
        (
            "tls.crt",
            b"-----BEGIN CERTIFICATE-----\nMII",
            "the certificate DIR/tls.crt: it is cut off",
        ),
        (
            "tls.key",
            b"junk",
            "the private key DIR/tls.key: the file has none (it has to be PEM)",
        ),
        (
            "tls.key",
            other.as_bytes(),
            "the private key DIR/tls.key: it is not the key of DIR/tls.crt",
        ),
        (
            "accounts",
            b"",
            "the password file DIR/accounts: there is no user in it",
        ),
        (
            "accounts",
            b"prom: secret\n",
            "the password file DIR/accounts: line 1: the password of prom is not a bcrypt hash",
        ),
        (
            "missing",
            b"",
            "cannot read the password file DIR/accounts: No such file",
        ),
    ];
    for (file, content, expected) in cases {
        let (directory, _) = protected(&[("prom", "secret", 4)]);
        let path = directory.path();
        if file == "missing" {
            fs::remove_file(path.join("accounts")).expect("it was there");
        } else {
            fs::write(path.join(file), content).expect("the file is written");
        }
        write_config(path, free_address(), PROTECTED);
        let output = eternal(path, &["run"]).output().expect("the command runs");
        let message = String::from_utf8_lossy(&output.stderr);
        let expected = expected.replace("DIR", &path.display().to_string());
        assert!(message.contains(&expected), "{message}\nis not\n{expected}");
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(!message.contains("secret"), "{message}");
        assert!(!path.join("started").exists(), "nothing was started");
    }
}
