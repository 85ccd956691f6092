//! Names of programs: what the source calls them, within the rule.

use std::collections::BTreeSet;

use crate::config::is_program_name;

const LONGEST: usize = 64;

/// The names that are given.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Gives a name: the one that is wanted, or the nearest that is allowed and free.
    pub fn give(&mut self, wanted: &str) -> String {
        let allowed = allowed(wanted);
        let mut name = allowed.clone();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            let ending = format!("-{number}");
            let room = LONGEST - ending.len();
            name = format!("{}{ending}", &allowed[..allowed.len().min(room)]);
            number += 1;
        }
        name
    }
}

fn allowed(wanted: &str) -> String {
    if is_program_name(wanted) {
        return wanted.to_owned();
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.:@-".contains(c);
    let name: String = wanted
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        "program".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_to_fit_and_given_once() {
        let mut names = Names::default();
        for (wanted, given) in [
            ("web", "web"),
            ("web", "web-2"),
            ("web", "web-3"),
            ("my app/1", "my-app-1"),
            ("@scope/x", "scope-x"),
            ("日本", "program"),
            ("", "program-2"),
            ("_x", "x"),
        ] {
            assert_eq!(names.give(wanted), given);
        }
        let long = "x".repeat(80);
        assert_eq!(names.give(&long), "x".repeat(64));
        assert_eq!(names.give(&long), format!("{}-2", "x".repeat(62)));
        assert!(is_program_name(&names.give(&long)));
    }
}
