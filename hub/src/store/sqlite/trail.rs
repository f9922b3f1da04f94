//! The audit log in SQLite.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use forge_contract::Digest;
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::trail::{Entry, Head, Purpose, Row, Salt, Tip};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use super::{Sqlite, digest_of, int, uint, writer};
use crate::store::blobs::Blobs;
use crate::store::data::DataWritten;
use crate::store::trail::{Reach, TrailFilter, TrailStore, TrailWrite};
use crate::store::{StoreError, Written};

macro_rules! rows {
    ($rest:literal) => {
        concat!(
            "SELECT seq, at_ms, organisation, project, key, action, target, status, code, note, body, peer, trace_id, salt, \
             digest, link FROM audit ",
            $rest
        )
    };
}

/// The status of a value that was made.
const CREATED: u16 = 201;

const HEADS: &str =
    "SELECT seq, link, at_ms, purpose, key, signature FROM audit_heads WHERE seq >= ? ORDER BY seq, rowid LIMIT ?";

pub(super) async fn apply(
    db: &mut SqliteConnection,
    blobs: &Arc<Blobs>,
    write: &TrailWrite,
) -> Result<Written, StoreError> {
    match write {
        TrailWrite::Row(entry) => append(db, entry).await?,
        TrailWrite::With { write, entry } => {
            let written = Box::pin(writer::apply(&mut *db, blobs, write)).await?;
            let made = match &written {
                Written::Existing(_) | Written::Mismatch(_) | Written::Exceeded(_) | Written::Applied(false) => false,
                Written::Data(data) => data.is_change(),
                _ => true,
            };
            if made {
                append(db, &told(entry, &written)).await?;
            }
            return Ok(written);
        }
        TrailWrite::Head(head) => {
            let query = sqlx::query(
                "INSERT INTO audit_heads (seq, link, at_ms, purpose, key, signature) VALUES (?, ?, ?, ?, ?, ?)",
            );
            let query = query.bind(int(head.seq)).bind(head.link.as_bytes().as_slice()).bind(int(head.at_ms));
            let query = query.bind(head.purpose.as_str()).bind(head.key.0.as_slice());
            query.bind(head.signature.0.as_slice()).execute(db).await?;
        }
    }
    Ok(Written::Done)
}

/// The row with what its sender could not know: a value where there was none is made, not changed.
fn told<'e>(entry: &'e Entry, written: &Written) -> Cow<'e, Entry> {
    match written {
        Written::Data(DataWritten::Kept { new: true, .. }) => Cow::Owned(Entry { status: CREATED, ..entry.clone() }),
        _ => Cow::Borrowed(entry),
    }
}

async fn append(db: &mut SqliteConnection, entry: &Entry) -> Result<(), StoreError> {
    let query = sqlx::query("SELECT seq, link FROM audit ORDER BY seq DESC LIMIT 1");
    let tip = query.fetch_optional(&mut *db).await?.as_ref().map(tip_of).transpose()?.unwrap_or_default();
    let row = Row::after(&tip, entry.clone().bounded(), Salt(crate::clock::random()));
    let entry = &row.entry;
    let query = sqlx::query(
        "INSERT INTO audit (seq, at_ms, organisation, project, key, action, target, status, code, note, body, peer, trace_id, \
         salt, digest, link) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(int(row.seq)).bind(int(entry.at_ms)).bind(&entry.organisation).bind(&entry.project);
    let query = query.bind(&entry.key).bind(&entry.action).bind(&entry.target).bind(i64::from(entry.status));
    let query = query.bind(&entry.code).bind(&entry.note).bind(entry.body.map(|body| body.as_bytes().to_vec()));
    let query = query.bind(&entry.peer).bind(&entry.trace_id).bind(row.salt.0.as_slice());
    query.bind(row.digest.as_bytes().as_slice()).bind(row.link.as_bytes().as_slice()).execute(db).await?;
    Ok(())
}

fn tip_of(row: &SqliteRow) -> Result<Tip, StoreError> {
    Ok(Tip { seq: uint(row.try_get("seq")?), link: digest_of(row.try_get("link")?)? })
}

fn row_of(row: &SqliteRow) -> Result<Row, StoreError> {
    let bytes = |column| -> Result<Digest, StoreError> { digest_of(row.try_get(column)?) };
    let salt = row.try_get::<&[u8], _>("salt")?.try_into().map_err(|_| StoreError::Corrupt { what: "salt" })?;
    let status = u16::try_from(row.try_get::<i64, _>("status")?);
    let entry = Entry {
        at_ms: uint(row.try_get("at_ms")?),
        organisation: row.try_get("organisation")?,
        project: row.try_get("project")?,
        key: row.try_get("key")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        status: status.map_err(|_| StoreError::Corrupt { what: "status" })?,
        code: row.try_get("code")?,
        note: row.try_get("note")?,
        body: row.try_get::<Option<&[u8]>, _>("body")?.map(digest_of).transpose()?,
        peer: row.try_get("peer")?,
        trace_id: row.try_get("trace_id")?,
    };
    let (digest, link) = (bytes("digest")?, bytes("link")?);
    Ok(Row { seq: uint(row.try_get("seq")?), entry, salt: Salt(salt), digest, link })
}

fn head_of(row: &SqliteRow) -> Result<Head, StoreError> {
    let corrupt = || StoreError::Corrupt { what: "head of the audit log" };
    let Tip { seq, link } = tip_of(row)?;
    let key = row.try_get::<&[u8], _>("key")?.try_into().map_err(|_| corrupt())?;
    let signature = row.try_get::<&[u8], _>("signature")?.try_into().map_err(|_| corrupt())?;
    Ok(Head {
        seq,
        link,
        at_ms: uint(row.try_get("at_ms")?),
        purpose: Purpose::parse(row.try_get("purpose")?).ok_or_else(corrupt)?,
        scope: String::new(),
        key: Key(key),
        signature: Signature(signature),
    })
}

#[async_trait]
impl TrailStore for Sqlite {
    async fn trail_tip(&self) -> Result<Tip, StoreError> {
        let query = sqlx::query("SELECT seq, link FROM audit ORDER BY seq DESC LIMIT 1");
        Ok(query.fetch_optional(&self.readers).await?.as_ref().map(tip_of).transpose()?.unwrap_or_default())
    }

    async fn trail(&self, after: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query(rows!("WHERE seq > ? ORDER BY seq LIMIT ?")).bind(int(after)).bind(i64::from(limit));
        query.fetch_all(&self.readers).await?.iter().map(row_of).collect()
    }

    async fn trail_search(&self, filter: &TrailFilter, limit: u32) -> Result<Vec<Row>, StoreError> {
        let mut query = QueryBuilder::new(rows!("WHERE seq < "));
        query.push_bind(filter.before.map_or(i64::MAX, int));
        match &filter.reach {
            Reach::All => {}
            Reach::Organisation(name) => {
                query.push(" AND organisation = ").push_bind(name);
            }
            Reach::Project(name) => {
                query.push(" AND project = ").push_bind(name);
            }
        }
        for (condition, at_ms) in [(" AND at_ms >= ", filter.since_ms), (" AND at_ms <= ", filter.until_ms)] {
            if let Some(at_ms) = at_ms {
                query.push(condition).push_bind(int(at_ms));
            }
        }
        for (condition, text) in [
            (" AND project = ", &filter.project),
            (" AND key = ", &filter.key),
            (" AND action = ", &filter.action),
            (" AND trace_id = ", &filter.trace_id),
        ] {
            if let Some(text) = text {
                query.push(condition).push_bind(text);
            }
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.readers).await?.iter().map(row_of).collect()
    }

    async fn trail_heads(&self, from: u64, limit: u32) -> Result<Vec<Head>, StoreError> {
        let query = sqlx::query(HEADS).bind(int(from)).bind(i64::from(limit));
        query.fetch_all(&self.readers).await?.iter().map(head_of).collect()
    }

    async fn trail_head(&self) -> Result<Option<Head>, StoreError> {
        let query = sqlx::query(
            "SELECT seq, link, at_ms, purpose, key, signature FROM audit_heads ORDER BY seq DESC, rowid DESC LIMIT 1",
        );
        query.fetch_optional(&self.readers).await?.as_ref().map(head_of).transpose()
    }
}
