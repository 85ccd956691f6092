//! Real sockets and real senders.

use std::fs;
use std::future::Future;
use std::io::IoSlice;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, sendmsg};

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

async fn next(socket: &NotifySocket) -> Notification {
    let told = tokio::time::timeout(Duration::from_secs(5), socket.recv()).await;
    told.expect("in time").expect("received")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn we_understand_what_we_say_over_a_file_and_over_an_abstract_address() {
    let directory = tempfile::tempdir().expect("directory");
    let long = directory.path().join("x".repeat(120));
    for path in [directory.path().join("notify"), long] {
        block_on(async {
            let socket = NotifySocket::bind(&path, Reach::Own).expect("bind");
            assert_eq!(
                socket.address().starts_with('@'),
                path.as_os_str().len() > 100
            );
            let systemd = Systemd::at(socket.address(), None);
            systemd.ready().expect("ready");
            systemd.status("two\nlines").expect("status");
            systemd.reloading().expect("reloading");
            let told = next(&socket).await;
            assert_eq!(told.pid, std::process::id() as i32);
            assert_eq!(told.uid, nix::unistd::geteuid().as_raw());
            assert_eq!(told.state, pairs(&[("READY", "1")]));
            assert_eq!(next(&socket).await.state, pairs(&[("STATUS", "two lines")]));
            let reloading = next(&socket).await.state;
            assert_eq!(reloading[0], ("RELOADING".to_owned(), "1".to_owned()));
            assert_eq!(reloading[1].0, "MONOTONIC_USEC");
        });
        assert!(!path.join("socket").exists());
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().expect("directory");
    let place = directory.path().join("notify");
    let path = place.join("socket");
    fs::create_dir(&place).expect("a directory");
    drop(StdDatagram::bind(&path).expect("an earlier one"));
    block_on(async {
        let socket = NotifySocket::bind(&place, Reach::Own).expect("replaced");
        assert_eq!(Some(socket.address()), path.to_str());
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "precious").expect("write");
        let socket = NotifySocket::bind(&place, Reach::Own).expect("elsewhere");
        assert!(socket.address().starts_with('@'), "{}", socket.address());
        drop(socket);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    });
}

#[test]
fn who_may_reach_the_socket_is_not_up_to_the_modes_that_a_umask_leaves() {
    let modes = |place: &Path| {
        let of = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        (of(place), of(&place.join("socket")))
    };
    let directory = tempfile::tempdir().expect("directory");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("a mode");
    let place = directory.path().join("notify");
    block_on(async {
        // As if made under a umask of 077, and by an earlier daemon.
        fs::create_dir(&place).expect("a directory");
        for (reach, wanted, before) in [
            (Reach::Everybody, (0o711, 0o666), 0o700),
            (Reach::Own, (0o700, 0o600), 0o777),
        ] {
            fs::set_permissions(&place, fs::Permissions::from_mode(before)).expect("a mode");
            let socket = NotifySocket::bind(&place, reach).expect("bind");
            assert!(socket.address().starts_with('/'), "{}", socket.address());
            assert_eq!(modes(&place), wanted, "{reach:?}");
        }
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory.path(), closed).expect("a mode");
        let socket = NotifySocket::bind(&place, Reach::Everybody).expect("bind");
        assert!(
            socket.address().starts_with('@'),
            "others could not come in"
        );
    });
}

#[test]
fn descriptors_are_closed_and_unfit_messages_are_dropped() {
    let directory = tempfile::tempdir().expect("directory");
    let place = directory.path().join("notify");
    let path = place.join("socket");
    block_on(async {
        let socket = NotifySocket::bind(&place, Reach::Own).expect("bind");
        let sender = StdDatagram::unbound().expect("sender");
        sender.connect(&path).expect("connect");
        sender
            .send(&vec![b'x'; MESSAGE_LIMIT + 1])
            .expect("too long");
        sender.send(b"STATUS=\xff").expect("not text");
        sender.send(b"MAINPID=1").expect("not theirs to say");
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        let text = [IoSlice::new(b"READY=1\nMAINPID=7\nWATCHDOG=1")];
        let fds = [writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(sender.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).expect("send");
        drop(writer);
        assert_eq!(
            next(&socket).await.state,
            pairs(&[("READY", "1"), ("WATCHDOG", "1")])
        );
        // End of file: no copy of the pipe's write end is left in this process.
        let mut byte = [0];
        nix::fcntl::fcntl(
            &reader,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .expect("nonblocking");
        assert_eq!(nix::unistd::read(&reader, &mut byte), Ok(0));
    });
}

fn belongs(pid: i32, main_pid: i32) -> bool {
    family_of(pid, |main| (main == main_pid).then_some(())).is_some()
}

#[test]
fn a_grandchild_belongs_and_a_stranger_does_not() {
    let mut child = Command::new("sh")
        .args(["-c", "sleep 60 & echo $!; wait"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    let mut line = String::new();
    let output = child.stdout.take().expect("piped");
    io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).expect("a pid");
    let (main, grandchild) = (child.id() as i32, line.trim().parse().expect("number"));
    assert!(belongs(main, main) && belongs(grandchild, main));
    assert!(!belongs(main, grandchild) && !belongs(std::process::id() as i32, main));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(grandchild),
        nix::sys::signal::SIGKILL,
    )
    .expect("kill");
    child.wait().expect("wait");
    assert!(!belongs(grandchild, main));
}

#[test]
fn without_a_manager_everything_succeeds_and_with_a_dead_one_nothing_hangs() {
    assert!(Systemd::default().ready().is_ok() && !Systemd::default().is_there());
    let dead = Systemd::at("/nonexistent/notify", Some(Duration::from_secs(3)));
    assert!(dead.ready().is_err());
    assert_eq!(dead.watchdog_interval(), Some(Duration::from_millis(1500)));
}
