//! The answer to a job: one document, the same while it runs, when it is answered, and whenever it is read again.
//!
//! Field names are those of the product pages; what goes beyond them is added, never renamed.

use forge_lifecycle::ledger::BillLines;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::convergence::{ConvergenceBlock, TargetBlock};

/// A job, as a client sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobDocument {
    /// Whether there is a result.
    pub ok: bool,
    /// The hub's id, a ULID.
    pub job_id: String,
    /// The client's own label, as sent in `ctx.job_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_job_id: Option<String>,
    /// What logs and records know it by.
    pub trace_id: String,
    /// `QUEUED`, `RUNNING`, `VERIFYING`, `REDUCING`, `COMPLETED`, `FAILED` or `CANCELLED`.
    pub status: String,
    /// What was asked for; absent where the request could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<OpBlock>,
    /// When it was accepted, ms since 1970.
    pub accepted_at_ms: u64,
    /// When it ended, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// What the hub made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubBlock>,
    /// How far it is, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressBlock>,
    /// Who computed what: how many attempts, and where they are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executions: Option<ExecutionsBlock>,
    /// Evidence, by content.
    pub artifacts: Vec<ArtifactLink>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<BillingBlock>,
    /// Arrays by name that it reads and keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmem: Option<VmemBlock>,
    /// What the client should know.
    pub warnings: Vec<String>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBlock>,
    /// Which job this one repeats, and whether it gave the same; only a replay has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<RepeatBlock>,
    /// Which finished job's doubtful shards this one runs again, and what came of it; only an erratum run has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erratum: Option<ErratumBlock>,
    /// Where to look.
    pub links: Links,
}

/// Arrays by name that a job reads and keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmemBlock {
    /// What its arguments named.
    pub read: Vec<VmemRead>,
    /// What became of its result.
    pub written: Vec<VmemLink>,
}

/// An array that an argument named: which version that was when the job was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmemRead {
    /// The argument.
    pub argument: String,
    /// The array's name.
    pub name: String,
    /// The version.
    pub version: u64,
    /// The digest of its file: what the result is a function of.
    pub digest: String,
}

/// An array of the result that is kept by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmemLink {
    /// The part of the result.
    pub part: String,
    /// The array's name.
    pub name: String,
    /// The version it became.
    pub version: u64,
    /// The digest of its file.
    pub digest: String,
    /// Type of its numbers: `f32`, `f64`, `i32`, `i64`.
    pub dtype: String,
    /// Numbers along each dimension.
    pub shape: Vec<u64>,
    /// Where it is read.
    pub url: String,
}

/// Which job a replay repeats, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepeatBlock {
    /// The job repeated.
    pub of: String,
    /// `equal` or `different`; absent while it runs, and where it ended without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The first unit in which the two differ, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<DifferenceBlock>,
}

/// Which finished job's doubtful shards an erratum run runs again, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErratumBlock {
    /// The job.
    pub of: String,
    /// `upheld` or `corrected`; absent while it runs, and where it has to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// A unit in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DifferenceBlock {
    /// Index of the stage.
    pub stage: u32,
    /// Index of the unit in the stage.
    pub unit: u64,
    /// What the job repeated says; absent where it has no such unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<UnitBlock>,
    /// What the replay found; absent where it has no such unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<UnitBlock>,
}

/// What a unit gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitBlock {
    /// Digest of its fragment.
    pub digest: String,
    /// Fuel it burned.
    pub fuel: u64,
}

impl RepeatBlock {
    /// The block of a replay's record.
    #[must_use]
    pub fn of(record: &forge_lifecycle::bundle::leaf::ReplayRecord) -> Self {
        let unit =
            |unit: forge_contract::report::UnitRecord| UnitBlock { digest: unit.digest.to_string(), fuel: unit.fuel };
        let difference = record.first_difference.as_ref().map(|difference| DifferenceBlock {
            stage: difference.stage,
            unit: difference.unit,
            recorded: difference.recorded.map(unit),
            found: difference.found.map(unit),
        });
        Self {
            of: record.of.to_string(),
            verdict: record.verdict.map(|verdict| verdict.as_str().to_owned()),
            first_difference: difference,
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpBlock {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// Profile.
    pub profile: String,
}

/// What the hub made of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HubBlock {
    /// What it took.
    pub metrics: MetricsBlock,
    /// The reduced result, by part; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<serde_json::Value>,
    /// Where and why it ended, of a job with a stop rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence: Option<ConvergenceBlock>,
    /// What a replay needs.
    pub replay: ReplayBlock,
    /// What the checks found.
    pub verification: VerificationBlock,
}

/// What a job took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetricsBlock {
    /// From acceptance to the end, milliseconds.
    pub wall_ms: u64,
    /// Distinct agents whose answers were accepted.
    pub agents_used: u64,
    /// Shards accepted.
    pub shards: u64,
    /// Shards of the plan.
    pub shards_total: u64,
    /// Units accepted.
    pub units: u64,
    /// Items of work done: iterations, cells, elements.
    pub iterations: u64,
    /// Fuel of accepted units.
    pub fuel: u64,
    /// Attempts that ended, copies and failures included.
    pub attempts: u64,
    /// Wall time of accepted shards in their workers, summed, milliseconds.
    pub shard_wall_ms: u64,
    /// Processor time of accepted shards in their workers, summed, milliseconds.
    pub shard_cpu_ms: u64,
}

/// What a replay needs, and what it must find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayBlock {
    /// The root of all randomness.
    pub root_seed: String,
    /// Identity of the result: component, profile, args, seed.
    pub replay_key: String,
    /// Digest of the component.
    pub component: String,
    /// Engine profile it ran under; absent before the first accepted shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Digest of the plan.
    pub plan_digest: String,
    /// Digest of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_digest: Option<String>,
}

/// What the checks found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerificationBlock {
    /// The policy's mode.
    pub mode: String,
    /// Shards accepted.
    pub shards: u64,
    /// Shards of which copies were compared.
    pub checked: u64,
    /// Of these, shards where all copies were equal.
    pub matched: u64,
    /// Of these, shards where an agent was outvoted.
    pub refuted: u64,
    /// Shards that failed on one agent and were accepted from another attempt.
    pub reassigned: u64,
    /// Shards whose check was drawn and not possible.
    pub unchecked: u64,
    /// Answers thrown away because they break a structural rule.
    pub malformed: u64,
    /// Shards accepted from an agent that was refuted later, and computed again.
    #[serde(default)]
    pub forgotten: u64,
    /// Shards some of whose units ran again elsewhere.
    #[serde(default)]
    pub sampled: u64,
    /// Shards that the kernel's own check, run elsewhere, found sound.
    #[serde(default)]
    pub proved: u64,
    /// Agents outvoted.
    pub agents_refuted: Vec<String>,
    /// What may still be wrong; absent where the mode promises nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<BoundBlock>,
    /// Shards whose mean lies oddly far from that of the others. Advice alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outliers: Vec<OutlierBlock>,
}

/// What may still be wrong with a result, by the argument of docs/verification.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BoundBlock {
    /// Expected share of wrong shards among those that rest on one owner alone, at most.
    pub shard_error: f64,
    /// Shards that rest on one owner alone.
    pub shards_alone: u64,
    /// Probability that any shard of the job is wrong, at most.
    pub job_error: f64,
}

/// A shard whose mean stands out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutlierBlock {
    /// `<stage>/<shard>`.
    pub shard_id: String,
    /// Whose answer it is.
    pub agent_id: String,
    /// Distance from the mean of the others, standard errors.
    pub z: f64,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressBlock {
    /// Index of the current stage.
    pub stage: u32,
    /// Shards of all stages.
    pub shards_total: u64,
    /// Shards accepted.
    pub shards_done: u64,
    /// Units of all stages.
    pub units_total: u64,
    /// Units finished.
    pub units_done: u64,
    /// Items of accepted units: iterations, cells, elements.
    pub items_done: u64,
    /// Agents at work on it now.
    pub agents_active: u64,
    /// The answer so far, for display alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<EstimateBlock>,
}

/// The mean so far, with its 95% confidence interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EstimateBlock {
    /// The part's name.
    pub name: String,
    /// Values so far.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Half the interval's width.
    pub ci95_half_width: f64,
    /// What the stop rule waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetBlock>,
}

/// Where executions are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecutionsBlock {
    /// Attempts recorded.
    pub count: u64,
    /// The list.
    pub url: String,
}

/// An artifact's reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactLink {
    /// Name, unique in the job.
    pub name: String,
    /// Media type.
    pub media_type: String,
    /// BLAKE3 digest of its bytes.
    pub digest: String,
    /// Size, bytes.
    pub bytes: u64,
    /// Where its bytes are.
    pub url: String,
    /// The same in the client's key-value namespace: `<kv_namespace>/<job>/<name>`.
    pub kv: String,
}

/// What a job cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BillingBlock {
    /// `test` states, `billable` charges.
    pub mode: String,
    /// What it was for.
    pub reason: String,
    /// Credits for verified fuel.
    pub credits: f64,
    /// The same in euros.
    pub eur: f64,
    /// Credits as an integer of millionths.
    pub credits_micro: u64,
    /// Euros as an integer of millionths.
    pub eur_micro: u64,
    /// Whether it was charged.
    pub charged: bool,
    /// Digest of what was posted in the books: `GET /api/v0/ledger?job=...` has it in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// How it comes about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<LinesBlock>,
}

/// The lines of a bill. Amounts are micro-credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinesBlock {
    /// Set aside at acceptance, and the most that could be charged; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_micro: Option<u64>,
    /// Given back of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded_micro: Option<u64>,
    /// Verified fuel.
    pub fuel: u64,
    /// What it costs.
    pub work_micro: u64,
    /// Fuel of answers that only confirmed others.
    pub check_fuel: u64,
    /// What that costs, whoever bears it.
    pub verification_micro: u64,
    /// The client's part of that; the platform bears the rest.
    pub verification_charged_micro: u64,
    /// What the job cost beyond what was held; the platform bears it.
    pub overrun_micro: u64,
    /// Micro-credits for `price_fuel` fuel, as agreed at acceptance.
    pub price_micro: u64,
    /// The fuel that costs `price_micro`.
    pub price_fuel: u64,
    /// Micro-euros per credit, as agreed at acceptance.
    pub eur_micro_per_credit: u64,
}

impl LinesBlock {
    /// The lines of a bill.
    #[must_use]
    pub fn of(lines: &BillLines) -> Self {
        let charged = lines.work_micro + lines.verification_charged_micro - lines.overrun_micro;
        let rates = &lines.tariff.rates;
        Self {
            held_micro: lines.held_micro,
            refunded_micro: lines.held_micro.map(|held| held.saturating_sub(charged)),
            fuel: lines.fuel,
            work_micro: lines.work_micro,
            check_fuel: lines.check_fuel,
            verification_micro: lines.verification_micro,
            verification_charged_micro: lines.verification_charged_micro,
            overrun_micro: lines.overrun_micro,
            price_micro: rates.price_micro,
            price_fuel: rates.per_fuel,
            eur_micro_per_credit: rates.eur_micro_per_credit,
        }
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBlock {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The stable code.
    pub code: String,
    /// `request`, `scheduling`, `agent`, `verification` or `aggregation`.
    pub family: String,
    /// What happened.
    pub detail: String,
    /// JSON pointer into the contract, where one place is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The unit, where one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<u64>,
    /// What to do about it.
    pub fix: String,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Links {
    /// This document.
    #[serde(rename = "self")]
    pub this: String,
    /// Its progress, as server-sent events.
    pub events: String,
    /// Its executions.
    pub executions: String,
    /// How each shard was checked.
    #[serde(default)]
    pub verification: String,
    /// Its artifacts.
    pub artifacts: String,
    /// All of its evidence in one signed file.
    #[serde(default)]
    pub evidence: String,
    /// Whether its result is settled, and errata of it.
    #[serde(default)]
    pub standing: String,
}

impl Links {
    /// The links of a job.
    #[must_use]
    pub fn of(job: forge_contract::JobId) -> Self {
        let this = format!("/api/v0/jobs/{job}");
        Self {
            events: format!("{this}/events"),
            executions: format!("{this}/executions"),
            verification: format!("{this}/verification"),
            artifacts: format!("{this}/artifacts"),
            evidence: format!("{this}/evidence"),
            standing: format!("{this}/standing"),
            this,
        }
    }
}

impl ErrorBlock {
    /// The error of a failure.
    #[must_use]
    pub fn of(failure: &forge_contract::Failure) -> Self {
        use crate::code::{fix_of, kind_of, title_of};
        let family = failure.code.as_str().split('.').next().unwrap_or_default();
        Self {
            kind: kind_of(failure.code),
            title: title_of(failure.code),
            code: failure.code.as_str().into(),
            family: family.into(),
            detail: failure.detail.clone(),
            pointer: failure.pointer.clone(),
            unit: failure.unit,
            fix: fix_of(failure.code).into(),
        }
    }
}

impl JobDocument {
    /// The document of a request that was refused and is kept as a failed job.
    #[must_use]
    pub fn rejected(job: forge_contract::JobId, trace_id: &str, at_ms: u64, failure: &forge_contract::Failure) -> Self {
        Self {
            ok: false,
            job_id: job.to_string(),
            client_job_id: None,
            trace_id: trace_id.into(),
            status: "FAILED".into(),
            op: None,
            accepted_at_ms: at_ms,
            finished_at_ms: Some(at_ms),
            hub: None,
            progress: None,
            executions: None,
            artifacts: Vec::new(),
            billing: None,
            vmem: None,
            warnings: Vec::new(),
            error: Some(ErrorBlock::of(failure)),
            replay: None,
            erratum: None,
            links: Links::of(job),
        }
    }
}
