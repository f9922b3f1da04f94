//! What a replay found: the job it repeats and itself, side by side.

use forge_contract::{Digest, JobId};
use forge_lifecycle::action::JobOutcome;
use forge_lifecycle::bundle::leaf::{self, ReplayRecord, ReplayVerdict, ShardRecord, units_of};
use forge_lifecycle::replay::first_difference;

use super::Surroundings;
use super::board::JobInfo;
use crate::document::JobDocument;
use crate::store::StoreError;

/// Compares a replay that ended with the job it repeats: unit by unit where that job kept its evidence, and by the
/// digest of the result.
pub(super) async fn compare(
    around: &Surroundings,
    info: &JobInfo,
    of: JobId,
    outcome: &JobOutcome,
    shards: &[ShardRecord],
) -> Result<ReplayRecord, StoreError> {
    let JobOutcome::Completed(completed) = outcome else {
        return Ok(ReplayRecord { of, verdict: None, first_difference: None });
    };
    let first_difference = match recorded_shards(around, of).await? {
        Some(recorded) => {
            let stages = info.plan.stages.len();
            first_difference(&units_of(stages, &recorded), &units_of(stages, shards))
        }
        None => None,
    };
    let same = first_difference.is_none() && recorded_result(around, info, of).await? == Some(completed.result_digest);
    let verdict = Some(if same { ReplayVerdict::Equal } else { ReplayVerdict::Different });
    Ok(ReplayRecord { of, verdict, first_difference })
}

async fn recorded_shards(around: &Surroundings, of: JobId) -> Result<Option<Vec<ShardRecord>>, StoreError> {
    let rows = around.store.artifacts(of).await?;
    let Some(row) = rows.into_iter().find(|row| row.name == leaf::SHARDS) else { return Ok(None) };
    let bytes = crate::store::read_object(&*around.store, &around.blobs, row.digest).await?;
    let unreadable = StoreError::Corrupt { what: "evidence of the job repeated" };
    let Some(bytes) = bytes else { return Err(unreadable) };
    serde_json::from_slice(&bytes).map(Some).map_err(|_| unreadable)
}

/// The digest of an earlier job's result, where it has one.
pub(super) async fn recorded_result(
    around: &Surroundings,
    info: &JobInfo,
    of: JobId,
) -> Result<Option<Digest>, StoreError> {
    let row = around.store.job(&info.project, of).await?;
    let document = row.and_then(|row| row.document);
    let document: Option<JobDocument> = document.and_then(|text| serde_json::from_str(&text).ok());
    Ok(document.and_then(|document| document.hub?.replay.result_digest?.parse().ok()))
}
