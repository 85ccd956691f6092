//! Configuration: from text and environment to a [`Config`] that is valid by construction.
//!
//! The layers (built-in defaults, file, environment, flags) are merged as written and may hold any
//! mistake; a `Config` holds none. Every mistake is found in one pass, each where it was written.
//!
//! ```text
//! file ─┐
//! env  ─┼─▶ layers ─▶ valid ─▶ fleet_rules ─▶ Config ─▶ effective, check, diff
//! flags ┘   (nodes)   (one key)  (many keys)
//! ```

mod addresses;
mod check;
mod collections;
mod diff;
mod effective;
mod file;
mod finding;
mod flags;
mod fleet_rules;
mod layers;
mod load;
mod model;
mod node;
mod origins;
mod other_formats;
mod problem;
mod schema;
mod signals;
mod text;
mod trust;
mod valid;
mod values;

pub use check::{check, check_json};
pub use collections::LIMITS;
pub use diff::{Diff, InstancesChange, diff};
pub use effective::{Setting, effective, effective_toml, hash};
pub use file::{NAME_RULE, is_program_name};
pub use finding::{Finding, Weight};
pub use flags::Flags;
pub use load::{FileChoice, Loaded, Sources, load};
pub use model::{
    Cgroups, Check, Config, Daemon, Health, KillMode, Limit, Listen, LogFormat, LogLevel, Metrics,
    Program, Ready, Tracing,
};
pub use origins::{Origin, Origins};
pub use problem::{Detail, Problems};
pub use schema::{Key, Section, reference};
pub use signals::{signal_name, signal_number};
pub use text::{length, size};
pub use trust::stranger;
