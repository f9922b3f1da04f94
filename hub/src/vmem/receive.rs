//! A body to a file, a bounded piece at a time, as fast as it comes and no slower than patience allows.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::store::blobs::{BlobError, Blobs, Draft};
use crate::upload::{self, UploadError};

/// Bytes gathered before they are written.
const GATHERED_BYTES: usize = 1 << 20;
/// What a body must bring in each stretch of the patience, or it counts as stalled.
const STRETCH_BYTES: u64 = 64 << 10;

/// Takes a body to a file that nobody sees.
///
/// # Errors
/// `TooLarge`, `Cut`, `Slow`, `Full`, `Io`; nothing is left then.
pub async fn receive(blobs: &Arc<Blobs>, mut body: Body, limit: u64, patience: Duration) -> Result<Draft, UploadError> {
    let declared = body.size_hint().lower();
    if declared > limit {
        upload::linger(&mut body, patience).await;
        return Err(UploadError::TooLarge { bytes: declared, limit });
    }
    let shelf = Arc::clone(blobs);
    let mut draft =
        blocking(
            declared,
            move || {
                if upload::has_room(shelf.root(), declared) { shelf.draft().map(Some) } else { Ok(None) }
            },
        )
        .await?
        .ok_or(UploadError::Full { bytes: declared })?;
    let (mut gathered, mut size, mut seen) = (Vec::new(), 0_usize, 0_u64);
    let (mut deadline, mut stretch) = (Instant::now() + patience, 0_u64);
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(UploadError::Slow { offset: 0, ms: patience.as_millis() }),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(UploadError::Cut { offset: 0 }),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len() as u64;
        if seen > limit {
            upload::linger(&mut body, patience).await;
            return Err(UploadError::TooLarge { bytes: seen, limit });
        }
        stretch += data.len() as u64;
        size += data.len();
        gathered.push(data);
        if size >= GATHERED_BYTES {
            draft = append(draft, std::mem::take(&mut gathered)).await?;
            size = 0;
        }
        if stretch >= STRETCH_BYTES {
            (deadline, stretch) = (Instant::now() + patience, 0);
        }
    }
    append(draft, gathered).await
}

async fn append(mut draft: Draft, pieces: Vec<bytes::Bytes>) -> Result<Draft, UploadError> {
    let bytes = draft.bytes();
    blocking(bytes, move || {
        pieces.iter().try_for_each(|piece| draft.write(piece))?;
        Ok(draft)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, UploadError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| UploadError::Cut { offset: 0 })?;
    done.map_err(|error| upload::failed(error, bytes))
}
