//! The one writer: drains the queue, applies what it finds in one transaction, acknowledges.
//!
//! Group commit: while one transaction waits for the disk, the next batch gathers. Order is the queue's.

use std::sync::Arc;

use forge_contract::{AgentId, Digest};
use forge_lifecycle::action::Forgotten;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{FRAGMENT_INLINE_BYTES_MAX, digest_of, int, job_bytes, job_of, now_ms, settlement, tenancy, trail, uint};
use super::{arrays, books, data, kv};
use crate::store::blobs::Blobs;
use crate::store::books::BooksWritten;
use crate::store::data::DataWritten;
use crate::store::settlement::{AgentEvent, AgentEventKind};
use crate::store::{
    AcceptedRow, AttemptRow, FinishedJob, KernelRow, KernelState, LedgerLine, NewJob, Phase, RejectedRequest, Standing,
    StoreError, Write, Written,
};

const BATCH_MAX: usize = 1024;
/// Lease numbers taken at once: more than a process can grant before the next is taken.
const LEASE_BLOCK: u64 = 1 << 40;

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) write: Write,
    pub(super) sender: oneshot::Sender<Result<Written, StoreError>>,
}

/// Serves the queue until its senders are gone.
pub(super) async fn run(
    mut connection: SqliteConnection,
    blobs: Arc<Blobs>,
    mut queue: mpsc::UnboundedReceiver<Queued>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let outcome = together(&mut connection, &blobs, &batch).await;
        match outcome {
            Ok(given) => {
                for (queued, written) in batch.drain(..).zip(given) {
                    drop(queued.sender.send(Ok(written)));
                }
            }
            // One bad change must not take its neighbours down: apply them one by one.
            Err(_) if batch.len() > 1 => {
                for queued in batch.drain(..) {
                    let alone = together(&mut connection, &blobs, std::slice::from_ref(&queued)).await;
                    answer(queued, alone);
                }
            }
            Err(error) => {
                if let Some(queued) = batch.pop() {
                    answer(queued, Err(error));
                }
            }
        }
        batch.clear();
    }
    // What is left beside the database moves into it: after an orderly end one file holds everything.
    if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await {
        tracing::warn!(%error, "the database's log was left beside it");
    }
    if let Err(error) = connection.close().await {
        tracing::error!(%error, "closing the database failed");
    }
}

fn answer(queued: Queued, outcome: Result<Vec<Written>, StoreError>) {
    if let Err(error) = &outcome
        && !matches!(error, StoreError::KernelTaken { .. })
    {
        tracing::error!(%error, "a change could not be stored");
    }
    let first = outcome.map(|given| given.into_iter().next().unwrap_or(Written::Done));
    drop(queued.sender.send(first));
}

async fn together(
    connection: &mut SqliteConnection,
    blobs: &Arc<Blobs>,
    batch: &[Queued],
) -> Result<Vec<Written>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut given = Vec::with_capacity(batch.len());
    for queued in batch {
        given.push(apply(&mut transaction, blobs, &queued.write).await?);
    }
    transaction.commit().await?;
    Ok(given)
}

pub(super) async fn apply(db: &mut SqliteConnection, blobs: &Arc<Blobs>, write: &Write) -> Result<Written, StoreError> {
    match write {
        Write::Tenancy(write) => return tenancy::apply(db, write).await.map(Written::Applied),
        Write::Accept(job) => return accept(db, job).await,
        Write::Reject(request) => reject(db, request).await?,
        Write::Accepted(row) => insert_accepted(db, blobs, row).await?,
        Write::Attempt(row) => insert_attempt(db, row).await?,
        Write::Restate { job, stage, shard, from, to } => {
            let query = sqlx::query(
                "UPDATE attempts SET body = json_set(body, '$.status', ?) \
                 WHERE job = ? AND stage = ? AND shard >= ? AND json_extract(body, '$.status') = ?",
            );
            let query = query.bind(*to).bind(job_bytes(*job)).bind(i64::from(*stage)).bind(i64::from(*shard));
            query.bind(*from).execute(db).await?;
        }
        Write::Finish(job) => return finish(db, job).await,
        Write::Object(bytes) => insert_object(db, bytes).await?,
        Write::Blob { project, digest, bytes } => return insert_blob(db, project, digest, *bytes).await,
        Write::Kernel(kernel) => return insert_kernel(db, kernel).await,
        Write::KernelStanding { digest, standing } => update_standing(db, digest, standing).await?,
        Write::EnrolToken { hash, project, expires_ms, verifier, provider, reserved } => {
            let query = sqlx::query(
                "INSERT INTO enrol_tokens (hash, project, created_ms, expires_ms, verifier, provider, reserved) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            );
            let query = query.bind(hash.as_bytes().as_slice()).bind(project);
            let query = query.bind(int(now_ms())).bind(int(*expires_ms)).bind(verifier);
            query.bind(provider).bind(reserved).execute(db).await?;
        }
        Write::Redeem { hash, public_key } => return redeem(db, hash, public_key).await,
        Write::AgentState { agent, state, capability } => {
            let query = sqlx::query(
                "UPDATE agents SET state = ?, last_seen_ms = ?, capability = COALESCE(?, capability) WHERE id = ?",
            );
            let query = query.bind(*state).bind(int(now_ms())).bind(capability);
            query.bind(agent.0.as_bytes().as_slice()).execute(db).await?;
        }
        Write::Clean { shards, settle } => settlement::count_clean(db, shards, settle).await?,
        Write::Settle { policy, now_ms } => {
            return settlement::settle_all(db, policy, *now_ms).await.map(Written::Settled);
        }
        Write::Forget(forgotten) => {
            let Forgotten { job, stage, shards } = &**forgotten;
            for shard in shards {
                let query = sqlx::query("DELETE FROM accepted WHERE job = ? AND stage = ? AND shard = ?");
                let query = query.bind(job_bytes(*job)).bind(i64::from(*stage)).bind(i64::from(*shard));
                query.execute(&mut *db).await?;
            }
            let query = sqlx::query("DELETE FROM accepted WHERE job = ? AND stage > ?");
            query.bind(job_bytes(*job)).bind(i64::from(*stage)).execute(&mut *db).await?;
        }
        Write::Quarantine { agent, code, job } => settlement::quarantine(db, *agent, *code, *job).await?,
        Write::Readmit { agent } => return settlement::readmit(db, *agent).await.map(Written::Applied),
        Write::Remove { agent } => return settlement::remove(db, *agent).await.map(Written::Applied),
        Write::AgentEvent(event) => settlement::note(db, event).await?,
        Write::BeginErratum(new) => return settlement::begin(db, new).await.map(Written::Applied),
        Write::VoidErrata { job } => settlement::void(db, *job).await?,
        Write::Trail(write) => return trail::apply(db, blobs, write).await,
        Write::Data(write) => return data::apply(db, blobs, write).await.map(Written::Data),
        Write::Books(write) => return books::change(db, write).await.map(|given| Written::Books(Box::new(given))),
        Write::Barrier => {}
        Write::ReserveLeases => return reserve(db).await,
    }
    Ok(Written::Done)
}

async fn insert_blob(
    db: &mut SqliteConnection,
    project: &str,
    digest: &Digest,
    bytes: u64,
) -> Result<Written, StoreError> {
    let query = sqlx::query("SELECT 1 FROM blobs WHERE project = ? AND digest = ?");
    if query.bind(project).bind(digest.as_bytes().as_slice()).fetch_optional(&mut *db).await?.is_some() {
        return Ok(Written::Done);
    }
    if let Some(exceeded) = tenancy::no_room(&mut *db, project, bytes).await? {
        return Ok(Written::Exceeded(exceeded));
    }
    let query = sqlx::query("INSERT INTO blobs (project, digest, bytes, created_ms) VALUES (?, ?, ?, ?)");
    let query = query.bind(project).bind(digest.as_bytes().as_slice()).bind(int(bytes));
    query.bind(int(now_ms())).execute(db).await?;
    Ok(Written::Done)
}

/// A job by its client's word: a repeated request gives the job it made, and a new one must be within the project's limits.
async fn accept(db: &mut SqliteConnection, job: &NewJob) -> Result<Written, StoreError> {
    if let Some(key) = &job.idempotency_key {
        let query = sqlx::query("SELECT digest, job FROM idempotency WHERE project = ? AND key = ?");
        if let Some(row) = query.bind(&job.project).bind(key).fetch_optional(&mut *db).await? {
            let same = digest_of(row.try_get("digest")?)? == job.request_digest;
            let earlier = job_of(row.try_get("job")?)?;
            return Ok(if same { Written::Existing(earlier) } else { Written::Mismatch(earlier) });
        }
    }
    if let Some(exceeded) = tenancy::no_turn(db, &job.project).await? {
        return Ok(Written::Exceeded(exceeded));
    }
    if let Some(over) = books::afford(db, job).await? {
        return Ok(Written::Books(Box::new(BooksWritten::OverBudget(over))));
    }
    if let Some(key) = &job.idempotency_key {
        let query =
            sqlx::query("INSERT INTO idempotency (project, key, digest, job, created_ms) VALUES (?, ?, ?, ?, ?)");
        let query = query.bind(&job.project).bind(key).bind(job.request_digest.as_bytes().as_slice());
        query.bind(job_bytes(job.job)).bind(int(job.accepted_ms)).execute(&mut *db).await?;
    }
    insert_job(db, job).await?;
    Ok(Written::Done)
}

/// A job, whatever its project may.
pub(super) async fn insert_job(db: &mut SqliteConnection, job: &NewJob) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO jobs (id, project, client_job_id, trace_id, op, envelope, envelope_digest, plan, phase, accepted_ms, \
         replay_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query =
        query.bind(job_bytes(job.job)).bind(&job.project).bind(&job.client_job_id).bind(&job.trace_id).bind(&job.op);
    let query =
        query.bind(job.envelope.as_bytes()).bind(job.envelope_digest.as_bytes().as_slice()).bind(job.plan.as_bytes());
    let query = query.bind(Phase::Running.as_str()).bind(int(job.accepted_ms));
    query.bind(job.replay_of.map(job_bytes)).execute(&mut *db).await?;
    for digest in &job.content {
        let query = sqlx::query("INSERT INTO job_content (digest, job) VALUES (?, ?) ON CONFLICT DO NOTHING");
        query.bind(digest.as_bytes().as_slice()).bind(job_bytes(job.job)).execute(&mut *db).await?;
    }
    books::hold(db, job).await
}

async fn reject(db: &mut SqliteConnection, request: &RejectedRequest) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO jobs (id, project, trace_id, op, envelope_digest, phase, code, accepted_ms, finished_ms, document) \
         VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(job_bytes(request.job)).bind(&request.project).bind(&request.trace_id);
    let query = query.bind(request.body.as_bytes().as_slice()).bind(Phase::Failed.as_str()).bind(request.code.as_str());
    query.bind(int(request.at_ms)).bind(int(request.at_ms)).bind(&request.document).execute(db).await?;
    Ok(())
}

async fn insert_accepted(db: &mut SqliteConnection, blobs: &Arc<Blobs>, row: &AcceptedRow) -> Result<(), StoreError> {
    let (inline, digest) = if row.fragment.len() <= FRAGMENT_INLINE_BYTES_MAX {
        (Some(row.fragment.as_slice()), None)
    } else {
        let (blobs, bytes) = (Arc::clone(blobs), row.fragment.clone());
        let stored = tokio::task::spawn_blocking(move || blobs.put(&bytes)).await.map_err(|_| StoreError::Closed)??;
        (None, Some(stored.as_bytes().to_vec()))
    };
    // The same shard twice would be a second acceptance: the first stands.
    let query = sqlx::query(
        "INSERT INTO accepted (job, stage, shard, body, fragment, fragment_digest) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(job_bytes(row.job)).bind(i64::from(row.stage)).bind(i64::from(row.shard));
    query.bind(row.body.as_slice()).bind(inline).bind(digest).execute(db).await?;
    Ok(())
}

async fn insert_attempt(db: &mut SqliteConnection, row: &AttemptRow) -> Result<(), StoreError> {
    let query =
        sqlx::query("INSERT INTO attempts (job, stage, shard, lease, agent, code, body) VALUES (?, ?, ?, ?, ?, ?, ?)");
    let query =
        query.bind(job_bytes(row.job)).bind(i64::from(row.stage)).bind(i64::from(row.shard)).bind(int(row.lease.0));
    let query = query.bind(row.agent.0.as_bytes().as_slice()).bind(row.code.map(forge_contract::FailureCode::as_str));
    query.bind(&row.body).execute(db).await?;
    Ok(())
}

async fn insert_object(db: &mut SqliteConnection, bytes: &[u8]) -> Result<(), StoreError> {
    let digest = Digest::of(bytes);
    let query = sqlx::query("INSERT INTO objects (digest, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING");
    query.bind(digest.as_bytes().as_slice()).bind(bytes).execute(db).await?;
    Ok(())
}

async fn finish(db: &mut SqliteConnection, job: &FinishedJob) -> Result<Written, StoreError> {
    if !arrays::are_next(&mut *db, &job.kept.arrays).await? {
        return Ok(Written::Data(DataWritten::Moved));
    }
    let query = sqlx::query(
        "UPDATE jobs SET phase = ?, code = ?, finished_ms = ?, document = ? WHERE id = ? AND finished_ms IS NULL RETURNING project, erratum_of",
    );
    let query = query.bind(job.phase.as_str()).bind(job.code.map(forge_contract::FailureCode::as_str));
    let query = query.bind(int(job.finished_ms)).bind(&job.document).bind(job_bytes(job.job));
    let Some(row) = query.fetch_optional(&mut *db).await? else {
        // An end is written once; a second one changes nothing and settles nothing.
        return Ok(Written::Done);
    };
    let project: String = row.try_get("project")?;
    // Before the stakes: what is forfeited at once has to be held first.
    if let Some(settlement) = &job.settlement {
        books::settle(db, job.job, job.finished_ms, settlement).await?;
    }
    settlement::stake(db, job.job, job.finished_ms, &job.stakes).await?;
    if row.try_get::<Option<Vec<u8>>, _>("erratum_of")?.is_some() {
        settlement::end_run(db, job).await?;
    }
    for bytes in &job.objects {
        insert_object(&mut *db, bytes).await?;
    }
    for (place, artifact) in job.artifacts.iter().enumerate() {
        let query = sqlx::query(
            "INSERT INTO artifacts (job, place, name, media_type, digest, bytes) VALUES (?, ?, ?, ?, ?, ?)",
        );
        let query =
            query.bind(job_bytes(job.job)).bind(int(place as u64)).bind(&artifact.name).bind(&artifact.media_type);
        query.bind(artifact.digest.as_bytes().as_slice()).bind(int(artifact.bytes)).execute(&mut *db).await?;
    }
    for (at, name) in &job.kept.references {
        if let Some(artifact) = job.artifacts.iter().find(|artifact| artifact.name == *name) {
            kv::refer(&mut *db, at, artifact, job.job, job.finished_ms).await?;
        }
    }
    for array in &job.kept.arrays {
        arrays::put(&mut *db, array).await?;
    }
    let last = sqlx::query("SELECT seq, digest FROM ledger ORDER BY seq DESC LIMIT 1").fetch_optional(&mut *db).await?;
    let (seq, previous) = match last {
        Some(row) => (uint(row.try_get("seq")?) + 1, digest_of(row.try_get("digest")?)?),
        None => (1, Digest::from_bytes([0; 32])),
    };
    let digest = LedgerLine::digest_of(&previous, &job.entry);
    let query =
        sqlx::query("INSERT INTO ledger (seq, job, project, entry, previous, digest) VALUES (?, ?, ?, ?, ?, ?)");
    let query = query.bind(int(seq)).bind(job_bytes(job.job)).bind(project).bind(&job.entry);
    query.bind(previous.as_bytes().as_slice()).bind(digest.as_bytes().as_slice()).execute(db).await?;
    Ok(Written::Done)
}

async fn insert_kernel(db: &mut SqliteConnection, kernel: &KernelRow) -> Result<Written, StoreError> {
    let query = sqlx::query("SELECT digest, state FROM kernels WHERE name = ? AND version = ?");
    if let Some(row) = query.bind(&kernel.name).bind(i64::from(kernel.version)).fetch_optional(&mut *db).await? {
        let existing = digest_of(row.try_get("digest")?)?;
        let refused = row.try_get::<&str, _>("state")? == KernelState::Refused.as_str();
        if existing != kernel.digest && !refused {
            return Err(StoreError::KernelTaken { label: format!("{}@{}", kernel.name, kernel.version), existing });
        }
        if !refused {
            return Ok(Written::Done);
        }
    }
    if let Some(project) = &kernel.project
        && let Some(exceeded) = tenancy::no_room(&mut *db, project, kernel.bytes).await?
    {
        return Ok(Written::Exceeded(exceeded));
    }
    // What stands there was refused.
    let query = sqlx::query("DELETE FROM kernels WHERE name = ? AND version = ?");
    query.bind(&kernel.name).bind(i64::from(kernel.version)).execute(&mut *db).await?;
    let query = sqlx::query(
        "INSERT INTO kernels (name, version, digest, bytes, manifest, admitted_ms, project, state, code, reason, decided_ms, checks) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(&kernel.name).bind(i64::from(kernel.version)).bind(kernel.digest.as_bytes().as_slice());
    let query =
        query.bind(int(kernel.bytes)).bind(&kernel.manifest).bind(int(kernel.recorded_ms)).bind(&kernel.project);
    let Standing { state, code, reason, decided_ms, checks } = &kernel.standing;
    let query = query.bind(state.as_str()).bind(code.map(forge_contract::FailureCode::as_str)).bind(reason);
    query.bind(decided_ms.map(int)).bind(checks).execute(db).await?;
    Ok(Written::Done)
}

async fn update_standing(db: &mut SqliteConnection, digest: &Digest, standing: &Standing) -> Result<(), StoreError> {
    let Standing { state, code, reason, decided_ms, checks } = standing;
    let query =
        sqlx::query("UPDATE kernels SET state = ?, code = ?, reason = ?, decided_ms = ?, checks = ? WHERE digest = ?");
    let query = query.bind(state.as_str()).bind(code.map(forge_contract::FailureCode::as_str)).bind(reason);
    query.bind(decided_ms.map(int)).bind(checks).bind(digest.as_bytes().as_slice()).execute(db).await?;
    Ok(())
}

async fn redeem(db: &mut SqliteConnection, hash: &Digest, public_key: &[u8; 32]) -> Result<Written, StoreError> {
    let agent = AgentId::of_public_key(public_key);
    let id = agent.0.as_bytes().as_slice();
    let known = sqlx::query("SELECT removed_ms FROM agents WHERE id = ?").bind(id).fetch_optional(&mut *db).await?;
    if let Some(row) = &known
        && row.try_get::<Option<i64>, _>("removed_ms")?.is_some()
    {
        // Removed for good: no token brings it back.
        return Ok(Written::Redeemed(false));
    }
    // The agent that redeemed a token may present it again (its first answer may have been lost); no other may.
    let query = sqlx::query(
        "UPDATE enrol_tokens SET redeemed_by = ?1, redeemed_ms = COALESCE(redeemed_ms, ?2) \
         WHERE hash = ?3 AND expires_ms > ?2 AND (redeemed_by IS NULL OR redeemed_by = ?1) RETURNING project, verifier, provider, reserved",
    );
    let now = int(now_ms());
    let Some(row) = query.bind(id).bind(now).bind(hash.as_bytes().as_slice()).fetch_optional(&mut *db).await? else {
        return Ok(Written::Redeemed(false));
    };
    let (project, verifier): (String, bool) = (row.try_get("project")?, row.try_get("verifier")?);
    let (provider, reserved): (Option<String>, Option<String>) = (row.try_get("provider")?, row.try_get("reserved")?);
    // An agent that is enrolled already becomes a verifier by a verifier's token, and never less than it was.
    let query = sqlx::query(
        "INSERT INTO agents (id, public_key, project, enrolled_ms, last_seen_ms, state, verifier, provider, reserved) \
         VALUES (?, ?, ?, ?, ?, 'enrolled', ?, ?, ?) ON CONFLICT (id) DO UPDATE SET verifier = MAX(verifier, excluded.verifier)",
    );
    let query = query.bind(id).bind(public_key.as_slice()).bind(project).bind(now).bind(now);
    query.bind(verifier).bind(provider).bind(reserved).execute(&mut *db).await?;
    if known.is_none() {
        let kind = AgentEventKind::Enrolled;
        settlement::note(db, &AgentEvent { agent, kind, job: None, place: None, detail: None }).await?;
    }
    Ok(Written::Redeemed(true))
}

async fn reserve(db: &mut SqliteConnection) -> Result<Written, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'leases'").fetch_optional(&mut *db).await?;
    let next = match row {
        Some(row) => {
            let bytes: [u8; 8] =
                row.try_get::<&[u8], _>("value")?.try_into().map_err(|_| StoreError::Corrupt { what: "lease mark" })?;
            u64::from_be_bytes(bytes)
        }
        None => 1,
    };
    let query =
        sqlx::query("INSERT INTO meta (name, value) VALUES ('leases', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1");
    query.bind((next + LEASE_BLOCK).to_be_bytes().to_vec()).execute(db).await?;
    Ok(Written::FirstLease(next))
}
