//! A job's end: its evidence, its answer and its line in the ledger, durable together before anybody is told.

use std::sync::Arc;

use forge_contract::envelope::ArtifactKind;
use forge_contract::{Digest, Failure, FailureCode, canon};
use forge_lifecycle::action::{Completed, JobOutcome, Summary};
use forge_lifecycle::artifact::Entry;
use forge_lifecycle::books::Transaction;
use forge_lifecycle::bundle::leaf::{self, OutcomeRecord};
use forge_lifecycle::ledger::Bill;
use forge_lifecycle::verify::{Outlier, VerificationReport};
use serde_json::json;

use super::board::{Ended, JobInfo, LiveJob};
use super::evidence::{Findings, Gathered};
use super::perform::Tally;
use super::{Surroundings, arrays, errata, evidence, money, repeat, spans};
use crate::document::{
    ArtifactLink, BillingBlock, BoundBlock, ErratumBlock, ErrorBlock, ExecutionsBlock, HubBlock, JobDocument,
    LinesBlock, Links, MetricsBlock, OpBlock, OutlierBlock, RepeatBlock, ReplayBlock, VerificationBlock,
};
use crate::metrics::Label;
use crate::store::data::{DataWritten, Kept, KvKey};
use crate::store::{FinishedJob, Phase, StoreError, Write, Written};

/// What wrote the evidence.
const SOFTWARE: &str = concat!("forgepool ", env!("CARGO_PKG_VERSION"));

/// Writes everything, then tells whoever waits.
pub(super) async fn finish(around: &Surroundings, live: &Arc<LiveJob>, tally: Tally, outcome: JobOutcome) {
    let job = live.info.job;
    let ended = match conclude(around, live, tally, outcome).await {
        Ok(ended) => ended,
        Err(error) => {
            // Not acknowledged: after a restart the job goes on from its accepted shards.
            tracing::error!(%job, trace_id = live.info.trace_id, %error, "a job's end could not be stored");
            unstored(&live.info)
        }
    };
    tracing::info!(%job, trace_id = live.info.trace_id, status = ended.phase.as_str(), code = ended.code.map(FailureCode::as_str), "job ended");
    if around.telemetry.is_on() {
        around.telemetry.record(spans::job(&live.info, &ended));
    }
    live.end(ended);
    around.board.remove(job);
    if live.info.erratum.is_some() {
        // Further doubts, about the same job or others, may have waited for this run.
        around.doubts.notify_one();
    }
}

async fn conclude(
    around: &Surroundings,
    live: &LiveJob,
    mut tally: Tally,
    outcome: JobOutcome,
) -> Result<Ended, StoreError> {
    let info = &live.info;
    // All of it was asked for before; only jobs that burned more than was expected wait here.
    let raised = tally.meter.raised().await;
    let held_micro = info.terms.held_micro.map(|held| held.saturating_add(raised));
    let outcome = money::outcome_of(live, outcome);
    let finished_ms = crate::clock::unix_ms();
    let (phase, code) = match &outcome {
        JobOutcome::Completed(_) => (Phase::Completed, None),
        JobOutcome::Failed { failure, .. } => (Phase::Failed, Some(failure.code)),
        JobOutcome::Cancelled { .. } => (Phase::Cancelled, Some(FailureCode::RequestCancelled)),
    };
    let shards = evidence::shards(around, info, &mut tally, &outcome).await?;
    let replay = match info.replay_of {
        Some(of) => Some(repeat::compare(around, info, of, &outcome, &shards).await?),
        None => None,
    };
    let (erratum, signed) = errata::found(around, info, &outcome, finished_ms).await?.unzip();
    let money::Reckoning { bill, stakes, settlement } =
        money::reckon(info, &outcome, &shards, erratum.as_ref(), (held_micro, finished_ms))?;
    let mut document = document(info, &tally, &outcome, (&bill, &settlement.transaction), finished_ms);
    if let Some(replay) = &replay {
        document.replay = Some(RepeatBlock::of(replay));
    }
    if let (Some(block), Some(erratum)) = (&mut document.erratum, &erratum) {
        block.verdict = Some(erratum.verdict.as_str().into());
    }
    let entry = entry(info, &document, &bill, &settlement.transaction, finished_ms)?;
    let record = record(info, &tally, &outcome, &document);
    let all = if info.envelope.artifacts.persist {
        let findings = Findings {
            outcome: &outcome,
            record: &record,
            metrics: &metrics(info, &tally, outcome.summary(), finished_ms),
            bill: &bill,
            entry: &entry,
            transaction: &settlement.transaction,
            shards: &shards,
            replay: replay.as_ref(),
            erratum: signed.as_ref(),
        };
        evidence::gather(around, info, tally, findings).await?
    } else {
        // The hub's word on another job is kept whatever the contract says.
        Gathered { made: signed.into_iter().map(Into::into).collect(), stored: Vec::new() }
    };
    drop(shards);
    let entries = all.stored.iter().chain(all.made.iter().map(|artifact| &artifact.entry));
    document.artifacts = entries.filter(|entry| is_wanted(info, entry)).map(|entry| link(info, entry)).collect();
    let arrays = arrays::of(info, &all)?;
    let filed = evidence::keep(&around.blobs, all).await?;
    let finished = FinishedJob {
        job: info.job,
        phase,
        code,
        finished_ms,
        document: String::new(),
        artifacts: filed.rows,
        objects: filed.objects,
        entry,
        settlement: Some(settlement),
        stakes,
        erratum,
        kept: Kept { references: references(info, &document.artifacts), arrays },
    };
    let text = write(around, info, &mut document, finished).await?;
    drop(filed.held);
    let metrics = &around.metrics;
    metrics.jobs_ended.get_or_create(&Label { kind: phase.as_str() }).inc();
    metrics.credits_micro.inc_by(bill.credits_micro);
    metrics.billed.get_or_create(&Label { kind: if bill.charged { "billable" } else { "test" } }).inc();
    metrics.job_credits.observe(bill.credits_micro as f64);
    metrics.job_fuel.observe(outcome.summary().work.fuel as f64);
    let wall = std::time::Duration::from_millis(finished_ms.saturating_sub(info.accepted_ms));
    metrics.job_seconds.observe(wall.as_secs_f64());
    Ok(Ended { phase, code, document: Arc::new(document), text: text.into() })
}

/// Writes a job's end and gives its answer as it was written. The answer names the versions that the job's arrays become:
/// where another job's came first, it is written anew.
async fn write(
    around: &Surroundings,
    info: &JobInfo,
    document: &mut JobDocument,
    mut finished: FinishedJob,
) -> Result<String, StoreError> {
    loop {
        arrays::number(around, &mut finished.kept.arrays).await?;
        if let Some(block) = arrays::block(info, &finished.kept.arrays) {
            document.vmem = Some(block);
        }
        let text = serde_json::to_string(&document).map_err(|_| StoreError::Corrupt { what: "job document" })?;
        finished.document.clone_from(&text);
        let again = if finished.kept.arrays.is_empty() { None } else { Some(finished.clone()) };
        let written = around.store.submit(Write::Finish(Box::new(finished))).await?;
        match again {
            Some(again) if written == Written::Data(DataWritten::Moved) => finished = again,
            _ => return Ok(text),
        }
    }
}

/// The keys under which the artifacts that the answer lists stand.
fn references(info: &JobInfo, listed: &[ArtifactLink]) -> Vec<(KvKey, String)> {
    let at = |name: &str| KvKey {
        project: info.project.to_string(),
        namespace: info.envelope.artifacts.kv_namespace.clone(),
        key: format!("{}/{name}", info.job),
    };
    listed.iter().map(|link| (at(&link.name), link.name.clone())).collect()
}

/// Whether the contract asks for this artifact to be listed. The evidence holds it all the same.
fn is_wanted(info: &JobInfo, entry: &Entry) -> bool {
    let kind = match entry.name.as_str() {
        leaf::OUTPUT => ArtifactKind::ResultJson,
        leaf::METRICS => ArtifactKind::MetricsJson,
        leaf::EXECUTIONS => ArtifactKind::ExecutionsJson,
        _ => return true,
    };
    info.envelope.artifacts.include.contains(&kind)
}

fn record(info: &JobInfo, tally: &Tally, outcome: &JobOutcome, document: &JobDocument) -> OutcomeRecord {
    let failure = match outcome {
        JobOutcome::Failed { failure, .. } => Some(failure),
        JobOutcome::Completed(_) | JobOutcome::Cancelled { .. } => None,
    };
    let result = match outcome {
        JobOutcome::Completed(completed) => Some(completed.result_digest),
        JobOutcome::Failed { .. } | JobOutcome::Cancelled { .. } => None,
    };
    OutcomeRecord {
        status: document.status.clone(),
        code: failure.map(|failure| failure.code),
        detail: failure.map(|failure| failure.detail.clone()),
        unit: failure.and_then(|failure| failure.unit),
        result,
        replay_key: info.plan.replay_key,
        plan: info.plan.digest(),
        work: outcome.summary().work,
        engines: tally.engines.iter().copied().collect(),
        software: SOFTWARE.into(),
        accepted_at_ms: info.accepted_ms,
        finished_at_ms: document.finished_at_ms.unwrap_or_default(),
        warnings: document.warnings.clone(),
    }
}

fn document(
    info: &JobInfo,
    tally: &Tally,
    outcome: &JobOutcome,
    (bill, transaction): (&Bill, &Transaction),
    finished_ms: u64,
) -> JobDocument {
    let summary = outcome.summary();
    let (status, completed, failure) = match outcome {
        JobOutcome::Completed(completed) => (Phase::Completed, Some(completed), None),
        JobOutcome::Failed { failure, .. } => (Phase::Failed, None, Some(failure.clone())),
        JobOutcome::Cancelled { .. } => {
            (Phase::Cancelled, None, Some(Failure::new(FailureCode::RequestCancelled, "the client cancelled the job")))
        }
    };
    let mut warnings = info.notices.clone();
    warnings.extend(summary.warnings.iter().cloned());
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
            convergence: completed.and_then(|completed| completed.convergence.as_deref()).map(Into::into),
            replay: replay(info, tally, completed),
            verification: verification(&summary.verification),
        }),
        executions: Some(ExecutionsBlock { count: tally.attempts, url: Links::of(info.job).executions }),
        billing: Some(billing(info, bill, transaction)),
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
        vmem: arrays::block(info, &[]),
        warnings: info.notices.clone(),
        error: None,
        replay: info.replay_of.map(|of| RepeatBlock { of: of.to_string(), ..RepeatBlock::default() }),
        erratum: info.erratum.map(|erratum| ErratumBlock { of: erratum.of.to_string(), verdict: None }),
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
        forgotten: report.forgotten,
        sampled: report.sampled,
        proved: report.proved,
        agents_refuted: report.agents_refuted.iter().map(ToString::to_string).collect(),
        bound: report.bound.map(|bound| BoundBlock {
            shard_error: decimal(u64::from(bound.shard_ppm)),
            shards_alone: bound.alone,
            job_error: decimal(u64::from(bound.job_ppm)),
        }),
        outliers: report.outliers.iter().map(outlier).collect(),
    }
}

fn outlier(found: &Outlier) -> OutlierBlock {
    #[expect(clippy::cast_precision_loss, reason = "shown, never computed with")]
    let z = found.z_milli as f64 / 1000.0;
    OutlierBlock { shard_id: format!("{}/{}", found.stage, found.shard), agent_id: found.agent.to_string(), z }
}

/// Millionths as a decimal number, for display; the integers beside it are what counts.
#[must_use]
pub fn decimal(micro: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown, never computed with")]
    let value = micro as f64;
    value / 1e6
}

fn billing(info: &JobInfo, bill: &Bill, transaction: &Transaction) -> BillingBlock {
    let asked = info.envelope.ctx.billing;
    BillingBlock {
        mode: asked.mode.as_str().into(),
        reason: asked.reason.as_str().into(),
        credits: decimal(bill.credits_micro),
        eur: decimal(bill.eur_micro),
        credits_micro: bill.credits_micro,
        eur_micro: bill.eur_micro,
        charged: bill.charged,
        transaction: Some(transaction.digest().to_string()),
        lines: bill.lines.as_ref().map(LinesBlock::of),
    }
}

fn unstored(info: &JobInfo) -> Ended {
    let code = FailureCode::AggregationStorage;
    let failure = Failure::new(code, "the hub could not store the job's end; it will try again after a restart");
    let document = JobDocument { error: Some(ErrorBlock::of(&failure)), ..waiting(info, Phase::Failed.as_str()) };
    let text = serde_json::to_string(&document).unwrap_or_default();
    Ended { phase: Phase::Failed, code: Some(code), document: Arc::new(document), text: text.into() }
}

fn link(info: &JobInfo, row: &Entry) -> ArtifactLink {
    ArtifactLink {
        name: row.name.clone(),
        media_type: row.media_type.clone(),
        digest: row.digest.to_string(),
        bytes: row.bytes,
        url: format!("{}/{}", Links::of(info.job).artifacts, row.name),
        kv: format!("{}/{}/{}", info.envelope.artifacts.kv_namespace, info.job, row.name),
    }
}

fn entry(
    info: &JobInfo,
    document: &JobDocument,
    bill: &Bill,
    transaction: &Transaction,
    finished_ms: u64,
) -> Result<String, StoreError> {
    let asked = info.envelope.ctx.billing;
    // 64-bit numbers travel as text: canonical JSON knows doubles only.
    let mut entry = json!({
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
        "transaction": transaction.digest().to_string(),
    });
    if let (Some(erratum), Some(members)) = (info.erratum, entry.as_object_mut()) {
        members.insert("erratum_of".into(), erratum.of.to_string().into());
    }
    canon::json(&entry).map_err(|_| StoreError::Corrupt { what: "ledger entry" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn millionths_print_as_people_write_them() {
        assert_eq!(serde_json::to_string(&decimal(1_420_000)).unwrap(), "1.42");
        assert_eq!(serde_json::to_string(&decimal(170_001)).unwrap(), "0.170001");
    }
}
