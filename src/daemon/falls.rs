//! Threads that ended before their time: a daemon that goes on blind or mute helps nobody.

use super::core::Core;
use crate::observe::DaemonEvent;
use crate::os::threads::Fall;

impl Core {
    /// Says that a thread is gone. Without one that others depend on everything ends, in order, with an
    /// exit code that lets whoever started us do it again; `/-/healthy` fails until then.
    pub(super) fn fallen(&mut self, fall: Fall) {
        let Fall { thread, why, vital } = fall;
        self.observer
            .tell(&DaemonEvent::ThreadEnded { thread, why });
        if vital {
            self.maimed = true;
            self.asked_to_end(&format!("the thread {thread} has ended"), false);
        }
    }
}
