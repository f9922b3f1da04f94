//! Stakes, errata and events of agents, in SQL. What belongs together is written in one transaction: a quarantine with
//! what it costs and what it casts doubt on, a job's end with its stakes and what came of its doubts.

use forge_contract::{AgentId, FailureCode, JobId};
use forge_lifecycle::settle::{Mark, SettlePolicy, retry_ms};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{books, int, job_bytes, job_of, now_ms, uint, writer};
use crate::store::settlement::{
    AgentEvent, AgentEventKind, ErratumState, NewErratum, NewStake, REMOVED, StakeState, is_refutation,
};
use crate::store::{ErratumEnd, FinishedJob, StoreError};

/// Adds to an agent's history.
pub(super) async fn note(db: &mut SqliteConnection, event: &AgentEvent) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO agent_events (agent, at_ms, kind, job, stage, shard, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(id(&event.agent)).bind(int(now_ms())).bind(event.kind.as_str());
    let query = query.bind(event.job.map(job_bytes)).bind(event.place.map(|(stage, _)| i64::from(stage)));
    query.bind(event.place.map(|(_, shard)| i64::from(shard))).bind(&event.detail).execute(db).await?;
    Ok(())
}

fn id(agent: &AgentId) -> &[u8] {
    agent.0.as_bytes().as_slice()
}

/// An event that names no job.
fn plain(agent: AgentId, kind: AgentEventKind, detail: Option<String>) -> AgentEvent {
    AgentEvent { agent, kind, job: None, place: None, detail }
}

/// Counts accepted shards, and settles what they settle.
pub(super) async fn count_clean(
    db: &mut SqliteConnection,
    shards: &[(AgentId, u64)],
    policy: &SettlePolicy,
) -> Result<(), StoreError> {
    for (agent, count) in shards {
        let query = sqlx::query(
            "UPDATE agents SET clean = clean + ?1, accepted = accepted + ?1 \
             WHERE id = ?2 AND quarantined IS NULL AND removed_ms IS NULL RETURNING accepted",
        );
        if let Some(row) = query.bind(int(*count)).bind(id(agent)).fetch_optional(&mut *db).await? {
            settle_agent(db, *agent, Mark { accepted: uint(row.try_get("accepted")?), at: 0 }, policy).await?;
        }
    }
    Ok(())
}

/// Settles what is due of one agent; returns how many stakes.
async fn settle_agent(
    db: &mut SqliteConnection,
    agent: AgentId,
    now: Mark,
    policy: &SettlePolicy,
) -> Result<u64, StoreError> {
    let due = policy.due(now);
    let mut rows = Vec::new();
    for (settle, mark) in [
        (
            "UPDATE stakes SET state = 'payable', ended_ms = ? WHERE agent = ? AND state = 'held' AND accepted <= ? \
             RETURNING credits_micro",
            due.accepted,
        ),
        (
            "UPDATE stakes SET state = 'payable', ended_ms = ? WHERE agent = ? AND state = 'held' AND taken_ms <= ? \
             RETURNING credits_micro",
            due.at,
        ),
    ] {
        if let Some(mark) = mark {
            let query = sqlx::query(settle).bind(int(now_ms())).bind(id(&agent)).bind(int(mark));
            rows.extend(query.fetch_all(&mut *db).await?);
        }
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let micro = sum(&rows)?;
    let query =
        sqlx::query("UPDATE agents SET held_micro = held_micro - ?1, payable_micro = payable_micro + ?1 WHERE id = ?2");
    query.bind(int(micro)).bind(id(&agent)).execute(&mut *db).await?;
    books::payable(db, agent, micro).await?;
    if micro > 0 {
        let detail = format!("{} jobs settled, {micro} micro-credits", rows.len());
        note(db, &plain(agent, AgentEventKind::Payable, Some(detail))).await?;
    }
    Ok(rows.len() as u64)
}

fn sum(rows: &[SqliteRow]) -> Result<u64, StoreError> {
    rows.iter().try_fold(0u64, |sum, row| Ok(sum.saturating_add(uint(row.try_get("credits_micro")?))))
}

/// Settles whatever is due by now; returns how many stakes. Agents that are quarantined settle nothing.
pub(super) async fn settle_all(
    db: &mut SqliteConnection,
    policy: &SettlePolicy,
    now_ms: u64,
) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "SELECT id, accepted FROM agents WHERE quarantined IS NULL AND removed_ms IS NULL \
         AND id IN (SELECT agent FROM stakes WHERE state = 'held')",
    );
    let mut settled = 0;
    for row in rows.fetch_all(&mut *db).await? {
        let agent = AgentId(super::digest_of(row.try_get("id")?)?);
        let now = Mark { accepted: uint(row.try_get("accepted")?), at: now_ms };
        settled += settle_agent(db, agent, now, policy).await?;
    }
    Ok(settled)
}

/// Takes an agent out. Who was refuted loses what it holds, and what it did is doubted.
pub(super) async fn quarantine(
    db: &mut SqliteConnection,
    agent: AgentId,
    code: FailureCode,
    job: JobId,
) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE agents SET quarantined = COALESCE(quarantined, ?), clean = 0 WHERE id = ?");
    query.bind(code.as_str()).bind(id(&agent)).execute(&mut *db).await?;
    let event = AgentEvent {
        agent,
        kind: AgentEventKind::Quarantined,
        job: Some(job),
        place: None,
        detail: Some(code.as_str().into()),
    };
    note(db, &event).await?;
    if is_refutation(code) {
        forfeit(db, agent, code.as_str()).await?;
    }
    Ok(())
}

/// Lifts a quarantine; whether there was one to lift.
pub(super) async fn readmit(db: &mut SqliteConnection, agent: AgentId) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE agents SET quarantined = NULL, clean = 0, readmitted_ms = ? \
         WHERE id = ? AND quarantined IS NOT NULL AND removed_ms IS NULL",
    );
    let lifted = query.bind(int(now_ms())).bind(id(&agent)).execute(&mut *db).await?.rows_affected() > 0;
    if lifted {
        note(db, &plain(agent, AgentEventKind::Readmitted, None)).await?;
    }
    Ok(lifted)
}

/// Takes an agent out for good; whether it was still in. The operator no longer trusts it, so it loses what it holds.
pub(super) async fn remove(db: &mut SqliteConnection, agent: AgentId) -> Result<bool, StoreError> {
    let query = sqlx::query("UPDATE agents SET removed_ms = ?, clean = 0 WHERE id = ? AND removed_ms IS NULL");
    let removed = query.bind(int(now_ms())).bind(id(&agent)).execute(&mut *db).await?.rows_affected() > 0;
    if removed {
        note(db, &plain(agent, AgentEventKind::Removed, None)).await?;
        forfeit(db, agent, REMOVED).await?;
    }
    Ok(removed)
}

/// Takes what an agent holds, and notes a doubt about each job it rests in.
async fn forfeit(db: &mut SqliteConnection, agent: AgentId, reason: &str) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE stakes SET state = 'forfeited', ended_ms = ? WHERE agent = ? AND state = 'held' RETURNING job, credits_micro",
    );
    let rows = query.bind(int(now_ms())).bind(id(&agent)).fetch_all(&mut *db).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let micro = sum(&rows)?;
    let query = sqlx::query(
        "UPDATE agents SET held_micro = held_micro - ?1, forfeited_micro = forfeited_micro + ?1 WHERE id = ?2",
    );
    query.bind(int(micro)).bind(id(&agent)).execute(&mut *db).await?;
    books::forfeit(db, agent, micro, reason).await?;
    let detail = format!("{} jobs, {micro} micro-credits: {reason}", rows.len());
    note(db, &plain(agent, AgentEventKind::Forfeited, Some(detail))).await?;
    for row in rows {
        doubt(db, job_of(row.try_get("job")?)?, agent, reason).await?;
    }
    Ok(())
}

/// Notes a doubt about a job with a result; about an erratum run, it is one about the job behind it. Once, until its run
/// begins.
async fn doubt(db: &mut SqliteConnection, job: JobId, agent: AgentId, reason: &str) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO errata (job, agent, reason, state, noted_ms, due_ms) \
         SELECT COALESCE(erratum_of, id), ?1, ?2, 'pending', ?3, ?3 FROM jobs WHERE id = ?4 AND phase = 'COMPLETED' AND NOT EXISTS \
         (SELECT 1 FROM errata WHERE job = COALESCE(jobs.erratum_of, jobs.id) AND agent = ?1 AND state = 'pending')",
    );
    query.bind(id(&agent)).bind(reason).bind(int(now_ms())).bind(job_bytes(job)).execute(db).await?;
    Ok(())
}

/// Takes the stakes of a job that ends. Who was taken out while its end was written has lost its stake already.
pub(super) async fn stake(
    db: &mut SqliteConnection,
    job: JobId,
    taken_ms: u64,
    stakes: &[NewStake],
) -> Result<(), StoreError> {
    for NewStake { agent, share, credits_micro } in stakes {
        let query = sqlx::query("SELECT accepted, quarantined, removed_ms FROM agents WHERE id = ?");
        let Some(row) = query.bind(id(agent)).fetch_optional(&mut *db).await? else { continue };
        let code: Option<String> = row.try_get("quarantined")?;
        let refuted = code.filter(|code| code.parse().is_ok_and(is_refutation));
        let removed = row.try_get::<Option<i64>, _>("removed_ms")?.map(|_| REMOVED.to_owned());
        let lost = removed.or(refuted);
        let (state, ended) = match lost {
            Some(_) => (StakeState::Forfeited, Some(int(now_ms()))),
            None => (StakeState::Held, None),
        };
        let query = sqlx::query(
            "INSERT INTO stakes (job, agent, shards_alone, fuel_alone, shards_confirmed, fuel_confirmed, credits_micro, \
             accepted, taken_ms, state, ended_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let query =
            query.bind(job_bytes(job)).bind(id(agent)).bind(int(share.shards_alone)).bind(int(share.fuel_alone));
        let query = query.bind(int(share.shards_confirmed)).bind(int(share.fuel_confirmed)).bind(int(*credits_micro));
        let query = query.bind(row.try_get::<i64, _>("accepted")?).bind(int(taken_ms));
        query.bind(state.as_str()).bind(ended).execute(&mut *db).await?;
        let query = sqlx::query(
            "UPDATE agents SET held_micro = held_micro + ?1, forfeited_micro = forfeited_micro + ?2 WHERE id = ?3",
        );
        let (held, forfeited) = if lost.is_some() { (0, *credits_micro) } else { (*credits_micro, 0) };
        query.bind(int(held)).bind(int(forfeited)).bind(id(agent)).execute(&mut *db).await?;
        if let Some(reason) = lost {
            books::forfeit(db, *agent, *credits_micro, &reason).await?;
            doubt(db, job, *agent, &reason).await?;
        }
    }
    Ok(())
}

/// Begins an erratum run: the job, what it takes over, and its doubts as running. False where no doubt waits any more.
pub(super) async fn begin(db: &mut SqliteConnection, new: &NewErratum) -> Result<bool, StoreError> {
    let (run, of) = (job_bytes(new.run.job), job_bytes(new.of));
    let query =
        sqlx::query("UPDATE errata SET state = 'running', run = ?, shards = ? WHERE job = ? AND state = 'pending'");
    let shards = new.shards.len() as u64;
    let query = query.bind(run.as_slice()).bind(int(shards)).bind(of.as_slice());
    if query.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    writer::insert_job(db, &new.run).await?;
    let query = sqlx::query("UPDATE jobs SET erratum_of = ?, erratum_after = ? WHERE id = ?");
    query.bind(of.as_slice()).bind(int(new.after)).bind(run.as_slice()).execute(&mut *db).await?;
    for copy in [
        "INSERT INTO accepted (job, stage, shard, body, fragment, fragment_digest) \
         SELECT ?1, stage, shard, body, fragment, fragment_digest FROM accepted WHERE job = ?2 AND stage <= ?3",
        "INSERT INTO attempts (job, stage, shard, lease, agent, code, body) \
         SELECT ?1, stage, shard, lease, agent, code, body FROM attempts WHERE job = ?2 AND stage <= ?3",
    ] {
        let query = sqlx::query(copy).bind(run.as_slice()).bind(of.as_slice()).bind(i64::from(new.stage));
        query.execute(&mut *db).await?;
    }
    for shard in &new.shards {
        for drop in [
            "DELETE FROM accepted WHERE job = ? AND stage = ? AND shard = ?",
            "DELETE FROM attempts WHERE job = ? AND stage = ? AND shard = ?",
        ] {
            let query = sqlx::query(drop).bind(run.as_slice()).bind(i64::from(new.stage)).bind(i64::from(*shard));
            query.execute(&mut *db).await?;
        }
    }
    Ok(true)
}

/// Nothing rested on anybody who was doubted.
pub(super) async fn void(db: &mut SqliteConnection, job: JobId) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE errata SET state = 'void', ended_ms = ? WHERE job = ? AND state = 'pending'");
    query.bind(int(now_ms())).bind(job_bytes(job)).execute(db).await?;
    Ok(())
}

/// Ends the doubts that a run was for; without a verdict they wait for another run.
pub(super) async fn end_run(db: &mut SqliteConnection, job: &FinishedJob) -> Result<(), StoreError> {
    let run = job_bytes(job.job);
    if let Some(ErratumEnd { verdict, before, after, record }) = &job.erratum {
        let query =
            sqlx::query("UPDATE errata SET state = ?, before = ?, after = ?, record = ?, ended_ms = ? WHERE run = ?");
        let query = query.bind(ErratumState::from(*verdict).as_str());
        let query = query.bind(before.map(|digest| digest.as_bytes().to_vec()));
        let query = query.bind(after.map(|digest| digest.as_bytes().to_vec()));
        let query = query.bind(record.as_bytes().as_slice()).bind(int(job.finished_ms));
        query.bind(run).execute(db).await?;
        return Ok(());
    }
    let query = sqlx::query("SELECT MAX(failed) AS failed FROM errata WHERE run = ?").bind(run.as_slice());
    let failed = query.fetch_one(&mut *db).await?.try_get::<Option<i64>, _>("failed")?.unwrap_or(0) + 1;
    let wait = retry_ms(u32::try_from(failed).unwrap_or(u32::MAX));
    let query = sqlx::query(
        "UPDATE errata SET state = 'pending', run = NULL, shards = NULL, failed = ?, due_ms = ? WHERE run = ?",
    );
    query.bind(failed).bind(int(job.finished_ms.saturating_add(wait))).bind(run).execute(db).await?;
    Ok(())
}
