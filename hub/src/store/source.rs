//! Stored bytes to be read in pieces, wherever they lie.

use std::sync::Arc;

use bytes::Bytes;
use forge_contract::Digest;

use super::blobs::Blobs;
use super::{Store, StoreError};

/// Stored bytes.
#[derive(Debug)]
pub enum Source {
    /// In a file of this size.
    File(std::fs::File, u64),
    /// Here.
    Bytes(Bytes),
}

impl Source {
    /// The stored bytes of this digest, in a file or in the database; `None` where there are none. Who streams them hands
    /// on what the receiver verifies.
    ///
    /// # Errors
    /// What the store says.
    pub async fn of(store: &dyn Store, blobs: &Arc<Blobs>, digest: Digest) -> Result<Option<Self>, StoreError> {
        let files = Arc::clone(blobs);
        let opened = tokio::task::spawn_blocking(move || files.open_file(&digest)).await;
        if let Some((file, bytes)) = opened.map_err(|_| StoreError::Closed)?? {
            return Ok(Some(Self::File(file, bytes)));
        }
        Ok(store.object(&digest).await?.map(|bytes| Self::Bytes(bytes.into())))
    }

    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File(_, bytes) => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}
