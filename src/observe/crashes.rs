//! The crash history: bounded, in memory; the daemon keeps it on disk as JSON lines.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::api::Crash;

const PER_PROGRAM: usize = 50;
const OVERALL: usize = 1000;

/// The latest crashes: 50 of each program and 1,000 of all, oldest first.
///
/// A handle; clones share one history. A small mutex, held for a push or a copy only, because
/// crashes come from the loop and are read by the control server, each a few times a minute.
#[derive(Clone, Debug, Default)]
pub struct CrashHistory(Arc<Mutex<VecDeque<Crash>>>);

impl CrashHistory {
    /// Reads JSON lines, oldest first, and leaves out what is not a crash (a torn last line).
    #[must_use]
    pub fn load(lines: impl BufRead) -> Self {
        let history = Self::default();
        for line in lines.lines().map_while(Result::ok) {
            if let Ok(crash) = serde_json::from_str(&line) {
                history.push(crash);
            }
        }
        history
    }

    /// Adds a crash; the oldest ones beyond the bounds go.
    pub fn push(&self, crash: Crash) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |c: &Crash| c.program == crash.program;
        if all.iter().filter(|c| same(c)).count() >= PER_PROGRAM
            && let Some(oldest) = all.iter().position(same)
        {
            all.remove(oldest);
        }
        if all.len() >= OVERALL {
            all.pop_front();
        }
        all.push_back(crash);
    }

    /// Returns the crashes of one program (`web`), of one replica (`web/1`), or of all, oldest first.
    #[must_use]
    pub fn query(&self, program: Option<&str>) -> Vec<Crash> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|c| program.is_none_or(|name| is_called(c, name)))
            .cloned()
            .collect()
    }
}

fn is_called(crash: &Crash, name: &str) -> bool {
    crash.program == name
        || name.split_once('/').is_some_and(|(program, replica)| {
            program == crash.program && replica.parse() == Ok(crash.replica)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(program: &str, code: i32) -> Crash {
        Crash {
            at: String::new(),
            program: program.to_owned(),
            replica: 0,
            pid: Some(1),
            reason: "exit_code".to_owned(),
            code: Some(code),
            signal: None,
            description: String::new(),
            ran_seconds: 1.0,
            verdict: String::new(),
            last_output: Vec::new(),
        }
    }

    #[test]
    fn one_program_cannot_push_out_the_others_and_the_whole_is_bounded() {
        let history = CrashHistory::default();
        history.push(crash("quiet", 1));
        for code in 0..200 {
            history.push(crash("loud", code));
        }
        assert_eq!(history.query(Some("quiet")).len(), 1);
        let loud = history.query(Some("loud"));
        assert_eq!((loud.len(), loud[0].code), (50, Some(150)));
        for n in 0..2000 {
            history.push(crash(&format!("p{n}"), 0));
        }
        assert_eq!(history.query(None).len(), 1000);
    }

    #[test]
    fn a_torn_line_is_left_out() {
        let whole = serde_json::to_string(&crash("a", 1)).expect("a crash is JSON");
        let file = format!("{whole}\n{}", &whole[..20]);
        assert_eq!(
            CrashHistory::load(file.as_bytes()).query(None),
            [crash("a", 1)]
        );
    }
}
