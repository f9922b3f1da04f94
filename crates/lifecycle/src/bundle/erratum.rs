//! The hub's word on a finished job that was checked again: a record of its own, since the job's evidence never changes.

use forge_contract::canon::{self, Writer};
use forge_contract::{AgentId, Digest, FailureCode, JobId};
use serde::{Deserialize, Serialize};

use super::key::{Key, Signature, Verify};
use super::{ALGORITHM, Seal};

/// The media type of an erratum.
pub const MEDIA_TYPE: &str = "application/vnd.forgepool.erratum+json";
/// The format written here.
pub const FORMAT: u32 = 1;

/// What a second run of a job's doubtful shards found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErratumVerdict {
    /// The result has the same bits: it stands.
    Upheld,
    /// It has not: the run's own result takes its place.
    Corrected,
}

impl ErratumVerdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upheld => "upheld",
            Self::Corrected => "corrected",
        }
    }
}

/// What was checked again, why, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Format, 1.
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// The job in which its doubtful shards ran again.
    pub run: JobId,
    /// Agents whose answers were doubted, by id.
    pub agents: Vec<AgentId>,
    /// Why: failure codes, or `removed`; sorted, each once.
    pub reasons: Vec<String>,
    /// Shards of the first stage concerned that ran again; later stages ran again whole.
    pub shards: u64,
    /// What came of it.
    pub verdict: ErratumVerdict,
    /// Digest of the job's result.
    pub before: Option<Digest>,
    /// Digest of the run's result; none where it failed as every honest agent would.
    pub after: Option<Digest>,
    /// Why the run has no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    /// When, ms since 1970.
    pub at_ms: u64,
}

impl Finding {
    /// What the hub signs: `H("forgepool v1 erratum", canonical JSON)`, BLAKE3 in key derivation mode.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut w = Writer::new();
        w.str(&canon::json(self).unwrap_or_default());
        Digest::tagged("forgepool v1 erratum", &w.into_bytes())
    }
}

/// A finding, signed by the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erratum {
    /// What was found.
    pub finding: Finding,
    /// [`Finding::root`].
    pub root: Digest,
    /// The hub's word for it.
    pub signature: Seal,
}

impl Erratum {
    /// The finding, signed by the holder of `key`.
    #[must_use]
    pub fn seal(finding: Finding, key: Key, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let root = finding.root();
        let signature =
            Seal { algorithm: ALGORITHM.into(), public_key: key, signature: Signature(sign(root.as_bytes())) };
        Self { finding, root, signature }
    }

    /// The erratum as canonical JSON.
    #[must_use]
    pub fn canonical(&self) -> String {
        canon::json(self).unwrap_or_default()
    }

    /// Whether the root is the finding's and the signature the stated key's over it.
    #[must_use]
    pub fn is_signed(&self, verify: Verify<'_>) -> bool {
        let Seal { algorithm, public_key, signature } = &self.signature;
        algorithm == ALGORITHM
            && self.root == self.finding.root()
            && verify(public_key, self.root.as_bytes(), signature)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn finding() -> Finding {
        Finding {
            format: FORMAT,
            job: JobId::new(1, 1),
            run: JobId::new(2, 2),
            agents: vec![AgentId(Digest::of(b"a"))],
            reasons: vec!["verification.mismatch".into()],
            shards: 3,
            verdict: ErratumVerdict::Corrected,
            before: Some(Digest::of(b"before")),
            after: Some(Digest::of(b"after")),
            code: None,
            at_ms: 1_700_000_000_000,
        }
    }

    /// A toy signature: the message's digest twice, keyed.
    fn sign(key: u8, message: &[u8]) -> [u8; 64] {
        let mut signature = [key; 64];
        signature[..32].copy_from_slice(Digest::of(message).as_bytes());
        signature
    }

    #[test]
    fn any_changed_field_breaks_the_seal() {
        let verify = |key: &Key, message: &[u8], signature: &Signature| signature.0 == sign(key.0[0], message);
        let sealed = Erratum::seal(finding(), Key([7; 32]), |message| sign(7, message));
        assert!(sealed.is_signed(&verify));
        let read: Erratum = serde_json::from_str(&sealed.canonical()).unwrap();
        assert_eq!(read, sealed);
        type Spoil = fn(&mut Erratum);
        let spoils: [Spoil; 6] = [
            |e| e.finding.verdict = ErratumVerdict::Upheld,
            |e| e.finding.after = None,
            |e| e.finding.shards += 1,
            |e| e.root = Digest::of(b"x"),
            |e| e.signature.public_key = Key([8; 32]),
            |e| e.signature.algorithm = "none".into(),
        ];
        for spoil in spoils {
            let mut spoilt = sealed.clone();
            spoil(&mut spoilt);
            assert!(!spoilt.is_signed(&verify));
        }
    }
}
