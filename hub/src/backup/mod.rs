//! A copy of everything a hub keeps, taken while it runs, and a data directory made of it again.
//!
//! ```text
//! backup.json      what is here: every file with its size and digest, the schema, where the audit log stood
//! hub.db           the database as it was at one moment (VACUUM INTO: a read transaction, so that nobody waits)
//! hub.key url.key  the hub's secrets
//! blobs/ab/abc..   large objects, by digest
//! ```
//!
//! It goes by the data directory and not by the API: a backup holds the hub's private key, which no network should see,
//! and whoever may read the directory may take it.
//!
//! **Objects.** They are written before the database names them, and removed at some time after it no longer does. So
//! hard links to all that are there, then the database, then links to those that came meanwhile, hold every object the
//! database names, whatever is written or collected in between. They are copied from those links.

mod manifest;
mod restore;
mod take;

use std::path::{Path, PathBuf};

use forge_lifecycle::bundle::key::{Key, Verify};
use forge_lifecycle::trail::verify::{Findings, Verifier};
use forge_lifecycle::trail::{Head, Tip};

use crate::store::StoreError;
use crate::store::sqlite::Snapshot;

pub use manifest::{FileLine, Manifest};
pub use restore::{Restored, check, restore};
pub use take::{Taken, take};

/// The file that says what is in a backup.
pub const MANIFEST: &str = "backup.json";
/// The database, in a data directory as in a backup.
const DATABASE: &str = "hub.db";
/// The hub's secrets.
const KEYS: [&str; 2] = ["hub.key", "url.key"];
/// Large objects.
const BLOBS: &str = "blobs";
/// Rows of the audit log read at once.
const PAGE: u32 = 1000;

/// Why a backup could not be taken, checked or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or directory cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no hub's data in the directory.
    #[error("{path} holds no hub's data: there is no {DATABASE}")]
    NoData {
        /// Where.
        path: PathBuf,
    },
    /// There is something already where a directory is to be made.
    #[error("{path} is there and not empty; name a new directory")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// Files cannot be shared between two file systems.
    #[error("{path} is on another file system than the hub's data: leave --link out, and the files are copied")]
    Apart {
        /// Where.
        path: PathBuf,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory is no backup.
    #[error("{path} is no backup: {reason}")]
    NoBackup {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of the backup is gone.
    #[error("{path} is missing in the backup")]
    Missing {
        /// Which.
        path: String,
    },
    /// A file is not what was written.
    #[error("{path} is damaged: its bytes are not those that were backed up")]
    Damaged {
        /// Which.
        path: String,
    },
    /// The database names an object that is nowhere.
    #[error("the database names the object {digest}, which is not there")]
    Object {
        /// Which.
        digest: String,
    },
    /// The database contradicts itself.
    #[error("the database is damaged: {reason}")]
    Database {
        /// How.
        reason: String,
    },
}

impl BackupError {
    /// Whether it says that stored bytes are not what they were.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NoBackup { .. }
                | Self::Missing { .. }
                | Self::Damaged { .. }
                | Self::Object { .. }
                | Self::Database { .. }
        )
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// The hub's directory in what was given: itself, or its `hub` where `forgepool up` keeps it.
fn hub_in(data: &Path) -> Result<PathBuf, BackupError> {
    let places = [data.to_owned(), data.join("hub")];
    let found = places.into_iter().find(|place| place.join(DATABASE).is_file());
    found.ok_or_else(|| BackupError::NoData { path: data.to_owned() })
}

/// Checks the audit log of a data directory or a backup, row by row; the hub may run.
///
/// # Errors
/// `NoData`, `Store`.
pub async fn audit(
    data: &Path,
    key: Option<Key>,
    kept: Option<Head>,
    verify: Verify<'_>,
) -> Result<Findings, BackupError> {
    let snapshot = Snapshot::open(&hub_in(data)?.join(DATABASE)).await?;
    let found = walk(&snapshot, key, kept, verify).await;
    snapshot.close().await;
    Ok(found?)
}

async fn walk(
    snapshot: &Snapshot,
    key: Option<Key>,
    kept: Option<Head>,
    verify: Verify<'_>,
) -> Result<Findings, StoreError> {
    let trail = snapshot.trail();
    let mut verifier = Verifier::new(Tip::default(), key, verify).against(kept);
    let mut after = 0;
    loop {
        let rows = trail.trail(after, PAGE).await?;
        let heads = trail.trail_heads(after + 1, 4 * PAGE).await?;
        for row in &rows {
            verifier.row(row);
            heads.iter().filter(|head| head.seq == row.seq).for_each(|head| verifier.head(head));
        }
        let Some(last) = rows.last() else {
            // Of rows that are no longer there.
            heads.iter().for_each(|head| verifier.head(head));
            return Ok(verifier.end());
        };
        after = last.seq;
    }
}
