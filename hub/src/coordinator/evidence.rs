//! A job's evidence: every artifact, and the signed index that makes one bundle of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use forge_contract::{Digest, canon};
use forge_lifecycle::action::{Accepted, Completed, JobOutcome};
use forge_lifecycle::admit;
use forge_lifecycle::artifact::{Artifact, Entry};
use forge_lifecycle::books::Transaction;
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::bundle::leaf::{self, OutcomeRecord, ReplayRecord, ShardRecord};
use forge_lifecycle::bundle::{Index, MEDIA_TYPE};
use forge_lifecycle::ledger::Bill;
use forge_lifecycle::plan::PlannedSource;
use forge_lifecycle::reduce::files;

use super::array::{Array, Content, Made};
use super::board::JobInfo;
use super::perform::Tally;
use super::{Surroundings, acceptance};
use crate::document::MetricsBlock;
use crate::store::blobs::{Blobs, Hold};
use crate::store::{ArtifactRow, Page, StoreError, Write};

/// Objects up to this size lie in the database, larger ones in a file of their own. The store's query of what names a file
/// counts on it.
const OBJECT_INLINE_BYTES_MAX: usize = 128 << 10;
const PAGE: u32 = 4096;
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The artifact that is the index of the bundle: what is served before the leaves.
pub const INDEX: &str = "evidence_json";

/// Signs evidence with the hub's key.
pub trait Notary: Send + Sync + 'static {
    /// The hub's public key.
    fn key(&self) -> Key;
    /// The Ed25519 signature of these bytes.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
}

/// What a job's evidence is made of, beside what the coordinator knows of it.
pub(super) struct Findings<'a> {
    pub(super) outcome: &'a JobOutcome,
    pub(super) record: &'a OutcomeRecord,
    pub(super) metrics: &'a MetricsBlock,
    pub(super) bill: &'a Bill,
    /// What the ledger's line says.
    pub(super) entry: &'a str,
    /// What was posted.
    pub(super) transaction: &'a Transaction,
    pub(super) shards: &'a [ShardRecord],
    pub(super) replay: Option<&'a ReplayRecord>,
    /// The hub's word on the job whose doubtful shards this one ran again.
    pub(super) erratum: Option<&'a Artifact>,
}

/// Artifacts by name, the index last, and the entries of those whose bytes are stored already.
pub(super) struct Gathered {
    pub(super) made: Vec<Made>,
    pub(super) stored: Vec<Entry>,
}

/// Every artifact of a job that ended.
pub(super) async fn gather(
    around: &Surroundings,
    info: &JobInfo,
    tally: Tally,
    found: Findings<'_>,
) -> Result<Gathered, StoreError> {
    let mut made = vec![
        Artifact::new(leaf::CONTRACT, JSON, info.envelope.canonical().as_bytes().to_vec()).into(),
        Artifact::new(leaf::KERNEL, JSON, manifest(around, info).await?).into(),
        json_of(leaf::PLAN, &*info.plan)?,
        array_of(around, leaf::SHARDS, found.shards).await?,
        json_of(leaf::VERIFICATION, &found.outcome.summary().verification)?,
        json_of(leaf::OUTCOME, found.record)?,
        json_of(leaf::METRICS, found.metrics)?,
        json_of(leaf::BILLING, found.bill)?,
        Artifact::new(leaf::LEDGER, JSON, format!("[{}]", found.entry).into_bytes()).into(),
        Artifact::new(leaf::TRANSACTION, JSON, found.transaction.canonical().into_bytes()).into(),
        executions(around, info, tally).await?,
    ];
    if let JobOutcome::Completed(completed) = found.outcome {
        made.push(json_of(leaf::OUTPUT, &completed.output)?);
        for stage in &completed.stage_fragments {
            let name = format!("{}{}", leaf::FRAGMENT_PREFIX, stage.stage);
            made.push(Artifact::new(name, BYTES, stage.bytes.clone()).into());
        }
        if let Some(convergence) = &completed.convergence {
            made.push(json_of(leaf::CONVERGENCE, convergence)?);
        }
        // Their tiles were found to fit when the job completed.
        let files = files(&info.plan, &completed.stage_fragments).map_err(|_| StoreError::Corrupt { what: "tiles" })?;
        made.extend(files.into_iter().map(Made::from));
    }
    if let Some(replay) = found.replay {
        made.push(json_of(leaf::REPLAY, replay)?);
    }
    made.extend(found.erratum.cloned().map(Made::from));
    made.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    let stored = stored(info);
    let leaves = made.iter().map(|artifact| &artifact.entry).chain(&stored).cloned().collect();
    let index = Index::seal(info.job, leaves, around.notary.key(), |root| around.notary.sign(root))
        .map_err(|_| StoreError::Corrupt { what: "evidence index" })?;
    made.push(Artifact::new(INDEX, MEDIA_TYPE, index.canonical().into_bytes()).into());
    Ok(Gathered { made, stored })
}

/// What the hub keeps by content anyway: the component and the inputs.
fn stored(info: &JobInfo) -> Vec<Entry> {
    let (digest, bytes) = (info.plan.component, info.plan.component_bytes);
    let mut entries =
        vec![Entry { name: leaf::COMPONENT.into(), media_type: "application/wasm".into(), bytes, digest }];
    let sources = info.plan.stages.iter().flat_map(|stage| &stage.inputs).map(|input| &input.source);
    let inputs: BTreeMap<Digest, u64> = sources
        .filter_map(|source| match source {
            PlannedSource::Content { digest, bytes, .. } => bytes.map(|bytes| (*digest, bytes)),
            PlannedSource::Stage { .. } => None,
        })
        .collect();
    let input = |(digest, bytes)| {
        let name = format!("{}{digest}", leaf::INPUT_PREFIX);
        Entry { name, media_type: BYTES.into(), bytes, digest }
    };
    entries.extend(inputs.into_iter().map(input));
    entries
}

/// The kernel's manifest as canonical JSON.
async fn manifest(around: &Surroundings, info: &JobInfo) -> Result<Vec<u8>, StoreError> {
    let unreadable = StoreError::Corrupt { what: "kernel manifest" };
    let written = |manifest| canon::json(manifest).map(String::into_bytes);
    if let Some(kernel) = around.registry.kernel(&info.plan.component) {
        return written(&kernel.manifest).map_err(|_| unreadable);
    }
    // No longer on offer, and admitted once: parsing it again is safe.
    let component = crate::store::read_object(&*around.store, &around.blobs, info.plan.component).await?;
    let Some(admitted) = component.and_then(|component| admit::inspect(&component).ok()) else {
        return Err(unreadable);
    };
    written(&admitted.manifest).map_err(|_| unreadable)
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|_| StoreError::Corrupt { what: "artifact" })
}

fn json_of<T: serde::Serialize>(name: &str, value: &T) -> Result<Made, StoreError> {
    Ok(Artifact::new(name, JSON, json(value)?).into())
}

async fn array_of<T: serde::Serialize>(around: &Surroundings, name: &str, items: &[T]) -> Result<Made, StoreError> {
    let mut array = Array::new(&around.blobs);
    for item in items {
        array.push(&json(item)?).await?;
    }
    array.finish(name).await
}

/// An accepted shard as evidence has it.
pub(super) fn shard_record(accepted: &Accepted, fragment: Digest, first_unit: u64) -> ShardRecord {
    ShardRecord {
        stage: accepted.stage,
        shard: accepted.shard,
        first_unit,
        lease: accepted.lease,
        agent: accepted.agent,
        task: accepted.task,
        engine: accepted.engine,
        fragment,
        result: accepted.result,
        verdict: accepted.verdict.clone(),
        units: accepted.units.clone(),
    }
}

/// Every accepted shard in (stage, shard) order, from memory or, where there are many, from the store.
pub(super) async fn shards(
    around: &Surroundings,
    info: &JobInfo,
    tally: &mut Tally,
    outcome: &JobOutcome,
) -> Result<Vec<ShardRecord>, StoreError> {
    let mut all = accepted_shards(around, info, tally).await?;
    if let JobOutcome::Completed(Completed { convergence: Some(end), .. }) = outcome {
        // What was accepted beyond the unit at which its stage ended counts for nothing.
        let stage = info.plan.stages.iter().position(|stage| stage.name == end.stage);
        all.retain(|shard| usize::try_from(shard.stage).ok() != stage || shard.first_unit < end.stopped_at.unit);
    }
    Ok(all)
}

async fn accepted_shards(
    around: &Surroundings,
    info: &JobInfo,
    tally: &mut Tally,
) -> Result<Vec<ShardRecord>, StoreError> {
    let first_unit = |stage: u32, shard: u32| {
        let plan = usize::try_from(stage).ok().and_then(|at| info.plan.stages.get(at));
        plan.and_then(|plan| plan.shard_run(shard)).map_or(0, |(first, _)| first)
    };
    if let Some(shards) = tally.shards.take() {
        let placed = |mut shard: ShardRecord| {
            shard.first_unit = first_unit(shard.stage, shard.shard);
            shard
        };
        return Ok(shards.into_values().map(placed).collect());
    }
    // Acceptances were queued before this barrier, so reading sees them all.
    around.store.submit(Write::Barrier).await?;
    let mut all = Vec::new();
    loop {
        let bodies = around.store.accepted_bodies(info.job, Page { offset: all.len() as u64, limit: PAGE }).await?;
        let read = bodies.len();
        for body in bodies {
            let (fragment, accepted) =
                acceptance::decode(&body).ok_or(StoreError::Corrupt { what: "accepted shard" })?;
            all.push(shard_record(&accepted, fragment, first_unit(accepted.stage, accepted.shard)));
        }
        if read < PAGE as usize {
            return Ok(all);
        }
    }
}

/// All executions, in (stage, shard, lease) order.
async fn executions(around: &Surroundings, info: &JobInfo, tally: Tally) -> Result<Made, StoreError> {
    let mut array = Array::new(&around.blobs);
    if let Some(mut lines) = tally.lines {
        lines.sort_by_key(|(place, _)| *place);
        for (_, line) in &lines {
            array.push(line.as_bytes()).await?;
        }
        return array.finish(leaf::EXECUTIONS).await;
    }
    // Attempts were queued before this barrier, so reading sees them all.
    around.store.submit(Write::Barrier).await?;
    let mut offset = 0;
    loop {
        let rows = around.store.attempts(info.job, Page { offset, limit: PAGE }).await?;
        for row in &rows {
            array.push(row.body.as_bytes()).await?;
        }
        offset += rows.len() as u64;
        if rows.len() < PAGE as usize {
            return array.finish(leaf::EXECUTIONS).await;
        }
    }
}

/// What is left to write of a job's artifacts, and what must not be freed until it is written.
pub(super) struct Filed {
    pub(super) rows: Vec<ArtifactRow>,
    /// The bytes of those that have no file.
    pub(super) objects: Vec<Vec<u8>>,
    /// The files of the others.
    pub(super) held: Vec<Hold>,
}

/// Large objects go to their files now; small ones go into the transaction.
pub(super) async fn keep(blobs: &Arc<Blobs>, all: Gathered) -> Result<Filed, StoreError> {
    let (mut filed, mut large) = (Filed { rows: Vec::new(), objects: Vec::new(), held: Vec::new() }, Vec::new());
    let row = |Entry { name, media_type, bytes, digest }| ArtifactRow { name, media_type, digest, bytes };
    filed.rows.extend(all.stored.into_iter().map(row));
    for Made { entry, content } in all.made {
        match content {
            Content::File(hold) => filed.held.push(hold),
            Content::Bytes(bytes) if bytes.len() <= OBJECT_INLINE_BYTES_MAX => filed.objects.push(bytes),
            Content::Bytes(bytes) => {
                // Before the file is looked for: one that is there already could be about to go.
                filed.held.push(blobs.hold(entry.digest));
                large.push(bytes);
            }
        }
        filed.rows.push(row(entry));
    }
    if !large.is_empty() {
        let blobs = Arc::clone(blobs);
        let put = move || large.iter().try_for_each(|content| blobs.put(content).map(drop));
        tokio::task::spawn_blocking(put).await.map_err(|_| StoreError::Closed)??;
    }
    Ok(filed)
}
