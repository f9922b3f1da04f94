//! Frames: how a message lies on a stream.
//!
//! `length: u32 little-endian` (of the message), `kind: u8`, then the message. The length is held against the kind's
//! maximum before anything is reserved, so a short lie costs a reader nothing.

use serde::Serialize;

use crate::message::{Kind, Message};

/// Size of a frame's header, bytes.
pub const HEADER_BYTES: usize = 5;

/// Why bytes are not the frame that is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A number no kind has.
    #[error("{number} is not a kind of message")]
    UnknownKind {
        /// The number.
        number: u8,
    },
    /// A kind that is not legal here.
    #[error("a {found:?} message is not legal here")]
    Unexpected {
        /// The kind found.
        found: Kind,
    },
    /// A length above the kind's maximum.
    #[error("a {kind:?} message of {bytes} bytes exceeds {max}")]
    TooLong {
        /// The kind.
        kind: Kind,
        /// The length stated.
        bytes: u64,
        /// The maximum.
        max: u64,
    },
    /// The bytes are no message of the kind, or more than one.
    #[error("the bytes of a {kind:?} message are not its encoding")]
    Malformed {
        /// The kind.
        kind: Kind,
    },
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// How long it is, bytes; at most the kind's maximum.
    pub bytes: usize,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// `UnknownKind`, `TooLong`.
    pub fn read(header: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [a, b, c, d, number] = header;
        let kind = Kind::of(number).ok_or(FrameError::UnknownKind { number })?;
        let (stated, max) = (u32::from_le_bytes([a, b, c, d]), kind.bytes_max());
        match usize::try_from(stated) {
            Ok(bytes) if bytes <= max => Ok(Self { kind, bytes }),
            _ => Err(FrameError::TooLong { kind, bytes: u64::from(stated), max: max as u64 }),
        }
    }
}

/// The frame of a message.
///
/// # Errors
/// `TooLong` where the message exceeds its kind's maximum; `Malformed` where it has no encoding.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    encode_as(M::KIND, message)
}

/// The frame of `value` as a message of `kind`, whose encoding it shares.
///
/// # Errors
/// As [`encode`].
pub fn encode_as<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(value, vec![0; HEADER_BYTES]).map_err(|_| FrameError::Malformed { kind })?;
    let (bytes, max) = (frame.len() - HEADER_BYTES, kind.bytes_max());
    let too_long = FrameError::TooLong { kind, bytes: bytes as u64, max: max as u64 };
    let stated = u32::try_from(bytes).ok().filter(|_| bytes <= max).ok_or(too_long)?;
    for (place, byte) in frame.iter_mut().zip(stated.to_le_bytes().into_iter().chain([kind as u8])) {
        *place = byte;
    }
    Ok(frame)
}

/// The message of a frame's bytes; all of them belong to it.
///
/// # Errors
/// `Malformed`.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, FrameError> {
    let malformed = FrameError::Malformed { kind: M::KIND };
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(malformed),
    }
}
