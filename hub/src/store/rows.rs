//! Rows as they cross the store's border.

use forge_contract::{AgentId, Digest, FailureCode, JobId, LeaseId};
use serde::{Deserialize, Serialize};

use super::books::{NewCharge, Settlement, Terms};
use super::data::Kept;
use super::settlement::{ErratumEnd, NewStake};

/// Where a stored job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// Accepted, no end yet.
    Running,
    /// It has a result.
    Completed,
    /// It ended with a failure code.
    Failed,
    /// The client cancelled it.
    Cancelled,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 4] = [Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The phase of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// A run of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows to leave out.
    pub offset: u64,
    /// Most rows to give.
    pub limit: u32,
}

/// A job at acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id.
    pub job: JobId,
    /// Its project.
    pub project: String,
    /// The client's own label.
    pub client_job_id: Option<String>,
    /// Trace id.
    pub trace_id: String,
    /// `name@version profile`.
    pub op: String,
    /// The request as canonical JSON.
    pub envelope: String,
    /// Digest of that.
    pub envelope_digest: Digest,
    /// The plan as JSON.
    pub plan: String,
    /// When, ms since 1970.
    pub accepted_ms: u64,
    /// The client's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Digest of the whole request: the same key with another one is refused.
    pub request_digest: Digest,
    /// The job it repeats.
    pub replay_of: Option<JobId>,
    /// What it runs and reads, by content.
    pub content: Vec<Digest>,
    /// What was agreed; `None` for an erratum run, which nobody is charged for.
    pub charge: Option<NewCharge>,
}

/// A request that was refused after its caller was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRequest {
    /// The id it is recorded under.
    pub job: JobId,
    /// The caller's project.
    pub project: String,
    /// Trace id.
    pub trace_id: String,
    /// Digest of the body as it came.
    pub body: Digest,
    /// Why.
    pub code: FailureCode,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// The job document shown later.
    pub document: String,
}

/// An accepted shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedRow {
    /// The job.
    pub job: JobId,
    /// Stage index.
    pub stage: u32,
    /// Shard index.
    pub shard: u32,
    /// Everything but the fragment.
    pub body: Vec<u8>,
    /// The folded fragment, canonical bytes.
    pub fragment: Vec<u8>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// The job.
    pub job: JobId,
    /// Stage index.
    pub stage: u32,
    /// Shard index.
    pub shard: u32,
    /// Its lease.
    pub lease: LeaseId,
    /// Who.
    pub agent: AgentId,
    /// Why it failed; `None` where it did not.
    pub code: Option<FailureCode>,
    /// The execution as shown: one JSON object.
    pub body: String,
}

/// A job's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedJob {
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub phase: Phase,
    /// Why it failed.
    pub code: Option<FailureCode>,
    /// When, ms since 1970.
    pub finished_ms: u64,
    /// The answer.
    pub document: String,
    /// Its artifacts in order.
    pub artifacts: Vec<ArtifactRow>,
    /// The bytes of those artifacts that have no file of their own.
    pub objects: Vec<Vec<u8>>,
    /// The ledger's line, canonical JSON.
    pub entry: String,
    /// What it costs and what is posted for it.
    pub settlement: Option<Settlement>,
    /// What of its result rests on whom; nothing without a result.
    pub stakes: Vec<NewStake>,
    /// What came of the doubts it ran for. An erratum run that ends without one leaves them to another run.
    pub erratum: Option<ErratumEnd>,
    /// What it leaves under names of the project.
    pub kept: Kept,
}

/// An artifact of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRow {
    /// Name, unique in the job.
    pub name: String,
    /// Media type.
    pub media_type: String,
    /// Content address.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
}

/// A job as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its id.
    pub job: JobId,
    /// The client's own label.
    pub client_job_id: Option<String>,
    /// Trace id.
    pub trace_id: String,
    /// `name@version profile`; empty for a request that named none.
    pub op: String,
    /// Digest of the request.
    pub envelope_digest: Digest,
    /// Where it stands.
    pub phase: Phase,
    /// Why it failed.
    pub code: Option<FailureCode>,
    /// When it was accepted, ms since 1970.
    pub accepted_ms: u64,
    /// When it ended, ms since 1970.
    pub finished_ms: Option<u64>,
    /// The answer, once there is one.
    pub document: Option<String>,
}

/// A job that a restarted hub continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredJob {
    /// Its id.
    pub job: JobId,
    /// Its project.
    pub project: String,
    /// The client's own label.
    pub client_job_id: Option<String>,
    /// Trace id.
    pub trace_id: String,
    /// `name@version profile`.
    pub op: String,
    /// The request as canonical JSON.
    pub envelope: String,
    /// The plan as JSON.
    pub plan: String,
    /// When it was accepted, ms since 1970.
    pub accepted_ms: u64,
    /// The job it repeats.
    pub replay_of: Option<JobId>,
    /// The job whose doubtful shards it runs again.
    pub erratum: Option<ErratumOf>,
    /// What was agreed; of an erratum run, for the job behind it.
    pub terms: Terms,
}

/// What an erratum run goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErratumOf {
    /// The job whose doubtful shards it runs again.
    pub of: JobId,
    /// The last lease of what it took over from there.
    pub after: LeaseId,
}

/// What a job was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// The request as canonical JSON.
    pub envelope: String,
    /// The plan as JSON.
    pub plan: String,
}

/// Content of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// Content address.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
    /// When the project first sent it, ms since 1970.
    pub created_ms: u64,
}

/// An enrolled agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Its id.
    pub agent: AgentId,
    /// The project that enrolled it.
    pub project: String,
    /// The organisation of that project: the provider's account.
    pub organisation: String,
    /// The project whose work alone it does.
    pub reserved: Option<String>,
    /// When it enrolled, ms since 1970.
    pub enrolled_ms: u64,
    /// When its state last changed, ms since 1970.
    pub last_seen_ms: u64,
    /// `enrolled`, `connected`, `draining`, `gone`.
    pub state: String,
    /// What it last said of itself, JSON.
    pub capability: Option<String>,
    /// Why it was refuted, if it was.
    pub quarantined: Option<FailureCode>,
    /// Whether the operator runs it and trusts it to settle what others disagree about.
    pub verifier: bool,
    /// Who it belongs to, where somebody was named.
    pub provider: Option<String>,
    /// Shards accepted from it since it enrolled or last went wrong.
    pub clean: u64,
    /// Shards accepted from it since it enrolled, counted like `clean`.
    pub accepted: u64,
    /// When the operator last lifted a quarantine of it, ms since 1970.
    pub readmitted_ms: Option<u64>,
    /// When the operator took it out for good, ms since 1970.
    pub removed_ms: Option<u64>,
}

/// Where a kernel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KernelState {
    /// Its known answers have not been run yet.
    Pending,
    /// It runs.
    Admitted,
    /// A verifier found otherwise than it says; its label is free.
    Refused,
    /// It runs, with a warning.
    Deprecated,
    /// It replays and runs nothing new.
    Yanked,
}

impl KernelState {
    /// Every state, in order.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Admitted, Self::Refused, Self::Deprecated, Self::Yanked];

    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Deprecated => "deprecated",
            Self::Yanked => "yanked",
        }
    }

    /// The state of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What became of a kernel, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub state: KernelState,
    /// Why it was refused, stable.
    pub code: Option<FailureCode>,
    /// Why, for people.
    pub reason: Option<String>,
    /// When that was decided, ms since 1970.
    pub decided_ms: Option<u64>,
    /// The known answers found true: a JSON array.
    pub checks: String,
}

impl Standing {
    /// Of a kernel that comes with the hub.
    #[must_use]
    pub fn built_in() -> Self {
        Self { state: KernelState::Admitted, ..Self::pending() }
    }

    /// Of a kernel that was just uploaded.
    #[must_use]
    pub fn pending() -> Self {
        Self { state: KernelState::Pending, code: None, reason: None, decided_ms: None, checks: "[]".into() }
    }
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRow {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// Digest of the component.
    pub digest: Digest,
    /// Size of the component, bytes.
    pub bytes: u64,
    /// The manifest as JSON.
    pub manifest: String,
    /// The project it belongs to; `None` for a kernel that comes with the hub.
    pub project: Option<String>,
    /// When it was recorded, ms since 1970.
    pub recorded_ms: u64,
    /// What became of it.
    pub standing: Standing,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// The job it settles.
    pub job: JobId,
    /// What it says, canonical JSON.
    pub entry: String,
    /// Digest of the line before; zeros for the first.
    pub previous: Digest,
    /// Digest of this line.
    pub digest: Digest,
}

impl LedgerLine {
    /// The digest of a line: over the one before it and what it says.
    #[must_use]
    pub fn digest_of(previous: &Digest, entry: &str) -> Digest {
        let mut w = forge_contract::canon::Writer::with_capacity(entry.len() + 40);
        w.digest(previous);
        w.str(entry);
        Digest::tagged("forgepool v1 ledger line", &w.into_bytes())
    }
}
