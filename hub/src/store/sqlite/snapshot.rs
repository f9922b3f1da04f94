//! A look at a database file from outside: read-only, without a writer, whether or not a hub has it open.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use forge_contract::Digest;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, QueryBuilder, Row as _};
use tokio::sync::Mutex;

use super::{Sqlite, digest_of};
use crate::store::blobs::Blobs;
use crate::store::{StoreError, TrailStore};

/// The schema from which on there are values and arrays.
const DATA_SINCE: i64 = 8;
/// The schema from which on there is an audit log.
const TRAIL_SINCE: i64 = 10;

/// A database that is only read.
#[derive(Debug)]
pub struct Snapshot {
    sqlite: Sqlite,
}

impl Snapshot {
    /// Opens a database that a hub may have open too.
    ///
    /// # Errors
    /// `Database`.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(path, false).await
    }

    /// Opens a database that nobody changes while it is open: no file is made beside it.
    ///
    /// # Errors
    /// `Database`.
    pub async fn still(path: &Path) -> Result<Self, StoreError> {
        Self::of(path, true).await
    }

    async fn of(path: &Path, still: bool) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")?
            .filename(path)
            .read_only(true)
            .immutable(still)
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        let readers = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        let blobs = Arc::new(Blobs::at(&path.with_file_name("blobs")));
        let (queue, writer) = (std::sync::Mutex::new(None), Mutex::new(None));
        Ok(Self { sqlite: Sqlite { readers, blobs, queue, writer } })
    }

    /// Writes the database as it is at this moment into a new file, durable when this returns.
    ///
    /// # Errors
    /// `Database`; `Blob` where the file cannot be made durable.
    pub async fn copy_into(&self, path: &Path) -> Result<(), StoreError> {
        let text = path.to_str().ok_or(StoreError::Corrupt { what: "path of the copy" })?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&self.sqlite.readers).await?;
        let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|source| crate::store::blobs::BlobError::Io { path: path.to_owned(), source }.into())
    }

    /// The number of the last migration.
    ///
    /// # Errors
    /// `Database`.
    pub async fn schema(&self) -> Result<i64, StoreError> {
        let query = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM _sqlx_migrations");
        Ok(query.fetch_one(&self.sqlite.readers).await?.try_get("version")?)
    }

    /// What SQLite finds wrong with the file; nothing where it is sound.
    ///
    /// # Errors
    /// `Database`.
    pub async fn faults(&self) -> Result<Vec<String>, StoreError> {
        let mut faults = Vec::new();
        for row in sqlx::query("PRAGMA integrity_check(20)").fetch_all(&self.sqlite.readers).await? {
            let said: String = row.try_get(0)?;
            if said != "ok" {
                faults.push(said);
            }
        }
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.sqlite.readers).await? {
            faults.push(format!("a row of {} refers to nothing", row.try_get::<String, _>(0)?));
        }
        Ok(faults)
    }

    /// Objects it names that do not lie in it: those there must be files of.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn named(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let mut tables = vec![
            "SELECT digest FROM artifacts",
            "SELECT digest FROM blobs",
            "SELECT fragment_digest AS digest FROM accepted WHERE fragment_digest IS NOT NULL",
        ];
        if self.schema().await? >= DATA_SINCE {
            tables.push("SELECT digest FROM kv WHERE value IS NULL");
            tables.push("SELECT digest FROM vmem WHERE digest IS NOT NULL");
        }
        let mut named = BTreeSet::new();
        for table in tables {
            let mut query = QueryBuilder::new("SELECT digest FROM (");
            query.push(table).push(") AS named WHERE digest NOT IN (SELECT digest FROM objects)");
            for row in query.build().fetch_all(&self.sqlite.readers).await? {
                named.insert(digest_of(row.try_get("digest")?)?);
            }
        }
        Ok(named)
    }

    /// Whether it is new enough to have an audit log.
    ///
    /// # Errors
    /// `Database`.
    pub async fn has_trail(&self) -> Result<bool, StoreError> {
        Ok(self.schema().await? >= TRAIL_SINCE)
    }

    /// Its audit log.
    #[must_use]
    pub fn trail(&self) -> &(dyn TrailStore + Send + Sync) {
        &self.sqlite
    }

    /// Closes it.
    pub async fn close(&self) {
        self.sqlite.readers.close().await;
    }
}
