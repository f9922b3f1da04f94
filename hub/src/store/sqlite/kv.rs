//! Values by key, in SQLite.

use forge_contract::{Digest, JobId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{digest_of, int, job_bytes, job_of, now_ms, tenancy, uint};
use crate::condition::Condition;
use crate::store::data::{DataWritten, KvEntry, KvKey, KvList, NamespaceRow, NewValue};
use crate::store::{ArtifactRow, StoreError};

/// After every key: no key has this character.
const END: char = '\u{7f}';

pub(super) async fn put(db: &mut SqliteConnection, new: &NewValue) -> Result<DataWritten, StoreError> {
    let now = now_ms();
    let before = standing(&mut *db, &new.at, now).await?;
    if !holds(&new.condition, before.map(|(revision, _)| revision)) {
        return Ok(DataWritten::Unmet(before.map(|(revision, _)| revision)));
    }
    let created_ms = before.map_or(now, |(_, created_ms)| created_ms);
    let (digest, bytes) = (Digest::of(&new.value), new.value.len() as u64);
    let freed = held(&mut *db, &new.at).await?;
    if let Some(exceeded) = tenancy::no_room_beside(&mut *db, &new.at.project, bytes, freed).await? {
        return Ok(DataWritten::Exceeded(exceeded));
    }
    // A replaced row goes and a new one comes, whose number was never used before.
    let query = sqlx::query(
        "INSERT OR REPLACE INTO kv (project, namespace, key, value, digest, bytes, media_type, created_ms, updated_ms, expires_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING revision",
    );
    let KvKey { project, namespace, key } = &new.at;
    let query = query.bind(project).bind(namespace).bind(key).bind(new.value.as_slice());
    let query = query.bind(digest.as_bytes().as_slice()).bind(int(bytes)).bind(&new.media_type);
    let query = query.bind(int(created_ms)).bind(int(now)).bind(new.expires_ms.map(int));
    let revision = uint(query.fetch_one(db).await?.try_get("revision")?);
    let entry = KvEntry {
        key: key.clone(),
        revision,
        digest,
        bytes,
        media_type: new.media_type.clone(),
        job: None,
        created_ms,
        updated_ms: now,
        expires_ms: new.expires_ms,
    };
    Ok(DataWritten::Kept { entry: Box::new(entry), new: before.is_none() })
}

pub(super) async fn delete(
    db: &mut SqliteConnection,
    at: &KvKey,
    condition: &Condition,
) -> Result<DataWritten, StoreError> {
    let before = standing(&mut *db, at, now_ms()).await?.map(|(revision, _)| revision);
    if !holds(condition, before) {
        return Ok(DataWritten::Unmet(before));
    }
    let query = sqlx::query("DELETE FROM kv WHERE project = ? AND namespace = ? AND key = ?");
    query.bind(&at.project).bind(&at.namespace).bind(&at.key).execute(db).await?;
    Ok(DataWritten::Removed(before.is_some()))
}

pub(super) async fn sweep(db: &mut SqliteConnection, limit: u32) -> Result<DataWritten, StoreError> {
    let query = sqlx::query(
        "DELETE FROM kv WHERE revision IN (SELECT revision FROM kv WHERE expires_ms IS NOT NULL AND expires_ms <= ? LIMIT ?)",
    );
    let swept = query.bind(int(now_ms())).bind(i64::from(limit)).execute(db).await?;
    Ok(DataWritten::Swept(swept.rows_affected()))
}

/// Lets a key stand for an artifact.
pub(super) async fn refer(
    db: &mut SqliteConnection,
    at: &KvKey,
    artifact: &ArtifactRow,
    job: JobId,
    at_ms: u64,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT OR REPLACE INTO kv (project, namespace, key, digest, bytes, media_type, job, created_ms, updated_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(&at.project).bind(&at.namespace).bind(&at.key).bind(artifact.digest.as_bytes().as_slice());
    let query = query.bind(int(artifact.bytes)).bind(&artifact.media_type).bind(job_bytes(job));
    query.bind(int(at_ms)).bind(int(at_ms)).execute(db).await?;
    Ok(())
}

fn holds(condition: &Condition, revision: Option<u64>) -> bool {
    condition.holds(revision.map(|revision| revision.to_string()).as_deref())
}

/// Bytes of the value that stands under a key, expired or not.
async fn held(db: &mut SqliteConnection, at: &KvKey) -> Result<u64, StoreError> {
    let query =
        sqlx::query("SELECT bytes FROM kv WHERE project = ? AND namespace = ? AND key = ? AND value IS NOT NULL");
    let row = query.bind(&at.project).bind(&at.namespace).bind(&at.key).fetch_optional(db).await?;
    row.map_or(Ok(0), |row| Ok(uint(row.try_get("bytes")?)))
}

/// Revision and first time of what is there.
async fn standing(db: &mut SqliteConnection, at: &KvKey, now: u64) -> Result<Option<(u64, u64)>, StoreError> {
    let query = sqlx::query(
        "SELECT revision, created_ms FROM kv WHERE project = ? AND namespace = ? AND key = ? \
         AND (expires_ms IS NULL OR expires_ms > ?)",
    );
    let query = query.bind(&at.project).bind(&at.namespace).bind(&at.key).bind(int(now));
    let row = query.fetch_optional(db).await?;
    row.map(|row| Ok((uint(row.try_get("revision")?), uint(row.try_get("created_ms")?)))).transpose()
}

pub(super) async fn get(
    readers: &SqlitePool,
    at: &KvKey,
    now: u64,
) -> Result<Option<(KvEntry, Option<Vec<u8>>)>, StoreError> {
    let query = sqlx::query(
        "SELECT key, revision, digest, bytes, media_type, job, created_ms, updated_ms, expires_ms, value FROM kv \
         WHERE project = ? AND namespace = ? AND key = ? AND (expires_ms IS NULL OR expires_ms > ?)",
    );
    let query = query.bind(&at.project).bind(&at.namespace).bind(&at.key).bind(int(now));
    let Some(row) = query.fetch_optional(readers).await? else { return Ok(None) };
    Ok(Some((entry(&row)?, row.try_get("value")?)))
}

pub(super) async fn entries(
    readers: &SqlitePool,
    project: &str,
    namespace: &str,
    list: &KvList,
    now: u64,
) -> Result<Vec<KvEntry>, StoreError> {
    let query = sqlx::query(
        "SELECT key, revision, digest, bytes, media_type, job, created_ms, updated_ms, expires_ms FROM kv \
         WHERE project = ? AND namespace = ? AND key >= ? AND key < ? AND key > ? \
         AND (expires_ms IS NULL OR expires_ms > ?) ORDER BY key LIMIT ?",
    );
    let end = format!("{}{END}", list.prefix);
    let query = query.bind(project).bind(namespace).bind(&list.prefix).bind(end);
    let query = query.bind(list.after.as_deref().unwrap_or_default()).bind(int(now)).bind(i64::from(list.limit));
    query.fetch_all(readers).await?.iter().map(entry).collect()
}

pub(super) async fn namespaces(
    readers: &SqlitePool,
    project: &str,
    after: Option<&str>,
    limit: u32,
    now: u64,
) -> Result<Vec<NamespaceRow>, StoreError> {
    let query = sqlx::query(
        "SELECT namespace, COUNT(*) AS keys, SUM(bytes) AS bytes FROM kv WHERE project = ? AND namespace > ? \
         AND (expires_ms IS NULL OR expires_ms > ?) GROUP BY namespace ORDER BY namespace LIMIT ?",
    );
    let query = query.bind(project).bind(after.unwrap_or_default()).bind(int(now)).bind(i64::from(limit));
    let row = |row: &SqliteRow| {
        Ok(NamespaceRow {
            name: row.try_get("namespace")?,
            keys: uint(row.try_get("keys")?),
            bytes: uint(row.try_get("bytes")?),
        })
    };
    query.fetch_all(readers).await?.iter().map(row).collect()
}

fn entry(row: &SqliteRow) -> Result<KvEntry, StoreError> {
    Ok(KvEntry {
        key: row.try_get("key")?,
        revision: uint(row.try_get("revision")?),
        digest: digest_of(row.try_get("digest")?)?,
        bytes: uint(row.try_get("bytes")?),
        media_type: row.try_get("media_type")?,
        job: row.try_get::<Option<Vec<u8>>, _>("job")?.as_deref().map(job_of).transpose()?,
        created_ms: uint(row.try_get("created_ms")?),
        updated_ms: uint(row.try_get("updated_ms")?),
        expires_ms: row.try_get::<Option<i64>, _>("expires_ms")?.map(uint),
    })
}
