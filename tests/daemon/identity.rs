//! A program runs as exactly the user it is configured for, whoever the daemon is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::process::Command;

use crate::world::World;

/// Who programs are asked to be: name, configuration, and `uid gid groups` where they can be it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("name", "user = 'nobody'", "65534 65534 65534"),
    ("number", "user = 65534", "65534 65534 65534"),
    ("text", "user = '65534'", "65534 65534 65534"),
    ("games", "user = 'games'", "5 60 60"),
    ("both", "user = 'nobody'\ngroup = 'games'", "65534 60 60"),
    ("stranger", "user = 424242\ngroup = 7", "424242 7 7"),
    ("root", "user = 'root'", "0 0 0"),
    ("mixed", "user = 0\ngroup = 60", "0 60 60"),
    ("group", "group = 'games'", "- 60 60"),
    ("plain", "", "- - -"),
];

/// What a program finds of itself: its own lines of /proc/self/status, and its secure bits.
const LOOK: &str = "{ cat /proc/self/status; setpriv --dump; } > $ETERNAL_PROGRAM.new 2>&1; \
                    mv $ETERNAL_PROGRAM.new $ETERNAL_PROGRAM.found";

/// A daemon, and what of it the programs must not have.
struct Daemon {
    name: &'static str,
    /// How `setpriv` makes it.
    setpriv: &'static [&'static str],
    uid: u32,
    /// The capabilities of a program that stays who the daemon is.
    kept: &'static str,
    /// It may become anybody.
    may_switch: bool,
}

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
const NONE: &str = "0000000000000000";

const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "root",
        setpriv: &[],
        uid: 0,
        kept: "all",
        may_switch: true,
    },
    Daemon {
        name: "root with groups and capabilities to hand down",
        setpriv: &[
            "--groups=4,27",
            "--inh-caps=+chown,+kill,+net_raw",
            "--ambient-caps=+chown,+kill,+net_raw",
        ],
        uid: 0,
        kept: "all",
        may_switch: true,
    },
    Daemon {
        name: "root that keeps its capabilities when it changes its user",
        setpriv: &["--securebits=+no_setuid_fixup"],
        uid: 0,
        kept: "all",
        may_switch: true,
    },
    Daemon {
        name: "a user that may become anybody",
        setpriv: &[
            NOBODY[0],
            NOBODY[1],
            "--groups=27",
            "--inh-caps=+chown,+setuid,+setgid,+kill",
            "--ambient-caps=+chown,+setuid,+setgid,+kill",
        ],
        uid: 65_534,
        kept: "00000000000000e1",
        may_switch: true,
    },
    Daemon {
        name: "a user with a capability of no use here",
        setpriv: &[
            NOBODY[0],
            NOBODY[1],
            NOBODY[2],
            "--inh-caps=+net_bind_service",
            "--ambient-caps=+net_bind_service",
        ],
        uid: 65_534,
        kept: "0000000000000400",
        may_switch: false,
    },
    Daemon {
        name: "a user with no rights at all",
        setpriv: &NOBODY,
        uid: 65_534,
        kept: NONE,
        may_switch: false,
    },
];

/// What a program found, one line each.
struct Found(String);

impl Found {
    fn field(&self, name: &str) -> Vec<&str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {}", self.0))
            .split_whitespace()
            .collect()
    }

    /// The real, effective, saved and file-system id, which have to be the same.
    fn id(&self, name: &str) -> String {
        let ids = self.field(name);
        assert!(ids.iter().all(|id| *id == ids[0]), "{name} {ids:?}");
        ids[0].to_owned()
    }

    fn groups(&self) -> String {
        let mut groups: Vec<u32> = self
            .field("Groups:")
            .iter()
            .map(|group| group.parse().expect("a number"))
            .collect();
        groups.sort_unstable();
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        groups.join(",")
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can switch users");
    }
    root
}

/// A world that every user may write to.
fn open_world(config: &str) -> World {
    let world = World::new(config);
    let everybody = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(world.path(""), everybody).expect("a mode");
    world
}

fn as_daemon(world: &World, daemon: &Daemon) -> Command {
    let mut command = world.command("setpriv");
    command.args(daemon.setpriv).arg(World::binary()).arg("run");
    command
}

fn runs_here(world: &World, daemon: &Daemon) -> bool {
    let mut command = world.command("setpriv");
    command
        .args(daemon.setpriv)
        .arg(World::binary())
        .arg("--version");
    let said = world.said(command);
    if said.code != 0 {
        eprintln!("skipped: {} cannot be here: {said:?}", daemon.name);
    }
    said.code == 0
}

/// Whether this daemon can start a program as this user or group at all.
fn can_be(daemon: &Daemon, program: &str) -> bool {
    daemon.may_switch || matches!(program, "name" | "number" | "text" | "plain")
}

fn check(daemon: &Daemon, (program, config, who): (&str, &str, &str), found: &Found) {
    let about = format!("{}: {program}: {}", daemon.name, found.0);
    let mut who = who.split(' ');
    let mut wanted = || who.next().expect("three words");
    let (uid, gid, groups) = (wanted(), wanted(), wanted());
    let as_daemon = daemon.uid.to_string();
    let uid = if uid == "-" { &as_daemon } else { uid };
    assert_eq!(found.id("Uid:"), uid, "{about}");
    if gid != "-" {
        assert_eq!(found.id("Gid:"), gid, "{about}");
        // Only who may switch users can let go of groups.
        assert!(!daemon.may_switch || found.groups() == groups, "{about}");
    }
    let stays = !config.contains("user");
    for set in ["CapPrm:", "CapEff:", "CapAmb:", "CapInh:"] {
        let held = found.field(set)[0];
        if !stays && uid != "0" {
            assert_eq!(held, NONE, "{set} {about}");
        } else if uid != "0" {
            assert_eq!(held, daemon.kept, "{set} {about}");
        } else if set == "CapEff:" {
            assert_eq!(held, found.field("CapBnd:")[0], "{set} {about}");
        }
    }
    if !stays && uid != "0" {
        assert_eq!(found.field("Securebits:"), ["[none]"], "{about}");
    }
}

#[test]
fn a_program_has_its_users_ids_and_groups_and_nothing_of_what_the_daemon_may_do() {
    if !is_root() {
        return;
    }
    let mut rows = 0;
    for daemon in DAEMONS {
        let mut config = String::new();
        for (name, user, _) in PROGRAMS.iter().filter(|(name, ..)| can_be(daemon, name)) {
            config += &format!(
                "[programs.{name}]\ncommand = ['sh', '-c', '{LOOK}']\nrestart = 'never'\n{user}\n"
            );
        }
        let world = open_world(&config);
        if !runs_here(&world, daemon) {
            continue;
        }
        let mut running = world.launch_as(as_daemon(&world, daemon));
        assert_eq!(
            running.ends(),
            0,
            "{}: {}",
            daemon.name,
            world.read("stderr")
        );
        for program in PROGRAMS.iter().filter(|(name, ..)| can_be(daemon, name)) {
            let found = Found(world.read(&format!("{}.found", program.0)));
            check(daemon, *program, &found);
            rows += 1;
        }
    }
    assert!(rows >= 20, "only {rows} configurations were tried");
}

#[test]
fn a_program_of_another_user_has_no_key_of_whoever_started_the_daemon() {
    if !is_root() {
        return;
    }
    // A session with a key in it, as PAM and file systems make them, and the daemon in it.
    const SESSION: &str = "import ctypes, os, platform, sys
join, add = {'x86_64': (250, 248), 'aarch64': (219, 217)}[platform.machine()]
call = ctypes.CDLL(None, use_errno=True).syscall
if call(join, 1, None) < 0 or call(add, b'user', b'eternal-test-key', b'x', 1, -3) < 0:
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])";
    let look = "cat /proc/keys > $ETERNAL_PROGRAM.keys";
    let config = format!(
        "[programs.own]\ncommand = ['sh', '-c', '{look}']\nrestart = 'never'\n\
         [programs.other]\ncommand = ['sh', '-c', '{look}']\nrestart = 'never'\nuser = 'nobody'\n"
    );
    let world = open_world(&config);
    let mut command = world.command("python3");
    command.args(["-c", SESSION, World::binary(), "run"]);
    let code = world.launch_as(command).ends();
    if code == 77 || !world.read("own.keys").contains("eternal-test-key") {
        eprintln!("skipped: no keys here");
        return;
    }
    assert_eq!(code, 0);
    let keys = world.read("other.keys");
    assert!(!keys.contains("eternal-test-key"), "{keys}");
}

#[test]
fn a_program_of_another_user_can_open_its_own_standard_streams() {
    if !is_root() {
        return;
    }
    let world = open_world(
        "[programs.w]\n\
         command = ['sh', '-c', 'echo to-out > /dev/stdout && echo to-err > /dev/stderr']\n\
         log_file = 'w.log'\nrestart = 'never'\nuser = 'nobody'\n\
         [programs.probed]\ncommand = ['sleep', '1000']\nuser = 'nobody'\n\
         ready = 'exec: test -w /dev/stdout'\n",
    );
    let null = fs::metadata("/dev/null").expect("it is everywhere");
    let daemon = world.run();
    world.is("w", "completed");
    world.pid("probed");
    crate::world::eventually("both lines", || {
        let log = world.read("w.log");
        (log.contains("to-out") && log.contains("to-err")).then_some(())
    });
    let after = fs::metadata("/dev/null").expect("it is everywhere");
    assert_eq!((null.uid(), null.mode()), (after.uid(), after.mode()));
    drop(daemon);
}

/// What somebody's session, a service manager and the daemon's own settings put into it.
const DIRTY: &[(&str, &str)] = &[
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/zsh"),
    ("MAIL", "/var/mail/root"),
    ("PWD", "/root"),
    ("OLDPWD", "/"),
    ("_", "/usr/bin/eternal"),
    ("SUDO_USER", "alice"),
    ("XDG_RUNTIME_DIR", "/run/user/0"),
    ("SSH_AUTH_SOCK", "/tmp/agent"),
    ("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=x"),
    ("DATABASE_URL", "postgres://app"),
    ("AWS_REGION", "x"),
    ("LANG", "C.UTF-8"),
    ("LC_TIME", "C"),
    ("TZ", "Asia/Tokyo"),
    ("TERM", "dumb"),
];
/// What is for the daemon alone, whoever a program is.
const OWN: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=secret"),
    ("ETERNAL__DEFAULTS__ENVIRONMENT", "{ GIVEN = 'yes' }"),
    ("NOTIFY_SOCKET", "/nowhere"),
    ("WATCHDOG_USEC", "9000000000"),
    ("WATCHDOG_PID", "1"),
    ("LISTEN_FDS", "0"),
    ("LISTEN_PID", "1"),
    ("LISTEN_FDNAMES", "x"),
    ("CREDENTIALS_DIRECTORY", "/run/credentials/eternal"),
    ("JOURNAL_STREAM", "8:1"),
];

/// The variables that a process wrote down, `sh`'s own left out.
fn variables(world: &World, file: &str) -> BTreeMap<String, String> {
    let text = world.appears(file);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Asserts what is in an environment, beside what every program gets.
fn has_exactly(found: &BTreeMap<String, String>, wanted: &[&str]) {
    let common = ["ETERNAL_RUN", "ETERNAL_PROGRAM", "ETERNAL_REPLICA", "PATH"];
    let given = found.iter().filter(|(name, _)| !common.contains(&&***name));
    let given: Vec<String> = given
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut wanted: Vec<&str> = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(given, wanted);
    assert!(
        common.iter().all(|name| found.contains_key(*name)),
        "{found:?}"
    );
}

#[test]
fn a_program_with_a_user_finds_that_users_world_and_nothing_of_the_starters() {
    if !is_root() {
        return;
    }
    // As the program finds it, not as a shell has changed it.
    let look = |to: &str| {
        format!("tr '\\\\0' '\\\\n' < /proc/self/environ > {to}.new && mv {to}.new {to}")
    };
    let start = format!("{}; exec sleep 1000", look("$ETERNAL_PROGRAM.env"));
    let command = format!("command = ['sh', '-c', \"{start}\"]");
    let probe = look("$ETERNAL_PROGRAM.probe").replace("\\\\", "\\");
    let world = open_world(&format!(
        "[programs.switched]\n{command}\nuser = 'games'\n\
         ready = 'exec:sh probe'\nhealth_check = 'exec:sh probe'\n\
         [programs.says]\n{command}\nuser = 'games'\nenv_file = 'extra.env'\n\
         environment = {{ HOME = '/srv/says', XDG_RUNTIME_DIR = '/run/says' }}\n\
         [programs.asks]\n{command}\nuser = 'games'\n\
         pass_environment = ['DATABASE_URL', 'AWS_*', 'HOME', 'OTEL_*', 'NOT_THERE']\n\
         [programs.all]\n{command}\nuser = 'games'\npass_environment = ['*']\n\
         [programs.number]\n{command}\nuser = 424242\ngroup = 7\n\
         [programs.plain]\n{command}\n"
    ));
    world.write("probe", &probe);
    world.write("extra.env", "SHELL=/bin/sh\nMAIL=/var/mail/says\n");
    let mut command = world.command(World::binary());
    command
        .arg("run")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"));
    command.envs(DIRTY.iter().chain(OWN).copied());
    let daemon = world.launch_as(command);
    daemon.answers();
    let user = [
        "HOME=/usr/games",
        "USER=games",
        "LOGNAME=games",
        "SHELL=/usr/sbin/nologin",
    ];
    let few = [
        "GIVEN=yes",
        "LANG=C.UTF-8",
        "LC_TIME=C",
        "TZ=Asia/Tokyo",
        "TERM=dumb",
    ];
    let of_user = [&user[..], &few].concat();
    has_exactly(&variables(&world, "switched.env"), &of_user);
    has_exactly(&variables(&world, "switched.probe"), &of_user);
    let said = [
        "HOME=/srv/says",
        "SHELL=/bin/sh",
        "USER=games",
        "LOGNAME=games",
    ];
    let said = [
        &said[..],
        &["MAIL=/var/mail/says", "XDG_RUNTIME_DIR=/run/says"],
    ]
    .concat();
    // A table in the configuration of a program stands in the place of the one of [defaults].
    has_exactly(
        &variables(&world, "says.env"),
        &[&said[..], &few[1..]].concat(),
    );
    let asked = ["DATABASE_URL=postgres://app", "AWS_REGION=x"];
    has_exactly(
        &variables(&world, "asks.env"),
        &[&of_user[..], &asked].concat(),
    );
    has_exactly(&variables(&world, "number.env"), &few);

    let everything = variables(&world, "all.env");
    let plain = variables(&world, "plain.env");
    for (name, value) in DIRTY
        .iter()
        .filter(|(name, _)| !name.ends_with("PWD") && *name != "_")
    {
        assert_eq!(plain.get(*name).map(String::as_str), Some(*value), "{name}");
        let of_user = user
            .iter()
            .find(|entry| entry.starts_with(&format!("{name}=")));
        let wanted = of_user.map_or(*value, |entry| entry.split_once('=').expect("a pair").1);
        assert_eq!(
            everything.get(*name).map(String::as_str),
            Some(wanted),
            "{name}"
        );
    }
    for (name, _) in OWN {
        for found in [&everything, &plain] {
            assert!(!found.contains_key(*name), "{name}");
        }
    }
    drop(daemon);
}

#[test]
fn an_env_file_shows_a_user_nothing_that_only_root_may_read() {
    if !is_root() {
        return;
    }
    let world = open_world(
        "[programs.linked]\ncommand = ['sh', '-c', 'env > linked.env']\n\
         env_file = 'theirs/link'\nuser = 'nobody'\n\
         [programs.piped]\ncommand = ['sh', '-c', 'env > piped.env']\n\
         env_file = 'theirs/pipe'\nuser = 'nobody'\n\
         [programs.fair]\ncommand = ['sh', '-c', 'env > fair.new; mv fair.new fair.env; exec sleep 1000']\n\
         env_file = 'theirs/fair'\nuser = 'nobody'\n",
    );
    let nobody = Some(65_534);
    world.write("secret", "SECRET=canary\n");
    fs::set_permissions(world.path("secret"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::create_dir(world.path("theirs")).expect("a directory");
    symlink("../secret", world.path("theirs/link")).expect("a link");
    let pipe = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&world.path("theirs/pipe"), pipe).expect("a pipe");
    world.write("theirs/fair", "FAIR=yes\n");
    for name in ["theirs", "theirs/link", "theirs/pipe", "theirs/fair"] {
        lchown(world.path(name), nobody, nobody).expect("another owner");
    }
    let mut daemon = world.run();
    for (name, why) in [("linked", "link"), ("piped", "pipe")] {
        let program = world.is(name, "backoff");
        assert!(program.why.contains("env_file"), "{}", program.why);
        assert!(program.why.contains(why), "{}", program.why);
        assert!(!world.path(&format!("{name}.env")).exists());
    }
    let fair = world.appears("fair.env");
    assert!(
        fair.contains("FAIR=yes") && !fair.contains("canary"),
        "{fair}"
    );
    assert_eq!(daemon.is_stopped(), 0);
}
