//! Which tests prove which class: `FILE: NAME`, as SECURITY.md writes them too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The classes in the order of their discussion, and the tests that stand for them. A class without
/// a test says why in its name.
pub const CLASSES: [(&str, &[&str]); 21] = [
    (
        "root writes where a service may write",
        &[
            "tests/daemon/log_places.rs: a_program_of_another_user_never_makes_root_write_outside_its_log_directory",
            "tests/log_safety.rs: names_that_are_swapped_all_the_time_get_nothing_and_give_nothing",
            "src/os/places/tests.rs: names_that_are_swapped_all_the_time_lead_root_nowhere",
        ],
    ),
    (
        "control over HTTP",
        &[
            "tests/advisories/pages.rs: nothing_that_can_be_sent_over_tcp_changes_anything_or_makes_a_series",
        ],
    ),
    (
        "a pid file or a state file is trusted",
        &[
            "tests/daemon/inheritance.rs: a_forged_record_never_ends_a_stranger",
            "tests/daemon/inheritance.rs: state_that_others_can_write_is_refused_with_its_owner_and_the_rule",
            "tests/daemon/bad_places.rs: a_pid_file_that_names_an_unrelated_process_is_replaced_and_that_process_is_left_alone",
        ],
    ),
    (
        "an unknown user means root",
        &["tests/advisories/births.rs: a_user_that_is_nobodys_name_runs_nothing"],
    ),
    (
        "a notify socket believes strangers or keeps what they send",
        &[
            "tests/daemon/notify.rs: a_stranger_neither_makes_a_program_ready_nor_keeps_a_hung_one_alive",
            "tests/daemon/notify.rs: descriptors_and_odd_messages_leave_nothing_behind",
        ],
    ),
    (
        "text of a program becomes state",
        &["src/os/journal/tests.rs: no_text_of_a_program_can_forge_a_record"],
    ),
    (
        "/proc of hostile processes",
        &["src/os/environ.rs: a_variable_is_found_by_its_whole_name_wherever_the_chunks_end"],
    ),
    (
        "what is found in a foreign file is executed",
        &[
            "tests/import/differences.rs: root_does_not_run_the_javascript_of_another_user_unasked",
            "tests/daemon/trust.rs: root_runs_no_configuration_of_another_user_unless_it_is_named",
        ],
    ),
    (
        "descriptors leak to children",
        &[
            "tests/advisories/births.rs: a_program_is_born_with_three_descriptors_whatever_the_daemon_has_open",
        ],
    ),
    (
        "a peer is who it says",
        &[
            "tests/daemon/trust.rs: a_peer_is_who_the_kernel_says_whatever_its_address_and_its_namespace_say",
        ],
    ),
    (
        "secrets can be read",
        &[
            "tests/advisories/canary.rs: no_secret_is_seen_on_a_page_in_the_text_log_in_spans_or_in_crash_records",
            "tests/advisories/canary.rs: no_secret_is_seen_where_the_log_is_json",
            "tests/answers/gone.rs: what_a_daemon_leaves_is_for_its_own_user_alone",
        ],
    ),
    (
        "an exporter without bounds, a password that is remembered",
        &[
            "tests/advisories/pages.rs: nothing_that_can_be_sent_over_tcp_changes_anything_or_makes_a_series",
            "tests/metrics_protection.rs: every_page_asks_for_the_right_password",
            "tests/metrics_protection.rs: a_guesser_has_to_wait_and_who_is_known_has_not",
        ],
    ),
    (
        "a status page runs what names say, or is read by another site",
        &[
            "tests/advisories/pages.rs: names_and_messages_with_markup_become_no_element_of_the_page",
            "tests/advisories/pages.rs: every_answer_tells_a_browser_to_run_frame_keep_and_pass_on_nothing",
            "tests/advisories/pages.rs: a_page_that_calls_this_machine_by_another_name_does_not_get_the_status_page",
        ],
    ),
    (
        "output reaches a terminal",
        &[
            "tests/answers/terminal.rs: what_a_program_writes_cannot_reach_the_terminal_of_who_reads_it",
            "tests/answers/terminal.rs: whoever_answers_at_the_socket_cannot_reach_the_terminal_of_any_verb",
        ],
    ),
    (
        "privileges are dropped late, in the wrong order or not",
        &[
            "tests/daemon/identity.rs: a_program_has_its_users_ids_and_groups_and_nothing_of_what_the_daemon_may_do",
            "src/os/spawn/tests.rs: a_process_that_did_not_become_who_it_should_executes_nothing",
        ],
    ),
    (
        "a value becomes a line of generated text",
        &["src/cli/systemd_unit/tests.rs: no_word_becomes_a_line_of_its_own"],
    ),
    (
        "parsing takes for ever",
        &[
            "tests/advisories/hostile_files.rs: a_configuration_however_hostile_is_read_or_refused_in_bounded_time_and_memory",
            "tests/advisories/hostile_files.rs: a_procfile_and_an_ini_file_however_hostile_are_read_or_refused_in_bounded_time",
        ],
    ),
    (
        "logs fill a disk: bounded for each file, and `check` does not say yet how much that is in all",
        &[],
    ),
    ("pages are dropped: the daemon pages nobody yet", &[]),
    (
        "supply chain: a build of the same source twice is not compared yet",
        &[],
    ),
    (
        "who is only local starves the others",
        &[
            "tests/exposition.rs: the_silent_however_many_keep_no_scraper_out",
            "tests/daemon/bad_places.rs: another_user_may_not_command_the_daemon",
        ],
    ),
];

/// Tells whether `FILE: NAME` is a test.
fn is_there(test: &str) -> bool {
    let Some((file, name)) = test.split_once(": ") else {
        return false;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    let head = format!("fn {name}(");
    text.split("#[test]").skip(1).any(|part| {
        let begin = part.split('{').next().unwrap_or_default();
        begin.contains(&head)
    })
}

#[test]
fn every_class_names_tests_that_are_there_or_says_why_there_is_none() {
    assert!(
        !is_there("tests/advisories/classes.rs: is_there"),
        "no test"
    );
    for (class, tests) in CLASSES {
        assert!(!tests.is_empty() || class.contains(" yet"), "{class}");
        for test in tests {
            assert!(is_there(test), "{class}: {test}");
        }
    }
}

#[test]
fn every_promise_of_the_security_policy_names_tests_that_are_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md");
    let policy = fs::read_to_string(path).expect("SECURITY.md");
    let (_, from) = policy.split_once("## What is promised").expect("promises");
    let (promises, _) = from.split_once("\n## ").expect("an end");
    let mut named = BTreeSet::new();
    for promise in promises.split("\n- ").skip(1) {
        let tests: Vec<&str> = promise
            .split('`')
            .filter(|text| text.contains(".rs: "))
            .collect();
        assert!(!tests.is_empty(), "no test proves: {promise}");
        for test in tests {
            assert!(is_there(test), "{test}: {promise}");
            named.insert(test.to_owned());
        }
    }
    assert!(named.len() > 10, "{named:?}");
}
