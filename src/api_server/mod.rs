//! The bundled API server: a small real server to supervise, and what a well-behaved program does.
//!
//! It knows nothing of the rest of the crate. Read downwards: `server` owns the socket and the
//! signals, `connection` one client's bytes, `service` one request from limit to count,
//! `routes` and `chaos` what is answered, `statistics` and `health` how it went.

mod chaos;
mod client;
mod connection;
mod error;
mod health;
mod limit;
mod log;
mod options;
mod routes;
mod server;
mod service;
mod statistics;

pub use client::{Network, NetworkError};
pub use options::{Options, Rate, RateError};
pub use server::{ServerError, run, serve};
