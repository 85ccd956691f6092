//! What a start of a configuration would meet on this machine, found out with the functions that a
//! start uses, and without changing anything.

use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access, geteuid};

use super::environment::Inherited;
use super::slots::Slot;
use super::{outside, questions};
use crate::config::{Cgroups, Check, Config, Finding, Listen, Program, Ready, Weight};
use crate::os::pid_file::{self, Standing};
use crate::os::rehearsal::{Rehearsed, rehearse};
use crate::os::{journal, state_dir};
use crate::text::with_causes;

/// Finds what a start of this configuration would meet here and now.
#[must_use]
pub fn inspect(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let daemon = &config.daemon;
    let running = places(config, &mut findings);
    if let Err(error) = outside::protection(&config.metrics) {
        findings.push(refused("metrics", &error));
    }
    listener(config, running, &mut findings);
    if daemon.cgroups == Cgroups::Required {
        findings.push(Finding::new(
            Weight::Unchecked,
            "daemon.cgroups",
            "whether there are cgroups to be had: that depends on how the daemon is started",
        ));
    }
    for program in &config.programs {
        inspect_program(program, &mut findings);
    }
    limits(config, &mut findings);
    findings
}

/// Looks at the files of the daemon; tells whether it runs already.
fn places(config: &Config, findings: &mut Vec<Finding>) -> bool {
    let daemon = &config.daemon;
    let held = match pid_file::inspect(&daemon.pid_file) {
        Ok(standing) => matches!(standing, Standing::Held(_)),
        Err(error) => {
            findings.push(refused("daemon.pid_file", &error));
            false
        }
    };
    let files = [
        ("daemon.pid_file", Some(&daemon.pid_file), Weight::Error),
        ("daemon.log_file", daemon.log_file.as_ref(), Weight::Error),
    ];
    for (key, path, weight) in files {
        if let Some(path) = path {
            findings.extend(unwritable(key, path, weight));
        }
    }
    let inside = |directory: &Path| directory.join("x");
    findings.extend(uncreatable("daemon.socket", &daemon.socket, Weight::Error));
    let state = inside(&daemon.state_dir);
    findings.extend(uncreatable("daemon.state_dir", &state, Weight::Warning));
    if let Err(error) = state_dir::examine(&daemon.state_dir, &journal::FILES) {
        findings.push(refused("daemon.state_dir", &error));
    }
    held
}

/// Tries the address of /metrics for a moment. That the running daemon of this very config has it is as
/// it should be.
fn listener(config: &Config, running: bool, findings: &mut Vec<Finding>) {
    const KEY: &str = "metrics.listen";
    let Some(listen) = &config.metrics.listen else {
        return;
    };
    let own = running
        && questions::last(config).is_some_and(|last| {
            last.status.daemon.metrics_address.as_ref() == Some(&outside::address(listen))
        });
    if own {
        return;
    }
    match listen {
        Listen::Tcp(address) => {
            let bound = std::net::TcpListener::bind(address);
            if let Err(error) = bound.map(drop) {
                let refusal = outside::cannot_listen(listen, &error);
                let weight = weight_of(&error);
                findings.push(Finding::new(weight, KEY, refusal.message));
            }
        }
        Listen::Unix(path) if UnixStream::connect(path).is_ok() => {
            let error = io::Error::new(io::ErrorKind::AddrInUse, "somebody answers there");
            let refusal = outside::cannot_listen(listen, &error);
            findings.push(Finding::new(Weight::Error, KEY, refusal.message));
        }
        Listen::Unix(path) => findings.extend(uncreatable(KEY, path, Weight::Error)),
    }
}

fn inspect_program(program: &Program, findings: &mut Vec<Finding>) {
    let key = |name: &str| format!("programs.{}.{name}", program.name);
    if let Some(path) = &program.log_file {
        findings.extend(unwritable(&key("log_file"), path, Weight::Warning));
    }
    let slot = Slot {
        program: program.clone().into(),
        replica: 0,
    };
    let launch = match slot.launch(&Inherited::from_env(), "", None) {
        Ok(launch) => launch,
        Err(failure) => {
            let weight = weight_of_failure(&failure.kind);
            findings.push(Finding::new(weight, key("env_file"), failure.message));
            return;
        }
    };
    findings.extend(rehearsed(key("command"), rehearse(&launch)));
    let ready = match &program.ready {
        Ready::Check(check) => Some(("ready", check)),
        Ready::Immediately | Ready::Alive(_) | Ready::Exit | Ready::Notify => None,
    };
    let health = program.health.check.as_ref();
    let checks = ready.into_iter().chain(health.map(|c| ("health_check", c)));
    for (name, check) in checks {
        if let Check::Exec(command) = check {
            let probe = slot.probe_launch(command, &launch);
            findings.extend(rehearsed(key(name), rehearse(&probe)));
        }
    }
}

fn rehearsed(key: String, outcome: Rehearsed) -> Option<Finding> {
    match outcome {
        Rehearsed::Fine => None,
        Rehearsed::Fails(failure) => {
            let weight = weight_of_failure(&failure.kind);
            Some(Finding::new(weight, key, failure.message))
        }
        Rehearsed::Untold(why) => Some(Finding::new(Weight::Unchecked, key, why)),
    }
}

/// Says that limits of whole replicas need cgroups.
fn limits(config: &Config, findings: &mut Vec<Finding>) {
    let limited = |program: &&Program| {
        program.memory_max.is_some() || program.pids_max.is_some() || program.cpu_max.is_some()
    };
    let limited = config.programs.iter().filter(limited);
    let names: Vec<&str> = limited.map(|program| program.name.as_str()).collect();
    if names.is_empty() {
        return;
    }
    let whose = format!("memory_max, pids_max and cpu_max of {}", names.join(", "));
    let (weight, message) = if config.daemon.cgroups == Cgroups::Off {
        let message = format!("{whose} are not enforced: daemon.cgroups is \"off\"");
        (Weight::Warning, message)
    } else {
        let message = format!(
            "whether {whose} can be enforced: that depends on how the daemon is started; `eternal status` \
             says it then"
        );
        (Weight::Unchecked, message)
    };
    findings.push(Finding::new(weight, "daemon.cgroups", message));
}

/// Tells why a log file or the like could not be written, if so.
fn unwritable(key: &str, path: &Path, weight: Weight) -> Option<Finding> {
    // Nothing is made and nothing is waited for.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new()
        .append(true)
        .custom_flags(flags.bits())
        .open(path);
    match opened {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => uncreatable(key, path, weight),
        Err(error) => Some(found(
            key,
            format!("cannot write {}", path.display()),
            &error,
            weight,
        )),
    }
}

/// Tells why a file could not be made, if so: its directories are made as needed, so what counts is the
/// last one that exists.
fn uncreatable(key: &str, path: &Path, weight: Weight) -> Option<Finding> {
    let parent = path.ancestors().skip(1).find(|parent| parent.exists())?;
    let cannot = format!("cannot make {} in {}", path.display(), parent.display());
    if !parent.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Some(found(key, cannot, &error, weight));
    }
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    let refused = access(parent, wanted).err()?;
    Some(found(key, cannot, &refused.into(), weight))
}

fn found(key: &str, cannot: String, error: &io::Error, weight: Weight) -> Finding {
    let weight = match weight_of(error) {
        Weight::Unchecked => Weight::Unchecked,
        Weight::Error | Weight::Warning => weight,
    };
    Finding::new(weight, key, format!("{cannot}: {error}{}", as_whom(weight)))
}

fn refused(key: &str, error: &(dyn Error + 'static)) -> Finding {
    let mut cause = Some(error);
    let mut weight = Weight::Error;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            weight = weight_of(error);
        }
        cause = error.source();
    }
    Finding::new(weight, key, with_causes(error) + &as_whom(weight))
}

/// What a user without privileges may not see or do, the daemon's own user may.
fn weight_of(error: &io::Error) -> Weight {
    if error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() {
        Weight::Unchecked
    } else {
        Weight::Error
    }
}

fn weight_of_failure(kind: &crate::supervision::FailureKind) -> Weight {
    if *kind == crate::supervision::FailureKind::Permission && !geteuid().is_root() {
        Weight::Unchecked
    } else {
        Weight::Warning
    }
}

fn as_whom(weight: Weight) -> String {
    match weight {
        Weight::Unchecked => format!(" (as uid {}; another user may)", geteuid()),
        Weight::Error | Weight::Warning => String::new(),
    }
}
