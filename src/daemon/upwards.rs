//! What systemd hears.

use super::core::Core;
use crate::os::notify::Systemd;
use crate::supervision::State;

impl Core {
    pub fn report_to_systemd(&mut self) {
        if !self.systemd.is_there() {
            return;
        }
        let ids = self.fleet.ids();
        let states: Vec<State> = ids
            .iter()
            .filter_map(|id| Some(self.fleet.view(*id)?.state))
            .collect();
        let count = |wanted: State| states.iter().filter(|state| **state == wanted).count();
        let line = format!(
            "{} of {} programs up, {} failed, {} restarting",
            count(State::Running),
            self.slots.len(),
            count(State::Failed),
            count(State::Backoff),
        );
        if line != self.status_line {
            self.systemd_says(|systemd| systemd.status(&line));
            self.status_line = line;
        }
    }

    /// A supervisor above us that does not listen is no reason to stop.
    pub fn systemd_says(&self, what: impl FnOnce(&Systemd) -> std::io::Result<()>) {
        if let Err(error) = what(&self.systemd) {
            tracing::warn!("cannot notify systemd: {error}");
        }
    }
}
