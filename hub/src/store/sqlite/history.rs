//! Reading stakes, errata and what happened to agents.

use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::settle::Share;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlitePool};

use super::{digest_of, int, job_bytes, job_of, reader, uint};
use crate::store::settlement::{
    AgentEvent, AgentEventKind, AgentEventRow, AgentRecord, DoubtfulJob, Earnings, ErratumRow, ErratumState, StakeRow,
    StakeState,
};
use crate::store::{RestoredJob, StoreError};

/// The stakes in a job, by agent.
pub(super) async fn stakes(readers: &SqlitePool, job: JobId) -> Result<Vec<StakeRow>, StoreError> {
    let query = sqlx::query(
        "SELECT job, agent, shards_alone, fuel_alone, shards_confirmed, fuel_confirmed, credits_micro, accepted, taken_ms, \
         state, ended_ms FROM stakes WHERE job = ? ORDER BY agent",
    );
    let rows = query.bind(job_bytes(job)).fetch_all(readers).await?;
    rows.iter().map(stake).collect()
}

fn stake(row: &SqliteRow) -> Result<StakeRow, StoreError> {
    Ok(StakeRow {
        job: job_of(row.try_get("job")?)?,
        agent: agent_of(row)?,
        share: Share {
            shards_alone: uint(row.try_get("shards_alone")?),
            fuel_alone: uint(row.try_get("fuel_alone")?),
            shards_confirmed: uint(row.try_get("shards_confirmed")?),
            fuel_confirmed: uint(row.try_get("fuel_confirmed")?),
        },
        credits_micro: uint(row.try_get("credits_micro")?),
        accepted: uint(row.try_get("accepted")?),
        taken_ms: uint(row.try_get("taken_ms")?),
        state: StakeState::parse(row.try_get("state")?).ok_or(StoreError::Corrupt { what: "stake" })?,
        ended_ms: row.try_get::<Option<i64>, _>("ended_ms")?.map(uint),
    })
}

fn agent_of(row: &SqliteRow) -> Result<AgentId, StoreError> {
    Ok(AgentId(digest_of(row.try_get("agent")?)?))
}

/// The doubts about a job, in the order in which they were noted.
pub(super) async fn errata(readers: &SqlitePool, job: JobId) -> Result<Vec<ErratumRow>, StoreError> {
    let query = sqlx::query(
        "SELECT job, agent, reason, state, noted_ms, failed, run, shards, before, after, record, ended_ms FROM errata \
         WHERE job = ? ORDER BY seq",
    );
    let rows = query.bind(job_bytes(job)).fetch_all(readers).await?;
    rows.iter().map(erratum).collect()
}

fn erratum(row: &SqliteRow) -> Result<ErratumRow, StoreError> {
    let digest = |column: &str| -> Result<Option<Digest>, StoreError> {
        row.try_get::<Option<Vec<u8>>, _>(column)?.as_deref().map(digest_of).transpose()
    };
    Ok(ErratumRow {
        job: job_of(row.try_get("job")?)?,
        agent: agent_of(row)?,
        reason: row.try_get("reason")?,
        state: ErratumState::parse(row.try_get("state")?).ok_or(StoreError::Corrupt { what: "erratum" })?,
        noted_ms: uint(row.try_get("noted_ms")?),
        failed: reader::index(row.try_get("failed")?)?,
        run: row.try_get::<Option<Vec<u8>>, _>("run")?.as_deref().map(job_of).transpose()?,
        shards: row.try_get::<Option<i64>, _>("shards")?.map(uint),
        before: digest("before")?,
        after: digest("after")?,
        record: digest("record")?,
        ended_ms: row.try_get::<Option<i64>, _>("ended_ms")?.map(uint),
    })
}

/// Jobs with doubts that are due and of which no run is under way, oldest doubt first.
pub(super) async fn doubtful(readers: &SqlitePool, now_ms: u64) -> Result<Vec<DoubtfulJob>, StoreError> {
    let query = sqlx::query(
        "SELECT job, MIN(seq) AS first FROM errata WHERE state = 'pending' AND due_ms <= ? \
         AND job NOT IN (SELECT job FROM errata WHERE state = 'running') GROUP BY job ORDER BY first",
    );
    let mut found = Vec::new();
    for row in query.bind(int(now_ms)).fetch_all(readers).await? {
        let job = job_of(row.try_get("job")?)?;
        let query = sqlx::query("SELECT DISTINCT agent FROM errata WHERE job = ? ORDER BY agent").bind(job_bytes(job));
        let agents = query.fetch_all(readers).await?.iter().map(agent_of).collect::<Result<_, _>>()?;
        found.push(DoubtfulJob { job, agents });
    }
    Ok(found)
}

/// What a job was to do, whoever's it is.
pub(super) async fn origin(readers: &SqlitePool, job: JobId) -> Result<Option<RestoredJob>, StoreError> {
    let query = sqlx::query(
        "SELECT id, j.project, client_job_id, trace_id, op, envelope, plan, j.accepted_ms, replay_of, erratum_of, erratum_after, \
         c.tariff, c.hold_micro FROM jobs j LEFT JOIN charges c ON c.job = COALESCE(j.erratum_of, j.id) \
         WHERE j.id = ? AND plan IS NOT NULL",
    );
    query.bind(job_bytes(job)).fetch_optional(readers).await?.as_ref().map(reader::restored).transpose()
}

/// An agent with its latest events.
pub(super) async fn record(
    readers: &SqlitePool,
    agent: AgentId,
    events: u32,
) -> Result<Option<AgentRecord>, StoreError> {
    let id = agent.0.as_bytes().as_slice();
    let query = sqlx::query(reader::agents!("WHERE id = ?"));
    let Some(row) = query.bind(id).fetch_optional(readers).await? else { return Ok(None) };
    let earnings = Earnings {
        held_micro: uint(row.try_get("held_micro")?),
        payable_micro: uint(row.try_get("payable_micro")?),
        forfeited_micro: uint(row.try_get("forfeited_micro")?),
    };
    let query = sqlx::query(
        "SELECT COUNT(*) AS n FROM agent_events WHERE agent = ?1 AND kind = 'strike' AND seq > \
         COALESCE((SELECT MAX(seq) FROM agent_events WHERE agent = ?1 AND kind = 'readmitted'), 0)",
    );
    let strikes = uint(query.bind(id).fetch_one(readers).await?.try_get("n")?);
    let query = sqlx::query(
        "SELECT seq, agent, at_ms, kind, job, stage, shard, detail FROM agent_events WHERE agent = ? ORDER BY seq DESC LIMIT ?",
    );
    let rows = query.bind(id).bind(i64::from(events)).fetch_all(readers).await?;
    let events = rows.iter().map(event).collect::<Result<_, _>>()?;
    Ok(Some(AgentRecord { agent: reader::agent(&row)?, earnings, strikes, events }))
}

fn event(row: &SqliteRow) -> Result<AgentEventRow, StoreError> {
    let number = |column: &str| -> Result<Option<u32>, StoreError> {
        row.try_get::<Option<i64>, _>(column)?.map(reader::index).transpose()
    };
    Ok(AgentEventRow {
        seq: uint(row.try_get("seq")?),
        at_ms: uint(row.try_get("at_ms")?),
        event: AgentEvent {
            agent: agent_of(row)?,
            kind: AgentEventKind::parse(row.try_get("kind")?).ok_or(StoreError::Corrupt { what: "agent event" })?,
            job: row.try_get::<Option<Vec<u8>>, _>("job")?.as_deref().map(job_of).transpose()?,
            place: number("stage")?.zip(number("shard")?),
            detail: row.try_get("detail")?,
        },
    })
}
