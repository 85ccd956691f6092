//! Mistakes are answered with what was meant.

use std::os::unix::process::CommandExt;

use crate::world::World;

const GOOD: &str = "[programs.web]\ncommand = [\"sleep\", \"1000\"]\n";

#[test]
fn a_file_of_another_language_is_named_and_so_is_what_translates_it() {
    let world = World::new(GOOD);
    for (text, words) in [
        ("processes:\n  web:\n    command: sleep\n", "this is YAML"),
        ("{ \"apps\": [] }\n", "eternal import pm2"),
        (
            "[supervisord]\nnodaemon=true\n[program:web]\ncommand=/bin/true\n",
            "eternal import supervisord",
        ),
    ] {
        world.write("other", text);
        let said = world.eternal(&["check", "other"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(words), "{words}: {said:?}");
        assert_eq!(
            said.err.matches("error").count(),
            1,
            "once, not once a line: {said:?}"
        );
    }
}

#[test]
fn a_key_of_another_supervisor_is_translated() {
    for (key, ours) in [
        ("cwd", "`working_directory`"),
        ("directory", "`working_directory`"),
        ("stdout_logfile", "`log_file`"),
        ("env", "`environment`"),
        ("max_memory_restart", "`memory_max`"),
        ("autorestart", "`restart`"),
    ] {
        let world = World::new(&format!("{GOOD}{key} = 1\n"));
        let said = world.eternal(&["check"]);
        assert!(
            said.err.contains(&format!("here it is {ours}")),
            "{key}: {said:?}"
        );
    }
}

#[test]
fn a_variable_with_one_underscore_is_not_ignored_without_a_word() {
    let world = World::new(GOOD);
    let mut command = world.command(World::binary());
    command
        .args(["check", "--file-only"])
        .env("ETERNAL_LOG_LEVEL", "debug");
    let said = world.said(command);
    assert_eq!(said.code, 0, "{said:?}");
    let words =
        "the variable ETERNAL_LOG_LEVEL is not read: it would be ETERNAL__DAEMON__LOG_LEVEL";
    assert!(said.err.contains(words), "{said:?}");
}

#[test]
fn a_command_in_one_word_and_a_file_without_a_first_line_are_explained() {
    let world = World::new(
        "[defaults]\nrestart_delay = \"10ms\"\ncrash_threshold = 1\n\
         [programs.words]\ncommand = [\"echo hi | cat\"]\n\
         [programs.text]\ncommand = [\"./text\"]\n\
         [programs.good]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    world.write("text", "echo hello\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("text"), mode).expect("a mode");
    let mut daemon = world.run();
    let why = world.is("words", "failed").why;
    assert!(
        why.contains("\"echo …\"") && why.contains("there is no shell"),
        "{why}"
    );
    let why = world.is("text", "failed").why;
    assert!(why.contains("nor a script with a #! line"), "{why}");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn who_may_not_use_the_socket_hears_whose_it_is() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to become another user: not tested");
        return;
    }
    let world = World::new(GOOD);
    let mut daemon = world.run();
    let binary = world.path("eternal");
    let copied = world
        .command("cp")
        .arg(World::binary())
        .arg(&binary)
        .status();
    assert!(copied.expect("cp").success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("."), mode).expect("a mode");
    let mut command = world.command(&binary);
    command.arg("status").uid(65_534).gid(65_534);
    let said = world.said(command);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(
        said.err.contains("it is root's: `sudo` may use it"),
        "{said:?}"
    );
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn numbers_of_the_json_log_are_numbers_and_healthcheck_speaks_json_too() {
    let world = World::new(&format!("[daemon]\nlog_format = \"json\"\n{GOOD}"));
    let mut daemon = world.run();
    let pid = world.pid("web");
    let line = world.logged(&["\"started\""]);
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (line["pid"].as_i64(), line["run"].as_i64()),
        (Some(pid.into()), Some(1)),
        "{line}"
    );
    let said = world.eternal(&["healthcheck", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["ok"], true, "{said:?}");
    assert_eq!(daemon.is_stopped(), 0);
}

#[test]
fn a_limit_of_an_option_is_named_by_the_option() {
    let world = World::new(GOOD);
    let said = world.eternal(&["logs", "-n", "2000000"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err.contains("--lines") && said.err.contains("100000"),
        "{said:?}"
    );
}

#[test]
fn config_shows_what_the_running_daemon_was_told_and_with_file_what_the_file_says() {
    let world = World::new(GOOD);
    let started = world.eternal(&["start", "--log-level", "debug"]);
    assert_eq!(started.code, 0, "{started:?}");
    let said = world.eternal(&["config"]);
    assert!(
        said.out
            .contains("log_level = \"debug\"  # from the option --log-level"),
        "{said:?}"
    );
    let said = world.eternal(&["config", "--file"]);
    assert!(
        said.out
            .contains("log_level = \"info\"  # from the built-in default"),
        "{said:?}"
    );
    assert_eq!(world.eternal(&["stop"]).code, 0);
    let said = world.eternal(&["config"]);
    assert!(said.out.contains("log_level = \"info\""), "{said:?}");
}

#[test]
fn the_man_page_has_the_sections_of_a_man_page_and_names_no_page_that_is_not_there() {
    let world = World::new(GOOD);
    let page = world.eternal(&["man"]).out;
    for section in [
        "EXIT STATUS",
        "SIGNALS",
        "FILES",
        "ENVIRONMENT",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        let heading = page
            .lines()
            .any(|line| line.replace('"', "") == format!(".SH {section}"));
        assert!(heading, "{section}");
    }
    assert!(
        !page.contains("EXTRA") && !page.contains("eternal\\-run"),
        "{page}"
    );
}
