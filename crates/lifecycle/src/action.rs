//! Everything the pool wants done.

use std::sync::Arc;

use forge_contract::duty::{Duty, Examination};
use forge_contract::report::{UnitRecord, Usage};
use forge_contract::task::Task;
use forge_contract::{AgentId, Digest, Failure, FailureCode, JobId, LeaseId};
use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::converge::Convergence;
use crate::member::SessionId;
use crate::trial::{TrialId, TrialVerdict};
use crate::verify::{Verdict, VerificationReport};

/// Something to do. Actions are performed in order; those of one event together.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give a shard to an agent.
    Dispatch {
        /// The lease.
        lease: LeaseId,
        /// The agent.
        agent: AgentId,
        /// Its session.
        session: SessionId,
        /// What to run.
        task: Arc<Task>,
        /// Milliseconds from now until the lease ends.
        deadline_ms: u64,
    },
    /// Take a lease back; its answer would be discarded.
    Revoke {
        /// The lease.
        lease: LeaseId,
        /// The session that holds it.
        session: SessionId,
    },
    /// Serve these bytes to agents by their digest: a later stage reads them. Durable before the next dispatch.
    Publish {
        /// The job they belong to.
        job: JobId,
        /// Content address.
        digest: Digest,
        /// Canonical bytes of a stage's folded fragment.
        bytes: Arc<[u8]>,
    },
    /// Serve these bytes no more: nobody looks at them any longer.
    Withdraw {
        /// The job they belong to.
        job: JobId,
        /// Content address.
        digest: Digest,
    },
    /// Make durable, in this order.
    Record(Record),
    /// Give the job's accepted shards back by [`crate::event::Event::JobReopened`], once every record before this is durable.
    Reload {
        /// The job.
        job: JobId,
        /// Which request this is; the event repeats it.
        round: u32,
    },
    /// How far a job is; at most one per job and [`crate::pool::Settings::progress_ms`], plus one per phase.
    Progress {
        /// The job.
        job: JobId,
        /// How far.
        snapshot: Snapshot,
    },
    /// The job is over. Exactly once per job; nothing of the job follows.
    Finish {
        /// The job.
        job: JobId,
        /// How it ended.
        outcome: Box<JobOutcome>,
    },
    /// A trial is over. Exactly once per trial.
    TrialEnded {
        /// The trial.
        trial: TrialId,
        /// How it ended.
        verdict: Box<TrialVerdict>,
    },
}

/// What must survive the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A shard's result was accepted: what a restart goes on from.
    Accepted(Accepted),
    /// Shards accepted earlier count as never accepted, and so does every shard of later stages.
    Forgotten(Forgotten),
    /// An attempt ended, well or not.
    Attempt(Attempt),
    /// A stage ended early: its shards from this one on count for nothing, and nobody is to blame for them.
    Superseded {
        /// The job.
        job: JobId,
        /// Index of the stage.
        stage: u32,
        /// Index of the first shard that does not count.
        shard: u32,
        /// What those accepted before took, summed.
        usage: Usage,
    },
    /// An agent was refuted: it gets no more work. Give it back in [`crate::pool::Settings::quarantined`] after a restart.
    Quarantined {
        /// The agent.
        agent: AgentId,
        /// The job that showed it.
        job: JobId,
        /// Why.
        code: FailureCode,
    },
}

/// An accepted shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// Index of the stage in the plan.
    pub stage: u32,
    /// Index of the shard in the stage.
    pub shard: u32,
    /// The lease whose answer it is.
    pub lease: LeaseId,
    /// The agent whose answer it is.
    pub agent: AgentId,
    /// The task's key (`Task::key_digest`).
    pub task: Digest,
    /// Engine profile it ran under.
    pub engine: Digest,
    /// Canonical bytes of the shard's folded fragment.
    #[serde(with = "bytes_text")]
    pub fragment: Vec<u8>,
    /// One record per unit.
    pub units: Vec<UnitRecord>,
    /// What it took.
    pub usage: Usage,
    /// `Completed::result_digest` of the answer.
    pub result: Digest,
    /// What the checks said.
    pub verdict: Verdict,
}

impl Accepted {
    /// Fuel of all units; saturates.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.units.iter().fold(0, |sum, unit| sum.saturating_add(unit.fuel))
    }
}

/// Accepted shards that nobody trustworthy stands behind any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The job.
    pub job: JobId,
    /// Index of the stage in the plan.
    pub stage: u32,
    /// Indices of the shards in the stage, rising.
    pub shards: Vec<u32>,
}

/// Why a shard was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its first run.
    First,
    /// An earlier attempt failed.
    Retry,
    /// An earlier attempt is slow.
    Hedge,
    /// To compare.
    Check,
    /// One unit again, to compare with what the answer commits to.
    Unit,
    /// The kernel's own check of an answer.
    Proof,
}

/// What a lease asked its agent for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// The whole shard.
    #[default]
    Shard,
    /// One unit of it, by its index in the stage.
    Unit(u64),
    /// The kernel's own check of what another agent found for it.
    Check(Examination),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It answered in time; what became of the answer stands in the shard's verdict.
    Reported,
    /// It failed, with a code.
    Failed,
    /// Taken back: not needed any more.
    Revoked,
    /// It answered after its lease had ended; the answer was discarded.
    Late,
}

impl Asked {
    /// What an agent is told, of the task of the whole shard.
    #[must_use]
    pub fn task(self, shard: &Task) -> Task {
        match self {
            Self::Shard => shard.clone(),
            Self::Unit(unit) => Task { first_unit: unit, unit_count: 1, ..shard.clone() },
            Self::Check(examination) => Task { duty: Duty::Check(examination), ..shard.clone() },
        }
    }
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// Index of the stage.
    pub stage: u32,
    /// Index of the shard.
    pub shard: u32,
    /// The lease.
    pub lease: LeaseId,
    /// The agent.
    pub agent: AgentId,
    /// Why it ran.
    pub reason: Reason,
    /// What it was asked for.
    pub asked: Asked,
    /// How it ended.
    pub ending: Ending,
    /// The failure's code, where it failed.
    pub code: Option<FailureCode>,
    /// The failure, for people.
    pub detail: Option<String>,
    /// The unit to blame, where one is.
    pub unit: Option<u64>,
    /// When it was given out.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Millis,
    /// What the agent measured.
    pub usage: Usage,
    /// Fuel of its units.
    pub fuel: u64,
    /// `Completed::result_digest`, where it answered.
    pub result: Option<Digest>,
    /// What the kernel printed.
    pub log: String,
    /// Why this agent: the terms of its score when it was chosen.
    pub placement: Placement,
}

/// The terms a placement was chosen by; lower is better, compared in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// Leases held per thousand cores of capacity, before this one.
    pub load_permille: u64,
    /// Failed or refuted attempts among the last ones, per thousand.
    pub failed_permille: u64,
    /// Microseconds that a shard of a hundred million fuel should take there, a round trip included; 0 is unknown.
    pub shard_us: u64,
    /// Microseconds per million fuel, measured; 0 is unknown.
    pub us_per_megafuel: u64,
    /// Microseconds of a round trip, measured; 0 is unknown.
    pub rtt_us: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// It gave a result.
    Completed(Completed),
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// What was done until then.
        summary: Summary,
    },
    /// The client cancelled it.
    Cancelled {
        /// What was done until then.
        summary: Summary,
    },
}

impl JobOutcome {
    /// What was done.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        match self {
            Self::Completed(completed) => &completed.summary,
            Self::Failed { summary, .. } | Self::Cancelled { summary } => summary,
        }
    }
}

/// A result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The object `hub.output`.
    pub output: serde_json::Value,
    /// Digest of the result: [`crate::reduce::result_digest`] of the stages' fragments.
    pub result_digest: Digest,
    /// Every stage's folded fragment, in order.
    pub stage_fragments: Vec<StageFragment>,
    /// Where and why the stage with a stop rule ended.
    #[serde(default)]
    pub convergence: Option<Box<Convergence>>,
    /// What was done.
    pub summary: Summary,
}

/// A stage's folded fragment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageFragment {
    /// Stage name.
    pub stage: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Canonical bytes.
    #[serde(with = "bytes_text")]
    pub bytes: Vec<u8>,
}

/// What was done for a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Verified work.
    pub work: Work,
    /// Distinct agents whose answers were accepted.
    pub agents_used: u64,
    /// Shards accepted.
    pub shards: u64,
    /// Shards of the whole plan.
    pub shards_total: u64,
    /// What the checks found.
    pub verification: VerificationReport,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Verified work: each shard once, however often it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Items: iterations, cells, elements.
    pub items: u64,
    /// Units.
    pub units: u64,
    /// Fuel.
    pub fuel: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing given out yet.
    #[default]
    Queued,
    /// Shards are running.
    Running,
    /// Every shard has an answer; copies are outstanding.
    Verifying,
    /// Everything is accepted.
    Reducing,
    /// Over, with a result.
    Completed,
    /// Over, with a failure.
    Failed,
    /// Over, cancelled.
    Cancelled,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Phase.
    pub phase: Phase,
    /// Index of the current stage.
    pub stage: u32,
    /// Shards of all stages.
    pub shards_total: u64,
    /// Shards accepted.
    pub shards_done: u64,
    /// Units of all stages.
    pub units_total: u64,
    /// Units accepted, and those that running shards say they finished.
    pub units_done: u64,
    /// Items of the accepted units.
    pub items_done: u64,
    /// Agents that run a shard of it now.
    pub agents_active: u64,
    /// What the answer looks like so far, for display alone: it depends on the order of arrival.
    pub estimate: Option<Estimate>,
}

/// The mean so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Part name.
    pub name: String,
    /// Values so far.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Half the width of its 95% confidence interval.
    pub ci95_half_width: f64,
    /// What the stop rule waits for, where it looks at this part.
    pub target: Option<Target>,
}

/// How far the interval is from what a stop rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The interval's confidence.
    pub confidence: f64,
    /// Half its width as a share of the mean: the target.
    pub half_width: f64,
    /// The same as it is so far; `None` where the mean is zero.
    pub relative: Option<f64>,
    /// Units done at the next look.
    pub checkpoint: u64,
}

/// Bytes as lower-case hexadecimal text where the format is for people, as bytes elsewhere.
mod bytes_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(bytes);
        }
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::<u8>::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect();
        bytes.filter(|_| rest.is_empty()).ok_or_else(|| D::Error::custom("expected pairs of hexadecimal digits"))
    }
}
