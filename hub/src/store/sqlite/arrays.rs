//! Arrays by name and version, in SQLite.

use forge_contract::array::{ArrayType, dtype, number_of};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{digest_of, int, job_bytes, job_of, now_ms, tenancy, uint};
use crate::store::StoreError;
use crate::store::data::{ArrayRow, DataWritten, NewArray};

/// Everything [`row`] reads, of the rows named by the rest of the query.
macro_rules! arrays {
    ($rest:literal) => {
        concat!(
            "SELECT name, version, digest, bytes, dtype, shape, data_at, job, part, created_ms, deleted_ms FROM vmem ",
            $rest
        )
    };
}

/// Keeps an array as the next version of its name. `Moved` where it was to become another one; nothing is written then.
pub(super) async fn put(db: &mut SqliteConnection, new: &NewArray) -> Result<DataWritten, StoreError> {
    let version = next(&mut *db, &new.project, &new.name).await?;
    if new.version.is_some_and(|expected| expected != version) {
        return Ok(DataWritten::Moved);
    }
    // What a job made is kept in any case: its end must not depend on the room that is left.
    if new.source.is_none()
        && let Some(exceeded) = tenancy::no_room(&mut *db, &new.project, new.bytes).await?
    {
        return Ok(DataWritten::Exceeded(exceeded));
    }
    let shape = serde_json::to_string(&new.array.shape).map_err(|_| StoreError::Corrupt { what: "array shape" })?;
    let query = sqlx::query(
        "INSERT INTO vmem (project, name, version, digest, bytes, dtype, shape, data_at, job, part, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(&new.project).bind(&new.name).bind(int(version)).bind(new.digest.as_bytes().as_slice());
    let query = query.bind(int(new.bytes)).bind(dtype(new.array.number)).bind(shape).bind(int(new.data_at));
    let (job, part) = new.source.as_ref().map(|(job, part)| (job_bytes(*job), part)).unzip();
    query.bind(job).bind(part).bind(int(now_ms())).execute(db).await?;
    Ok(DataWritten::Version(version))
}

/// Whether every one of these would become the version it says, in this order.
pub(super) async fn are_next(db: &mut SqliteConnection, all: &[NewArray]) -> Result<bool, StoreError> {
    for (at, new) in all.iter().enumerate() {
        let earlier = all.iter().take(at).filter(|one| one.project == new.project && one.name == new.name).count();
        let version = next(&mut *db, &new.project, &new.name).await? + earlier as u64;
        if new.version.is_some_and(|expected| expected != version) {
            return Ok(false);
        }
    }
    Ok(true)
}

const NEXT: &str = "SELECT COALESCE(MAX(version), 0) + 1 AS version FROM vmem WHERE project = ? AND name = ?";

async fn next(db: &mut SqliteConnection, project: &str, name: &str) -> Result<u64, StoreError> {
    Ok(uint(sqlx::query(NEXT).bind(project).bind(name).fetch_one(db).await?.try_get("version")?))
}

pub(super) async fn next_version(readers: &SqlitePool, project: &str, name: &str) -> Result<u64, StoreError> {
    Ok(uint(sqlx::query(NEXT).bind(project).bind(name).fetch_one(readers).await?.try_get("version")?))
}

pub(super) async fn delete(
    db: &mut SqliteConnection,
    project: &str,
    name: &str,
    version: u64,
) -> Result<DataWritten, StoreError> {
    let query = sqlx::query(
        "UPDATE vmem SET digest = NULL, deleted_ms = ? WHERE project = ? AND name = ? AND version = ? AND digest IS NOT NULL",
    );
    let query = query.bind(int(now_ms())).bind(project).bind(name).bind(int(version));
    Ok(DataWritten::Removed(query.execute(db).await?.rows_affected() > 0))
}

pub(super) async fn get(
    readers: &SqlitePool,
    project: &str,
    name: &str,
    version: Option<u64>,
) -> Result<Option<ArrayRow>, StoreError> {
    let query = match version {
        Some(version) => sqlx::query(arrays!("WHERE project = ? AND name = ? AND version = ?"))
            .bind(project)
            .bind(name)
            .bind(int(version)),
        None => {
            sqlx::query(arrays!("WHERE project = ? AND name = ? AND digest IS NOT NULL ORDER BY version DESC LIMIT 1"))
                .bind(project)
                .bind(name)
        }
    };
    query.fetch_optional(readers).await?.as_ref().map(row).transpose()
}

pub(super) async fn latest(
    readers: &SqlitePool,
    project: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ArrayRow>, StoreError> {
    let query = sqlx::query(arrays!(
        "AS one WHERE project = ?1 AND name > ?2 AND version = (SELECT MAX(version) FROM vmem AS other \
         WHERE other.project = ?1 AND other.name = one.name AND other.digest IS NOT NULL) ORDER BY name LIMIT ?3"
    ));
    let query = query.bind(project).bind(after.unwrap_or_default()).bind(i64::from(limit));
    query.fetch_all(readers).await?.iter().map(row).collect()
}

pub(super) async fn versions(
    readers: &SqlitePool,
    project: &str,
    name: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<ArrayRow>, StoreError> {
    let query = sqlx::query(arrays!("WHERE project = ? AND name = ? AND version > ? ORDER BY version LIMIT ?"));
    let query = query.bind(project).bind(name).bind(int(after)).bind(i64::from(limit));
    query.fetch_all(readers).await?.iter().map(row).collect()
}

fn row(row: &SqliteRow) -> Result<ArrayRow, StoreError> {
    let corrupt = StoreError::Corrupt { what: "array" };
    let number = number_of(row.try_get("dtype")?);
    let shape: Option<Vec<u64>> = serde_json::from_str(row.try_get("shape")?).ok();
    let array = number.zip(shape).and_then(|(number, shape)| ArrayType::new(number, shape).ok()).ok_or(corrupt)?;
    Ok(ArrayRow {
        name: row.try_get("name")?,
        version: uint(row.try_get("version")?),
        digest: row.try_get::<Option<Vec<u8>>, _>("digest")?.as_deref().map(digest_of).transpose()?,
        bytes: uint(row.try_get("bytes")?),
        array,
        data_at: uint(row.try_get("data_at")?),
        job: row.try_get::<Option<Vec<u8>>, _>("job")?.as_deref().map(job_of).transpose()?,
        part: row.try_get("part")?,
        created_ms: uint(row.try_get("created_ms")?),
        deleted_ms: row.try_get::<Option<i64>, _>("deleted_ms")?.map(uint),
    })
}
