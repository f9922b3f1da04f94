//! Artifacts and the manifest that hashes them.

use forge_contract::{Digest, JobId, canon};
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

/// The document that hashes all evidence of a job; the hub signs it.
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

impl Artifact {
    /// An artifact of these bytes.
    #[must_use]
    pub fn new(name: impl Into<String>, media_type: impl Into<String>, content: Vec<u8>) -> Self {
        let (bytes, digest) = (content.len() as u64, Digest::of(&content));
        Self { entry: Entry { name: name.into(), media_type: media_type.into(), bytes, digest }, content }
    }
}

impl Evidence {
    /// The document as canonical JSON, artifacts by name.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut sorted = self.clone();
        sorted.artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        canon::json(&sorted).unwrap_or_default()
    }

    /// The digest of the canonical document.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::tagged("forgepool v1 evidence", self.canonical().as_bytes())
    }

    /// The first artifact whose content is not the one hashed here, or that is missing; `None` where all is as it was.
    ///
    /// `content_of` gives an artifact's bytes by name.
    #[must_use]
    pub fn first_mismatch(&self, content_of: impl Fn(&str) -> Option<Vec<u8>>) -> Option<&Entry> {
        self.artifacts.iter().find(|entry| {
            content_of(&entry.name)
                .is_none_or(|content| content.len() as u64 != entry.bytes || Digest::of(&content) != entry.digest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(names: &[&str]) -> Evidence {
        let artifact = |name: &&str| Artifact::new(*name, "application/json", name.as_bytes().to_vec()).entry;
        Evidence {
            format: 1,
            job: JobId::from_bits(1),
            contract: Digest::of(b"c"),
            plan: Digest::of(b"p"),
            replay_key: Digest::of(b"r"),
            result: None,
            artifacts: names.iter().map(artifact).collect(),
        }
    }

    #[test]
    fn the_digest_covers_every_artifact_in_any_order() {
        let base = evidence(&["a", "b"]);
        assert_eq!(base.digest(), evidence(&["b", "a"]).digest());
        assert_ne!(base.digest(), evidence(&["a"]).digest());
        assert_ne!(base.digest(), evidence(&["a", "c"]).digest());
    }

    #[test]
    fn a_changed_artifact_is_named() {
        let base = evidence(&["a", "b"]);
        assert_eq!(base.first_mismatch(|name| Some(name.as_bytes().to_vec())), None);
        let changed =
            base.first_mismatch(|name| Some(if name == "b" { b"x".to_vec() } else { name.as_bytes().to_vec() }));
        assert_eq!(changed.map(|entry| entry.name.as_str()), Some("b"));
        let missing = base.first_mismatch(|name| (name != "a").then(|| name.as_bytes().to_vec()));
        assert_eq!(missing.map(|entry| entry.name.as_str()), Some("a"));
    }
}
