//! Writing to the terminal.

use std::io::Write as _;

use anyhow::Result;
use serde_json::Value;

use crate::exit::Outcome;

/// Writes text to stdout. A reader that has gone away (`forgepool jobs | head`) is no error.
///
/// # Errors
/// Stdout cannot be written to.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a remark to stderr; it is a courtesy, so nothing fails with it.
pub fn remark(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Shows an answer of the hub: as JSON, or as it is written for people.
///
/// # Errors
/// Stdout cannot be written to.
pub fn show(answer: &Value, as_json: bool, render: impl FnOnce(&Value) -> String) -> Result<Outcome> {
    print(&if as_json { json(answer) } else { render(answer) })?;
    Ok(Outcome::Done)
}

/// A value as indented JSON with a line feed at its end.
#[must_use]
pub fn json(value: &Value) -> String {
    format!("{value:#}\n")
}
