//! What kernels print: bounded, kept for people, no part of any result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forge_contract::limits::LOG_BYTES_MAX;

/// Bytes a unit may print; the log keeps far fewer. Printing costs the host time but no fuel.
pub const PRINTED_BYTES_MAX: u64 = 1 << 20;

/// What the units of a shard print: kept up to `LOG_BYTES_MAX`, the rest counted. No part of any result.
#[derive(Debug, Default)]
pub(crate) struct Log {
    bytes: Vec<u8>,
    dropped: u64,
    printed: u64,
}

impl Log {
    /// Takes what the present unit prints. False once that is more than [`PRINTED_BYTES_MAX`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.printed = self.printed.saturating_add(bytes.len() as u64);
        let room = LOG_BYTES_MAX.saturating_sub(self.bytes.len()).min(bytes.len());
        let (kept, dropped) = bytes.split_at(room);
        self.bytes.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(dropped.len() as u64);
        self.printed <= PRINTED_BYTES_MAX
    }

    /// The text, with a last line that says how much is missing.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        // Replacement characters are longer than what they replace.
        text.truncate(text.floor_char_boundary(LOG_BYTES_MAX));
        if self.dropped > 0 {
            let note = format!("\n[{} more bytes]", self.dropped);
            text.truncate(text.floor_char_boundary(LOG_BYTES_MAX - note.len()));
            text.push_str(&note);
        }
        text
    }
}

/// A log that a unit's streams write to and its shard reads.
#[derive(Debug, Default, Clone)]
pub(crate) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    /// The log itself, for a moment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next unit has its own allowance.
    pub(crate) fn begin_unit(&self) {
        self.lock().printed = 0;
    }
}
