//! Every question can be asked when the person on call arrives, every answer is true, and no answer can
//! harm the terminal: the real binary, with real daemons, files and terminals.

mod check;
mod gone;
mod terminal;
mod truth;
#[path = "../daemon/world.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the daemon, which use all of it"
)]
mod world;
