//! The real binary with real processes and real signals: what the contract promises, end to end.

mod bad_days;
mod bad_places;
mod births;
mod fairness;
mod families;
mod fleet;
mod health;
mod healthcheck;
mod hung_logs;
mod identity;
mod inheritance;
mod linger;
mod log_places;
mod notify;
mod pid_1;
mod policy;
mod readiness;
mod reload;
mod seats;
mod signals;
#[path = "../log_hang/silent.rs"]
mod silent;
mod storm;
mod survivors;
mod threads;
mod trust;
mod verbs;
mod world;
