//! A job's evidence: every artifact, the manifest that hashes them, and the hub's signature over it.

use std::sync::Arc;

use forge_contract::envelope::ArtifactKind;
use forge_contract::report::UnitRecord;
use forge_lifecycle::action::JobOutcome;
use forge_lifecycle::artifact::{Artifact, Evidence};
use forge_lifecycle::ledger::Bill;
use forge_lifecycle::reduce::files;
use serde_json::json;

use super::Surroundings;
use super::board::JobInfo;
use super::perform::Tally;
use crate::document::JobDocument;
use crate::store::blobs::Blobs;
use crate::store::{ArtifactRow, Page, StoreError, Write};

/// Objects up to this size lie in the database, larger ones in a file of their own.
const OBJECT_INLINE_BYTES_MAX: usize = 128 << 10;
const PAGE: u32 = 4096;
const JSON: &str = "application/json";

/// Signs evidence with the hub's key.
pub trait Notary: Send + Sync + 'static {
    /// The hub's public key as text.
    fn key(&self) -> String;
    /// The Ed25519 signature of these bytes.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
}

/// Every artifact by name, and last the manifest and its signature.
pub(super) async fn gather(
    around: &Surroundings,
    info: &JobInfo,
    mut tally: Tally,
    outcome: &JobOutcome,
    document: &JobDocument,
    bill: &Bill,
) -> Result<Vec<Artifact>, StoreError> {
    let wanted = &info.envelope.artifacts.include;
    let mut all = vec![
        Artifact::new("contract_json", JSON, info.envelope.canonical().as_bytes().to_vec()),
        json_of("plan_json", &*info.plan)?,
        json_of("verification_json", &outcome.summary().verification)?,
        json_of("billing_json", bill)?,
    ];
    if let JobOutcome::Completed(completed) = outcome {
        if wanted.contains(&ArtifactKind::ResultJson) {
            all.push(json_of("result_json", &completed.output)?);
        }
        for stage in &completed.stage_fragments {
            let name = format!("fragment_{}", stage.stage);
            all.push(Artifact::new(name, "application/octet-stream", stage.bytes.clone()));
        }
        if let Some(convergence) = &completed.convergence {
            all.push(json_of("convergence_json", convergence)?);
        }
        // Their tiles were found to fit when the job completed.
        all.extend(files(&info.plan, &completed.stage_fragments).map_err(|_| StoreError::Corrupt { what: "tiles" })?);
        if let Some(units) = tally.units.take() {
            all.push(json_of("units_json", &by_stage(info, &units))?);
        }
    }
    if wanted.contains(&ArtifactKind::MetricsJson)
        && let Some(hub) = &document.hub
    {
        all.push(json_of("metrics_json", &hub.metrics)?);
    }
    if wanted.contains(&ArtifactKind::ExecutionsJson) {
        all.push(Artifact::new("executions_json", JSON, executions(around, info, tally).await?));
    }
    all.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    let evidence = evidence_of(info, outcome, &all);
    let manifest = Artifact::new("manifest_json", JSON, evidence.canonical().into_bytes());
    let signature = json!({
        "algorithm": "Ed25519",
        "signed": "manifest_json",
        "digest": manifest.entry.digest.to_string(),
        "public_key": around.notary.key(),
        "signature": hex(&around.notary.sign(&manifest.content)),
    });
    all.push(manifest);
    all.push(json_of("manifest_signature_json", &signature)?);
    Ok(all)
}

fn json_of<T: serde::Serialize>(name: &str, value: &T) -> Result<Artifact, StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|_| StoreError::Corrupt { what: "artifact" })?;
    Ok(Artifact::new(name, JSON, bytes))
}

/// What each unit gave, by stage and in unit order: what a replay is compared with to name the first difference.
fn by_stage<'a>(info: &JobInfo, units: &'a super::perform::Units) -> Vec<Vec<&'a UnitRecord>> {
    let stages = (0u32..).zip(&info.plan.stages);
    let of_stage = |stage: u32| units.range((stage, 0)..=(stage, u32::MAX)).flat_map(|(_, records)| records).collect();
    stages.map(|(stage, _)| of_stage(stage)).collect()
}

fn evidence_of(info: &JobInfo, outcome: &JobOutcome, all: &[Artifact]) -> Evidence {
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
        artifacts: all.iter().map(|artifact| artifact.entry.clone()).collect(),
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
pub(super) async fn keep(
    blobs: &Arc<Blobs>,
    all: Vec<Artifact>,
) -> Result<(Vec<ArtifactRow>, Vec<Vec<u8>>), StoreError> {
    let (mut rows, mut small, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for Artifact { entry, content } in all {
        let forge_lifecycle::artifact::Entry { name, media_type, bytes, digest } = entry;
        rows.push(ArtifactRow { name, media_type, digest, bytes });
        if content.len() <= OBJECT_INLINE_BYTES_MAX { small.push(content) } else { large.push(content) }
    }
    if !large.is_empty() {
        let blobs = Arc::clone(blobs);
        let put = move || large.iter().try_for_each(|content| blobs.put(content).map(drop));
        tokio::task::spawn_blocking(put).await.map_err(|_| StoreError::Closed)??;
    }
    Ok((rows, small))
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
}
