//! A job's end: its evidence, its answer and its line in the ledger, durable together before anybody is told.

use std::sync::Arc;

use forge_contract::envelope::ArtifactKind;
use forge_contract::{Digest, Failure, FailureCode, canon};
use forge_lifecycle::action::{Completed, JobOutcome, Summary};
use forge_lifecycle::artifact::{Entry, Evidence};
use forge_lifecycle::ledger::{Bill, Rates, bill};
use forge_lifecycle::verify::VerificationReport;
use serde_json::json;

use super::Surroundings;
use super::board::{Ended, JobInfo, LiveJob};
use super::perform::Tally;
use crate::document::{
    ArtifactLink, BillingBlock, ErrorBlock, ExecutionsBlock, HubBlock, JobDocument, Links, MetricsBlock, OpBlock,
    ReplayBlock, VerificationBlock,
};
use crate::metrics::Label;
use crate::store::blobs::Blobs;
use crate::store::{ArtifactRow, FinishedJob, Page, Phase, StoreError, Write};

/// Objects up to this size lie in the database, larger ones in a file of their own.
const OBJECT_INLINE_BYTES_MAX: usize = 128 << 10;
const PAGE: u32 = 4096;

/// Signs evidence with the hub's key.
pub trait Notary: Send + Sync + 'static {
    /// The hub's public key as text.
    fn key(&self) -> String;
    /// The Ed25519 signature of these bytes.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
}

/// An artifact with its bytes.
struct Made {
    row: ArtifactRow,
    content: Vec<u8>,
}

/// Writes everything, then tells whoever waits.
pub(super) async fn finish(around: &Surroundings, live: &Arc<LiveJob>, tally: Tally, outcome: JobOutcome) {
    let job = live.info.job;
    let ended = match conclude(around, &live.info, tally, outcome).await {
        Ok(ended) => ended,
        Err(error) => {
            // Not acknowledged: after a restart the job goes on from its accepted shards.
            tracing::error!(%job, trace_id = live.info.trace_id, %error, "a job's end could not be stored");
            unstored(&live.info)
        }
    };
    tracing::info!(%job, trace_id = live.info.trace_id, status = ended.phase.as_str(), code = ended.code.map(FailureCode::as_str), "job ended");
    live.end(ended);
    around.board.remove(job);
}

async fn conclude(
    around: &Surroundings,
    info: &JobInfo,
    tally: Tally,
    outcome: JobOutcome,
) -> Result<Ended, StoreError> {
    let finished_ms = crate::clock::unix_ms();
    let (phase, code) = match &outcome {
        JobOutcome::Completed(_) => (Phase::Completed, None),
        JobOutcome::Failed { failure, .. } => (Phase::Failed, Some(failure.code)),
        JobOutcome::Cancelled { .. } => (Phase::Cancelled, Some(FailureCode::RequestCancelled)),
    };
    let bill = bill_of(info, &outcome);
    let mut document = document(info, &tally, &outcome, &bill, finished_ms);
    let made = if info.envelope.artifacts.persist {
        evidence(around, info, tally, &outcome, &document, &bill).await?
    } else {
        Vec::new()
    };
    document.artifacts = made.iter().map(|made| link(info, &made.row)).collect();
    let text = serde_json::to_string(&document).map_err(|_| StoreError::Corrupt { what: "job document" })?;
    let (artifacts, objects) = keep(&around.blobs, made).await?;
    let entry = entry(info, &document, &bill, finished_ms)?;
    let finished =
        FinishedJob { job: info.job, phase, code, finished_ms, document: text.clone(), artifacts, objects, entry };
    around.store.submit(Write::Finish(Box::new(finished))).await?;
    let metrics = &around.metrics;
    metrics.jobs_ended.get_or_create(&Label { kind: phase.as_str() }).inc();
    metrics.credits_micro.inc_by(bill.credits_micro);
    let wall = std::time::Duration::from_millis(finished_ms.saturating_sub(info.accepted_ms));
    metrics.job_seconds.observe(wall.as_secs_f64());
    Ok(Ended { phase, code, document: Arc::new(document), text: text.into() })
}

/// Only a result is charged: what a failed or cancelled job burned is stated in its metrics.
fn bill_of(info: &JobInfo, outcome: &JobOutcome) -> Bill {
    let fuel = match outcome {
        JobOutcome::Completed(completed) => completed.summary.work.fuel,
        JobOutcome::Failed { .. } | JobOutcome::Cancelled { .. } => 0,
    };
    bill(&Rates::default(), info.envelope.ctx.billing.mode, fuel)
}

fn document(info: &JobInfo, tally: &Tally, outcome: &JobOutcome, bill: &Bill, finished_ms: u64) -> JobDocument {
    let summary = outcome.summary();
    let (status, completed, failure) = match outcome {
        JobOutcome::Completed(completed) => (Phase::Completed, Some(completed), None),
        JobOutcome::Failed { failure, .. } => (Phase::Failed, None, Some(failure.clone())),
        JobOutcome::Cancelled { .. } => {
            (Phase::Cancelled, None, Some(Failure::new(FailureCode::RequestCancelled, "the client cancelled the job")))
        }
    };
    let mut warnings = summary.warnings.clone();
    if tally.engines.len() > 1 {
        warnings.push(format!(
            "shards ran under {} engine profiles; only equal profiles promise equal fuel",
            tally.engines.len()
        ));
    }
    JobDocument {
        ok: completed.is_some(),
        status: status.as_str().into(),
        finished_at_ms: Some(finished_ms),
        hub: Some(HubBlock {
            metrics: metrics(info, tally, summary, finished_ms),
            output: completed.map(|completed| completed.output.clone()),
            replay: replay(info, tally, completed),
            verification: verification(&summary.verification),
        }),
        executions: Some(ExecutionsBlock { count: tally.attempts, url: Links::of(info.job).executions }),
        billing: Some(billing(info, bill)),
        warnings,
        error: failure.as_ref().map(ErrorBlock::of),
        ..waiting(info, status.as_str())
    }
}

/// The document of a job without its end.
#[must_use]
pub fn waiting(info: &JobInfo, status: &str) -> JobDocument {
    let op = &info.envelope.op;
    JobDocument {
        ok: false,
        job_id: info.job.to_string(),
        client_job_id: info.envelope.ctx.job_id.clone(),
        trace_id: info.trace_id.clone(),
        status: status.into(),
        op: Some(OpBlock { name: op.name.clone(), version: op.version, profile: op.profile.clone() }),
        accepted_at_ms: info.accepted_ms,
        finished_at_ms: None,
        hub: None,
        progress: None,
        executions: None,
        artifacts: Vec::new(),
        billing: None,
        warnings: Vec::new(),
        error: None,
        links: Links::of(info.job),
    }
}

fn metrics(info: &JobInfo, tally: &Tally, summary: &Summary, finished_ms: u64) -> MetricsBlock {
    MetricsBlock {
        wall_ms: finished_ms.saturating_sub(info.accepted_ms),
        agents_used: summary.agents_used,
        shards: summary.shards,
        shards_total: summary.shards_total,
        units: summary.work.units,
        iterations: summary.work.items,
        fuel: summary.work.fuel,
        attempts: tally.attempts,
        shard_wall_ms: tally.wall_us / 1000,
        shard_cpu_ms: tally.cpu_us / 1000,
    }
}

fn replay(info: &JobInfo, tally: &Tally, completed: Option<&Completed>) -> ReplayBlock {
    ReplayBlock {
        root_seed: info.plan.root_seed.as_str().into(),
        replay_key: info.plan.replay_key.to_string(),
        component: info.plan.component.to_string(),
        engine: tally.engines.first().map(Digest::to_string),
        plan_digest: info.plan.digest().to_string(),
        result_digest: completed.map(|completed| completed.result_digest.to_string()),
    }
}

fn verification(report: &VerificationReport) -> VerificationBlock {
    VerificationBlock {
        mode: report.mode.as_str().into(),
        shards: report.shards,
        checked: report.checked,
        matched: report.matched,
        refuted: report.refuted,
        reassigned: report.reassigned,
        unchecked: report.unchecked,
        malformed: report.malformed,
        agents_refuted: report.agents_refuted.iter().map(ToString::to_string).collect(),
    }
}

/// Millionths as a decimal number, for display; the integers beside it are what counts.
#[must_use]
pub fn decimal(micro: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown, never computed with")]
    let value = micro as f64;
    value / 1e6
}

fn billing(info: &JobInfo, bill: &Bill) -> BillingBlock {
    let asked = info.envelope.ctx.billing;
    BillingBlock {
        mode: asked.mode.as_str().into(),
        reason: asked.reason.as_str().into(),
        credits: decimal(bill.credits_micro),
        eur: decimal(bill.eur_micro),
        credits_micro: bill.credits_micro,
        eur_micro: bill.eur_micro,
        charged: bill.charged,
    }
}

fn unstored(info: &JobInfo) -> Ended {
    let code = FailureCode::AggregationStorage;
    let failure = Failure::new(code, "the hub could not store the job's end; it will try again after a restart");
    let document = JobDocument { error: Some(ErrorBlock::of(&failure)), ..waiting(info, Phase::Failed.as_str()) };
    let text = serde_json::to_string(&document).unwrap_or_default();
    Ended { phase: Phase::Failed, code: Some(code), document: Arc::new(document), text: text.into() }
}

fn link(info: &JobInfo, row: &ArtifactRow) -> ArtifactLink {
    ArtifactLink {
        name: row.name.clone(),
        media_type: row.media_type.clone(),
        digest: row.digest.to_string(),
        bytes: row.bytes,
        url: format!("{}/{}", Links::of(info.job).artifacts, row.name),
        kv: format!("{}/{}/{}", info.envelope.artifacts.kv_namespace, info.job, row.name),
    }
}

fn made(name: impl Into<String>, media_type: &str, content: Vec<u8>) -> Made {
    let row = ArtifactRow {
        name: name.into(),
        media_type: media_type.into(),
        digest: Digest::of(&content),
        bytes: content.len() as u64,
    };
    Made { row, content }
}

fn json_made<T: serde::Serialize>(name: &str, value: &T) -> Result<Made, StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|_| StoreError::Corrupt { what: "artifact" })?;
    Ok(made(name, "application/json", bytes))
}

/// Every artifact, and last the manifest that hashes them and the hub's signature over it.
async fn evidence(
    around: &Surroundings,
    info: &JobInfo,
    tally: Tally,
    outcome: &JobOutcome,
    document: &JobDocument,
    bill: &Bill,
) -> Result<Vec<Made>, StoreError> {
    let wanted = &info.envelope.artifacts.include;
    let mut all = vec![
        made("contract_json", "application/json", info.envelope.canonical().as_bytes().to_vec()),
        json_made("plan_json", &*info.plan)?,
        json_made("verification_json", &outcome.summary().verification)?,
        json_made("billing_json", bill)?,
    ];
    if let JobOutcome::Completed(completed) = outcome {
        if wanted.contains(&ArtifactKind::ResultJson) {
            all.push(json_made("result_json", &completed.output)?);
        }
        for stage in &completed.stage_fragments {
            let name = format!("fragment_{}", stage.stage);
            all.push(made(name, "application/octet-stream", stage.bytes.clone()));
        }
    }
    if wanted.contains(&ArtifactKind::MetricsJson)
        && let Some(hub) = &document.hub
    {
        all.push(json_made("metrics_json", &hub.metrics)?);
    }
    if wanted.contains(&ArtifactKind::ExecutionsJson) {
        all.push(made("executions_json", "application/json", executions(around, info, tally).await?));
    }
    all.sort_by(|a, b| a.row.name.cmp(&b.row.name));
    let manifest = json_made("manifest_json", &manifest(info, outcome, &all))?;
    let signature = json!({
        "algorithm": "Ed25519",
        "signed": "manifest_json",
        "digest": manifest.row.digest.to_string(),
        "public_key": around.notary.key(),
        "signature": hex(&around.notary.sign(&manifest.content)),
    });
    all.push(manifest);
    all.push(json_made("manifest_signature_json", &signature)?);
    Ok(all)
}

fn manifest(info: &JobInfo, outcome: &JobOutcome, all: &[Made]) -> Evidence {
    let entry = |made: &Made| Entry {
        name: made.row.name.clone(),
        media_type: made.row.media_type.clone(),
        bytes: made.row.bytes,
        digest: made.row.digest,
    };
    Evidence {
        format: 1,
        job: info.job,
        contract: info.envelope.digest(),
        plan: info.plan.digest(),
        replay_key: info.plan.replay_key,
        result: match outcome {
            JobOutcome::Completed(completed) => Some(completed.result_digest),
            JobOutcome::Failed { .. } | JobOutcome::Cancelled { .. } => None,
        },
        artifacts: all.iter().map(entry).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// All executions as one JSON array, in (stage, shard, lease) order.
async fn executions(around: &Surroundings, info: &JobInfo, tally: Tally) -> Result<Vec<u8>, StoreError> {
    let mut array = Array::default();
    if let Some(mut lines) = tally.lines {
        lines.sort_by_key(|(place, _)| *place);
        lines.iter().for_each(|(_, line)| array.push(line));
        return Ok(array.finish());
    }
    // Attempts were queued before this barrier, so reading sees them all.
    around.store.submit(Write::Barrier).await?;
    let mut offset = 0;
    loop {
        let rows = around.store.attempts(info.job, Page { offset, limit: PAGE }).await?;
        rows.iter().for_each(|row| array.push(&row.body));
        offset += rows.len() as u64;
        if rows.len() < PAGE as usize {
            return Ok(array.finish());
        }
    }
}

#[derive(Default)]
struct Array(Vec<u8>);

impl Array {
    fn push(&mut self, item: &str) {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        self.0.extend_from_slice(item.as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        if self.0.is_empty() {
            self.0.push(b'[');
        }
        self.0.push(b']');
        self.0
    }
}

/// Large objects go to their files now; small ones go into the transaction.
async fn keep(blobs: &Arc<Blobs>, made: Vec<Made>) -> Result<(Vec<ArtifactRow>, Vec<Vec<u8>>), StoreError> {
    let (mut rows, mut small, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for made in made {
        rows.push(made.row);
        if made.content.len() <= OBJECT_INLINE_BYTES_MAX { small.push(made.content) } else { large.push(made.content) }
    }
    if !large.is_empty() {
        let blobs = Arc::clone(blobs);
        let put = move || large.iter().try_for_each(|content| blobs.put(content).map(drop));
        tokio::task::spawn_blocking(put).await.map_err(|_| StoreError::Closed)??;
    }
    Ok((rows, small))
}

fn entry(info: &JobInfo, document: &JobDocument, bill: &Bill, finished_ms: u64) -> Result<String, StoreError> {
    let asked = info.envelope.ctx.billing;
    // 64-bit numbers travel as text: canonical JSON knows doubles only.
    let entry = json!({
        "job": info.job.to_string(),
        "project": &*info.project,
        "mode": asked.mode.as_str(),
        "reason": asked.reason.as_str(),
        "status": document.status,
        "fuel": document.hub.as_ref().map_or(0, |hub| hub.metrics.fuel).to_string(),
        "credits_micro": bill.credits_micro.to_string(),
        "eur_micro": bill.eur_micro.to_string(),
        "charged": bill.charged,
        "at_ms": finished_ms.to_string(),
    });
    canon::json(&entry).map_err(|_| StoreError::Corrupt { what: "ledger entry" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arrays_are_json_whatever_their_length() {
        for items in [&[][..], &["1"], &["1", "{\"a\":2}"]] {
            let mut array = Array::default();
            items.iter().for_each(|item| array.push(item));
            let value: serde_json::Value = serde_json::from_slice(&array.finish()).unwrap();
            assert_eq!(value.as_array().unwrap().len(), items.len());
        }
    }

    #[test]
    fn millionths_print_as_people_write_them() {
        assert_eq!(serde_json::to_string(&decimal(1_420_000)).unwrap(), "1.42");
        assert_eq!(serde_json::to_string(&decimal(170_001)).unwrap(), "0.170001");
    }
}
