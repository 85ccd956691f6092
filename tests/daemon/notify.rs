//! Who speaks for a program: itself, and nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::world::{World, eventually};

/// Says `WORDS` to `ADDRESS` in one of some ways, and goes on until a file is there, if one is named.
const SAY: &str = r#"
import array, os, socket, sys, time
address, words, way, until = (sys.argv[1:] + [""])[:4]
address = "\0" + address[1:] if address[0] == "@" else address
door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(): door.sendto(words.encode(), address)
def gone():
    child = os.fork()
    if child == 0:
        say()
        os._exit(0)
    os.waitpid(child, 0)
def rights():
    null = os.open("/dev/null", os.O_RDONLY)
    rights = array.array("i", [null] * 253)
    door.sendmsg([words.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, address)
    os.close(null)
def odd():
    for text in [b"", b"=", b"READY", b"\xff=1", b"READY=1" + b"x" * 4090, b"x" * 150000]:
        try: door.sendto(text, address)
        except OSError: pass
def stays():
    say()
    time.sleep(1000)
tell = {"alive": say, "stays": stays, "gone": gone, "rights": rights, "odd": odd}[way]
while True:
    tell()
    if not until or os.path.exists(until): break
"#;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can switch users");
    }
    root
}

/// A world that every user may write to, with `say.py` in it.
fn open_world(config: &str) -> World {
    let world = World::new(config);
    let everybody = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(world.path(""), everybody).expect("a mode");
    world.write("say.py", SAY);
    world
}

/// Starts `say.py` as a user.
fn say(world: &World, uid: u32, words: &[&str]) -> Child {
    let mut command: Command = world.command("python3");
    command.arg("say.py").args(words);
    command.uid(uid).gid(uid).stdout(Stdio::null());
    command.spawn().expect("python")
}

fn said(world: &World, uid: u32, words: &[&str]) {
    let status = say(world, uid, words).wait().expect("a status");
    assert!(status.success(), "{words:?}");
}

/// A program that writes down where to speak, waits for a file, and then does something.
fn listener(name: &str, keys: &str, then: &str) -> String {
    format!(
        "[programs.{name}]\ncommand = ['sh', '-c', '''
           echo $NOTIFY_SOCKET > {name}.new; mv {name}.new {name}.address
           until test -e go; do sleep 0.02; done; {then}''']\n{keys}\n"
    )
}

#[test]
fn a_stranger_neither_makes_a_program_ready_nor_keeps_a_hung_one_alive() {
    if !is_root() {
        return;
    }
    let own_word = "echo > said; python3 say.py $NOTIFY_SOCKET READY=1 alive; exec sleep 1000";
    for (user, keys) in [("root", ""), ("nobody", "user = 'nobody'")] {
        let ready = format!("ready = 'notify'\nstart_timeout = '1h'\n{keys}");
        let world = open_world(&format!(
            "{}{}[programs.next]\ncommand = ['sh', '-c', 'ls said > order 2>&1; exec sleep 1000']\n\
             after = ['web']\n",
            listener("web", &ready, own_word),
            listener(
                "hung",
                &format!(
                    "watchdog = '300ms'\nrestart_delay = '1h'\nrestart_delay_max = '1h'\n{keys}"
                ),
                "",
            ),
        ));
        let mut daemon = world.run();
        let address = world.appears("web.address");
        let games = 5;
        let mut keeper = say(
            &world,
            games,
            &[address.trim(), "WATCHDOG=1", "gone", "over"],
        );
        for way in ["gone", "alive"] {
            for _ in 0..20 {
                said(&world, games, &[address.trim(), "READY=1", way]);
            }
        }
        world.logged(&["notifications ignored", "of uid 5"]);
        world.program("hung", "is ended by its watchdog", |p| {
            (p.crashes == 1).then_some(())
        });
        world.write("over", "");
        keeper.wait().expect("a status");
        world.write("go", "");
        world.pid("next");
        assert_eq!(
            world.appears("order").trim(),
            "said",
            "{user}: not before its own word"
        );
        assert_eq!(daemon.is_stopped(), 0);
    }
}

#[test]
fn every_way_in_which_a_program_may_speak_for_itself_is_heard() {
    if !is_root() {
        return;
    }
    let gone = "python3 say.py $NOTIFY_SOCKET READY=1 gone; exec sleep 1000";
    let itself = "exec python3 say.py $NOTIFY_SOCKET READY=1 stays";
    let another = "PATH=/usr/bin:/bin setpriv --reuid=5 --regid=60 --clear-groups \
                   python3 say.py $NOTIFY_SOCKET READY=1 stays & wait";
    let became = "PATH=/usr/bin:/bin exec setpriv --reuid=5 --regid=60 --clear-groups \
                  python3 say.py $NOTIFY_SOCKET READY=1 stays";
    let cases = [
        // As systemd-notify does it, with one program of each user.
        ("gone-root", "", gone),
        ("gone-nobody", "user = 'nobody'", gone),
        ("gone-games", "user = 'games'", gone),
        ("itself", "user = 'nobody'", itself),
        ("another", "", another),
        ("became", "", became),
    ];
    for group in [&cases[..3], &cases[3..]] {
        let programs: String = group
            .iter()
            .map(|(name, keys, then)| {
                listener(
                    name,
                    &format!("ready = 'notify'\nstart_timeout = '1h'\n{keys}"),
                    then,
                )
            })
            .collect();
        let world = open_world(&programs);
        let mut daemon = world.run();
        for (name, ..) in group {
            world.appears(&format!("{name}.address"));
        }
        world.write("go", "");
        for (name, ..) in group {
            world.pid(name);
        }
        assert_eq!(daemon.is_stopped(), 0);
    }
}

#[test]
fn a_program_of_another_user_reaches_the_daemon_whatever_the_umask() {
    if !is_root() {
        return;
    }
    let then = "python3 - $NOTIFY_SOCKET READY=1 alive < $SAY; exec sleep 1000";
    for umask in ["077", "0027", "022"] {
        for (directory, begin) in [(0o755, "/"), (0o700, "@")] {
            // Who may not enter the directory cannot be told where the program is, either.
            let script = format!("echo $NOTIFY_SOCKET; {then}");
            let world = World::new(&format!(
                "[programs.web]\ncommand = ['sh', '-c', '{script}']\nuser = 'nobody'\n\
                 working_directory = '/'\nready = 'notify'\nstart_timeout = '1h'\n\
                 log_file = 'web.log'\npass_environment = ['SAY']\n"
            ));
            let mode = fs::Permissions::from_mode(directory);
            fs::set_permissions(world.path(""), mode).expect("a mode");
            fs::create_dir(world.path("state")).expect("a directory");
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(world.path("state"), open).expect("a mode");
            let script_file = tempfile::NamedTempFile::new().expect("a file");
            fs::write(script_file.path(), SAY).expect("written");
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(script_file.path(), readable).expect("a mode");

            let mut command = world.command("sh");
            let start = format!("umask {umask}; exec {} run", World::binary());
            command.args(["-c", &start]).env("SAY", script_file.path());
            let mut daemon = world.launch_as(command);
            daemon.answers();
            world.pid("web");
            let address = eventually("an address", || {
                Some(world.read("web.log")).filter(|text| text.ends_with('\n'))
            });
            assert!(
                address.starts_with(begin),
                "{umask}, {directory:o}: {address}"
            );
            assert_eq!(daemon.is_stopped(), 0);
        }
    }
}

#[test]
fn descriptors_and_odd_messages_leave_nothing_behind() {
    let own_word = "python3 say.py $NOTIFY_SOCKET READY=1 alive; exec sleep 1000";
    let keys = "ready = 'notify'\nstart_timeout = '1h'";
    let world = open_world(&listener("web", keys, own_word));
    let mut daemon = world.run();
    let address = world.appears("web.address");
    let count = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("a living daemon")
            .count()
    };
    let before = count();
    let own = nix::unistd::geteuid().as_raw();
    for way in ["rights", "odd"] {
        let mut flood = say(&world, own, &[address.trim(), "STATUS=x", way, "over"]);
        // As many as it says while the daemon answers a hundred times.
        for _ in 0..100 {
            world.status().expect("an answer");
        }
        world.write("over", "");
        assert!(flood.wait().expect("a status").success(), "{way}");
        fs::remove_file(world.path("over")).expect("it was there");
    }
    world.write("go", "");
    world.pid("web");
    eventually("as many descriptors as before", || {
        (count() <= before).then_some(())
    });
    assert_eq!(daemon.is_stopped(), 0);
}
