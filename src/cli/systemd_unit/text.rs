//! How a unit is written. `deploy/systemd/` holds what comes out for `deploy/eternal.toml`.

use std::path::Path;
use std::time::Duration;

use super::needs::Needs;

/// Whom `--run-as` names unless it is given.
const DEFAULT_USER: &str = "eternal";

/// Writes the unit.
pub(super) fn unit(needs: &Needs) -> String {
    let file = needs.file.display();
    let users = match needs.user.as_deref() {
        None => " --users".to_owned(),
        Some(DEFAULT_USER) => String::new(),
        Some(user) => format!(" --run-as {user}"),
    };
    let mut text = format!(
        "\
# Written by `eternal systemd-unit --config {file}{users}`.
# Write it anew when paths, users or timeouts in that file change; other changes belong in a drop-in.

[Unit]
Description=Eternal process supervisor
Wants=network-online.target
After=network-online.target nss-user-lookup.target

[Service]
"
    );
    text.push_str(&life(needs));
    text.push_str(&identity(needs));
    text.push_str(&directories(needs));
    text.push_str(&privileges(needs));
    text.push_str(&protection(needs));
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    text
}

fn life(needs: &Needs) -> String {
    let (executable, file) = (argument(&needs.executable), argument(&needs.file));
    let (start, stop) = (seconds(needs.start), seconds(needs.stop));
    let mut text = format!(
        "\
# Active when every program that starts with the daemon is ready or has said why not.
Type=notify
ExecStart={executable} run --config {file}
# What changed is put in force; a bad configuration fails and touches nothing.
ExecReload={executable} reload --config {file}
# 1: gave up on a crash loop, tried again. 2: cannot work with this configuration, not tried again.
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2
# The supervision loop itself sends the signs of life.
WatchdogSec=30
# Above what all programs may take to stop and get ready, one after the other, as in a reload.
TimeoutStartSec={start}
# Above the longest grace of programs that stop after each other, and `linger`.
TimeoutStopSec={stop}
# The daemon stops its programs; what it leaves is killed.
KillMode=mixed
# One program killed for want of memory is the daemon's to restart.
OOMPolicy=continue
# A cgroup for each program, below the service's own.
Delegate=yes
"
    );
    if needs.journal_only {
        text.push_str(
            "# The journal has the only copy of every line.\nLogRateLimitIntervalSec=0\n",
        );
    }
    text
}

fn identity(needs: &Needs) -> String {
    match &needs.user {
        Some(user) => format!("\nUser={user}\nUMask=0027\n"),
        None => "\n# Root, because programs have users of their own.\nUMask=0027\n".to_owned(),
    }
}

fn directories(needs: &Needs) -> String {
    let mut text = String::new();
    for (setting, names) in &needs.directories {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("{setting}={}\n", names.join(" ")));
        if *setting == "LogsDirectory" {
            text.push_str("LogsDirectoryMode=0750\n");
        }
    }
    for directory in &needs.writable {
        let directory = quoted(&directory.display().to_string());
        text.push_str(&format!("ReadWritePaths={directory}\n"));
    }
    text
}

fn privileges(needs: &Needs) -> String {
    let mut text = String::new();
    if needs.user.is_some() {
        text.push_str("\nCapabilityBoundingSet=\n");
    } else {
        let more: String = needs
            .capabilities
            .iter()
            .map(|capability| format!(" {capability}"))
            .collect();
        text.push_str(&format!(
            "
# To become other users, signal them, and see what of theirs runs and what it uses.
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH{more}
"
        ));
    }
    text.push_str("# No sudo, no setuid binaries: programs have what the daemon has, or less.\n");
    text.push_str("NoNewPrivileges=yes\n");
    text
}

fn protection(needs: &Needs) -> String {
    let home = if needs.homes { "read-only" } else { "yes" };
    let tmp = if needs.tmp { "no" } else { "yes" };
    format!(
        "
# All programs live in this sandbox. To write elsewhere: ReadWritePaths=.
ProtectSystem=strict
ProtectHome={home}
PrivateTmp={tmp}
PrivateMounts=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Not ProcSubset=pid: /proc/stat, /proc/uptime and /proc/sys/kernel/random/boot_id are read.
ProtectProc=invisible
# Cgroups are read-only but for the delegated one; another Slice= has another path.
ProtectControlGroups=yes
ReadWritePaths=-/sys/fs/cgroup/system.slice/%n
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute=: programs with a just-in-time compiler need it off.
"
    )
}

/// Whole seconds, rounded up.
fn seconds(of: Duration) -> u64 {
    of.as_secs() + u64::from(of.subsec_nanos() > 0)
}

/// One word of a command line: `$` would begin a variable there.
fn argument(path: &Path) -> String {
    quoted(&path.display().to_string()).replace('$', "$$")
}

/// One word of a setting: `%` would begin a specifier.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    if word.contains([' ', '\t', '"', '\'', '\\', ';']) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_mean_themselves() {
        assert_eq!(argument(Path::new("/opt/a b/$x%h")), "\"/opt/a b/$$x%%h\"");
        assert_eq!(quoted(r#"/srv/"a"\b"#), r#""/srv/\"a\"\\b""#);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
    }
}
