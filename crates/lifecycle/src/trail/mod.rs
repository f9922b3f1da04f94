//! The audit log: who changed what, when, from where, and what came of it, as a chain that no edit leaves whole.
//!
//! ```text
//! digest(n) = H("forgepool v1 audit row",  n, salt, entry n)
//! link(n)   = H("forgepool v1 audit link", link(n - 1), n, digest(n))        link(0) = 32 zero bytes
//! head      = the hub's signature over (n, link(n), when, why, for whom)
//! ```
//!
//! Links go over digests and not over entries, so that the chain is whole for a reader who may not see every entry: of
//! the others it shows digests, which the salt keeps from being guessed.
//!
//! Nothing here is text or a file: [`text`] is the export, [`verify`] what is checked of either.

pub mod text;
pub mod verify;

#[cfg(test)]
mod tests;

use forge_contract::Digest;
use forge_contract::canon::Writer;
use serde::{Deserialize, Serialize};

use crate::bundle::key::{Key, Signature, Verify};

/// The link before the first row.
pub const START: Digest = Digest::from_bytes([0; 32]);

/// Longest text of an entry, bytes; what is longer is cut where the entry is made.
pub const TEXT_BYTES_MAX: usize = 512;

/// What a row says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, ms since 1970 by the hub's clock.
    pub at_ms: u64,
    /// The organisation; empty where there is none.
    pub organisation: String,
    /// The project; empty for what is nobody's, such as a refused key.
    pub project: String,
    /// The key, by its id or the start of its text; `operator` for what the hub did at its operator's word.
    pub key: String,
    /// What was asked for: method and route, such as `POST /api/v0/jobs/{id}/cancel`.
    pub action: String,
    /// Of what: the path.
    pub target: String,
    /// The HTTP status of the outcome; of a job, that of its acceptance.
    pub status: u16,
    /// The failure code; empty where there is none.
    pub code: String,
    /// What else there is to say, such as the job's id.
    pub note: String,
    /// Digest of the request's body as it came; none where it was not read whole, or is content with a digest of its own.
    pub body: Option<Digest>,
    /// The address it came from.
    pub peer: String,
    /// The trace id.
    pub trace_id: String,
}

impl Entry {
    /// The same with every text within [`TEXT_BYTES_MAX`] and without control characters.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [
            &mut self.organisation,
            &mut self.project,
            &mut self.key,
            &mut self.action,
            &mut self.target,
            &mut self.code,
            &mut self.note,
            &mut self.peer,
            &mut self.trace_id,
        ] {
            text.retain(|c| !c.is_control());
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self
    }

    /// The digest of row `seq` with this entry.
    #[must_use]
    pub fn digest(&self, seq: u64, salt: &Salt) -> Digest {
        let mut w = Writer::with_capacity(512);
        w.u64(seq);
        w.bytes(&salt.0);
        w.u64(self.at_ms);
        for text in [&self.organisation, &self.project, &self.key, &self.action, &self.target] {
            w.str(text);
        }
        w.u64(self.status.into());
        for text in [&self.code, &self.note] {
            w.str(text);
        }
        match &self.body {
            None => w.u8(0),
            Some(digest) => {
                w.u8(1);
                w.digest(digest);
            }
        }
        for text in [&self.peer, &self.trace_id] {
            w.str(text);
        }
        Digest::tagged("forgepool v1 audit row", &w.into_bytes())
    }
}

/// Random bytes of a row: without them its digest would tell who guesses its entry that he is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

impl Serialize for Salt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(self.0)))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A row with its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// What it says.
    pub entry: Entry,
    /// Its salt.
    pub salt: Salt,
    /// Its digest.
    pub digest: Digest,
    /// The chain's link with it.
    pub link: Digest,
}

impl Row {
    /// The row that follows `tip`.
    #[must_use]
    pub fn after(tip: &Tip, entry: Entry, salt: Salt) -> Self {
        let seq = tip.seq + 1;
        let digest = entry.digest(seq, &salt);
        Self { seq, link: link(&tip.link, seq, &digest), entry, salt, digest }
    }

    /// Where the chain stands with it.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        Tip { seq: self.seq, link: self.link }
    }
}

/// The link of row `seq` after the one before it.
#[must_use]
pub fn link(before: &Digest, seq: u64, digest: &Digest) -> Digest {
    let mut w = Writer::with_capacity(80);
    w.digest(before);
    w.u64(seq);
    w.digest(digest);
    Digest::tagged("forgepool v1 audit link", &w.into_bytes())
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The number of its last row; 0 without one.
    pub seq: u64,
    /// The link with it.
    pub link: Digest,
}

impl Default for Tip {
    fn default() -> Self {
        Self { seq: 0, link: START }
    }
}

/// Why a head was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It was time.
    Periodic,
    /// The hub stopped.
    Shutdown,
    /// Somebody asked for it.
    Asked,
    /// An export ends with it.
    Export,
}

impl Purpose {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Shutdown => "shutdown",
            Self::Asked => "asked",
            Self::Export => "export",
        }
    }

    /// The purpose of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Periodic, Self::Shutdown, Self::Asked, Self::Export].into_iter().find(|one| one.as_str() == text)
    }
}

/// The hub's word on where its chain stood: whoever keeps one, holds the hub to every row up to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of the last row.
    pub seq: u64,
    /// The link with it.
    pub link: Digest,
    /// When it was signed, ms since 1970.
    pub at_ms: u64,
    /// Why.
    pub purpose: Purpose,
    /// Whose rows the export shows that ends with it, and from which row on; empty for every other head.
    pub scope: String,
    /// The hub's key.
    pub key: Key,
    /// Its signature over [`Head::statement`].
    pub signature: Signature,
}

impl Head {
    /// A head signed by the holder of `key`.
    #[must_use]
    pub fn seal(tip: Tip, at_ms: u64, of: (Purpose, String), key: Key, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let (purpose, scope) = of;
        let Tip { seq, link } = tip;
        let mut head = Self { seq, link, at_ms, purpose, scope, key, signature: Signature([0; 64]) };
        head.signature = Signature(sign(head.statement().as_bytes()));
        head
    }

    /// What is signed.
    #[must_use]
    pub fn statement(&self) -> Digest {
        let mut w = Writer::with_capacity(160);
        w.u64(self.seq);
        w.digest(&self.link);
        w.u64(self.at_ms);
        w.str(self.purpose.as_str());
        w.str(&self.scope);
        Digest::tagged("forgepool v1 audit head", &w.into_bytes())
    }

    /// Whether the stated key signed it.
    #[must_use]
    pub fn is_signed(&self, verify: Verify<'_>) -> bool {
        verify(&self.key, self.statement().as_bytes(), &self.signature)
    }

    /// Where the chain stood.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        Tip { seq: self.seq, link: self.link }
    }
}
