//! Artifacts and the manifest that hashes them.

use forge_contract::{Digest, JobId};
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

/// The document that hashes all evidence of a job; the hub signs its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Format, 1.
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// Digest of the contract (`Envelope::digest`).
    pub contract: Digest,
    /// Digest of the plan (`Plan::digest`).
    pub plan: Digest,
    /// Identity of the result.
    pub replay_key: Digest,
    /// Digest of the result, where there is one.
    pub result: Option<Digest>,
    /// Artifacts by name.
    pub artifacts: Vec<Entry>,
}
