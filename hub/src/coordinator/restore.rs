//! Going on after a restart: unfinished jobs with every shard that was accepted.

use std::sync::Arc;

use forge_contract::envelope::Envelope;
use forge_contract::trace::TraceContext;
use forge_contract::{Digest, Failure, FailureCode, JobId};
use forge_lifecycle::action::Accepted;
use forge_lifecycle::event::Event;
use forge_lifecycle::plan::Plan;

use super::board::{JobInfo, LiveJob};
use super::{Surroundings, money};
use crate::document::JobDocument;
use crate::store::data::Kept;
use crate::store::{AcceptedRow, FinishedJob, Phase, RestoredJob, StoreError, Write};

/// First byte of a stored acceptance. Another format is not read: its shard is computed again, with the same bits.
const FORMAT: u8 = 3;

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

/// An acceptance without its fragment, and the fragment's digest, as bytes.
pub(super) fn encode(accepted: &Accepted, fragment: Digest) -> Option<Vec<u8>> {
    postcard::to_extend(&(fragment, accepted), vec![FORMAT]).ok()
}

/// What [`encode`] wrote.
pub(super) fn decode_body(body: &[u8]) -> Option<(Digest, Accepted)> {
    let (format, body) = body.split_first()?;
    postcard::from_bytes(body).ok().filter(|_| *format == FORMAT)
}

/// A stored acceptance without its fragment; `None` where another format was written.
#[must_use]
pub fn accepted_of(body: &[u8]) -> Option<Accepted> {
    decode_body(body).map(|(_, accepted)| accepted)
}

fn decode(row: AcceptedRow) -> Option<Accepted> {
    let (_, accepted) = decode_body(&row.body)?;
    // An erratum run takes over what another job accepted: the row says whose it is now.
    Some(Accepted { job: row.job, fragment: row.fragment, ..accepted })
}

/// A job's accepted shards as they stand once everything submitted before is durable.
pub(super) async fn accepted(around: &Surroundings, job: JobId) -> Result<Vec<Accepted>, StoreError> {
    around.store.submit(Write::Barrier).await?;
    Ok(around.store.accepted(job).await?.into_iter().filter_map(decode).collect())
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
    let accepted: Vec<Accepted> = rows.into_iter().filter_map(decode).collect();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::report::{UnitRecord, Usage};
    use forge_contract::{AgentId, LeaseId};
    use forge_lifecycle::verify::Verdict;

    #[test]
    fn an_acceptance_comes_back_as_it_was() {
        let accepted = Accepted {
            job: JobId::new(1, 2),
            stage: 1,
            shard: 70_000,
            lease: LeaseId(9),
            agent: AgentId(Digest::of(b"a")),
            task: Digest::of(b"t"),
            engine: Digest::of(b"e"),
            fragment: Vec::new(),
            units: vec![UnitRecord { digest: Digest::of(b"u"), fuel: 1 << 40 }],
            usage: Usage { wall_us: 3, cpu_us: 2, prepare_us: 1 },
            result: Digest::of(b"r"),
            verdict: Verdict { agreed: vec![AgentId(Digest::of(b"b"))], ..Verdict::default() },
        };
        let row = |body| AcceptedRow { job: accepted.job, stage: 1, shard: 70_000, body, fragment: vec![7; 3] };
        let body = encode(&accepted, Digest::of(&[7; 3])).unwrap();
        assert_eq!(decode_body(&body).unwrap().0, Digest::of(&[7; 3]));
        let back = decode(row(body.clone())).unwrap();
        assert_eq!(back, Accepted { fragment: vec![7; 3], ..accepted.clone() });
        let taken_over = AcceptedRow { job: JobId::new(3, 4), ..row(body.clone()) };
        assert_eq!(decode(taken_over).unwrap().job, JobId::new(3, 4), "the row says whose it is");
        let mut other = body;
        other[0] = 1;
        assert_eq!(decode(row(other)), None);
    }
}
