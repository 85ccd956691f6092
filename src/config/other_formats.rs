//! What people bring from elsewhere: files that are not TOML, and keys as other supervisors call them.

/// Recognises the language of a text that is not TOML; returns what it is and what to do with it.
pub(super) fn language(text: &str) -> Option<(&'static str, &'static str)> {
    let lines = || {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
    };
    let first = lines().next()?;
    let ini = |line: &str| line.starts_with("[program:") || line.starts_with("[supervisord");
    if lines().any(ini) {
        return Some((
            "a supervisord.conf",
            "`eternal import supervisord FILE` translates it",
        ));
    }
    if first.starts_with("module.exports") || first.starts_with('{') {
        return Some((
            "JSON or JavaScript",
            "`eternal import pm2 FILE` translates an ecosystem file of PM2",
        ));
    }
    if first == "---" || first.starts_with("- ") || is_yaml(first) {
        return Some((
            "YAML",
            "`eternal import pm2 FILE` translates an ecosystem file of PM2, \
             `eternal import procfile FILE` a Procfile",
        ));
    }
    None
}

/// Tells whether a line is `key:` or `key: value`.
fn is_yaml(line: &str) -> bool {
    line.split_once(':').is_some_and(|(key, rest)| {
        let word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        !key.is_empty() && key.chars().all(word) && (rest.is_empty() || rest.starts_with(' '))
    })
}

/// What other supervisors call it, and what to write here.
const SYNONYMS: &[(&[&str], &str)] = &[
    (
        &[
            "cwd",
            "directory",
            "chdir",
            "workdir",
            "working_dir",
            "WorkingDirectory",
        ],
        "`working_directory`",
    ),
    (
        &["env", "envs", "Environment"],
        "`environment`, a table; a file of variables is `env_file`",
    ),
    (
        &["environment_file", "EnvironmentFile", "dotenv"],
        "`env_file`",
    ),
    (
        &[
            "stdout_logfile",
            "stderr_logfile",
            "logfile",
            "out_file",
            "error_file",
            "log",
        ],
        "`log_file`, for both streams",
    ),
    (
        &[
            "max_memory_restart",
            "memory_limit",
            "mem_limit",
            "MemoryMax",
        ],
        "`memory_max`, beyond which the kernel ends it, which is a crash",
    ),
    (
        &["autorestart", "Restart", "restart_policy"],
        "`restart`: always, on-failure or never",
    ),
    (&["RestartSec", "restart_sec", "backoff"], "`restart_delay`"),
    (
        &["startretries", "retries"],
        "`crash_threshold`, or `max_restarts`",
    ),
    (
        &["numprocs", "replicas", "scale", "processes"],
        "`instances`",
    ),
    (
        &["stopsignal", "KillSignal", "kill_signal"],
        "`stop_signal`",
    ),
    (
        &[
            "stopwaitsecs",
            "kill_timeout",
            "TimeoutStopSec",
            "stop_grace_period",
        ],
        "`stop_timeout`",
    ),
    (&["exitcodes", "SuccessExitStatus"], "`success_exit_codes`"),
    (
        &["depends_on", "Requires", "After", "priority"],
        "`after`, the names of programs that come first",
    ),
    (
        &["cmd", "exec", "script", "ExecStart", "args"],
        "`command`, an array: the program and each argument",
    ),
    (&["healthcheck", "liveness_probe"], "`health_check`"),
    (&["readiness_probe", "wait_ready"], "`ready`"),
    (&["uid", "username"], "`user`"),
    (&["gid"], "`group`"),
];

/// Returns what a key of other supervisors is here.
pub(super) fn synonym(key: &str) -> Option<&'static str> {
    let row = SYNONYMS.iter().find(|(names, _)| names.contains(&key))?;
    Some(row.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Section;
    use crate::config::schema;

    #[test]
    fn each_language_is_recognised_by_its_first_words() {
        for (text, what) in [
            ("# c\nprocesses:\n  web:\n", Some("YAML")),
            ("version: 3\n", Some("YAML")),
            ("{\n \"apps\": []\n}", Some("JSON or JavaScript")),
            ("module.exports = {}", Some("JSON or JavaScript")),
            (
                "[unix_http_server]\nfile=/x\n[program:web]\n",
                Some("a supervisord.conf"),
            ),
            ("[programs.web]\ncommand = [\"a\"\n", None),
            ("", None),
        ] {
            assert_eq!(language(text).map(|found| found.0), what, "{text}");
        }
    }

    #[test]
    fn every_answer_is_a_key_and_no_question_is_one() {
        for (names, answer) in SYNONYMS {
            let key = answer.split('`').nth(1).unwrap_or_default();
            assert!(schema::find(Section::Program, key).is_some(), "{key}");
            for name in *names {
                assert!(schema::find(Section::Program, name).is_none(), "{name}");
            }
        }
    }
}
