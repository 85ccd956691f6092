//! What those hear who asked for a reload: how it went, once what it started and restarted is up.

use super::{Halted, Open, first_line};
use crate::control::server::Refusal;
use crate::daemon::core::Core;
use crate::daemon::outcomes::{Standing, with_last_lines};
use crate::daemon::slots::Slot;
use crate::observe::DaemonEvent;
use crate::os::notify::Systemd;
use crate::supervision::Id;

impl Core {
    /// Answers systemd and those who wait for a reload, once the programs that it started and
    /// restarted are up, or one is known not to come up.
    pub(in crate::daemon) fn answer_reloads(&mut self) {
        if let Some((id, left)) = self.fleet.take_halted_roll() {
            let why = self.ends.why(id).map(str::to_owned);
            let why = why.unwrap_or_else(|| self.observer.why(id));
            self.reloads.halted = Some(Halted { id, why, left });
        }
        let mut open = std::mem::take(&mut self.reloads.open);
        let settled = self.hear_of_halted_roll(&mut open) && !self.fleet.is_rolling();
        for reload in &mut open {
            for id in reload.awaited.clone() {
                match self.standing(id) {
                    Standing::Up(_) => {}
                    Standing::Down(why) => {
                        let name = self.display_name(id);
                        let message = format!("{name} did not come up: {why}");
                        self.trouble(&format!("reload: {}", first_line(&message)));
                        reload.failures.push(message);
                    }
                    Standing::Reading | Standing::UnderWay => continue,
                }
                reload.awaited.remove(&id);
            }
        }
        let over = |reload: &mut Open| settled && reload.awaited.is_empty();
        let through: Vec<Open> = open.extract_if(.., over).collect();
        self.reloads.open = open;
        for reload in through {
            // Nobody waits for that of a signal.
            if let Some(reply) = reload.reply {
                let _ = reply.send(if reload.failures.is_empty() {
                    Ok(reload.reloaded)
                } else {
                    Err(Refusal::Failed(reload.failures.join("\n")))
                });
            }
        }
        let idle = settled && self.reloads.open.is_empty() && self.reloads.opening.is_none();
        if idle && std::mem::take(&mut self.reloads.announced) {
            self.systemd_says(Systemd::ready);
        }
    }

    /// Tells every open reload why the roll ended early; whether that is through.
    fn hear_of_halted_roll(&mut self, open: &mut [Open]) -> bool {
        let Some(halted) = self.reloads.halted.take() else {
            return true;
        };
        let Some(lines) = self.crashes.last_words(halted.id) else {
            self.reloads.halted = Some(halted);
            return false;
        };
        let name = self.display_name(halted.id);
        let why = with_last_lines(halted.why, &lines);
        let mut message = format!("{name} did not come up: {why}");
        self.trouble(&format!(
            "rolling restart stopped: {}",
            first_line(&message)
        ));
        if !halted.left.is_empty() {
            let left = halted.left.iter().map(|id| self.display_name(*id));
            let left: Vec<String> = left.collect();
            message.push_str(&format!("\nleft as they were: {}", left.join(", ")));
        }
        for reload in open {
            reload.failures.push(message.clone());
        }
        true
    }

    fn trouble(&mut self, message: &str) {
        let message = message.to_owned();
        self.observer.tell(&DaemonEvent::Trouble { message });
    }

    fn display_name(&self, id: Id) -> String {
        let slot = self.slots.get(&id);
        slot.map(Slot::display_name).unwrap_or_default()
    }
}
