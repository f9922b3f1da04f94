//! Stakes, errata and what happened to agents, as they cross the store's border.

use forge_contract::{AgentId, Digest, FailureCode, JobId};
use forge_lifecycle::bundle::erratum::ErratumVerdict;
use forge_lifecycle::settle::Share;
use serde::{Deserialize, Serialize};

use super::rows::{AgentRow, NewJob};

/// Where a stake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StakeState {
    /// Its agent can still be refuted.
    Held,
    /// It counts for good.
    Payable,
    /// Its agent was refuted before it settled.
    Forfeited,
}

impl StakeState {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Payable => "payable",
            Self::Forfeited => "forfeited",
        }
    }

    /// The state of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Held, Self::Payable, Self::Forfeited].into_iter().find(|state| state.as_str() == text)
    }
}

/// What of a job that ends rests on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewStake {
    /// Who.
    pub agent: AgentId,
    /// What rests on it.
    pub share: Share,
    /// What it earns by it, micro-credits; 0 for a job in `test`.
    pub credits_micro: u64,
}

/// What of a finished job rests on one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StakeRow {
    /// The job.
    pub job: JobId,
    /// Who.
    pub agent: AgentId,
    /// What rests on it.
    pub share: Share,
    /// What it earns by it, micro-credits.
    pub credits_micro: u64,
    /// Shards accepted from the agent since it enrolled, when the job ended.
    pub accepted: u64,
    /// When the job ended, ms since 1970.
    pub taken_ms: u64,
    /// Where it stands.
    pub state: StakeState,
    /// When it settled or was lost, ms since 1970.
    pub ended_ms: Option<u64>,
}

/// Where a doubt about a finished job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErratumState {
    /// Its shards are to run again.
    Pending,
    /// They run.
    Running,
    /// The result stands.
    Upheld,
    /// The result was another.
    Corrected,
    /// Nothing rested on the agent alone.
    Void,
}

impl ErratumState {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Upheld => "upheld",
            Self::Corrected => "corrected",
            Self::Void => "void",
        }
    }

    /// The state of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Running, Self::Upheld, Self::Corrected, Self::Void];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

impl From<ErratumVerdict> for ErratumState {
    fn from(verdict: ErratumVerdict) -> Self {
        match verdict {
            ErratumVerdict::Upheld => Self::Upheld,
            ErratumVerdict::Corrected => Self::Corrected,
        }
    }
}

/// A doubt about a finished job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErratumRow {
    /// The job.
    pub job: JobId,
    /// The agent it rested on.
    pub agent: AgentId,
    /// Why: a failure code, or `removed`.
    pub reason: String,
    /// Where it stands.
    pub state: ErratumState,
    /// When it was noted, ms since 1970.
    pub noted_ms: u64,
    /// Runs that failed so far.
    pub failed: u32,
    /// The job in which the doubtful shards run again.
    pub run: Option<JobId>,
    /// How many those are.
    pub shards: Option<u64>,
    /// Digest of the job's result.
    pub before: Option<Digest>,
    /// Digest of the run's result.
    pub after: Option<Digest>,
    /// The signed record, by content.
    pub record: Option<Digest>,
    /// When it ended, ms since 1970.
    pub ended_ms: Option<u64>,
}

/// An erratum run to begin: a job that goes on from what another one accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewErratum {
    /// The run; its contract and plan are those of the job.
    pub run: NewJob,
    /// The job.
    pub of: JobId,
    /// Index of the first stage that is not taken over whole; nothing of later ones is.
    pub stage: u32,
    /// The shards of that stage that run again, rising.
    pub shards: Vec<u32>,
    /// The last lease of what is taken over: who answered under an earlier one was paid before.
    pub after: u64,
}

/// An erratum run's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErratumEnd {
    /// What came of it.
    pub verdict: ErratumVerdict,
    /// Digest of the job's result.
    pub before: Option<Digest>,
    /// Digest of the run's result.
    pub after: Option<Digest>,
    /// The signed record, by content; stored with the run's end.
    pub record: Digest,
}

/// What an agent earned, micro-credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Earnings {
    /// Not settled yet.
    pub held_micro: u64,
    /// Settled.
    pub payable_micro: u64,
    /// Lost by being refuted before it settled.
    pub forfeited_micro: u64,
}

/// What happens to agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentEventKind {
    /// It presented a token.
    Enrolled,
    /// An answer of it broke a structural rule or the protocol.
    Strike,
    /// An answer of it was outvoted.
    Refuted,
    /// It gets no more work.
    Quarantined,
    /// The operator lifted its quarantine.
    Readmitted,
    /// The operator took it out for good.
    Removed,
    /// It lost what it held.
    Forfeited,
    /// Some of what it held settled.
    Payable,
}

impl AgentEventKind {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Strike => "strike",
            Self::Refuted => "refuted",
            Self::Quarantined => "quarantined",
            Self::Readmitted => "readmitted",
            Self::Removed => "removed",
            Self::Forfeited => "forfeited",
            Self::Payable => "payable",
        }
    }

    /// The kind of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Enrolled,
            Self::Strike,
            Self::Refuted,
            Self::Quarantined,
            Self::Readmitted,
            Self::Removed,
            Self::Forfeited,
            Self::Payable,
        ];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What happened to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEvent {
    /// Who.
    pub agent: AgentId,
    /// What.
    pub kind: AgentEventKind,
    /// In which job.
    pub job: Option<JobId>,
    /// At which shard of it: stage, shard.
    pub place: Option<(u32, u32)>,
    /// A failure code, or a sentence.
    pub detail: Option<String>,
}

/// An [`AgentEvent`] as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEventRow {
    /// Its number; rises.
    pub seq: u64,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// What.
    pub event: AgentEvent,
}

/// An agent, what it earned and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent.
    pub agent: AgentRow,
    /// What it earned.
    pub earnings: Earnings,
    /// Strikes since it enrolled or was last readmitted.
    pub strikes: u64,
    /// The latest events, newest first.
    pub events: Vec<AgentEventRow>,
}

/// A job with doubts whose shards are to run again now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubtfulJob {
    /// The job.
    pub job: JobId,
    /// Everybody whose answers in it were ever doubted.
    pub agents: Vec<AgentId>,
}

/// The code of an agent that the operator removed, beside failure codes.
pub const REMOVED: &str = "removed";

/// Whether an agent quarantined for this reason loses what it holds, and what it did is run again.
#[must_use]
pub fn is_refutation(code: FailureCode) -> bool {
    code.family() == forge_contract::Family::Verification
}
