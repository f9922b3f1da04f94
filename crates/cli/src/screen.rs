//! Writing to the terminal.

use std::io::Write as _;

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

/// A value as indented JSON with a line feed at its end.
#[must_use]
pub fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
