//! What a unit may read, by content.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// An input of a stage, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRef {
    /// The name the kernel opens it by.
    pub name: String,
    /// Content address.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
}
