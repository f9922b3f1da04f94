//! Logs go to stderr; FORGEPOOL_LOG chooses what.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. A filter that cannot be read falls back to `default`.
pub fn start(default: &str, json: bool) {
    let filter = EnvFilter::try_from_env("FORGEPOOL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only fails when logging has been started before.
    if json {
        log.json().flatten_event(true).try_init().ok()
    } else {
        log.try_init().ok()
    };
}
