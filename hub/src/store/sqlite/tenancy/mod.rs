//! Organisations, projects, keys and members, in SQL: the writing half, and what acceptance asks of it.

mod read;

use sqlx::{Row as _, SqliteConnection};

use super::{int, now_ms, uint};
use crate::store::StoreError;
use crate::store::tenancy::{
    Binding, Exceeded, LimitName, Limits, NewKey, NewMember, NewOrganisation, NewProject, Role, TenancyWrite,
};

/// One change; whether it changed anything.
pub(super) async fn apply(db: &mut SqliteConnection, write: &TenancyWrite) -> Result<bool, StoreError> {
    match write {
        TenancyWrite::Organisation(new) => organisation(db, new).await,
        TenancyWrite::ChangeOrganisation { id, name, ceilings } => {
            let query = sqlx::query(
                "UPDATE organisations SET name = COALESCE(?, name), ceilings = COALESCE(?, ceilings) WHERE id = ?",
            );
            let ceilings = ceilings.as_ref().map(json).transpose()?;
            Ok(query.bind(name).bind(ceilings).bind(id).execute(db).await?.rows_affected() > 0)
        }
        TenancyWrite::Project(new) => project(db, new).await,
        TenancyWrite::ChangeProject { id, name, limits, binding } => {
            let query = sqlx::query(
                "UPDATE projects SET name = COALESCE(?, name), limits = COALESCE(?, limits), pool = COALESCE(?, pool) WHERE id = ?",
            );
            let limits = limits.as_ref().map(json).transpose()?;
            let query = query.bind(name).bind(limits).bind(binding.as_ref().map(json).transpose()?);
            Ok(query.bind(id).execute(db).await?.rows_affected() > 0)
        }
        TenancyWrite::Key(new) => key(db, new).await,
        TenancyWrite::RevokeKey { id } => {
            let query = sqlx::query("UPDATE api_keys SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL");
            Ok(query.bind(int(now_ms())).bind(id).execute(db).await?.rows_affected() > 0)
        }
        TenancyWrite::RotateKey { id, new, until_ms } => rotate(db, id, new, *until_ms).await,
        TenancyWrite::KeyUsed { id, at_ms } => {
            let query = sqlx::query("UPDATE api_keys SET used_ms = MAX(COALESCE(used_ms, 0), ?) WHERE id = ?");
            Ok(query.bind(int(*at_ms)).bind(id).execute(db).await?.rows_affected() > 0)
        }
        TenancyWrite::Member(new) => member(db, new).await,
        TenancyWrite::ChangeMember { id, role } => {
            if *role != Role::Owner && is_last_owner(db, id).await? {
                return Ok(false);
            }
            let query = sqlx::query("UPDATE members SET role = ? WHERE id = ? AND removed_ms IS NULL");
            Ok(query.bind(role.as_str()).bind(id).execute(db).await?.rows_affected() > 0)
        }
        TenancyWrite::RemoveMember { id } => remove_member(db, id).await,
        TenancyWrite::ReserveAgent { agent, project } => {
            let query = sqlx::query("UPDATE agents SET reserved = ? WHERE id = ?");
            let query = query.bind(project).bind(agent.0.as_bytes().as_slice());
            Ok(query.execute(db).await?.rows_affected() > 0)
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what: "limits" })
}

/// Most rows say nothing: they cost no parsing.
fn limits(text: &str) -> Result<Limits, StoreError> {
    if text == "{}" {
        return Ok(Limits::default());
    }
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "limits" })
}

fn binding(text: &str) -> Result<Binding, StoreError> {
    if text == "{}" {
        return Ok(Binding::default());
    }
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "binding" })
}

async fn organisation(db: &mut SqliteConnection, new: &NewOrganisation) -> Result<bool, StoreError> {
    let taken = sqlx::query("SELECT 1 FROM projects WHERE id = ?").bind(&new.project.id);
    if taken.fetch_optional(&mut *db).await?.is_some() {
        return Ok(false);
    }
    let query = sqlx::query(
        "INSERT INTO organisations (id, name, ceilings, created_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(&new.id).bind(&new.name).bind(json(&new.ceilings)?).bind(int(now_ms()));
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    project(db, &new.project).await?;
    key(db, &new.key).await?;
    Ok(true)
}

async fn project(db: &mut SqliteConnection, new: &NewProject) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "INSERT INTO projects (id, name, created_ms, organisation, limits, pool) \
         SELECT ?, ?, ?, id, ?, ? FROM organisations WHERE id = ? ON CONFLICT DO NOTHING",
    );
    let query = query.bind(&new.id).bind(&new.name).bind(int(now_ms()));
    let query = query.bind(json(&new.limits)?).bind(json(&new.binding)?).bind(&new.organisation);
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn key(db: &mut SqliteConnection, new: &NewKey) -> Result<bool, StoreError> {
    if let Some(member) = &new.member {
        // Of the same organisation, and still in it: the removal may have been written a moment before.
        let query = sqlx::query(
            "SELECT 1 FROM members JOIN projects ON projects.organisation = members.organisation \
             WHERE members.id = ? AND members.removed_ms IS NULL AND projects.id = ?",
        );
        if query.bind(member).bind(&new.project).fetch_optional(&mut *db).await?.is_none() {
            return Ok(false);
        }
    }
    let query = sqlx::query(
        "INSERT INTO api_keys (hash, project, hint, scopes, created_ms, id, name, member, expires_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING",
    );
    let query = query.bind(new.hash.as_bytes().as_slice()).bind(&new.project).bind(&new.hint);
    let query = query.bind(new.scopes.words()).bind(int(now_ms())).bind(&new.id).bind(&new.name);
    let query = query.bind(&new.member).bind(new.expires_ms.map(int));
    Ok(query.execute(db).await?.rows_affected() > 0)
}

async fn rotate(db: &mut SqliteConnection, id: &str, new: &NewKey, until_ms: Option<u64>) -> Result<bool, StoreError> {
    let now = now_ms();
    let end = match until_ms {
        Some(_) => {
            "UPDATE api_keys SET expires_ms = MIN(COALESCE(expires_ms, ?1), ?1) WHERE id = ?2 AND revoked_ms IS NULL"
        }
        None => "UPDATE api_keys SET revoked_ms = ?1 WHERE id = ?2 AND revoked_ms IS NULL",
    };
    let query = sqlx::query(end).bind(int(until_ms.unwrap_or(now))).bind(id);
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    key(db, new).await
}

async fn member(db: &mut SqliteConnection, new: &NewMember) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "INSERT INTO members (id, organisation, name, role, created_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(&new.id).bind(&new.organisation).bind(&new.name).bind(new.role.as_str());
    Ok(query.bind(int(now_ms())).execute(db).await?.rows_affected() > 0)
}

/// Whether an organisation would be left without an owner.
async fn is_last_owner(db: &mut SqliteConnection, id: &str) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "SELECT 1 FROM members AS one WHERE id = ?1 AND role = 'owner' AND removed_ms IS NULL AND NOT EXISTS \
         (SELECT 1 FROM members WHERE organisation = one.organisation AND role = 'owner' AND removed_ms IS NULL AND id <> ?1)",
    );
    Ok(query.bind(id).fetch_optional(db).await?.is_some())
}

async fn remove_member(db: &mut SqliteConnection, id: &str) -> Result<bool, StoreError> {
    if is_last_owner(db, id).await? {
        return Ok(false);
    }
    let query = sqlx::query("UPDATE members SET removed_ms = ? WHERE id = ? AND removed_ms IS NULL");
    let removed = query.bind(int(now_ms())).bind(id).execute(&mut *db).await?.rows_affected() > 0;
    if removed {
        let query = sqlx::query("UPDATE api_keys SET revoked_ms = ? WHERE member = ? AND revoked_ms IS NULL");
        query.bind(int(now_ms())).bind(id).execute(db).await?;
    }
    Ok(removed)
}

/// The limits in force for a project; none for one that does not exist.
pub(super) async fn effective(db: &mut SqliteConnection, project: &str) -> Result<Limits, StoreError> {
    let query = sqlx::query(
        "SELECT p.limits AS own, o.ceilings AS ceilings FROM projects AS p JOIN organisations AS o ON o.id = p.organisation \
         WHERE p.id = ?",
    );
    let Some(row) = query.bind(project).fetch_optional(db).await? else { return Ok(Limits::default()) };
    Ok(limits(row.try_get("own")?)?.within(&limits(row.try_get("ceilings")?)?))
}

/// The limit that one more job of a project would break. Counted in the transaction that accepts it.
pub(super) async fn no_turn(db: &mut SqliteConnection, project: &str) -> Result<Option<Exceeded>, StoreError> {
    let Some(most) = effective(db, project).await?.concurrent_jobs else { return Ok(None) };
    let query =
        sqlx::query("SELECT COUNT(*) AS n FROM jobs WHERE project = ? AND finished_ms IS NULL AND erratum_of IS NULL");
    let running = uint(query.bind(project).fetch_one(db).await?.try_get("n")?);
    Ok(Exceeded::by(LimitName::ConcurrentJobs, Some(most), running + 1))
}

/// What a project stores, bytes: content, kernels, values and arrays. Evidence is not counted.
const STORED: &str = "SELECT (SELECT COALESCE(SUM(bytes), 0) FROM blobs WHERE project = ?1) \
                      + (SELECT COALESCE(SUM(bytes), 0) FROM kernels WHERE project = ?1 AND state <> 'refused') \
                      + (SELECT COALESCE(SUM(bytes), 0) FROM kv WHERE project = ?1 AND value IS NOT NULL) \
                      + (SELECT COALESCE(SUM(bytes), 0) FROM vmem WHERE project = ?1 AND digest IS NOT NULL) AS n";

/// The limit that so many more bytes of a project would break.
pub(super) async fn no_room(
    db: &mut SqliteConnection,
    project: &str,
    bytes: u64,
) -> Result<Option<Exceeded>, StoreError> {
    no_room_beside(db, project, bytes, 0).await
}

/// The same where so many are given up for them.
pub(super) async fn no_room_beside(
    db: &mut SqliteConnection,
    project: &str,
    bytes: u64,
    freed: u64,
) -> Result<Option<Exceeded>, StoreError> {
    let Some(most) = effective(db, project).await?.storage_bytes else { return Ok(None) };
    let stored = uint(sqlx::query(STORED).bind(project).fetch_one(db).await?.try_get("n")?);
    let asked = stored.saturating_sub(freed).saturating_add(bytes);
    // Who stores less than before is not held up by a limit that was lowered.
    Ok(Exceeded::by(LimitName::StorageBytes, Some(most), asked).filter(|_| bytes > freed))
}
