//! What projects keep, in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use forge_contract::Digest;
use sqlx::{Row as _, SqliteConnection};

use super::{Sqlite, arrays, garbage, kv, uint};
use crate::store::StoreError;
use crate::store::blobs::Blobs;
use crate::store::data::{
    ArrayRow, DataStore, DataWrite, DataWritten, KvEntry, KvKey, KvList, NamespaceRow, StoredBytes,
};

pub(super) async fn apply(
    db: &mut SqliteConnection,
    blobs: &Arc<Blobs>,
    write: &DataWrite,
) -> Result<DataWritten, StoreError> {
    match write {
        DataWrite::KvPut(new) => kv::put(db, new).await,
        DataWrite::KvDelete { at, condition } => kv::delete(db, at, condition).await,
        DataWrite::KvSweep { limit } => kv::sweep(db, *limit).await,
        DataWrite::Array(new) => arrays::put(db, new).await,
        DataWrite::ArrayDelete { project, name, version } => arrays::delete(db, project, name, *version).await,
        DataWrite::Unclaim { project, digest } => {
            let query = sqlx::query("DELETE FROM blobs WHERE project = ? AND digest = ?");
            let query = query.bind(project).bind(digest.as_bytes().as_slice());
            Ok(DataWritten::Removed(query.execute(db).await?.rows_affected() > 0))
        }
        DataWrite::Collect { digests, grace_ms } => garbage::collect(db, blobs, digests, *grace_ms).await,
        DataWrite::Unmark { digests } => {
            garbage::unmark(db, digests).await.map(|()| DataWritten::Collected(Default::default()))
        }
    }
}

#[async_trait]
impl DataStore for Sqlite {
    async fn kv(&self, at: &KvKey, now_ms: u64) -> Result<Option<(KvEntry, Option<Vec<u8>>)>, StoreError> {
        kv::get(&self.readers, at, now_ms).await
    }

    async fn kv_entries(
        &self,
        project: &str,
        namespace: &str,
        list: &KvList,
        now_ms: u64,
    ) -> Result<Vec<KvEntry>, StoreError> {
        kv::entries(&self.readers, project, namespace, list, now_ms).await
    }

    async fn kv_namespaces(
        &self,
        project: &str,
        after: Option<&str>,
        limit: u32,
        now_ms: u64,
    ) -> Result<Vec<NamespaceRow>, StoreError> {
        kv::namespaces(&self.readers, project, after, limit, now_ms).await
    }

    async fn array(&self, project: &str, name: &str, version: Option<u64>) -> Result<Option<ArrayRow>, StoreError> {
        arrays::get(&self.readers, project, name, version).await
    }

    async fn next_version(&self, project: &str, name: &str) -> Result<u64, StoreError> {
        arrays::next_version(&self.readers, project, name).await
    }

    async fn arrays(&self, project: &str, after: Option<&str>, limit: u32) -> Result<Vec<ArrayRow>, StoreError> {
        arrays::latest(&self.readers, project, after, limit).await
    }

    async fn array_versions(
        &self,
        project: &str,
        name: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<ArrayRow>, StoreError> {
        arrays::versions(&self.readers, project, name, after, limit).await
    }

    async fn stored_bytes(&self, project: &str) -> Result<StoredBytes, StoreError> {
        let query = sqlx::query(
            "SELECT (SELECT COALESCE(SUM(bytes), 0) FROM blobs WHERE project = ?1) AS blobs, \
             (SELECT COALESCE(SUM(bytes), 0) FROM kv WHERE project = ?1 AND value IS NOT NULL) AS kv, \
             (SELECT COALESCE(SUM(bytes), 0) FROM vmem WHERE project = ?1 AND digest IS NOT NULL) AS vmem",
        );
        let row = query.bind(project).fetch_one(&self.readers).await?;
        Ok(StoredBytes {
            blobs: uint(row.try_get("blobs")?),
            kv: uint(row.try_get("kv")?),
            vmem: uint(row.try_get("vmem")?),
        })
    }

    async fn unnamed(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        garbage::unnamed(&self.readers, digests).await
    }

    async fn marked(&self) -> Result<Vec<Digest>, StoreError> {
        garbage::marked(&self.readers).await
    }
}
