//! What a unit may read, by range, so that its memory does not grow with its inputs.

use crate::Failure;
use crate::bindings::forgepool::kernel::inputs::{self, Input, InputError};

/// Bytes that can be read by range.
///
/// **Determinism**: the same bytes on every machine, for an input is addressed by its content.
pub trait Source {
    /// Size, bytes.
    fn size(&self) -> u64;

    /// Bytes `offset .. offset + len`, or up to the end where that comes first.
    ///
    /// # Errors
    /// `Failure::input` where the range starts past the end.
    fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Failure>;
}

impl Source for Input {
    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Failure> {
        Self::read(self, offset, len).map_err(|error| refusal(&error))
    }
}

/// Bytes at hand: for tests and native builds.
impl Source for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Failure> {
        let past = || refusal(&InputError::OutOfRange(self.len() as u64));
        let start = usize::try_from(offset).ok().filter(|start| *start <= self.len()).ok_or_else(past)?;
        let end = start.saturating_add(usize::try_from(len).map_err(|_| past())?).min(self.len());
        self.get(start..end).map(<[u8]>::to_vec).ok_or_else(past)
    }
}

/// The input of this name.
///
/// # Errors
/// `Failure::input` where the stage declares none, or the contract left an optional one out.
pub fn open(name: &str) -> Result<Input, Failure> {
    inputs::open(name).map_err(|error| refusal(&error))
}

/// All bytes of a source.
///
/// # Errors
/// `Failure::input` where it has more than `max` bytes.
pub fn whole(source: &impl Source, max: u32) -> Result<Vec<u8>, Failure> {
    let size = source.size();
    let Some(len) = u32::try_from(size).ok().filter(|len| *len <= max) else {
        return Err(Failure::Input(format!("an input of {size} bytes where at most {max} are read at once")));
    };
    source.read(0, len)
}

fn refusal(error: &InputError) -> Failure {
    Failure::Input(match error {
        InputError::Undeclared(name) => format!("there is no input '{name}': the contract gives none"),
        InputError::OutOfRange(size) => format!("a read past the end of an input of {size} bytes"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_end_where_the_bytes_do() {
        let bytes: &[u8] = &[1, 2, 3];
        assert_eq!(bytes.read(1, 1).unwrap(), [2]);
        assert_eq!(bytes.read(1, 9).unwrap(), [2, 3]);
        assert!(bytes.read(3, 9).unwrap().is_empty());
        assert!(matches!(bytes.read(4, 0), Err(Failure::Input(_))));
        assert_eq!(whole(&bytes, 3).unwrap(), [1, 2, 3]);
        assert!(matches!(whole(&bytes, 2), Err(Failure::Input(_))));
    }
}
