//! Artifacts: what a job leaves behind, by content. [`crate::bundle`] puts them into one signed file.

use forge_contract::Digest;
use serde::{Deserialize, Serialize};

/// One artifact's place in the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name (`output.json`).
    pub name: String,
    /// Media type.
    pub media_type: String,
    /// Size, bytes.
    pub bytes: u64,
    /// Content address.
    pub digest: Digest,
}

/// One artifact with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its entry.
    pub entry: Entry,
    /// Its content.
    pub content: Vec<u8>,
}

impl Artifact {
    /// An artifact of these bytes.
    #[must_use]
    pub fn new(name: impl Into<String>, media_type: impl Into<String>, content: Vec<u8>) -> Self {
        let (bytes, digest) = (content.len() as u64, Digest::of(&content));
        Self { entry: Entry { name: name.into(), media_type: media_type.into(), bytes, digest }, content }
    }
}
