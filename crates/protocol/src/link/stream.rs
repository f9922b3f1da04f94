//! Frames on QUIC streams.

use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};

use crate::frame::{self, FrameError, HEADER_BYTES, Header};
use crate::message::{Kind, Message};

/// Room reserved on a stranger's word; more only as bytes arrive.
const TRUSTED_BYTES: usize = 64 << 10;

/// Why nothing more comes from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The bytes are not the message that is due.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside or before a message.
    #[error("the stream ended before its message did")]
    Short,
    /// The other end gave the stream up.
    #[error("the stream was given up with code {code}")]
    GivenUp {
        /// Its code.
        code: VarInt,
    },
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Lost(quinn::ConnectionError),
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::GivenUp { code },
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Short,
        }
    }
}

impl From<ReadExactError> for StreamError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::Short,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::GivenUp { code },
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Short,
        }
    }
}

/// The next frame, of one of the `legal` kinds. Not cancel-safe.
pub(crate) async fn read_frame(stream: &mut RecvStream, legal: &[Kind]) -> Result<(Kind, Vec<u8>), StreamError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let Header { kind, bytes } = Header::read(header)?;
    if !legal.contains(&kind) {
        return Err(FrameError::Unexpected { found: kind }.into());
    }
    let mut body = Vec::with_capacity(bytes.min(TRUSTED_BYTES));
    read_into(stream, &mut body, bytes).await?;
    Ok((kind, body))
}

/// Appends exactly `bytes` bytes to `body`.
pub(crate) async fn read_into(stream: &mut RecvStream, body: &mut Vec<u8>, bytes: usize) -> Result<(), StreamError> {
    let mut missing = bytes;
    while missing > 0 {
        let chunk = stream.read_chunk(missing, true).await?.ok_or(StreamError::Short)?;
        body.extend_from_slice(&chunk.bytes);
        missing -= chunk.bytes.len();
    }
    Ok(())
}

/// The next message, which must be an `M`. Not cancel-safe.
pub(crate) async fn read<M: Message>(stream: &mut RecvStream) -> Result<M, StreamError> {
    let (_, body) = read_frame(stream, &[M::KIND]).await?;
    Ok(frame::decode(&body)?)
}

/// Sends a message.
pub(crate) async fn write<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), StreamError> {
    let frame = frame::encode(message)?;
    Ok(stream.write_all(&frame).await?)
}
