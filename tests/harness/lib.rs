//! Real hubs and agents for tests: child processes of the built `forgepool`, temporary directories, free ports.
//!
//! Nothing here sleeps to synchronise: processes announce themselves, jobs tell their progress, and an end is waited
//! for. A limit of time only turns a hang into a failure.

#![allow(clippy::panic, reason = "a harness fails the test that uses it")]

pub mod api;
pub mod binary;
pub mod collector;
pub mod component;
pub mod contract;
pub mod dice;
pub mod examples;
pub mod npy;
pub mod peer;
pub mod pool;
pub mod process;
pub mod raw;
pub mod relay;
pub mod saboteur;

use std::future::Future;
use std::time::Duration;

/// Longest any single wait may take before the test is called hung, s.
pub const HANG_S: u64 = 120;

/// Waits for `what`, and fails the test where it does not come.
///
/// # Panics
/// Nothing came in [`HANG_S`] seconds.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(HANG_S), future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} in {HANG_S} s"),
    }
}

/// Asks `condition` again and again until it gives something, for what tells of itself in no other way.
///
/// # Panics
/// It gave nothing in [`HANG_S`] seconds.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
