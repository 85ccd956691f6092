//! Programs that cannot be started, and what is said about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use eternal::os::children::Launch;
use eternal::os::limits::Resource;
use eternal::supervision::{FailureKind, SpawnFailure};

use crate::world::{World, within};

fn refused(world: &mut World, launch: &Launch) -> SpawnFailure {
    let failure = world.start(launch).err().expect("it cannot start");
    assert!(world.children.is_empty(), "nothing is left of it");
    failure
}

fn crash(kind: FailureKind, message: &str) -> SpawnFailure {
    SpawnFailure {
        kind,
        transient: false,
        message: message.to_owned(),
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_named_with_the_cause() {
    within(async |world| {
        world.script("orphaned", "#!/no/such\n");
        world.script("garbage", "\x01\x02\x03");
        let plain = world.script("plain", "#!/bin/sh\n");
        fs::set_permissions(plain, fs::Permissions::from_mode(0o644)).expect("a mode");
        let missing = "no such file in its PATH";
        let cases = [
            ("/no/such", FailureKind::Exec, "no such file or directory"),
            ("nosuch", FailureKind::Exec, missing),
            ("/usr", FailureKind::Exec, "is a directory"),
            (
                "./orphaned",
                FailureKind::Exec,
                "its interpreter /no/such does not exist",
            ),
            (
                "./garbage",
                FailureKind::Exec,
                "exec format error: neither a program of this machine nor a script with a #! line",
            ),
            (
                "./plain",
                FailureKind::Permission,
                "permission denied (not executable)",
            ),
            ("/etc/passwd/x", FailureKind::Exec, "not a directory"),
        ];
        for (command, kind, cause) in cases {
            let failure = refused(world, &world.launch(&[command]));
            assert_eq!(
                failure,
                crash(kind, &format!("cannot execute {command}: {cause}"))
            );
        }
    });
}

#[test]
fn a_working_directory_that_is_gone_is_named() {
    within(async |world| {
        let mut launch = world.launch(&["true"]);
        launch.working_directory = "/gone".into();
        let message = "cannot enter working directory /gone: no such file or directory";
        assert_eq!(
            refused(world, &launch),
            crash(FailureKind::Directory, message)
        );
    });
}

#[test]
fn a_user_that_does_not_exist_is_named() {
    within(async |world| {
        let mut launch = world.launch(&["true"]);
        launch.user = Some("nobody2".to_owned());
        let message = "user nobody2 does not exist";
        assert_eq!(refused(world, &launch), crash(FailureKind::User, message));
    });
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named_with_its_value() {
    within(async |world| {
        let mut launch = world.launch(&["true"]);
        let nofile = Resource::parse("nofile").expect("a limit");
        // Above fs.nr_open, which not even root may exceed.
        launch.limits = vec![(nofile, Some(1 << 40), Some(1 << 40))];
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").expect("readable");
        let message = format!(
            "cannot set limit nofile to 1099511627776: operation not permitted \
             (EPERM; the machine's fs.nr_open is {})",
            most.trim()
        );
        assert_eq!(
            refused(world, &launch),
            crash(FailureKind::Permission, &message)
        );
    });
}

#[test]
fn what_needs_a_privilege_says_which() {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .expect("the kernel tells it");
    if held & CAP_SYS_RESOURCE != 0 {
        eprintln!("SKIPPED: this process has CAP_SYS_RESOURCE");
        return;
    }
    within(async |world| {
        let mut launch = world.launch(&["true"]);
        launch.oom_score_adj = Some(-999);
        let message = "cannot set oom_score_adj to -999: permission denied \
                       (EACCES; to lower it needs CAP_SYS_RESOURCE)";
        assert_eq!(
            refused(world, &launch),
            crash(FailureKind::Permission, message)
        );
        let mut launch = world.launch(&["true"]);
        let memlock = Resource::parse("memlock").expect("a limit");
        launch.limits = vec![(memlock, None, None)];
        let message = "cannot set limit memlock to unlimited: operation not permitted \
                       (EPERM; more than the daemon's own hard limit needs CAP_SYS_RESOURCE)";
        assert_eq!(
            refused(world, &launch),
            crash(FailureKind::Permission, message)
        );
    });
}

#[test]
fn an_oom_score_out_of_range_is_named_with_its_value() {
    within(async |world| {
        let mut launch = world.launch(&["true"]);
        launch.oom_score_adj = Some(5000);
        let message = "cannot set oom_score_adj to 5000: invalid argument";
        assert_eq!(
            refused(world, &launch),
            crash(FailureKind::Permission, message)
        );
    });
}

#[test]
fn a_shortage_of_processes_is_transient() {
    within(async |world| {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can switch to a user at its limit");
            return;
        }
        let mut launch = world.launch(&["sleep", "60"]);
        launch.working_directory = "/".into();
        launch.user = Some("nobody".to_owned());
        // The kernel counts those that are there already: one has to be.
        world.start(&launch).expect("it starts");
        launch.argv = vec!["true".to_owned()];
        let nproc = Resource::parse("nproc").expect("a limit");
        launch.limits = vec![(nproc, Some(0), Some(0))];
        let failure = world.start(&launch).err().expect("it cannot start");
        assert_eq!(failure.kind, FailureKind::Limits);
        assert!(failure.transient, "{failure}");
        let message = "cannot execute true: resource temporarily unavailable";
        assert!(failure.message.starts_with(message), "{failure}");
    });
}

#[test]
fn a_nul_byte_is_refused_and_not_cut() {
    within(async |world| {
        let failure = refused(world, &world.launch(&["true", "a\0b"]));
        assert_eq!(
            failure.message,
            "cannot execute: an argument has a NUL byte"
        );
    });
}
