//! Frames between a parent and its child: a length of 4 bytes, little-endian, then that many bytes of postcard.
//!
//! Both sides bound what they read, the parent because a child that met hostile code may be hostile itself.

use std::io;

use forge_contract::task::Task;
use forge_contract::{Digest, Failure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::cage::{CageLevel, CageReport, ProcessLimits};
use crate::execute::ShardResult;
use crate::inputs::Want;

/// Largest frame to a child, bytes: a large input.
const TO_CHILD_BYTES_MAX: usize = 1 << 30;
/// Largest frame from a child, bytes: a folded fragment with its unit records.
const FROM_CHILD_BYTES_MAX: usize = 512 << 20;
/// Bytes reserved for a frame before any of it has come: a length alone must not cost memory.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// What a parent says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild<'a> {
    /// First of all: cage yourself.
    Enter { limits: ProcessLimits, level: CageLevel },
    /// Compile this component. To a compile child only.
    Compile {
        #[serde(borrow, with = "serde_bytes")]
        component: &'a [u8],
    },
    /// Load this code, once.
    Load {
        #[serde(borrow, with = "serde_bytes")]
        code: &'a [u8],
    },
    /// Keep these bytes: tasks refer to them by digest.
    Input {
        digest: Digest,
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// Run this shard. These of its inputs were not sent: ask for what is read.
    Run { task: Box<Task>, asked: Vec<Digest> },
    /// What was asked for, and what is at hand of what comes next, each with where it begins.
    Pieces {
        #[serde(borrow)]
        pieces: Vec<(u64, &'a serde_bytes::Bytes)>,
    },
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// Caged and waiting.
    Ready { report: CageReport },
    /// Not caged well enough; it ends now.
    Uncaged { report: CageReport },
    /// The code is loaded, or why not.
    Loaded(Result<(), Failure>),
    /// Units of the shard done so far.
    Progress { units: u64 },
    /// A unit reads this, and waits.
    Want { digest: Digest, want: Want },
    /// The shard's result.
    Done(Box<ShardResult>),
    /// The code, or why there is none.
    Compiled(Result<Code, Failure>),
}

/// Native code.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Code(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

impl FromChild {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Uncaged { .. } => "uncaged",
            Self::Loaded(_) => "loaded",
            Self::Progress { .. } => "progress",
            Self::Want { .. } => "want",
            Self::Done(_) => "done",
            Self::Compiled(_) => "compiled",
        }
    }
}

/// Why a frame could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the pipe failed: {0}")]
    Io(#[from] io::Error),
    #[error("a frame of {found} bytes exceeds {max}")]
    TooLarge { found: usize, max: usize },
    #[error("a frame is not readable: {0}")]
    Unreadable(#[from] postcard::Error),
}

fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    // The length is filled in once it is known.
    let mut frame = postcard::to_extend(message, vec![0u8; 4])?;
    let found = frame.len() - 4;
    let length = u32::try_from(found).ok().filter(|_| found <= max).ok_or(FrameError::TooLarge { found, max })?;
    if let Some(prefix) = frame.first_chunk_mut::<4>() {
        *prefix = length.to_le_bytes();
    }
    Ok(frame)
}

fn length(prefix: [u8; 4], max: usize) -> Result<usize, FrameError> {
    let found = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if found > max { Err(FrameError::TooLarge { found, max }) } else { Ok(found) }
}

pub(super) async fn send<W: AsyncWrite + Unpin>(to: &mut W, message: &ToChild<'_>) -> Result<(), FrameError> {
    to.write_all(&encode(message, TO_CHILD_BYTES_MAX)?).await?;
    Ok(to.flush().await?)
}

pub(super) async fn receive<R: AsyncRead + Unpin>(from: &mut R) -> Result<FromChild, FrameError> {
    let mut prefix = [0u8; 4];
    from.read_exact(&mut prefix).await?;
    let length = length(prefix, FROM_CHILD_BYTES_MAX)?;
    let mut body = Vec::with_capacity(length.min(RESERVED_BYTES_MAX));
    let read = from.take(length as u64).read_to_end(&mut body).await?;
    if read < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(postcard::from_bytes(&body)?)
}

/// The child's side of [`send`]: `None` at the end of the pipe.
pub(super) fn read_body(from: &mut impl io::Read) -> Result<Option<Vec<u8>>, FrameError> {
    let mut prefix = [0u8; 4];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0u8; length(prefix, TO_CHILD_BYTES_MAX)?];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

/// The child's side of [`receive`].
pub(super) fn write(to: &mut impl io::Write, message: &FromChild) -> Result<(), FrameError> {
    to.write_all(&encode(message, FROM_CHILD_BYTES_MAX)?)?;
    Ok(to.flush()?)
}
