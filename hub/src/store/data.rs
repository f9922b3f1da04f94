//! What projects keep: values by key, arrays by name, and files that nothing names any more.

use async_trait::async_trait;
use forge_contract::array::ArrayType;
use forge_contract::{Digest, JobId};

use super::{Exceeded, StoreError};
use crate::condition::Condition;

/// A change to what projects keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataWrite {
    /// A value under a key, where the condition holds.
    KvPut(Box<NewValue>),
    /// A key is removed, where the condition holds.
    KvDelete {
        /// Which.
        at: KvKey,
        /// What must be there.
        condition: Condition,
    },
    /// Entries that have expired are removed, at most this many.
    KvSweep {
        /// How many.
        limit: u32,
    },
    /// The next version of an array.
    Array(Box<NewArray>),
    /// A version of an array is removed for good; its number stays taken.
    ArrayDelete {
        /// The project.
        project: String,
        /// The array's name.
        name: String,
        /// The version.
        version: u64,
    },
    /// A project gives up its claim on content.
    Unclaim {
        /// The project.
        project: String,
        /// The content.
        digest: Digest,
    },
    /// Files that nothing seems to name: those of which that is true, and was long enough, are removed.
    Collect {
        /// Their digests.
        digests: Vec<Digest>,
        /// How long nothing must have named them, ms.
        grace_ms: u64,
    },
    /// Files that were marked and are named after all, or are gone.
    Unmark {
        /// Their digests.
        digests: Vec<Digest>,
    },
}

/// What a change to what projects keep gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataWritten {
    /// `KvPut`: the entry as it is now, and whether there was none before.
    Kept {
        /// The entry.
        entry: Box<KvEntry>,
        /// Whether there was none before.
        new: bool,
    },
    /// `KvPut`, `KvDelete`: the condition does not hold; the revision that is there, if any.
    Unmet(Option<u64>),
    /// `KvDelete`, `ArrayDelete`, `Unclaim`: whether there was something to remove.
    Removed(bool),
    /// `Array`: the version.
    Version(u64),
    /// `KvSweep`: how many entries were removed.
    Swept(u64),
    /// `Collect`.
    Collected(Collected),
    /// `KvPut`, `Array`: the project has no room for it; nothing was written.
    Exceeded(Exceeded),
    /// The end of a job: another version of an array came first; nothing was written.
    Moved,
}

impl DataWritten {
    /// Whether anything of a project's is another one now.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::Kept { .. } | Self::Removed(true) | Self::Version(_))
    }
}

/// What a collection came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files that nothing names and that stay for now.
    pub marked: u64,
    /// Files removed.
    pub removed: u64,
    /// Their size, bytes.
    pub bytes: u64,
}

impl Collected {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            marked: self.marked + other.marked,
            removed: self.removed + other.removed,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvKey {
    /// The project.
    pub project: String,
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: String,
}

/// A value to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewValue {
    /// Where.
    pub at: KvKey,
    /// The bytes.
    pub value: Vec<u8>,
    /// Their media type.
    pub media_type: String,
    /// When it stops being there, ms since 1970.
    pub expires_ms: Option<u64>,
    /// What must be there before.
    pub condition: Condition,
}

/// An entry, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntry {
    /// Its key.
    pub key: String,
    /// Its revision: never used twice.
    pub revision: u64,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
    /// Media type.
    pub media_type: String,
    /// The job whose artifact it stands for.
    pub job: Option<JobId>,
    /// When there was first something under the key, ms since 1970.
    pub created_ms: u64,
    /// When it was last written, ms since 1970.
    pub updated_ms: u64,
    /// When it stops being there, ms since 1970.
    pub expires_ms: Option<u64>,
}

/// A namespace with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its name.
    pub name: String,
    /// Entries.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Which entries a list gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvList {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// Most to give.
    pub limit: u32,
}

/// An array to keep as the next version of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArray {
    /// The project.
    pub project: String,
    /// The name.
    pub name: String,
    /// The digest of its file.
    pub digest: Digest,
    /// The size of its file, bytes.
    pub bytes: u64,
    /// What it is.
    pub array: ArrayType,
    /// Where its numbers begin in the file, bytes.
    pub data_at: u64,
    /// The job it is a result of, and which part.
    pub source: Option<(JobId, String)>,
    /// The version it must become; of a job's result, whose answer names it.
    pub version: Option<u64>,
}

/// A version of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayRow {
    /// The name.
    pub name: String,
    /// The version, from 1.
    pub version: u64,
    /// The digest of its file; `None` once it was deleted.
    pub digest: Option<Digest>,
    /// The size of its file, bytes.
    pub bytes: u64,
    /// What it is.
    pub array: ArrayType,
    /// Where its numbers begin in the file, bytes.
    pub data_at: u64,
    /// The job it is a result of.
    pub job: Option<JobId>,
    /// Which part of the result.
    pub part: Option<String>,
    /// When it was kept, ms since 1970.
    pub created_ms: u64,
    /// When it was deleted, ms since 1970.
    pub deleted_ms: Option<u64>,
}

/// What a job's end leaves in the project's own names, in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Keys that stand for artifacts: where, and the artifact's name.
    pub references: Vec<(KvKey, String)>,
    /// Arrays of the result.
    pub arrays: Vec<NewArray>,
}

/// What a project stores, bytes. The hub's own evidence is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredBytes {
    /// Content it sent.
    pub blobs: u64,
    /// Values by key; artifacts that a key stands for are evidence.
    pub kv: u64,
    /// Arrays by name, each version.
    pub vmem: u64,
}

impl StoredBytes {
    /// All of it.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.blobs.saturating_add(self.kv).saturating_add(self.vmem)
    }
}

/// Reading what projects keep.
#[async_trait]
pub trait DataStore: Send + Sync + 'static {
    /// An entry that has not expired by `now_ms`, with its bytes unless it stands for an artifact.
    async fn kv(&self, at: &KvKey, now_ms: u64) -> Result<Option<(KvEntry, Option<Vec<u8>>)>, StoreError>;
    /// Entries of a namespace in the order of their keys.
    async fn kv_entries(
        &self,
        project: &str,
        namespace: &str,
        list: &KvList,
        now_ms: u64,
    ) -> Result<Vec<KvEntry>, StoreError>;
    /// A project's namespaces by name, after this one.
    async fn kv_namespaces(
        &self,
        project: &str,
        after: Option<&str>,
        limit: u32,
        now_ms: u64,
    ) -> Result<Vec<NamespaceRow>, StoreError>;
    /// A version of an array, or the latest that was not deleted. One that was deleted is given, too, where it is asked for.
    async fn array(&self, project: &str, name: &str, version: Option<u64>) -> Result<Option<ArrayRow>, StoreError>;
    /// The version that the next array of this name gets.
    async fn next_version(&self, project: &str, name: &str) -> Result<u64, StoreError>;
    /// The latest version of every array of a project, by name, after this one. Arrays whose versions were all deleted
    /// are not given.
    async fn arrays(&self, project: &str, after: Option<&str>, limit: u32) -> Result<Vec<ArrayRow>, StoreError>;
    /// The versions of an array, rising, after this one; those that were deleted too.
    async fn array_versions(
        &self,
        project: &str,
        name: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<ArrayRow>, StoreError>;
    /// What a project stores.
    async fn stored_bytes(&self, project: &str) -> Result<StoredBytes, StoreError>;
    /// Which of these nothing names.
    async fn unnamed(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;
    /// Every file that is marked.
    async fn marked(&self) -> Result<Vec<Digest>, StoreError>;
}
