//! Units for configs, and the shipped ones.

use std::path::{Path, PathBuf};

use super::super::Complaint;
use super::super::arguments::SystemdUnit;
use super::needs::Needs;
use super::text;
use crate::config::{self, Config, FileChoice, Sources};

/// Loads a config as if it lay in `/etc/eternal`.
fn load(toml: &str) -> Config {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("eternal.toml");
    std::fs::write(&file, toml).expect("written");
    let sources = Sources {
        file: FileChoice::Explicit(file),
        directory: PathBuf::from("/"),
        environment: Vec::new(),
        flags: config::Flags::default(),
        command: None,
        own_executable: PathBuf::from("/usr/bin/eternal"),
    };
    let mut config = config::load(&sources).expect("valid").config;
    config.file = Some("/etc/eternal/eternal.toml".into());
    config
}

fn needs(toml: &str, run_as: &str, users: bool) -> Result<Needs, Complaint> {
    let wanted = SystemdUnit {
        run_as: run_as.to_owned(),
        users,
    };
    Needs::of(&load(toml), Path::new("/usr/bin/eternal"), &wanted)
}

fn unit(toml: &str) -> (String, Vec<String>) {
    let needs = needs(toml, "eternal", false).expect("a unit");
    (text::unit(&needs), needs.warnings)
}

/// Everything the daemon writes is below `/srv/app`.
const SRV: &str = r#"
[daemon]
pid_file  = "/srv/app/daemon.pid"
socket    = "/srv/app/daemon.sock"
state_dir = "/srv/app/state"
log_file  = "/srv/app/logs/daemon.log"
[defaults]
working_directory = "/srv/app"
"#;

fn has(unit: &str, line: &str) {
    assert!(unit.lines().any(|l| l == line), "no {line:?} in\n{unit}");
}

fn has_not(unit: &str, setting: &str) {
    assert!(
        !unit.contains(&format!("\n{setting}=")),
        "{setting} in\n{unit}"
    );
}

#[test]
fn the_shipped_units_are_those_of_the_shipped_config() {
    let shipped = include_str!("../../../deploy/eternal.toml");
    for (users, file) in [
        (
            false,
            include_str!("../../../deploy/systemd/eternal.service"),
        ),
        (
            true,
            include_str!("../../../deploy/systemd/eternal-users.service"),
        ),
    ] {
        let needs = needs(shipped, "eternal", users).expect("a unit");
        assert_eq!(text::unit(&needs), file);
    }
}

#[test]
fn one_top_directory_is_enough_for_what_is_written_below_it() {
    let (unit, warnings) = unit(&format!("{SRV}[programs.web]\ncommand = [\"./web\"]\n"));
    has(&unit, "ReadWritePaths=/srv/app");
    assert_eq!(unit.matches("/srv/app").count(), 1, "{unit}");
    for setting in ["RuntimeDirectory", "StateDirectory", "LogsDirectory"] {
        has_not(&unit, setting);
    }
    has(&unit, "User=eternal");
    has(&unit, "ProtectHome=yes");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn directories_of_programs_are_not_given_to_the_daemon() {
    let (unit, _) = unit(
        "[daemon]\npid_file = \"/run/eternal/pid\"\nsocket = \"/run/eternal/sock\"\nlog_file = \"\"\n\
         state_dir = \"/var/lib/eternal/state\"\n\
         [programs.db]\ncommand = [\"db\"]\nworking_directory = \"/var/lib/db\"\nlog_file = \"/var/log/db/db.log\"\n\
         [programs.job]\ncommand = [\"job\"]\nworking_directory = \"/usr/share\"\n",
    );
    has(&unit, "RuntimeDirectory=eternal");
    has(&unit, "StateDirectory=eternal/state");
    has(&unit, "ReadWritePaths=/var/lib/db");
    has(&unit, "ReadWritePaths=/var/log/db");
    has(&unit, "LogRateLimitIntervalSec=0");
    has_not(&unit, "LogsDirectory");
    assert!(!unit.contains("/usr/share"), "{unit}");
}

#[test]
fn timeouts_are_above_what_the_programs_may_take() {
    let (unit, _) = unit(&format!(
        "{SRV}[metrics]\nlinger = \"7s\"\n\
         [programs.db]\ncommand = [\"db\"]\nstop_timeout = \"1m\"\nready = \"notify\"\nstart_timeout = \"100s\"\n\
         [programs.web]\ncommand = [\"web\"]\nstop_timeout = \"1500ms\"\nafter = [\"db\"]\ninstances = 2\n\
         [programs.alone]\ncommand = [\"alone\"]\nstop_timeout = \"20s\"\n"
    ));
    // 10 + 7 + 60 + 1.5, the longest way through `after`; 30 + 60 + 100 + 2 × (1.5 + 1) + 20 + 1, all in turn.
    has(&unit, "TimeoutStopSec=79");
    has(&unit, "TimeoutStartSec=216");
}

#[test]
fn programs_of_other_users_need_root_and_programs_without_one_are_named() {
    let config = format!(
        "{SRV}[programs.web]\ncommand = [\"web\"]\nuser = \"www-data\"\nnice = -5\nlimits = {{ nofile = 65536 }}\n\
         [programs.own]\ncommand = [\"own\"]\nuser = \"eternal\"\n\
         [programs.bare]\ncommand = [\"bare\"]\n"
    );
    let (unit, warnings) = unit(&config);
    has_not(&unit, "User");
    has(
        &unit,
        "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_NICE CAP_SYS_RESOURCE",
    );
    assert_eq!(
        warnings,
        ["bare: without `user` it runs as root, as the daemon does"]
    );
}

#[test]
fn the_daemons_own_user_needs_nothing_and_what_it_cannot_do_is_named() {
    let config = format!(
        "{SRV}[programs.own]\ncommand = [\"/home/deploy/own\"]\nuser = \"deploy\"\nnice = -5\n"
    );
    let needs = needs(&config, "deploy", false).expect("a unit");
    let unit = text::unit(&needs);
    has(&unit, "User=deploy");
    has(&unit, "CapabilityBoundingSet=");
    has(&unit, "ProtectHome=read-only");
    assert_eq!(
        needs.warnings,
        [
            "own: `nice` needs CAP_SYS_NICE, which the user deploy does not have: \
             --users runs the daemon as root with it"
        ]
    );
}

#[test]
fn without_a_file_there_is_no_unit() {
    let mut config = load(&format!("{SRV}[programs.web]\ncommand = [\"web\"]\n"));
    config.file = None;
    let wanted = SystemdUnit {
        run_as: "eternal".into(),
        users: false,
    };
    let complaint = Needs::of(&config, Path::new("/usr/bin/eternal"), &wanted).expect_err("none");
    assert_eq!(complaint.code, super::USAGE);
}

#[test]
fn no_word_becomes_a_line_of_its_own() {
    let wanted = |run_as: &str| SystemdUnit {
        run_as: run_as.to_owned(),
        users: false,
    };
    let plain = load(&format!("{SRV}[programs.web]\ncommand = [\"web\"]\n"));
    let mut config = plain.clone();
    config.file = Some("/etc/a\nExecStartPre=/bin/evil\n/eternal.toml".into());
    let refused = Needs::of(&config, Path::new("/usr/bin/eternal"), &wanted("eternal"));
    assert_eq!(refused.expect_err("refused").code, super::USAGE);
    for name in ["a\nExecStartPre=/bin/evil", "", "a b", "a%b"] {
        let refused = Needs::of(&plain, Path::new("/usr/bin/eternal"), &wanted(name));
        assert_eq!(refused.expect_err(name).code, super::USAGE);
    }
    let config = load(&format!(
        "{SRV}[programs.web]\ncommand = [\"web\"]\nworking_directory = \"/srv/a\\nb\"\n"
    ));
    let refused = Needs::of(&config, Path::new("/usr/bin/eternal"), &wanted("eternal"));
    assert_eq!(refused.expect_err("refused").code, super::USAGE);
}

#[test]
fn homes_stay_readable_for_scripts_and_certificates_in_them() {
    let script = format!("{SRV}[programs.web]\ncommand = [\"python3\", \"/home/deploy/app.py\"]\n");
    has(&unit(&script).0, "ProtectHome=read-only");
    let mut config = load(&format!("{SRV}[programs.web]\ncommand = [\"web\"]\n"));
    config.metrics.basic_auth_file = Some("/home/deploy/passwords".into());
    let wanted = SystemdUnit {
        run_as: "deploy".into(),
        users: false,
    };
    let needs = Needs::of(&config, Path::new("/usr/bin/eternal"), &wanted).expect("a unit");
    let unit = text::unit(&needs);
    has(&unit, "ProtectHome=read-only");
    has(
        &unit,
        "# Written by `eternal systemd-unit --config /etc/eternal/eternal.toml --run-as deploy`.",
    );
}
