//! Leaves that may be large: JSON arrays written item by item, in memory while they are small and into their file once
//! they are not.

use std::sync::Arc;

use forge_lifecycle::artifact::{Artifact, Entry};

use crate::store::StoreError;
use crate::store::blobs::{BlobError, Blobs, Draft, Hold};

/// Bytes kept in memory; what is more goes to the file.
const CHUNK_BYTES: usize = 1 << 20;
const JSON: &str = "application/json";

/// An artifact of a job.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) entry: Entry,
    pub(super) content: Content,
}

/// Where the bytes of an artifact are.
#[derive(Debug)]
pub(super) enum Content {
    /// Here.
    Bytes(Vec<u8>),
    /// In their file already, which stays while it is held.
    File(Hold),
}

impl From<Artifact> for Made {
    fn from(Artifact { entry, content }: Artifact) -> Self {
        Self { entry, content: Content::Bytes(content) }
    }
}

/// An array that is being written.
#[derive(Debug)]
pub(super) struct Array {
    blobs: Arc<Blobs>,
    begun: bool,
    bytes: Vec<u8>,
    draft: Option<Draft>,
}

impl Array {
    pub(super) fn new(blobs: &Arc<Blobs>) -> Self {
        Self { blobs: Arc::clone(blobs), begun: false, bytes: Vec::new(), draft: None }
    }

    /// Adds an item, which is JSON.
    pub(super) async fn push(&mut self, item: &[u8]) -> Result<(), StoreError> {
        self.bytes.push(if self.begun { b',' } else { b'[' });
        self.begun = true;
        self.bytes.extend_from_slice(item);
        if self.bytes.len() > CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let (blobs, draft, bytes) = (Arc::clone(&self.blobs), self.draft.take(), std::mem::take(&mut self.bytes));
        let write = move || {
            let mut draft = draft.map_or_else(|| blobs.draft(), Ok)?;
            draft.write(&bytes)?;
            Ok::<_, BlobError>((draft, bytes))
        };
        let (draft, mut bytes) = tokio::task::spawn_blocking(write).await.map_err(|_| StoreError::Closed)??;
        bytes.clear();
        (self.draft, self.bytes) = (Some(draft), bytes);
        Ok(())
    }

    /// The whole array as an artifact of this name.
    pub(super) async fn finish(mut self, name: &str) -> Result<Made, StoreError> {
        self.bytes.extend_from_slice(if self.begun { b"]" } else { b"[]" });
        if self.draft.is_some() {
            self.flush().await?;
        }
        let Some(draft) = self.draft else { return Ok(Artifact::new(name, JSON, self.bytes).into()) };
        let kept = tokio::task::spawn_blocking(move || self.blobs.keep(draft)).await;
        let (hold, bytes) = kept.map_err(|_| StoreError::Closed)??;
        let entry = Entry { name: name.into(), media_type: JSON.into(), bytes, digest: hold.digest() };
        Ok(Made { entry, content: Content::File(hold) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use forge_contract::Digest;

    use super::*;

    async fn of(blobs: &Arc<Blobs>, items: &[String]) -> Made {
        let mut array = Array::new(blobs);
        for item in items {
            array.push(item.as_bytes()).await.unwrap();
        }
        array.finish("items").await.unwrap()
    }

    #[tokio::test]
    async fn arrays_are_json_whatever_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
        for count in [0, 1, 2, 1000] {
            // The largest has 2 MB.
            let items: Vec<String> = (0..count).map(|number| format!("\"{number:02000}\"")).collect();
            let made = of(&blobs, &items).await;
            let filed = blobs.get(&made.entry.digest).unwrap();
            let here = match made.content {
                Content::Bytes(bytes) => Some(bytes),
                Content::File(_) => None,
            };
            assert_eq!((here.is_none(), filed.is_some()), (count == 1000, count == 1000));
            let bytes = here.or(filed).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (made.entry.digest, made.entry.bytes));
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value.as_array().unwrap().len(), count);
        }
    }
}
