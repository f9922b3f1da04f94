//! The reading half, over the read-only connections.

use async_trait::async_trait;
use forge_contract::{Digest, JobId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{STORED, binding, limits};
use crate::store::StoreError;
use crate::store::sqlite::books_read::budget_of;
use crate::store::sqlite::{Sqlite, digest_of, int, job_of, uint};
use crate::store::tenancy::{
    Exceeded, HolderRow, KeyFilter, KeyRow, MemberRow, OrganisationRow, ProjectRow, ProjectUse, Role, Scopes,
    TenancyStore,
};

/// Everything [`key`] reads, of the rows named by the rest of the query.
macro_rules! keys {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, p.organisation, k.project, k.name, k.hint, k.scopes, k.member, k.created_ms, k.expires_ms, k.used_ms, \
             k.revoked_ms FROM api_keys AS k JOIN projects AS p ON p.id = k.project ",
            $rest
        )
    };
}

/// Everything [`project`] reads, of the rows named by the rest of the query.
macro_rules! projects {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.organisation, p.name, p.limits, o.ceilings, p.pool, p.created_ms FROM projects AS p \
             JOIN organisations AS o ON o.id = p.organisation ",
            $rest
        )
    };
}

#[async_trait]
impl TenancyStore for Sqlite {
    async fn holder(&self, hash: &Digest) -> Result<Option<HolderRow>, StoreError> {
        let query = sqlx::query(
            "SELECT k.id, p.organisation, k.project, k.name, k.hint, k.scopes, k.member, k.created_ms, k.expires_ms, k.used_ms, \
             k.revoked_ms, o.operator, o.ceilings, p.limits, p.pool, m.role, b.budget_micro, b.period FROM api_keys AS k \
             JOIN projects AS p ON p.id = k.project JOIN organisations AS o ON o.id = p.organisation \
             LEFT JOIN budgets AS b ON b.project = p.id \
             LEFT JOIN members AS m ON m.id = k.member WHERE k.hash = ? AND k.revoked_ms IS NULL",
        );
        let row = query.bind(hash.as_bytes().as_slice()).fetch_optional(&self.readers).await?;
        row.as_ref().map(holder).transpose()
    }

    async fn has_keys(&self) -> Result<bool, StoreError> {
        let query =
            sqlx::query("SELECT 1 FROM api_keys WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?)");
        Ok(query.bind(int(crate::clock::unix_ms())).fetch_optional(&self.readers).await?.is_some())
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreError> {
        let query = sqlx::query(keys!("WHERE k.id = ?")).bind(id);
        query.fetch_optional(&self.readers).await?.as_ref().map(key).transpose()
    }

    async fn keys(&self, filter: KeyFilter<'_>) -> Result<Vec<KeyRow>, StoreError> {
        let query = sqlx::query(keys!(
            "WHERE (?1 IS NULL OR p.organisation = ?1) AND (?2 IS NULL OR k.project = ?2) AND (?3 IS NULL OR k.member = ?3) \
             AND (?4 OR k.revoked_ms IS NULL) AND (?5 IS NULL OR k.id > ?5) ORDER BY k.id LIMIT ?6"
        ));
        let query = query.bind(filter.organisation).bind(filter.project).bind(filter.member).bind(filter.revoked);
        let rows = query.bind(filter.after).bind(i64::from(filter.limit)).fetch_all(&self.readers).await?;
        rows.iter().map(key).collect()
    }

    async fn organisation(&self, id: &str) -> Result<Option<OrganisationRow>, StoreError> {
        let query =
            sqlx::query("SELECT id, name, operator, ceilings, created_ms FROM organisations WHERE id = ?").bind(id);
        query.fetch_optional(&self.readers).await?.as_ref().map(organisation).transpose()
    }

    async fn organisations(&self, after: Option<&str>, limit: u32) -> Result<Vec<OrganisationRow>, StoreError> {
        let query = sqlx::query(
            "SELECT id, name, operator, ceilings, created_ms FROM organisations WHERE (?1 IS NULL OR id > ?1) ORDER BY id LIMIT ?2",
        );
        let rows = query.bind(after).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(organisation).collect()
    }

    async fn project(&self, id: &str) -> Result<Option<ProjectRow>, StoreError> {
        let query = sqlx::query(projects!("WHERE p.id = ?")).bind(id);
        query.fetch_optional(&self.readers).await?.as_ref().map(project).transpose()
    }

    async fn projects(
        &self,
        organisation: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRow>, StoreError> {
        let query = sqlx::query(projects!(
            "WHERE (?1 IS NULL OR p.organisation = ?1) AND (?2 IS NULL OR p.id > ?2) ORDER BY p.id LIMIT ?3"
        ));
        let rows = query.bind(organisation).bind(after).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(project).collect()
    }

    async fn project_use(&self, id: &str) -> Result<ProjectUse, StoreError> {
        let query = sqlx::query(
            "SELECT COUNT(*) AS n FROM jobs WHERE project = ? AND finished_ms IS NULL AND erratum_of IS NULL",
        );
        let jobs = uint(query.bind(id).fetch_one(&self.readers).await?.try_get("n")?);
        let bytes = uint(sqlx::query(STORED).bind(id).fetch_one(&self.readers).await?.try_get("n")?);
        Ok(ProjectUse { jobs, bytes })
    }

    async fn member(&self, id: &str) -> Result<Option<MemberRow>, StoreError> {
        let query = sqlx::query(
            "SELECT id, organisation, name, role, created_ms FROM members WHERE id = ? AND removed_ms IS NULL",
        );
        query.bind(id).fetch_optional(&self.readers).await?.as_ref().map(member).transpose()
    }

    async fn members(&self, organisation: &str) -> Result<Vec<MemberRow>, StoreError> {
        let query = sqlx::query(
            "SELECT id, organisation, name, role, created_ms FROM members WHERE organisation = ? AND removed_ms IS NULL ORDER BY name",
        );
        query.bind(organisation).fetch_all(&self.readers).await?.iter().map(member).collect()
    }

    async fn idempotent(&self, project: &str, key: &str) -> Result<Option<(Digest, JobId)>, StoreError> {
        let query = sqlx::query("SELECT digest, job FROM idempotency WHERE project = ? AND key = ?");
        let row = query.bind(project).bind(key).fetch_optional(&self.readers).await?;
        row.map(|row| Ok((digest_of(row.try_get("digest")?)?, job_of(row.try_get("job")?)?))).transpose()
    }

    async fn no_room(&self, project: &str, bytes: u64) -> Result<Option<Exceeded>, StoreError> {
        super::no_room(&mut *self.readers.acquire().await?, project, bytes).await
    }
}

fn holder(row: &SqliteRow) -> Result<HolderRow, StoreError> {
    let key = key(row)?;
    let role = match row.try_get::<Option<&str>, _>("role")? {
        Some(text) => Some(Role::parse(text).ok_or(StoreError::Corrupt { what: "role" })?),
        None => None,
    };
    Ok(HolderRow {
        scopes: role.map_or(key.scopes, |role| key.scopes.and(role.scopes())),
        key,
        operator: row.try_get("operator")?,
        limits: limits(row.try_get("limits")?)?.within(&limits(row.try_get("ceilings")?)?),
        binding: binding(row.try_get("pool")?)?,
        budget: budget_of(row)?,
    })
}

fn key(row: &SqliteRow) -> Result<KeyRow, StoreError> {
    let moment =
        |column: &str| -> Result<Option<u64>, StoreError> { Ok(row.try_get::<Option<i64>, _>(column)?.map(uint)) };
    Ok(KeyRow {
        id: row.try_get("id")?,
        organisation: row.try_get("organisation")?,
        project: row.try_get("project")?,
        name: row.try_get("name")?,
        hint: row.try_get("hint")?,
        scopes: Scopes::parse(row.try_get("scopes")?).ok_or(StoreError::Corrupt { what: "scopes" })?,
        member: row.try_get("member")?,
        created_ms: uint(row.try_get("created_ms")?),
        expires_ms: moment("expires_ms")?,
        used_ms: moment("used_ms")?,
        revoked_ms: moment("revoked_ms")?,
    })
}

fn organisation(row: &SqliteRow) -> Result<OrganisationRow, StoreError> {
    Ok(OrganisationRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        operator: row.try_get("operator")?,
        ceilings: limits(row.try_get("ceilings")?)?,
        created_ms: uint(row.try_get("created_ms")?),
    })
}

fn project(row: &SqliteRow) -> Result<ProjectRow, StoreError> {
    Ok(ProjectRow {
        id: row.try_get("id")?,
        organisation: row.try_get("organisation")?,
        name: row.try_get("name")?,
        limits: limits(row.try_get("limits")?)?,
        ceilings: limits(row.try_get("ceilings")?)?,
        binding: binding(row.try_get("pool")?)?,
        created_ms: uint(row.try_get("created_ms")?),
    })
}

fn member(row: &SqliteRow) -> Result<MemberRow, StoreError> {
    Ok(MemberRow {
        id: row.try_get("id")?,
        organisation: row.try_get("organisation")?,
        name: row.try_get("name")?,
        role: Role::parse(row.try_get("role")?).ok_or(StoreError::Corrupt { what: "role" })?,
        created_ms: uint(row.try_get("created_ms")?),
    })
}
