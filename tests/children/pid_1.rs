//! The same as the init of a pid namespace.

use std::process::Command;

use eternal::supervision::WaitStatus;

use crate::world::{alive, within};

#[test]
fn as_pid_1_everything_is_reaped() {
    let own = std::env::current_exe().expect("the path of this test");
    let inside = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(own)
        .args([
            "--exact",
            "pid_1::inside",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .output();
    let output = match inside {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: no unshare here: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("Operation not permitted") && text.is_empty() {
        return eprintln!("skipped: a pid namespace is refused: {errors}");
    }
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
}

#[test]
#[ignore = "run by as_pid_1_everything_is_reaped in a namespace of its own"]
fn inside() {
    assert!(eternal::os::is_pid_1());
    within(async |world| {
        let mut started = world.shell("(sh -c 'echo $$; exec sleep 1000' &) ; exec sleep 1000");
        let member = started.number().await;
        let mut stranger = world.launch(&["/bin/sh", "-c", "(exit 5) & echo $!; exec sleep 1000"]);
        stranger.family = false;
        let mut stranger = world.start(&stranger).expect("it starts");
        let orphan = stranger.number().await;
        world.children.kill(stranger.run);
        assert_eq!(
            world.exit(stranger.run).await.0.signal(),
            Some(libc::SIGKILL)
        );
        assert_eq!(world.orphan(orphan).await, WaitStatus::Exited { code: 5 });
        world.children.stop(started.run, libc::SIGTERM);
        world.finish(started.run).await;
        assert!(!alive(member));
        assert!(world.children.is_empty());
    });
}
