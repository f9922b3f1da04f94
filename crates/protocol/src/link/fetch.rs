//! Objects by content address: the hub sends the pieces asked for with their proof, the agent verifies each as it
//! arrives.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forge_contract::Digest;
use quinn::{Connection, RecvStream, SendStream};

use super::stream::{self, StreamError};
use super::{Content, ContentBody, ContentData, code};
use crate::frame::{self, FrameError};
use crate::message::{Fetch, Have, Kind, Missing, SPANS_MAX};
use crate::proof::{GROUP_BYTES, Group, ReadAt, Selection, Span, Step, Verifier};

/// Bytes read from the disk at a time.
const READ_BYTES: u64 = 256 << 10;
/// Below leases and control: a large object delays nothing but itself.
const BULK_PRIORITY: i32 = -1;

/// Serves one fetch stream; an error only ends the stream.
pub(crate) async fn serve(
    content: Arc<dyn Content>,
    session: u64,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), StreamError> {
    let Fetch { digest, spans } = stream::read(&mut recv).await?;
    let malformed = || StreamError::Frame(FrameError::Malformed { kind: Kind::Fetch });
    if spans.len() > SPANS_MAX {
        return Err(malformed());
    }
    let _ = send.set_priority(BULK_PRIORITY);
    match content.open(session, &digest).await {
        None => stream::write(&mut send, &Missing).await?,
        Some(body) => {
            let bytes = body.tree.bytes();
            let selection = Selection::new(bytes, &spans).ok_or_else(malformed)?;
            stream::write(&mut send, &Have { bytes }).await?;
            copy(&body, &selection, &mut send).await?;
        }
    }
    let _ = send.finish();
    Ok(())
}

async fn copy(body: &ContentBody, selection: &Selection, send: &mut SendStream) -> Result<(), StreamError> {
    let mut ahead = Ahead::default();
    for step in selection.steps() {
        let piece = match step {
            Step::Pair(node) => body.tree.pair(node).map(|pair| Bytes::copy_from_slice(&pair)),
            Step::Group { offset, bytes } => match &body.data {
                ContentData::Bytes(whole) => piece(whole, offset, bytes),
                ContentData::Stored(stored) => ahead.read(stored, selection, offset, bytes).await,
            },
        };
        match piece {
            Ok(piece) => send.write_chunk(piece).await?,
            Err(error) => {
                tracing::warn!(%error, "an object cannot be read");
                let _ = send.reset(code::DONE);
                return Err(StreamError::Short);
            }
        }
    }
    Ok(())
}

fn piece(of: &Bytes, offset: u64, bytes: usize) -> std::io::Result<Bytes> {
    let from = usize::try_from(offset).map_err(std::io::Error::other)?;
    let end = from.checked_add(bytes).filter(|end| *end <= of.len());
    end.map(|end| of.slice(from..end)).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// What was read from the disk and is not sent yet.
#[derive(Default)]
struct Ahead {
    offset: u64,
    bytes: Bytes,
}

impl Ahead {
    /// Of a group that comes after those read before. Reads no more than is selected.
    async fn read(
        &mut self,
        stored: &Arc<dyn ReadAt + Send + Sync>,
        selection: &Selection,
        offset: u64,
        bytes: usize,
    ) -> std::io::Result<Bytes> {
        if let Some(place) = offset.checked_sub(self.offset)
            && let Ok(piece) = piece(&self.bytes, place, bytes)
        {
            return Ok(piece);
        }
        let wanted = selection.run(offset).min(READ_BYTES).max(bytes as u64);
        let mut buffer = vec![0; usize::try_from(wanted).map_err(std::io::Error::other)?];
        let stored = Arc::clone(stored);
        let reading = tokio::task::spawn_blocking(move || stored.read_exact_at(offset, &mut buffer).map(|()| buffer));
        self.bytes = reading.await.map_err(std::io::Error::other)??.into();
        self.offset = offset;
        piece(&self.bytes, 0, bytes)
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
    /// It has another size than it should; nothing was read.
    #[error("the object {digest} has {bytes} bytes where it should have {expected}")]
    Size {
        /// The digest.
        digest: Digest,
        /// The size the hub says, bytes.
        bytes: u64,
        /// The size it should have, bytes.
        expected: u64,
    },
    /// The bytes are another object's; nothing from the wrong one on was kept.
    #[error("the bytes sent for {digest} have another digest, from byte {offset} on")]
    Corrupt {
        /// The digest asked for.
        digest: Digest,
        /// Where in the object the first wrong byte belongs, down to a group.
        offset: u64,
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

/// An object that is arriving: what there is of it was verified.
pub struct Partial {
    digest: Digest,
    bytes_max: u64,
    bytes: Vec<u8>,
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
        Self { digest, bytes_max, bytes: Vec::new() }
    }

    /// What arrived so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
        let Partial { digest, bytes_max, bytes: arrived } = partial;
        let first = arrived.len() as u64 / GROUP_BYTES;
        let mut transfer = self.ask(digest, vec![Span { first, count: u64::MAX }]).await?;
        let bytes = transfer.bytes;
        if bytes > *bytes_max {
            return Err(FetchError::TooLarge { digest: *digest, bytes, bytes_max: *bytes_max });
        }
        arrived.reserve_exact(usize::try_from(bytes).unwrap_or(0).saturating_sub(arrived.len()));
        transfer.receive(|group| arrived.extend_from_slice(&group.bytes)).await?;
        Ok(core::mem::take(arrived))
    }

    /// Pieces of an object of `bytes` bytes, each handed to `arrived` once it is verified, from left to right.
    ///
    /// # Errors
    /// See [`FetchError`]; what was handed over before stays good.
    pub async fn pieces(
        &self,
        digest: &Digest,
        bytes: u64,
        spans: Vec<Span>,
        arrived: impl FnMut(Group),
    ) -> Result<(), FetchError> {
        let mut transfer = self.ask(digest, spans).await?;
        if transfer.bytes != bytes {
            return Err(FetchError::Size { digest: *digest, bytes: transfer.bytes, expected: bytes });
        }
        transfer.receive(arrived).await
    }

    async fn ask(&self, digest: &Digest, spans: Vec<Span>) -> Result<Transfer, FetchError> {
        let broken = |error: StreamError| interrupted(digest, &error);
        let opened = self.connection.open_bi().await;
        let (mut send, mut recv) = opened.map_err(|error| broken(StreamError::Lost(error)))?;
        let ask = Fetch { digest: *digest, spans };
        stream::write(&mut send, &ask).await.map_err(broken)?;
        let _ = send.finish();
        let (kind, body) = stream::read_frame(&mut recv, &[Kind::Have, Kind::Missing]).await.map_err(broken)?;
        if kind == Kind::Missing {
            frame::decode::<Missing>(&body).map_err(|error| broken(error.into()))?;
            return Err(FetchError::Missing { digest: *digest });
        }
        let Have { bytes } = frame::decode(&body).map_err(|error| broken(error.into()))?;
        Ok(Transfer { digest: *digest, bytes, spans: ask.spans, recv })
    }
}

fn interrupted(digest: &Digest, error: &StreamError) -> FetchError {
    FetchError::Interrupted { digest: *digest, reason: error.to_string() }
}

/// Pieces on their way.
struct Transfer {
    digest: Digest,
    /// Size of the whole object, as the hub says.
    bytes: u64,
    spans: Vec<Span>,
    recv: RecvStream,
}

impl Transfer {
    async fn receive(&mut self, mut arrived: impl FnMut(Group)) -> Result<(), FetchError> {
        let Some(selection) = Selection::new(self.bytes, &self.spans) else {
            // It ends before what is asked for, of which some was there already.
            return Err(FetchError::Corrupt { digest: self.digest, offset: self.bytes });
        };
        let mut verifier = Verifier::new(&self.digest, &selection);
        while let Some(due) = verifier.due() {
            let piece = self.piece(due).await.map_err(|error| interrupted(&self.digest, &error))?;
            match verifier.take(piece) {
                Ok(group) => group.into_iter().for_each(&mut arrived),
                Err(wrong) => {
                    // Not another byte of it.
                    let _ = self.recv.stop(code::PROTOCOL);
                    return Err(FetchError::Corrupt { digest: self.digest, offset: wrong.offset });
                }
            }
        }
        Ok(())
    }

    async fn piece(&mut self, bytes: usize) -> Result<Bytes, StreamError> {
        let mut piece = BytesMut::new();
        while piece.len() < bytes {
            let chunk = self.recv.read_chunk(bytes - piece.len(), true).await?.ok_or(StreamError::Short)?.bytes;
            if chunk.len() == bytes {
                return Ok(chunk);
            }
            piece.extend_from_slice(&chunk);
        }
        Ok(piece.freeze())
    }
}
