//! Commands that find out about programs: spawned like programs, each with a run of its own.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::control::server::reserve::{self, Claim};
use crate::os::children::{Children, Prepared, Stdio};
use crate::supervision::{FailureKind, Id, Run, SpawnFailure};

/// Slots of such commands are told from those of programs by this bit.
const COMMAND: u32 = 1 << 31;

/// What a command finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whether a program is ready.
    Readiness,
    /// Whether it still does its work.
    Health,
}

/// Commands under way, by their own run.
#[derive(Debug, Default)]
pub(super) struct Commands {
    under_way: HashMap<Run, (Purpose, Run)>,
    count: u32,
}

impl Commands {
    /// Whether a slot is that of a command.
    pub fn is_command(id: Id) -> bool {
        id.0 & COMMAND != 0
    }

    /// Begins a command like this one for a run of a program, and returns the run of the command.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(
        &mut self,
        (purpose, of): (Purpose, Run),
        like: &Prepared,
        children: &mut Children,
    ) -> Result<Run, SpawnFailure> {
        if !reserve::allows(Claim::Command) {
            return Err(SpawnFailure {
                kind: FailureKind::Limits,
                transient: true,
                message: "the daemon has only its last descriptors left".to_owned(),
            });
        }
        self.count = self.count.wrapping_add(1);
        let command = Run::new(Id(COMMAND | of.id().0), self.count);
        let silence = silence().map_err(|error| SpawnFailure {
            kind: FailureKind::Limits,
            transient: true,
            message: format!("cannot open /dev/null: {error}"),
        })?;
        let mark = children.mark(command.id(), command);
        let prepared = like.sibling(like.launch().clone(), &mark)?;
        children.begin((command.id(), command), Arc::new(prepared), silence)?;
        self.under_way.insert(command, (purpose, of));
        Ok(command)
    }

    /// Takes the end of a command, or that it could not be started: what it was for, and for which run.
    pub fn ended(&mut self, command: Run) -> Option<(Purpose, Run)> {
        self.under_way.remove(&command)
    }
}

/// What such a command says is for nobody.
fn silence() -> io::Result<Stdio> {
    let null = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .map(Into::into)
    };
    Ok(Stdio {
        stdout: null()?,
        stderr: null()?,
    })
}
