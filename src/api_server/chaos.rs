//! Ways to die on request, so that anyone can watch a crash loop. Only with `--chaos`.

use std::time::Duration;

use hyper::StatusCode;
use nix::sys::signal::{Signal, raise};
use serde_json::json;

use super::error::{Answer, ApiError, json_answer};

/// The head start that the answer gets before the process ends.
const GRACE: Duration = Duration::from_millis(50);
const MOST_SECONDS: f64 = 3600.0;
const MOST_MIB: u64 = 1 << 20;

/// What can be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chaos {
    Exit,
    Abort,
    Segfault,
    Hang,
    Leak,
    Panic,
    Slow,
}

/// Does what was asked for, or arranges that it happens once the answer is out.
pub(super) async fn answer(chaos: Chaos, query: &str) -> Result<Answer, ApiError> {
    match chaos {
        Chaos::Exit => {
            let code: u8 = number(query, "code")?.unwrap_or(1);
            Ok(soon(move || std::process::exit(i32::from(code))))
        }
        Chaos::Abort => Ok(soon(|| std::process::abort())),
        Chaos::Segfault => Ok(soon(segfault)),
        Chaos::Hang => Ok(soon(hang)),
        Chaos::Leak => leak(number(query, "mib")?.unwrap_or(64)),
        Chaos::Panic => panic!("a panic was asked for"),
        Chaos::Slow => slow(number(query, "seconds")?.unwrap_or(1.0)).await,
    }
}

fn soon(end: impl FnOnce() + Send + 'static) -> Answer {
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        end();
    });
    json_answer(
        StatusCode::ACCEPTED,
        json!({ "accepted": true }).to_string(),
    )
}

/// Dies by SIGSEGV. The handler that the standard library installs against stack overflow
/// resets itself and returns at the first one, since no instruction faults again; the second kills.
fn segfault() {
    for _ in 0..2 {
        let _ = raise(Signal::SIGSEGV);
    }
}

/// Blocks the only thread: the process lives, and answers neither requests nor SIGTERM.
fn hang() {
    loop {
        std::thread::park();
    }
}

/// Keeps memory for ever, written to so that it counts as resident.
fn leak(mib: u64) -> Result<Answer, ApiError> {
    if mib > MOST_MIB {
        return Err(ApiError::bad_request(format!(
            "mib may be at most {MOST_MIB}"
        )));
    }
    for _ in 0..mib {
        vec![1_u8; 1 << 20].leak();
    }
    Ok(json_answer(
        StatusCode::OK,
        json!({ "leakedMib": mib }).to_string(),
    ))
}

async fn slow(seconds: f64) -> Result<Answer, ApiError> {
    if !(0.0..=MOST_SECONDS).contains(&seconds) {
        return Err(ApiError::bad_request(format!(
            "seconds may be 0 to {MOST_SECONDS}"
        )));
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    Ok(json_answer(
        StatusCode::OK,
        json!({ "sleptSeconds": seconds }).to_string(),
    ))
}

/// Reads a number from the query; `None` when it is not there.
fn number<T: std::str::FromStr>(query: &str, name: &str) -> Result<Option<T>, ApiError> {
    let text = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    text.map(str::parse)
        .transpose()
        .map_err(|_| ApiError::bad_request(format!("parameter {name} is not a number in range")))
}
