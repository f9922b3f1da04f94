//! Going on after a restart: unfinished jobs with every shard that was accepted.

use std::sync::Arc;

use forge_contract::envelope::Envelope;
use forge_contract::trace::TraceContext;
use forge_contract::{Failure, FailureCode, JobId};
use forge_lifecycle::action::Accepted;
use forge_lifecycle::event::Event;
use forge_lifecycle::plan::Plan;

use super::board::{JobInfo, LiveJob};
use super::{Surroundings, acceptance, money};
use crate::document::JobDocument;
use crate::store::data::Kept;
use crate::store::{FinishedJob, Phase, RestoredJob, StoreError, Write};

/// A job to go on with.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) job: JobId,
    pub(super) attempts: u64,
    pub(super) event: Event,
}

impl Restored {
    pub(super) fn accepted(&self) -> &[Accepted] {
        match &self.event {
            Event::JobRestored { accepted, .. } => accepted,
            _ => &[],
        }
    }
}

/// A job's accepted shards as they stand once everything submitted before is durable.
pub(super) async fn accepted(around: &Surroundings, job: JobId) -> Result<Vec<Accepted>, StoreError> {
    around.store.submit(Write::Barrier).await?;
    Ok(around.store.accepted(job).await?.into_iter().filter_map(acceptance::restored).collect())
}

/// Reads every unfinished job and puts it on the board.
pub(super) async fn unfinished(around: &Surroundings) -> Result<Vec<Restored>, StoreError> {
    let mut restored = Vec::new();
    for stored in around.store.unfinished().await? {
        restored.extend(take_up(around, &stored).await?);
    }
    Ok(restored)
}

/// Puts a recorded job without an end on the board, with what it accepted. `None` for one that cannot be read: it ends.
pub(super) async fn take_up(around: &Surroundings, stored: &RestoredJob) -> Result<Option<Restored>, StoreError> {
    let job = stored.job;
    let Some(info) = info(stored) else {
        tracing::error!(%job, "an unfinished job cannot be read; it ends as failed");
        end_unreadable(around, stored).await?;
        return Ok(None);
    };
    let rows = around.store.accepted(job).await?;
    let found = rows.len();
    let accepted: Vec<Accepted> = rows.into_iter().filter_map(acceptance::restored).collect();
    let attempts = around.store.attempts_count(job).await?;
    tracing::info!(%job, trace_id = info.trace_id, shards = accepted.len(), unread = found - accepted.len(), "job goes on");
    let (plan, project) = (Arc::clone(&info.plan), Arc::clone(&info.project));
    let event = Event::JobRestored { job, plan, project, accepted, accepted_at: info.accepted_ms };
    around.board.insert(&LiveJob::new(info));
    Ok(Some(Restored { job, attempts, event }))
}

/// A record that this program cannot read (written by another version) must not stay unfinished for ever.
async fn end_unreadable(around: &Surroundings, stored: &RestoredJob) -> Result<(), StoreError> {
    let code = FailureCode::AggregationStorage;
    let failure = Failure::new(code, "the job's record cannot be read by this version of the hub");
    let mut document = JobDocument::rejected(stored.job, &stored.trace_id, stored.accepted_ms, &failure);
    let finished_ms = crate::clock::unix_ms();
    document.client_job_id.clone_from(&stored.client_job_id);
    document.finished_at_ms = Some(finished_ms);
    let settlement = Some(money::refund(stored)?);
    let finished = FinishedJob {
        job: stored.job,
        phase: Phase::Failed,
        code: Some(code),
        finished_ms,
        document: serde_json::to_string(&document).unwrap_or_default(),
        artifacts: Vec::new(),
        objects: Vec::new(),
        entry: format!("{{\"job\":\"{}\",\"status\":\"FAILED\"}}", stored.job),
        settlement,
        stakes: Vec::new(),
        erratum: None,
        kept: Kept::default(),
    };
    around.store.submit(Write::Finish(Box::new(finished))).await.map(drop)
}

/// What a record says of a job; `None` where it cannot be read.
pub(super) fn info(stored: &RestoredJob) -> Option<JobInfo> {
    let envelope = Envelope::parse(stored.envelope.as_bytes()).ok()?;
    let asked = envelope.digest();
    let plan: Plan = serde_json::from_str(&stored.plan).ok()?;
    Some(JobInfo {
        job: stored.job,
        project: stored.project.as_str().into(),
        trace_id: stored.trace_id.clone(),
        trace: TraceContext::of_text(&stored.trace_id),
        envelope,
        plan: Arc::new(plan),
        accepted_ms: stored.accepted_ms,
        notices: Vec::new(),
        replay_of: stored.replay_of,
        erratum: stored.erratum,
        asked,
        held: Arc::default(),
        terms: stored.terms,
    })
}
