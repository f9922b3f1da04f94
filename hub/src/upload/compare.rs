//! A body against content that is there already: nothing is written, a difference is found.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use super::{STRETCH_BYTES, UploadError, linger};

/// How a body agrees with stored content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// As far as it went, byte for byte.
    Same,
    /// The first byte that differs, or the first that the content does not have.
    Differs {
        /// Its place in the content.
        at: u64,
    },
}

/// Reads a body against the rest of stored content, which begins at `offset` of it.
///
/// # Errors
/// `Cut`, `Slow`; `Io` where the content cannot be read.
pub async fn compare(
    mut stored: impl AsyncRead + Unpin,
    offset: u64,
    mut body: Body,
    patience: Duration,
) -> Result<Agreement, UploadError> {
    let (mut at, mut stretch, mut deadline) = (offset, 0_u64, Instant::now() + patience);
    let mut expected = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(UploadError::Slow { offset: at, ms: patience.as_millis() }),
            Ok(None) => return Ok(Agreement::Same),
            Ok(Some(Err(_))) => return Err(UploadError::Cut { offset: at }),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        expected.clear();
        let read = (&mut stored).take(data.len() as u64).read_to_end(&mut expected).await;
        read.map_err(|source| UploadError::Io { path: "stored content".into(), source })?;
        if expected != data {
            let same = expected.iter().zip(&data).take_while(|(stored, given)| stored == given).count();
            linger(&mut body, patience).await;
            return Ok(Agreement::Differs { at: at + same as u64 });
        }
        at += data.len() as u64;
        stretch += data.len() as u64;
        if stretch >= STRETCH_BYTES {
            (deadline, stretch) = (Instant::now() + patience, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_first_difference_is_named() {
        let compared = async |stored: &'static [u8], body: &'static [u8]| {
            compare(stored, 100, Body::from(body), Duration::from_secs(60)).await.unwrap()
        };
        assert_eq!(compared(b"hello", b"hello").await, Agreement::Same);
        assert_eq!(compared(b"hello", b"hel").await, Agreement::Same);
        assert_eq!(compared(b"hello", b"").await, Agreement::Same);
        assert_eq!(compared(b"hello", b"heLlo").await, Agreement::Differs { at: 102 });
        assert_eq!(compared(b"hello", b"hello!").await, Agreement::Differs { at: 105 });
    }
}
