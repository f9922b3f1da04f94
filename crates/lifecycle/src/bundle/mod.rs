//! One file with all the evidence of a job, in which any changed bit is found and named.
//!
//! ```text
//! offset  bytes  what
//! 0          21  "forgepool-evidence 1\n"
//! 21          4  length of the index, unsigned, little-endian
//! 25          n  the index: canonical JSON (RFC 8785)
//! 25+n        m  one byte per leaf of the index, in its order: 1 its content follows, 0 it is left out
//! 25+n+m    ...  the contents of the leaves that are there, in the order of the index, without separators
//! ```
//!
//! The index names every leaf with media type, size and BLAKE3 digest, the root over them, and the hub's signature of
//! the root. A slim bundle leaves contents out; index, root and signature are the same. Leaves without a byte are
//! always there, so no two files hold the same evidence with the same leaves left out.

pub mod audit;
pub mod erratum;
pub use crate::key;
pub mod leaf;
mod signed;

use forge_contract::canon::{self, Writer};
use forge_contract::{Digest, JobId};
use serde::{Deserialize, Serialize};

use crate::artifact::Entry;
use key::{Key, Signature, Verify};

/// The media type of a bundle.
pub const MEDIA_TYPE: &str = "application/vnd.forgepool.evidence";
/// The first bytes of a bundle.
pub const MAGIC: &[u8] = b"forgepool-evidence 1\n";
/// The format written here.
pub const FORMAT: u32 = 1;
/// Longest index, bytes.
pub const INDEX_BYTES_MAX: usize = 16 << 20;
/// Most leaves.
pub const LEAVES_MAX: usize = 1 << 16;
/// Longest name or media type of a leaf, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Largest leaf, bytes: what canonical JSON carries exactly.
pub const LEAF_BYTES_MAX: u64 = (1 << 53) - 1;

const ALGORITHM: &str = "Ed25519";

/// What hashes all evidence of a job, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Format, 1.
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// Leaves, by name.
    pub leaves: Vec<Entry>,
    /// [`root`] of format, job and leaves.
    pub root: Digest,
    /// The hub's word for it.
    pub signature: Seal,
}

/// A signature of a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// `Ed25519`.
    pub algorithm: String,
    /// Who signed.
    pub public_key: Key,
    /// The signature of the root's 32 bytes.
    pub signature: Signature,
}

/// A bundle that was read. Its form is right and its root is that of its leaves; contents and signature are to be
/// checked.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    /// Its index.
    pub index: Index,
    contents: Vec<Option<&'a [u8]>>,
}

/// Why bytes are no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Other first bytes.
    #[error("byte {at} is not that of \"forgepool-evidence 1\": this is no evidence bundle, or one of another format")]
    Magic {
        /// Offset of the first byte that differs.
        at: usize,
    },
    /// The bytes end too early.
    #[error("the bundle ends after {found} bytes inside {place}: it was cut, or a length in it was changed")]
    Truncated {
        /// Bytes there are.
        found: usize,
        /// What was being read.
        place: String,
    },
    /// Bytes follow the last leaf.
    #[error("{extra} bytes follow the last leaf: something was added, or a length or a mark was changed")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The index says it is longer than allowed.
    #[error("the index says it has {found} bytes, {INDEX_BYTES_MAX} are allowed: its length was changed")]
    IndexLength {
        /// Bytes said.
        found: u64,
    },
    /// The index cannot be read.
    #[error("the index cannot be read: {reason}")]
    Index {
        /// What the parser says.
        reason: String,
    },
    /// The index is JSON in another spelling than the canonical one.
    #[error("the index is not canonical JSON: byte {at} of it was changed")]
    Spelling {
        /// Offset in the index of the first byte that differs.
        at: usize,
    },
    /// A format this program does not know.
    #[error("the bundle has format {found}, this program reads {FORMAT}")]
    Format {
        /// The format said.
        found: u32,
    },
    /// An algorithm this program does not know.
    #[error("the signature's algorithm is '{found}', expected {ALGORITHM}")]
    Algorithm {
        /// The algorithm said.
        found: String,
    },
    /// No leaf, or too many.
    #[error("the index has {found} leaves, 1 to {LEAVES_MAX} are allowed")]
    Leaves {
        /// How many.
        found: usize,
    },
    /// A leaf's entry breaks a rule.
    #[error("leaf {at} of the index ('{name}') breaks a rule: {rule}")]
    Entry {
        /// Its place.
        at: usize,
        /// Its name, shortened.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A mark that is neither 0 nor 1, or 0 for a leaf without a byte.
    #[error("the mark of leaf '{name}' is {found}: it was changed")]
    Mark {
        /// The leaf.
        name: String,
        /// The mark.
        found: u8,
    },
    /// The root is not that of the leaves.
    #[error("the index was changed: its root is {stated}, format, job and leaves in it have the root {found}")]
    Root {
        /// The root in the index.
        stated: Digest,
        /// The root of its leaves.
        found: Digest,
    },
}

/// The root over leaves in their order: a binary tree in which a node without a right neighbour goes up unchanged.
///
/// Determinism: `leaf = H("forgepool v1 evidence leaf", name, media type, bytes, digest)`,
/// `node = H("forgepool v1 evidence node", left, right)`,
/// `root = H("forgepool v1 evidence root", format, job, number of leaves, top)`, where `H` is BLAKE3 in key derivation
/// mode and fields are written by [`canon::Writer`].
#[must_use]
pub fn root(format: u32, job: JobId, leaves: &[Entry]) -> Digest {
    let mut level: Vec<Digest> = leaves.iter().map(leaf_digest).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(pair_digest).collect();
    }
    let mut w = Writer::new();
    w.u64(u64::from(format));
    w.str(&job.to_string());
    w.u64(leaves.len() as u64);
    w.digest(&level.first().copied().unwrap_or(Digest::from_bytes([0; 32])));
    Digest::tagged("forgepool v1 evidence root", &w.into_bytes())
}

fn leaf_digest(entry: &Entry) -> Digest {
    let mut w = Writer::new();
    w.str(&entry.name);
    w.str(&entry.media_type);
    w.u64(entry.bytes);
    w.digest(&entry.digest);
    Digest::tagged("forgepool v1 evidence leaf", &w.into_bytes())
}

fn pair_digest(pair: &[Digest]) -> Digest {
    match pair {
        [left, right] => {
            let mut w = Writer::new();
            w.digest(left);
            w.digest(right);
            Digest::tagged("forgepool v1 evidence node", &w.into_bytes())
        }
        [alone] => *alone,
        _ => Digest::from_bytes([0; 32]),
    }
}

impl Index {
    /// The index over these leaves, signed by the holder of `key`.
    ///
    /// # Errors
    /// `Leaves`, `Entry`: what [`decode`] would refuse.
    pub fn seal(
        job: JobId,
        mut leaves: Vec<Entry>,
        key: Key,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<Self, BundleError> {
        leaves.sort_by(|a, b| a.name.cmp(&b.name));
        check_leaves(&leaves)?;
        let root = root(FORMAT, job, &leaves);
        let signature = Signature(sign(root.as_bytes()));
        let seal = Seal { algorithm: ALGORITHM.into(), public_key: key, signature };
        Ok(Self { format: FORMAT, job, leaves, root, signature: seal })
    }

    /// The index as canonical JSON.
    #[must_use]
    pub fn canonical(&self) -> String {
        canon::json(self).unwrap_or_default()
    }

    /// Reads an index that stands by itself.
    ///
    /// # Errors
    /// `Index`, `Spelling`, `Format`, `Algorithm`, `Leaves`, `Entry`, `Root`.
    pub fn read(text: &[u8]) -> Result<Self, BundleError> {
        let index: Self =
            serde_json::from_slice(text).map_err(|error| BundleError::Index { reason: error.to_string() })?;
        let canonical = index.canonical();
        if canonical.as_bytes() != text {
            return Err(BundleError::Spelling { at: first_difference(canonical.as_bytes(), text) });
        }
        if index.format != FORMAT {
            return Err(BundleError::Format { found: index.format });
        }
        if index.signature.algorithm != ALGORITHM {
            return Err(BundleError::Algorithm { found: index.signature.algorithm });
        }
        check_leaves(&index.leaves)?;
        let found = root(index.format, index.job, &index.leaves);
        if found != index.root {
            return Err(BundleError::Root { stated: index.root, found });
        }
        Ok(index)
    }

    /// Whether the signature is the stated key's over the root.
    #[must_use]
    pub fn is_signed(&self, verify: Verify<'_>) -> bool {
        verify(&self.signature.public_key, self.root.as_bytes(), &self.signature.signature)
    }

    /// Everything of a bundle before the contents; `has` says which leaves are there.
    #[must_use]
    pub fn head(&self, has: impl Fn(&Entry) -> bool) -> Vec<u8> {
        let index = self.canonical();
        let length = u32::try_from(index.len()).unwrap_or(u32::MAX);
        let marks = self.leaves.iter().map(|entry| u8::from(entry.bytes == 0 || has(entry)));
        let mut head = Vec::with_capacity(MAGIC.len() + 4 + index.len() + self.leaves.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(index.as_bytes());
        head.extend(marks);
        head
    }

    /// The entry of a leaf.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.leaves.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok().and_then(|at| self.leaves.get(at))
    }
}

/// Whether a slim bundle leaves this leaf out: the component and what the job read.
#[must_use]
pub fn is_heavy(entry: &Entry) -> bool {
    entry.name == leaf::COMPONENT || entry.name.starts_with(leaf::INPUT_PREFIX)
}

fn check_leaves(leaves: &[Entry]) -> Result<(), BundleError> {
    if leaves.is_empty() || leaves.len() > LEAVES_MAX {
        return Err(BundleError::Leaves { found: leaves.len() });
    }
    let mut before: Option<&str> = None;
    for (at, entry) in leaves.iter().enumerate() {
        let is_word = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        let rule = if !is_word(&entry.name) || !is_word(&entry.media_type) {
            "names and media types have 1 to 255 bytes and no control character"
        } else if entry.bytes > LEAF_BYTES_MAX {
            "a leaf has less than 2^53 bytes"
        } else if before.is_some_and(|before| before >= entry.name.as_str()) {
            "names rise and none stands twice"
        } else {
            before = Some(&entry.name);
            continue;
        };
        let name = entry.name.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(BundleError::Entry { at, name, rule });
    }
    Ok(())
}

fn first_difference(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()))
}

/// Reads a bundle. Bounded: nothing is reserved beyond what the bytes hold, and contents are not copied.
///
/// # Errors
/// Whatever makes the bytes another file than the one its writer wrote, but for contents and signature.
pub fn decode(bytes: &[u8]) -> Result<Bundle<'_>, BundleError> {
    let magic = bytes.get(..MAGIC.len().min(bytes.len())).unwrap_or_default();
    if magic != MAGIC {
        return Err(BundleError::Magic { at: first_difference(MAGIC, magic) });
    }
    let mut rest = Rest { bytes, at: MAGIC.len() };
    let length =
        rest.take(4, "the length of the index")?.first_chunk::<4>().map_or(0, |four| u32::from_le_bytes(*four));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > INDEX_BYTES_MAX {
        return Err(BundleError::IndexLength { found: length as u64 });
    }
    let index = Index::read(rest.take(length, "the index")?)?;
    let marks = rest.take(index.leaves.len(), "the marks of the leaves")?;
    let mut contents = Vec::with_capacity(index.leaves.len());
    for (entry, mark) in index.leaves.iter().zip(marks) {
        contents.push(match (mark, entry.bytes) {
            (1, _) => {
                let count = usize::try_from(entry.bytes).unwrap_or(usize::MAX);
                Some(rest.take(count, &format!("leaf '{}'", entry.name))?)
            }
            (0, 1..) => None,
            (found, _) => return Err(BundleError::Mark { name: entry.name.clone(), found: *found }),
        });
    }
    match bytes.len() - rest.at {
        0 => Ok(Bundle { index, contents }),
        extra => Err(BundleError::Trailing { extra }),
    }
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize, place: &str) -> Result<&'a [u8], BundleError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| BundleError::Truncated { found: self.bytes.len(), place: place.to_owned() })?;
        self.at += count;
        Ok(taken)
    }
}

impl<'a> Bundle<'a> {
    /// Leaves with their contents, where they are there.
    pub fn leaves(&self) -> impl Iterator<Item = (&Entry, Option<&'a [u8]>)> {
        self.index.leaves.iter().zip(self.contents.iter().copied())
    }

    /// The content of a leaf; `None` where it is left out or there is no such leaf.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<&'a [u8]> {
        let at = self.index.leaves.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        self.contents.get(at).copied().flatten()
    }

    /// The leaves whose content is not the one the index hashes.
    #[must_use]
    pub fn changed(&self) -> Vec<&Entry> {
        let changed = |entry: &Entry, content: Option<&[u8]>| content.is_some_and(|c| Digest::of(c) != entry.digest);
        self.leaves().filter(|(entry, content)| changed(entry, *content)).map(|(entry, _)| entry).collect()
    }
}

#[cfg(test)]
mod tests;
