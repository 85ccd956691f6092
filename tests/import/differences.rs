//! What the other supervisors do otherwise is done here as well, or it is said.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use super::{Place, Said, finish};

/// Imports a text and returns the result as read, with what was said.
#[track_caller]
fn import(place: &Place, words: &[&str], text: &str) -> (toml::Table, Said) {
    import_with(place, words, text, &[])
}

#[track_caller]
fn import_with(
    place: &Place,
    words: &[&str],
    text: &str,
    variables: &[(&str, &str)],
) -> (toml::Table, Said) {
    let file = words[1];
    place.write(file, text);
    let mut command = place.command(&["import"]);
    let said = finish(command.args(words).envs(variables.iter().copied()));
    assert_eq!(said.code, Some(0), "{}", said.err);
    (said.out.parse().expect("TOML"), said)
}

fn program<'a>(config: &'a toml::Table, name: &str) -> &'a toml::Table {
    config["programs"][name].as_table().expect("a program")
}

/// Runs the command of a program in the directory, and returns what it prints.
fn run(place: &Place, config: &toml::Table, name: &str, variables: &[(&str, &str)]) -> String {
    let words = program(config, name)["command"].as_array().expect("words");
    let words: Vec<&str> = words.iter().filter_map(toml::Value::as_str).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(place.0.path());
    let said = finish(command.envs(variables.iter().copied()));
    assert_eq!(said.code, Some(0), "{words:?}: {}", said.err);
    said.out
}

#[test]
fn a_small_log_limit_of_one_program_is_not_that_of_the_silent_ones() {
    let place = Place::new();
    let tiny = "[supervisord]\n[program:tiny]\ncommand = a\nredirect_stderr = true\n\
                stdout_logfile = /t.log\nstdout_logfile_maxbytes = 1MB\nstdout_logfile_backups = 0\n";
    let silent = "[program:silent]\ncommand = a\nstdout_logfile = /s.log\n";
    let words = ["supervisord", "a.conf"];
    let (config, said) = import(&place, &words, &format!("{tiny}{silent}"));
    let daemon = config.get("daemon").and_then(toml::Value::as_table);
    let daemon = daemon.cloned().unwrap_or_default();
    assert!(!daemon.contains_key("log_max_size"), "{daemon}");
    assert!(!daemon.contains_key("log_keep"), "{daemon}");
    for text in [
        "stdout_logfile_maxbytes = 1MB: log_max_size is one for all log files: 50MiB, which \
         supervisord takes where nothing is said",
        "stdout_logfile_backups = 0: log_keep is one for all log files: 10, which supervisord",
    ] {
        assert!(said.err.contains(text), "{}", said.err);
    }
    let alone = tiny.replace("[supervisord]", "[supervisord]\nlogfile = /dev/null");
    let (config, _) = import(&place, &words, &alone);
    assert_eq!(config["daemon"]["log_max_size"].as_str(), Some("1MiB"));
    assert_eq!(config["daemon"]["log_keep"].as_integer(), Some(0));
}

#[test]
fn here_is_the_directory_of_the_file_that_says_it() {
    let place = Place::new();
    let included = "[program:a]\ncommand = %(here)s/bin/a\ndirectory = %(here)s\n";
    place.write("conf.d/here.conf", included);
    let main = "[include]\nfiles = conf.d/here.conf\n[program:b]\ncommand = %(here)s/b\n";
    let (config, _) = import(&place, &["supervisord", "a.conf"], main);
    let of = |name: &str| place.plain(program(&config, name)["command"][0].as_str().expect("text"));
    assert_eq!(of("a"), "/etc/x/conf.d/bin/a");
    assert_eq!(of("b"), "/etc/x/b");
    let directory = program(&config, "a")["working_directory"].as_str();
    assert_eq!(place.plain(directory.expect("text")), "/etc/x/conf.d");
}

/// What the programs get was seen with supervisord 4.3.0.
#[test]
fn a_variable_in_a_command_gives_the_words_that_supervisord_makes_of_it() {
    let place = Place::new();
    let text = r#"[program:a]
command = printf '[%%s]' %(ENV_WORDS)s --q=%(ENV_WORDS)s "%(ENV_WORDS)s" %(ENV_QUOTED)s "" \# "\$x"
"#;
    let variables = [("WORDS", "one *"), ("QUOTED", "--name 'a b' *")];
    let words = ["supervisord", "a.conf"];
    let (config, said) = import_with(&place, &words, text, &variables);
    let out = run(&place, &config, "a", &variables);
    assert_eq!(
        out,
        r"[one][*][--q=one][*][one *][--name][a b][*][][#][\$x]"
    );
    for text in [
        "a variable outside quotes is split at white space at every start",
        "QUOTED has quotes, which divide it into words as there",
    ] {
        assert!(said.err.contains(text), "{}", said.err);
    }
}

#[test]
fn a_stream_without_a_file_of_its_own_is_named() {
    let place = Place::new();
    let text = "[program:a]\ncommand = a\nstdout_logfile = /a.log\n";
    let (_, said) = import(&place, &["supervisord", "a.conf"], text);
    assert!(
        said.err.contains("the stream that has no file"),
        "{}",
        said.err
    );
    let joined = format!("{text}redirect_stderr = true\n");
    let (_, said) = import(&place, &["supervisord", "a.conf"], &joined);
    assert!(!said.err.contains("the stream that has no file"));
    let text = "{\"script\": \"a.js\", \"error_file\": \"/a.log\"}";
    let (_, said) = import(&place, &["pm2", "a.json"], text);
    let text = "its stdout, which PM2 writes into a file under ~/.pm2/logs, goes there too";
    assert!(said.err.contains(text), "{}", said.err);
}

#[test]
fn relative_paths_and_families_that_differ_from_supervisord_are_named() {
    let place = Place::new();
    let text = "[program:a]\ncommand = a\ndirectory = /\nstopasgroup = true\n\
                stdout_logfile = logs/a.log\n";
    let (_, said) = import(&place, &["supervisord", "a.conf"], text);
    for text in [
        "relative paths start there",
        "stopasgroup = true: there it is the process group that a stop ends",
    ] {
        assert!(said.err.contains(text), "{}", said.err);
    }
}

#[test]
fn a_listener_that_ends_supervisord_is_said_to_be_critical_here() {
    let place = Place::new();
    let text = "[program:a]\ncommand = a\n[eventlistener:stop]\ncommand = stop-supervisor\n\
                events = PROCESS_STATE_FATAL,PROCESS_STATE_EXITED\n";
    let (_, said) = import(&place, &["supervisord", "a.conf"], text);
    assert!(said.err.contains("say critical = true"), "{}", said.err);
    assert!(
        said.err.contains("command = stop-supervisor"),
        "{}",
        said.err
    );
}

#[test]
fn every_pm2_app_knows_which_instance_it_is() {
    let place = Place::new();
    let text = r#"{"apps": [
        {"name": "one", "script": "a.js", "env": {"A": "1", "NODE_APP_INSTANCE": "7"}},
        {"name": "own", "script": "a.js", "instance_var": "NUMBER"},
        {"name": "two", "script": "b.py", "exec_mode": "fork", "instances": 2}
    ]}"#;
    let (config, said) = import(&place, &["pm2", "a.json"], text);
    let variables = |name: &str| program(&config, name)["environment"].to_string();
    assert_eq!(variables("one"), r#"{ A = "1", NODE_APP_INSTANCE = "0" }"#);
    assert_eq!(variables("own"), r#"{ NUMBER = "0" }"#);
    let script = program(&config, "two")["command"][2]
        .as_str()
        .expect("a script");
    assert!(
        script.starts_with("NODE_APP_INSTANCE=$ETERNAL_REPLICA;"),
        "{script}"
    );
    assert!(
        said.err.contains("(name, pm_id, …) only NODE_APP_INSTANCE"),
        "{}",
        said.err
    );
}

#[test]
fn relative_logs_of_an_app_lie_below_its_cwd() {
    let place = Place::new();
    for (cwd, log, written) in [
        ("./app", "./logs/out.log", "./app/logs/out.log"),
        ("/srv/app", "logs/out.log", "/srv/app/logs/out.log"),
        ("/srv/app", "/var/out.log", "/var/out.log"),
    ] {
        let text = format!(
            "{{\"script\": \"a.js\", \"cwd\": \"{cwd}\", \"out_file\": \"{log}\", \
             \"error_file\": \"{log}\"}}"
        );
        let (config, _) = import(&place, &["pm2", "a.json"], &text);
        let file = program(&config, "a")["log_file"].as_str();
        assert_eq!(file, Some(written));
    }
}

#[test]
fn variables_before_a_command_of_a_procfile_mean_what_the_shell_means() {
    let place = Place::new();
    let line = r#"X=$WORDS Y=~/b Z="p  q" sh -c 'echo "$X,$Y,$Z,$PPID"'"#;
    let text = format!("a: {line}\nb: X=1 exec sh -c 'echo $X'\nc: : $X; echo c\n");
    let (config, _) = import(&place, &["procfile", "P"], &text);
    let variables = [("WORDS", "1 2"), ("HOME", "/h")];
    let out = run(&place, &config, "a", &variables);
    let own = std::process::id();
    assert_eq!(
        out,
        format!("1 2,/h/b,p  q,{own}\n"),
        "it has taken the shell's place"
    );
    assert_eq!(run(&place, &config, "b", &[]), "1\n");
    assert_eq!(run(&place, &config, "c", &[]), "c\n");
}

#[test]
fn root_does_not_run_the_javascript_of_another_user_unasked() {
    if !nix::unistd::geteuid().is_root() || Command::new("node").arg("-v").output().is_err() {
        eprintln!("skipped: it takes root and node");
        return;
    }
    let place = Place::new();
    let script = "require('fs').writeFileSync('ran', ''); module.exports = {script: 'a.js'};";
    let file = place.path("theirs/a.config.js");
    fs::create_dir(place.path("theirs")).expect("a folder");
    let ran = place.path("theirs/ran");
    let directory = place.path("theirs");
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    fs::write(&file, script).expect("a file");
    let refused = |what: &str| {
        let said = place.say(&["import", "pm2", "theirs/a.config.js"]);
        assert_eq!(said.code, Some(2), "{what}: {}", said.err);
        for word in ["theirs/a.config.js", what, "--trust-javascript"] {
            assert!(said.err.contains(word), "{what}: {}", said.err);
        }
        assert!(!ran.exists(), "{what}: it was run");
    };
    chown(&file, Some(4321), None).expect("another owner");
    refused("belongs to user 4321");
    chown(&file, Some(0), None).expect("root's");
    mode(&file, 0o666);
    refused("everybody may write to");
    mode(&file, 0o644);
    chown(&directory, Some(4321), None).expect("another owner");
    refused("belongs to user 4321");
    let words = ["import", "pm2", "theirs/a.config.js", "--trust-javascript"];
    assert_eq!(place.say(&words).code, Some(0));
    assert!(ran.exists());
    fs::remove_file(&ran).expect("removed");
    chown(&directory, Some(0), None).expect("root's");
    assert_eq!(place.say(&words[..3]).code, Some(0));
}

#[test]
fn only_the_file_itself_and_its_caller_say_what_node_runs() {
    if Command::new("node").arg("-v").output().is_err() {
        eprintln!("skipped: there is no node");
        return;
    }
    let place = Place::new();
    place.write("a.config.js", "module.exports = {script: 'a.js'};");
    place.write("other.js", "require('fs').writeFileSync('ran', '');");
    // A directory without a name is the one that the file is in.
    place.write("node", "#!/bin/sh\ntouch ran\n");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path("node"), executable).expect("a mode");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = place.command(&["import", "pm2", "a.config.js"]);
    command.env("PATH", format!(":.:{path}"));
    command.env(
        "NODE_OPTIONS",
        format!("--require={}", place.path("other.js").display()),
    );
    let said = finish(&mut command);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!place.path("ran").exists());
}
