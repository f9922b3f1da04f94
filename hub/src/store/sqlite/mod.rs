//! The embedded backend: SQLite in WAL mode, `synchronous = FULL`, one writing connection, separate readers.

mod arrays;
mod books;
mod books_read;
#[cfg(test)]
mod crash;
mod data;
mod garbage;
mod history;
mod kv;
mod reader;
mod settlement;
mod snapshot;
mod tenancy;
mod trail;
#[cfg(test)]
mod upgrades;
mod writer;

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use forge_contract::{Digest, JobId};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::blobs::Blobs;
use super::{Ack, StoreError, Write};
pub use snapshot::Snapshot;

/// Fragments up to this size lie in the database, larger ones in a file.
const FRAGMENT_INLINE_BYTES_MAX: usize = 256 << 10;
const READERS: u32 = 4;

/// The SQLite backend.
#[derive(Debug)]
pub struct Sqlite {
    readers: SqlitePool,
    blobs: Arc<Blobs>,
    queue: std::sync::Mutex<Option<mpsc::UnboundedSender<writer::Queued>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens the database file, making and migrating it as needed, and starts its writer.
    ///
    /// # Errors
    /// `Database`, `Migration`.
    pub async fn open(path: &Path, blobs: Arc<Blobs>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")?
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        let mut connection = options.clone().connect().await?;
        let migrations = sqlx::migrate!("./migrations");
        migrations.run(&mut connection).await.map_err(|error| match error {
            MigrateError::VersionMissing(found) => {
                let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
                StoreError::Newer { found, known }
            }
            error => error.into(),
        })?;
        books::open(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        // The writer owns its connection and is never cancelled, so no transaction is left open behind a reader's back.
        let task = tokio::spawn(writer::run(connection, Arc::clone(&blobs), receiver));
        Ok(Self { readers, blobs, queue: std::sync::Mutex::new(Some(sender)), writer: Mutex::new(Some(task)) })
    }

    fn queue(&self, write: Write) -> Ack {
        let (sender, ack) = Ack::pair();
        let queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            // A refused send drops the sender, which the acknowledgement reports as closed.
            drop(queue.send(writer::Queued { write, sender }));
        }
        ack
    }

    async fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        if let Some(task) = self.writer.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the store's writer ended badly");
        }
        self.readers.close().await;
    }
}

/// SQLite's integers are signed; what does not fit is no number we ever store.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn job_bytes(job: JobId) -> Vec<u8> {
    job.bits().to_be_bytes().to_vec()
}

fn job_of(bytes: &[u8]) -> Result<JobId, StoreError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| StoreError::Corrupt { what: "job id" })?;
    Ok(JobId::from_bits(u128::from_be_bytes(bytes)))
}

fn digest_of(bytes: &[u8]) -> Result<Digest, StoreError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| StoreError::Corrupt { what: "digest" })?;
    Ok(Digest::from_bytes(bytes))
}

/// Milliseconds since 1970, by the system's clock.
fn now_ms() -> u64 {
    crate::clock::unix_ms()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::suite;

    #[tokio::test]
    async fn passes_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        let open = async |_fresh: bool| -> Arc<dyn crate::store::Store> {
            let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).unwrap());
            let store: Arc<dyn crate::store::Store> =
                Arc::new(Sqlite::open(&folder.path().join("hub.db"), blobs).await.unwrap());
            store
        };
        suite::run(open).await;
    }

    /// A database as an earlier version left it.
    async fn of_version(path: &Path, version: i64) -> sqlx::SqliteConnection {
        let mut connection =
            SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
        let mut before = sqlx::migrate!("./migrations");
        before.migrations.to_mut().retain(|migration| migration.version <= version);
        before.run(&mut connection).await.unwrap();
        connection
    }

    #[tokio::test]
    async fn a_database_of_before_tenancy_belongs_to_the_operator() {
        use crate::store::TenancyStore as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let mut connection = of_version(&path, 6).await;
        sqlx::raw_sql(
            "INSERT INTO projects VALUES ('default', 'default', 1), ('second', 'second', 2); \
             INSERT INTO api_keys VALUES (x'0101010101010101010101010101010101010101010101010101010101010101', 'default', \
             'fpk_abcd', 'compute admin', 5, NULL), (x'02020202020202020202020202020202020202020202020202020202020202ff', \
             'second', 'fpk_efgh', 'compute', 6, NULL), (zeroblob(32), 'default', 'fpk_gone', 'compute', 6, 7); \
             INSERT INTO jobs (id, project, trace_id, op, envelope, envelope_digest, plan, phase, accepted_ms) VALUES \
             (x'000003e9000000000000000000000001', 'second', 't', 'op', x'78', zeroblob(32), x'7b7d', 'RUNNING', 7);",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::Connection::close(connection).await.unwrap();

        let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).unwrap());
        let store = Sqlite::open(&path, blobs).await.unwrap();
        let holder = store.holder(&Digest::from_bytes([1; 32])).await.unwrap().unwrap();
        assert!(holder.operator && holder.key.id.starts_with("key_") && holder.key.created_ms == 5);
        assert_eq!((holder.key.organisation.as_str(), holder.scopes.words().as_str()), ("default", "compute admin"));
        assert_eq!(store.holder(&Digest::from_bytes([0; 32])).await.unwrap(), None, "what was revoked stays so");
        assert_eq!(store.project_use("second").await.unwrap().jobs, 1, "jobs that wait count");
        let projects = store.projects(Some("default"), None, 9).await.unwrap();
        assert_eq!(projects.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["default", "second"]);
        assert!(projects.iter().all(|row| row.binding.is_empty() && row.effective() == Default::default()));
        store.stop().await;
    }
}
