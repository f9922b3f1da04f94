//! Objects by content address: the hub streams, the agent verifies while the bytes arrive.

use std::sync::Arc;

use blake3::Hasher;
use forge_contract::Digest;
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncReadExt as _;

use super::stream::{self, StreamError};
use super::{Content, ContentBody, code};
use crate::frame;
use crate::message::{Fetch, Have, Kind, Missing};

/// Bytes read from a reader at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Below leases and control: a large object delays nothing but itself.
const BULK_PRIORITY: i32 = -1;

/// Serves one fetch stream; an error only ends the stream.
pub(crate) async fn serve(
    content: Arc<dyn Content>,
    session: u64,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), StreamError> {
    let Fetch { digest, offset } = stream::read(&mut recv).await?;
    let _ = send.set_priority(BULK_PRIORITY);
    match content.open(session, &digest).await {
        None => stream::write(&mut send, &Missing).await?,
        Some(ContentBody::Bytes(bytes)) => {
            stream::write(&mut send, &Have { bytes: bytes.len() as u64 }).await?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            send.write_chunk(bytes.slice(from..)).await?;
        }
        Some(ContentBody::Reader { bytes, reader }) => {
            stream::write(&mut send, &Have { bytes }).await?;
            copy(reader.take(bytes), offset, &mut send).await?;
        }
    }
    let _ = send.finish();
    Ok(())
}

async fn copy(
    mut reader: impl tokio::io::AsyncRead + Unpin,
    mut skip: u64,
    send: &mut SendStream,
) -> Result<(), StreamError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "an object cannot be read");
                let _ = send.reset(code::DONE);
                return Err(StreamError::Short);
            }
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(read);
        skip -= skipped as u64;
        send.write_all(buffer.get(skipped..read).unwrap_or_default()).await?;
    }
}

/// Why an object was not obtained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The hub has no object of this digest.
    #[error("the hub has no object {digest}")]
    Missing {
        /// The digest.
        digest: Digest,
    },
    /// It is larger than asked for; nothing was read.
    #[error("the object {digest} has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// The digest.
        digest: Digest,
        /// Its size, bytes.
        bytes: u64,
        /// The size allowed, bytes.
        bytes_max: u64,
    },
    /// The bytes are another object's; they are discarded.
    #[error("the bytes sent for {digest} have another digest")]
    Corrupt {
        /// The digest asked for.
        digest: Digest,
    },
    /// The transfer broke off; another attempt continues where it stopped.
    #[error("the transfer of {digest} broke off: {reason}")]
    Interrupted {
        /// The digest.
        digest: Digest,
        /// What happened.
        reason: String,
    },
}

impl FetchError {
    /// Whether asking again can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
    }
}

/// An object that is arriving: unverified bytes, which nobody sees before the digest is right.
pub struct Partial {
    digest: Digest,
    bytes_max: u64,
    bytes: Vec<u8>,
    hasher: Hasher,
}

impl core::fmt::Debug for Partial {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Partial({}, {} bytes)", self.digest, self.bytes.len())
    }
}

impl Partial {
    /// Nothing yet of the object `digest`, which may have at most `bytes_max` bytes.
    #[must_use]
    pub fn new(digest: Digest, bytes_max: u64) -> Self {
        Self { digest, bytes_max, bytes: Vec::new(), hasher: Hasher::new() }
    }

    fn restart(&mut self) {
        self.bytes = Vec::new();
        self.hasher.reset();
    }
}

/// Fetches objects over one session; clones share it.
#[derive(Clone, Debug)]
pub struct Fetcher {
    connection: Connection,
}

impl Fetcher {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The object of this digest, whole and verified.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
        self.resume(&mut Partial::new(*digest, bytes_max)).await
    }

    /// Continues an object where an earlier attempt, perhaps of an earlier session, broke off.
    ///
    /// # Errors
    /// See [`FetchError`]; after `Interrupted`, `partial` holds what arrived.
    pub async fn resume(&self, partial: &mut Partial) -> Result<Vec<u8>, FetchError> {
        let digest = partial.digest;
        let total = match self.transfer(partial).await {
            Ok(Some(total)) => total,
            Ok(None) => return Err(FetchError::Missing { digest }),
            Err(Ended::TooLarge(bytes)) => {
                return Err(FetchError::TooLarge { digest, bytes, bytes_max: partial.bytes_max });
            }
            Err(Ended::Stream(error)) => return Err(FetchError::Interrupted { digest, reason: error.to_string() }),
        };
        let right = partial.bytes.len() as u64 == total && partial.hasher.finalize() == *digest.as_bytes();
        let bytes = core::mem::take(&mut partial.bytes);
        partial.restart();
        if right { Ok(bytes) } else { Err(FetchError::Corrupt { digest }) }
    }

    async fn transfer(&self, partial: &mut Partial) -> Result<Option<u64>, Ended> {
        let lost = |error| Ended::Stream(StreamError::Lost(error));
        let (mut send, mut recv) = self.connection.open_bi().await.map_err(lost)?;
        let ask = Fetch { digest: partial.digest, offset: partial.bytes.len() as u64 };
        stream::write(&mut send, &ask).await?;
        let _ = send.finish();
        let (kind, body) = stream::read_frame(&mut recv, &[Kind::Have, Kind::Missing]).await?;
        if kind == Kind::Missing {
            frame::decode::<Missing>(&body).map_err(StreamError::from)?;
            return Ok(None);
        }
        let Have { bytes } = frame::decode(&body).map_err(StreamError::from)?;
        if bytes > partial.bytes_max {
            return Err(Ended::TooLarge(bytes));
        }
        let arrived = partial.bytes.len() as u64;
        let mut missing = usize::try_from(bytes.saturating_sub(arrived)).map_err(|_| Ended::TooLarge(bytes))?;
        partial.bytes.reserve_exact(missing);
        while missing > 0 {
            let chunk = recv.read_chunk(missing, true).await.map_err(StreamError::from)?;
            let chunk = chunk.ok_or(StreamError::Short)?.bytes;
            missing -= chunk.len();
            partial.hasher.update(&chunk);
            partial.bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }
}

enum Ended {
    TooLarge(u64),
    Stream(StreamError),
}

impl From<StreamError> for Ended {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}
