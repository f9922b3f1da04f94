//! The canonical binary encoding: one value, one byte string, on every machine.
//!
//! - unsigned integers: LEB128 in the fewest bytes (a longer form is refused);
//! - signed integers: zigzag, then as unsigned;
//! - doubles: the 8 bytes of their IEEE 754 bits, little-endian (fragments hold no NaN, see `fragment`);
//! - bytes and text: length, then the bytes; text is UTF-8;
//! - lists: count, then the items;
//! - variants: their number in one byte, then the fields in order.

use crate::digest::Digest;

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonError {
    /// The bytes end inside a value.
    #[error("the encoding ends at byte {at}, inside a value")]
    Truncated {
        /// Offset of the first missing byte.
        at: usize,
    },
    /// An integer written in more bytes than it needs, or one beyond 64 bits.
    #[error("the integer at byte {at} is not in its shortest form or exceeds 64 bits")]
    Integer {
        /// Offset of the integer.
        at: usize,
    },
    /// Bytes remain after the value.
    #[error("{extra} bytes follow the value")]
    Trailing {
        /// Bytes left over.
        extra: usize,
    },
    /// A count or length above what its place allows.
    #[error("a count of {found} at byte {at} exceeds {max}")]
    TooMany {
        /// Offset of the count.
        at: usize,
        /// The count found.
        found: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A variant number, flag or text that no value has.
    #[error("the {what} at byte {at} is not a valid one")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Offset of the item.
        at: usize,
    },
}

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// What has been written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One raw byte: a variant number or flag.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// An unsigned integer.
    #[inline]
    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
    }

    /// A signed integer.
    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// A double, by its bits.
    pub fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// Length, then bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Text as UTF-8.
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// A digest, 32 bytes without a length.
    pub fn digest(&mut self, value: &Digest) {
        self.bytes.extend_from_slice(value.as_bytes());
    }
}

/// Reads values in the order they were written.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Ends the reading; every byte must have been read.
    ///
    /// # Errors
    /// `Trailing` where bytes remain.
    pub fn finish(self) -> Result<(), CanonError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(CanonError::Trailing { extra }),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CanonError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        match taken {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(CanonError::Truncated { at: self.bytes.len() }),
        }
    }

    /// One raw byte.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, CanonError> {
        let byte = self.bytes.get(self.at).copied().ok_or(CanonError::Truncated { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    /// The next raw byte, left where it is; `None` at the end.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// `Truncated`, `Integer`.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, CanonError> {
        let start = self.at;
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let overflows = shift > 63 || (shift == 63 && bits > 1);
            let padded = byte == 0 && shift > 0;
            if overflows || padded {
                return Err(CanonError::Integer { at: start });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// An unsigned integer of at most 32 bits.
    ///
    /// # Errors
    /// `Truncated`, `Integer`, `TooMany`.
    pub fn u32(&mut self) -> Result<u32, CanonError> {
        let at = self.at;
        let found = self.u64()?;
        u32::try_from(found).map_err(|_| CanonError::TooMany { at, found, max: u64::from(u32::MAX) })
    }

    /// A signed integer.
    ///
    /// # Errors
    /// `Truncated`, `Integer`.
    pub fn i64(&mut self) -> Result<i64, CanonError> {
        let zigzag = self.u64()?;
        Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
    }

    /// A double.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn f64(&mut self) -> Result<f64, CanonError> {
        let mut bits = [0u8; 8];
        bits.copy_from_slice(self.take(8)?);
        Ok(f64::from_bits(u64::from_le_bytes(bits)))
    }

    /// A count of items each of which takes at least `item_bytes_min` bytes, so that a short message
    /// cannot make the reader reserve much.
    ///
    /// # Errors
    /// `Truncated`, `Integer`, `TooMany`.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, CanonError> {
        let at = self.at;
        let found = self.u64()?;
        let max = (self.remaining() / item_bytes_min.max(1)) as u64;
        if found > max {
            return Err(CanonError::TooMany { at, found, max });
        }
        usize::try_from(found).map_err(|_| CanonError::TooMany { at, found, max })
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// `Truncated`, `Integer`, `TooMany`.
    pub fn bytes(&mut self) -> Result<&'a [u8], CanonError> {
        let count = self.count(1)?;
        self.take(count)
    }

    /// Text.
    ///
    /// # Errors
    /// As `bytes`, and `Invalid` where it is not UTF-8.
    pub fn str(&mut self) -> Result<&'a str, CanonError> {
        let at = self.at;
        core::str::from_utf8(self.bytes()?).map_err(|_| CanonError::Invalid { what: "text", at })
    }

    /// A digest.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn digest(&mut self) -> Result<Digest, CanonError> {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(self.take(32)?);
        Ok(Digest::from_bytes(bytes))
    }
}

/// The canonical JSON text of a value (RFC 8785).
///
/// # Errors
/// `Invalid` for what RFC 8785 cannot write (a number that is not finite).
pub fn json<T: serde::Serialize>(value: &T) -> Result<String, CanonError> {
    serde_json_canonicalizer::to_string(value).map_err(|_| CanonError::Invalid { what: "JSON value", at: 0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let mut w = Writer::new();
        w.u64(0);
        w.u64(300);
        w.i64(-1);
        w.f64(1.5);
        w.str("é");
        assert_eq!(w.into_bytes(), [0, 0xac, 0x02, 0x01, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 2, 0xc3, 0xa9]);
    }

    #[test]
    fn longer_forms_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0]).u64(), Err(CanonError::Integer { at: 0 }));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&beyond).u64(), Err(CanonError::Integer { at: 0 }));
    }

    proptest! {
        #[test]
        fn round_trip(a: u64, b: i64, c: Vec<u8>, d: String) {
            let mut w = Writer::new();
            w.u64(a); w.i64(b); w.bytes(&c); w.str(&d);
            let bytes = w.into_bytes();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.u64().unwrap(), a);
            prop_assert_eq!(r.i64().unwrap(), b);
            prop_assert_eq!(r.bytes().unwrap(), &c[..]);
            prop_assert_eq!(r.str().unwrap(), d);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let mut r = Reader::new(&bytes);
            while r.u64().is_ok() && r.bytes().is_ok() {}
        }
    }
}
