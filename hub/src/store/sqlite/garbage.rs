//! Files that nothing names, in SQLite: found by looking into every place that could name one.

use std::sync::Arc;

use forge_contract::Digest;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{digest_of, int, now_ms, uint};
use crate::store::StoreError;
use crate::store::blobs::{Blobs, Freed};
use crate::store::data::{Collected, DataWritten};

/// Every place that can name a file, each with an index by digest.
///
/// A table that names content and is not here loses it: `every_digest_is_accounted_for` looks at the schema.
macro_rules! named {
    () => {
        "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1) \
         OR EXISTS (SELECT 1 FROM artifacts WHERE digest = ?1 AND bytes > 131072) \
         OR EXISTS (SELECT 1 FROM accepted WHERE fragment_digest = ?1 AND fragment_digest IS NOT NULL) \
         OR EXISTS (SELECT 1 FROM job_content WHERE digest = ?1) \
         OR EXISTS (SELECT 1 FROM kernels WHERE digest = ?1) \
         OR EXISTS (SELECT 1 FROM vmem WHERE digest = ?1 AND digest IS NOT NULL) \
         OR EXISTS (SELECT 1 FROM kv WHERE digest = ?1 AND value IS NULL) \
         OR EXISTS (SELECT 1 FROM errata WHERE record = ?1) AS named"
    };
}

pub(super) async fn unnamed(readers: &SqlitePool, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
    let mut found = Vec::new();
    for digest in digests {
        let query = sqlx::query(named!()).bind(digest.as_bytes().as_slice());
        if !query.fetch_one(readers).await?.try_get::<bool, _>("named")? {
            found.push(*digest);
        }
    }
    Ok(found)
}

pub(super) async fn marked(readers: &SqlitePool) -> Result<Vec<Digest>, StoreError> {
    let rows = sqlx::query("SELECT digest FROM garbage ORDER BY digest").fetch_all(readers).await?;
    rows.iter().map(|row| digest_of(row.try_get("digest")?)).collect()
}

/// Removes those that nothing names and that were marked long enough. Here, in the writer, nothing can begin to name one
/// between the look and the removal; what is about to be named is held.
pub(super) async fn collect(
    db: &mut SqliteConnection,
    blobs: &Arc<Blobs>,
    digests: &[Digest],
    grace_ms: u64,
) -> Result<DataWritten, StoreError> {
    let now = now_ms();
    let mut collected = Collected::default();
    for digest in digests {
        let bytes = digest.as_bytes().as_slice();
        if sqlx::query(named!()).bind(bytes).fetch_one(&mut *db).await?.try_get::<bool, _>("named")? {
            unmark(&mut *db, std::slice::from_ref(digest)).await?;
            continue;
        }
        let query = sqlx::query(
            "INSERT INTO garbage (digest, since_ms) VALUES (?1, ?2) \
             ON CONFLICT (digest) DO UPDATE SET since_ms = MIN(since_ms, ?2) RETURNING since_ms",
        );
        let since = uint(query.bind(bytes).bind(int(now)).fetch_one(&mut *db).await?.try_get("since_ms")?);
        if since.saturating_add(grace_ms) > now {
            collected.marked += 1;
            continue;
        }
        let (files, one) = (Arc::clone(blobs), *digest);
        let freed = tokio::task::spawn_blocking(move || files.free(&one)).await.map_err(|_| StoreError::Closed)??;
        match freed {
            Freed::Held => collected.marked += 1,
            Freed::Removed { bytes } => {
                collected.removed += 1;
                collected.bytes += bytes;
                unmark(&mut *db, std::slice::from_ref(digest)).await?;
            }
        }
    }
    Ok(DataWritten::Collected(collected))
}

pub(super) async fn unmark(db: &mut SqliteConnection, digests: &[Digest]) -> Result<(), StoreError> {
    for digest in digests {
        let query = sqlx::query("DELETE FROM garbage WHERE digest = ?").bind(digest.as_bytes().as_slice());
        query.execute(&mut *db).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Digests that name no file: hashes of other things, and content that lies in its row.
    const NO_FILE: &[&str] = &[
        "audit.digest",
        "garbage.digest",
        "idempotency.digest",
        "jobs.envelope_digest",
        "ledger.digest",
        "objects.digest",
        "transactions.digest",
    ];

    /// A table that comes to name files must be asked before one is removed.
    #[tokio::test]
    async fn every_digest_is_accounted_for() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).unwrap());
        let store = crate::store::sqlite::Sqlite::open(&folder.path().join("hub.db"), blobs).await.unwrap();
        let query = sqlx::query(
            "SELECT tables.name || '.' || columns.name AS place FROM sqlite_master AS tables, \
             pragma_table_info(tables.name) AS columns WHERE tables.type = 'table' AND columns.name LIKE '%digest%' \
             ORDER BY place",
        );
        let rows = query.fetch_all(&store.readers).await.unwrap();
        let places: Vec<String> = rows.iter().map(|row| row.try_get("place").unwrap()).collect();
        assert!(places.len() > 10, "{places:?}");
        for place in &places {
            let (table, column) = place.split_once('.').unwrap();
            let asked = named!().contains(&format!("FROM {table} WHERE {column} = ?1"));
            let other = NO_FILE.contains(&place.as_str());
            assert!(asked != other, "{place}: add it to the query of what names a file, or to NO_FILE");
        }
        for place in NO_FILE {
            assert!(places.iter().any(|one| one == place), "{place} is no column");
        }
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", named!())));
        let steps = plan.bind([0_u8; 32].as_slice()).fetch_all(&store.readers).await.unwrap();
        for step in steps {
            let detail: String = step.try_get("detail").unwrap();
            // Kernels and errata are few.
            let scans =
                detail.starts_with("SCAN") && !["kernels", "errata", "CONSTANT"].iter().any(|few| detail.contains(few));
            assert!(!scans, "no index: {detail}");
        }
    }
}
