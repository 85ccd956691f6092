//! `check` knows what `start` knows.

use std::net::TcpListener;

use crate::world::World;

const GOOD: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

/// Both refuse this config with the same code and the same words.
#[track_caller]
fn both_refuse(world: &World, words: &str) {
    let (checked, started) = (world.eternal(&["check"]), world.eternal(&["start"]));
    assert_eq!(
        (checked.code, started.code),
        (2, 2),
        "{checked:?} {started:?}"
    );
    assert!(checked.err.contains(words), "{words}: {checked:?}");
    assert!(started.err.contains(words), "{words}: {started:?}");
}

#[test]
fn what_start_refuses_check_refuses_with_the_same_words() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let cases = [
        (
            "[metrics]\nlisten = \"unix:m\"\ntls_cert = \"no.pem\"\ntls_key = \"no.key\"\n"
                .to_owned(),
            "no.pem",
        ),
        (
            "[metrics]\nlisten = \"unix:m\"\nbasic_auth_file = \"users\"\n".to_owned(),
            "users",
        ),
        (
            format!("[metrics]\nlisten = \"{address}\"\n"),
            "cannot listen on 127.0.0.1",
        ),
        (
            "[daemon]\nlog_file = \"file/daemon.log\"\n".to_owned(),
            "file",
        ),
        (
            "[daemon]\npid_file = \"directory\"\n".to_owned(),
            "pid file",
        ),
    ];
    for (config, words) in cases {
        let world = World::new(&format!("{config}{GOOD}"));
        world.write("users", "prom: not-a-hash\n");
        world.write("file", "in the way\n");
        std::fs::create_dir(world.path("directory")).expect("a directory");
        both_refuse(&world, words);
        assert!(
            !world.path("logs").exists() || words != "no.pem",
            "a check makes nothing"
        );
    }
}

#[test]
fn what_would_fail_once_it_runs_is_a_warning_in_the_words_of_the_failure() {
    let world = World::new(
        "[programs.absent]\ncommand = [\"./worker\"]\n\
         [programs.plain]\ncommand = [\"./plain\"]\n\
         [programs.script]\ncommand = [\"./script\"]\n\
         [programs.nobody]\ncommand = [\"true\"]\nuser = \"no-such-user\"\n\
         [programs.nowhere]\ncommand = [\"true\"]\nworking_directory = \"nowhere\"\n\
         [programs.silent]\ncommand = [\"true\"]\nenv_file = \"no.env\"\n\
         [programs.words]\ncommand = [\"echo hi | cat\"]\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    world.write("plain", "not executable\n");
    world.write("script", "#!/no/such/interpreter\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("script"), mode).expect("a mode");
    let said = world.eternal(&["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "warning: programs.absent.command: cannot execute ./worker: no such file",
        "warning: programs.plain.command: cannot execute ./plain: permission denied (not executable)",
        "warning: programs.script.command: cannot execute ./script: its interpreter /no/such/interpreter",
        "warning: programs.nobody.command: user no-such-user does not exist",
        "warning: programs.nowhere.command: cannot enter working directory",
        "warning: programs.silent.env_file: cannot read env_file",
    ] {
        assert!(said.err.contains(words), "{words:?}: {said:?}");
    }
    assert!(!said.err.contains("programs.good"), "{said:?}");
    assert!(!world.path("state").exists() && !world.path("daemon.pid").exists());
}

#[test]
fn a_check_beside_the_running_daemon_finds_nothing_wrong_with_what_that_holds() {
    let world = World::new(&format!("[metrics]\nlisten = \"127.0.0.1:0\"\n{GOOD}"));
    let mut daemon = world.run();
    world.pid("web");
    let said = world.eternal(&["check"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn programs_of_one_policy_share_one_timeline() {
    let program =
        |name: &str, rest: &str| format!("[programs.{name}]\ncommand = [\"true\"]\n{rest}\n");
    let world = World::new(
        &[
            program("a", ""),
            program("b", "restart_delay = \"5s\""),
            program("c", ""),
        ]
        .concat(),
    );
    let said = world.eternal(&["check"]);
    assert_eq!(
        said.out.matches("at once, every time").count(),
        2,
        "{}",
        said.out
    );
    assert!(
        said.out
            .contains("a: true\nc: true\n  if one of them crashes at once"),
        "{}",
        said.out
    );
}

#[test]
fn check_as_json_is_data() {
    let world = World::new(&format!(
        "{GOOD}[programs.absent]\ncommand = [\"./worker\"]\n"
    ));
    let said = world.eternal(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((json["ok"].as_bool(), said.code), (Some(true), 0), "{json}");
    assert_eq!(json["findings"][0]["weight"], "warning", "{json}");
    assert_eq!(
        json["findings"][0]["key"], "programs.absent.command",
        "{json}"
    );
    assert!(
        json["programs"][0]["gives_up_at_seconds"].is_number(),
        "{json}"
    );

    world.configure("[programs.web]\ncommand = [\"true\"]\nrestrat = 3\n");
    let said = world.eternal(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(
        (json["ok"].as_bool(), said.code),
        (Some(false), 2),
        "{json}"
    );
    assert_eq!(json["problems"][0]["line"], 3, "{json}");
}
