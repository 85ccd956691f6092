//! What a program is born as: never root by mistake, and with no descriptor of the daemon's.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{World, eventually};
use crate::{address, exchange, is_root};

#[test]
fn a_user_that_is_nobodys_name_runs_nothing() {
    if !is_root() {
        return;
    }
    for user in [
        "0day",
        "4294967295",
        "4294967296",
        "65535",
        "-1",
        " root",
        "root ",
        "root:root",
        "0x0",
        "1e3",
        "#0",
        "\u{660}",
        "no-such-user",
        "nobody\\u0000",
    ] {
        let world = World::new(&format!(
            "[defaults]\nready = 'immediately'\nrestart_delay = '10ms'\ncrash_threshold = 1\n\
             [programs.a]\ncommand = ['sh', '-c', 'echo ran as $(id -u)']\nworking_directory = '/'\ngroup = 'nogroup'\nuser = \"{user}\"\n"
        ));
        let said = world.eternal(&["run"]);
        assert_ne!(said.code, 0, "{user:?}: {said:?}");
        let all = [world.log(), world.read("logs/a.log"), said.out, said.err].concat();
        assert!(!all.contains("ran as"), "{user:?}: {all}");
    }
}

#[test]
fn a_program_is_born_with_three_descriptors_whatever_the_daemon_has_open() {
    let at = address();
    let list =
        "ls /proc/self/fd > fds.$ETERNAL_REPLICA; echo . >> fds.$ETERNAL_REPLICA; exec sleep 1000";
    let world = World::new(&format!(
        "[metrics]\nlisten = '{at}:9000'\n[programs.keeper]\ncommand = ['sleep', '1000']\n\
         [programs.many]\ncommand = ['sh', '-c', '''{list}''']\ninstances = 60\nautostart = false\n"
    ));
    let _daemon = world.run();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect((at.as_str(), 9000)) {
                        let _ = exchange(stream, b"GET /metrics HTTP/1.0\r\n\r\n");
                    }
                }
            });
        }
        let said = world.eternal(&["start", "many"]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(said.code, 0, "{said:?}");
    });
    for replica in 0..60 {
        let list = eventually("the list of descriptors", || {
            Some(world.read(&format!("fds.{replica}"))).filter(|text| text.ends_with(".\n"))
        });
        // The last is the directory that `ls` reads.
        assert_eq!(list, "0\n1\n2\n3\n.\n", "replica {replica}");
    }
}
