//! The leaves of a bundle by name, and what stands in those that programs read.

use forge_contract::envelope::Envelope;
use forge_contract::manifest::Manifest;
use forge_contract::report::UnitRecord;
use forge_contract::{AgentId, Digest, FailureCode, JobId, LeaseId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Bundle;
use super::key::{Key, Signature};
use crate::action::{StageFragment, Work};
use crate::books::Transaction;
use crate::converge::Convergence;
use crate::ledger::Bill;
use crate::plan::Plan;
use crate::replay::Difference;
use crate::settle::Backed;
use crate::verify::{Verdict, VerificationReport};

/// The contract, canonical JSON.
pub const CONTRACT: &str = "contract_json";
/// The kernel's component. A slim bundle leaves its content out.
pub const COMPONENT: &str = "component_wasm";
/// The kernel's manifest, canonical JSON.
pub const KERNEL: &str = "kernel_json";
/// The plan.
pub const PLAN: &str = "plan_json";
/// Every attempt, as the API lists them.
pub const EXECUTIONS: &str = "executions_json";
/// Every accepted shard with its units: [`ShardRecord`]s in (stage, shard) order.
pub const SHARDS: &str = "shards_json";
/// The verification report.
pub const VERIFICATION: &str = "verification_json";
/// The object `hub.output`.
pub const OUTPUT: &str = "result_json";
/// Before a stage's name: its folded fragment, canonical bytes.
pub const FRAGMENT_PREFIX: &str = "fragment_";
/// Before a digest: stored content that the job read. A slim bundle leaves its content out.
pub const INPUT_PREFIX: &str = "input_";
/// Where and why the stage with a stop rule ended; only a job with one has it.
pub const CONVERGENCE: &str = "convergence_json";
/// What the job took.
pub const METRICS: &str = "metrics_json";
/// The ledger's lines, an array of what they say.
pub const LEDGER: &str = "ledger_json";
/// What was posted in the books at its end: a [`Transaction`]. Bundles of before there were books have none.
pub const TRANSACTION: &str = "transaction_json";
/// What it cost.
pub const BILLING: &str = "billing_json";
/// How the job ended: an [`OutcomeRecord`].
pub const OUTCOME: &str = "outcome_json";
/// Which job this one repeats and what came of it: a [`ReplayRecord`]. Only a replay has it.
pub const REPLAY: &str = "replay_json";
/// What running a job's doubtful shards again found: an [`super::erratum::Erratum`]. Only an erratum run has it.
pub const ERRATUM: &str = "erratum_json";

/// An accepted shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Index of the stage in the plan.
    pub stage: u32,
    /// Index of the shard in the stage.
    pub shard: u32,
    /// First unit.
    pub first_unit: u64,
    /// The lease whose answer it is.
    pub lease: LeaseId,
    /// The agent whose answer it is.
    pub agent: AgentId,
    /// The task's key (`Task::key_digest`).
    pub task: Digest,
    /// Engine profile it ran under.
    pub engine: Digest,
    /// Digest of the shard's folded fragment.
    pub fragment: Digest,
    /// `Completed::result_digest` of the answer.
    pub result: Digest,
    /// What the checks said.
    pub verdict: Verdict,
    /// One record per unit, in unit order.
    pub units: Vec<UnitRecord>,
}

impl ShardRecord {
    /// The shard, as settlement sees it.
    #[must_use]
    pub fn backed(&self) -> Backed<'_> {
        let fuel = self.units.iter().fold(0, |sum: u64, unit| sum.saturating_add(unit.fuel));
        Backed::of(self.agent, &self.verdict, fuel)
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// `COMPLETED`, `FAILED` or `CANCELLED`.
    pub status: String,
    /// The failure's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    /// The failure, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The unit to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<u64>,
    /// Digest of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Digest>,
    /// Identity of the result: component, profile, args, seed.
    pub replay_key: Digest,
    /// Digest of the plan.
    pub plan: Digest,
    /// Verified work.
    pub work: Work,
    /// Engine profiles of the accepted shards, rising.
    pub engines: Vec<Digest>,
    /// The hub's software and version.
    pub software: String,
    /// When the job was accepted, ms since 1970.
    pub accepted_at_ms: u64,
    /// When it ended, ms since 1970.
    pub finished_at_ms: u64,
    /// What the client was told beside the result.
    pub warnings: Vec<String>,
}

/// Which job a replay repeats, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// The job repeated.
    pub of: JobId,
    /// Whether both gave the same; absent where the replay has no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<ReplayVerdict>,
    /// The first unit in which they differ, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Difference>,
}

/// Whether two runs gave the same bits and burned the same fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayVerdict {
    /// They did.
    Equal,
    /// They did not.
    Different,
}

impl ReplayVerdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
        }
    }
}

/// What an auditor reads of an attempt; more stands in the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ExecutionRecord {
    /// Who.
    pub agent_id: AgentId,
    /// `<stage>/<shard>`.
    pub shard_id: String,
    /// The lease.
    pub lease: LeaseId,
    /// `REPORTED`, `FAILED`, `REVOKED` or `LATE`.
    pub status: String,
    /// `Completed::result_digest` of the answer.
    #[serde(default)]
    pub result_hash: Option<Digest>,
    /// Digest of the fragment it looked at, where it was the kernel's own check.
    #[serde(default)]
    pub found: Option<Digest>,
    /// What the kernel's own check drew from.
    #[serde(default)]
    pub challenge: Option<Digest>,
    /// Fuel of its units.
    pub fuel: u64,
    /// Engine profile it ran under.
    #[serde(default)]
    pub engine: Option<Digest>,
    /// The agent's public key.
    #[serde(default)]
    pub agent_key: Option<Key>,
    /// The agent's signature of its report's statement.
    #[serde(default)]
    pub signature: Option<Signature>,
}

/// A leaf that is missing or not what its name says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("leaf '{leaf}': {reason}")]
pub struct LeafError {
    /// The leaf.
    pub leaf: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A bundle's leaves, read.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The contract.
    pub envelope: Envelope,
    /// The kernel's manifest.
    pub manifest: Manifest,
    /// The plan.
    pub plan: Plan,
    /// Accepted shards.
    pub shards: Vec<ShardRecord>,
    /// Attempts.
    pub executions: Vec<ExecutionRecord>,
    /// What the checks found.
    pub verification: VerificationReport,
    /// How the job ended.
    pub outcome: OutcomeRecord,
    /// The object `hub.output`, of a job with a result.
    pub output: Option<Value>,
    /// Folded fragments of its stages, in order; none without a result.
    pub fragments: Vec<StageFragment>,
    /// Where and why the stage with a stop rule ended.
    pub convergence: Option<Convergence>,
    /// The ledger's lines.
    pub ledger: Vec<Value>,
    /// What it cost.
    pub bill: Option<Bill>,
    /// What was posted for it.
    pub transaction: Option<Transaction>,
    /// Which job it repeats.
    pub replay: Option<ReplayRecord>,
}

fn missing(leaf: &str) -> LeafError {
    LeafError { leaf: leaf.into(), reason: "is not in the bundle".into() }
}

fn read<T: DeserializeOwned>(bundle: &Bundle<'_>, leaf: &str) -> Result<T, LeafError> {
    optional(bundle, leaf)?.ok_or_else(|| missing(leaf))
}

fn optional<T: DeserializeOwned>(bundle: &Bundle<'_>, leaf: &str) -> Result<Option<T>, LeafError> {
    let Some(content) = bundle.content(leaf) else { return Ok(None) };
    let unreadable = |error: serde_json::Error| LeafError { leaf: leaf.into(), reason: error.to_string() };
    serde_json::from_slice(content).map(Some).map_err(unreadable)
}

impl Recorded {
    /// Reads the leaves of a bundle.
    ///
    /// # Errors
    /// The first that is missing or unreadable.
    pub fn read(bundle: &Bundle<'_>) -> Result<Self, LeafError> {
        let contract = bundle.content(CONTRACT).ok_or_else(|| missing(CONTRACT))?;
        let envelope =
            Envelope::parse(contract).map_err(|failure| LeafError { leaf: CONTRACT.into(), reason: failure.detail })?;
        let plan: Plan = read(bundle, PLAN)?;
        let outcome: OutcomeRecord = read(bundle, OUTCOME)?;
        let fragments = if outcome.result.is_some() { fragments(bundle, &plan)? } else { Vec::new() };
        Ok(Self {
            envelope,
            manifest: read(bundle, KERNEL)?,
            plan,
            shards: read(bundle, SHARDS)?,
            executions: read(bundle, EXECUTIONS)?,
            verification: read(bundle, VERIFICATION)?,
            outcome,
            output: optional(bundle, OUTPUT)?,
            fragments,
            convergence: optional(bundle, CONVERGENCE)?,
            ledger: read(bundle, LEDGER)?,
            bill: optional(bundle, BILLING)?,
            transaction: optional(bundle, TRANSACTION)?,
            replay: optional(bundle, REPLAY)?,
        })
    }

    /// Unit records by stage, in unit order.
    #[must_use]
    pub fn units(&self) -> Vec<Vec<UnitRecord>> {
        units_of(self.plan.stages.len(), &self.shards)
    }

    /// Fuel of all accepted units; saturates.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        let units = self.shards.iter().flat_map(|shard| &shard.units);
        units.fold(0, |sum, unit| sum.saturating_add(unit.fuel))
    }
}

/// Unit records by stage, of shards in order.
#[must_use]
pub fn units_of(stages: usize, shards: &[ShardRecord]) -> Vec<Vec<UnitRecord>> {
    let of_stage = |stage: usize| {
        let shards = shards.iter().filter(|shard| usize::try_from(shard.stage) == Ok(stage));
        shards.flat_map(|shard| shard.units.iter().copied()).collect()
    };
    (0..stages).map(of_stage).collect()
}

fn fragments(bundle: &Bundle<'_>, plan: &Plan) -> Result<Vec<StageFragment>, LeafError> {
    let of_stage = |stage: &crate::plan::StagePlan| {
        let name = format!("{FRAGMENT_PREFIX}{}", stage.name);
        let bytes = bundle.content(&name).ok_or_else(|| missing(&name))?.to_vec();
        Ok(StageFragment { stage: stage.name.clone(), digest: Digest::of(&bytes), bytes })
    };
    plan.stages.iter().map(of_stage).collect()
}
