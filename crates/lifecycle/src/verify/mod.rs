//! Verdicts: what must hold of every answer, which answers are looked at again, and what answers that differ mean.
//!
//! `none` runs the structural checks and samples a few shards at the platform's cost. `spotcheck` audits an answer with
//! a probability that falls with its agent's clean record and never reaches zero. `quorum` wants two owners for every
//! shard, one of them proven; `full` two owners and a verifier, all equal. Agents of one owner never check each other.
//! Answers that differ are settled by a verifier, an agent that the operator runs.
//!
//! An audit is a whole copy, or a kernel's own check; beside audits, single units run again ([`policy::Look`]). A look
//! never settles anything by itself: what it finds wrong is settled by a whole copy.

pub mod policy;
mod screen;
mod structure;

use forge_contract::envelope::VerifyMode;
use forge_contract::{AgentId, LeaseId};
use serde::{Deserialize, Serialize};

pub use policy::{Askable, AuditPolicy, Circumstances, Coins, Decision, From, Look, Vote, coins, decide, drawn_units};
pub use screen::{Outlier, Screen};
pub use structure::{AnswerFault, structure};

/// What the checks said of one accepted shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How sure.
    pub standing: Standing,
    /// Other agents that gave the same bits, fuel included.
    pub agreed: Vec<AgentId>,
    /// Agents that gave other bits and were outvoted.
    pub refuted: Vec<AgentId>,
    /// Attempts that failed before.
    pub failed: u32,
    /// Cheap looks at the answer, in the order in which they came in.
    #[serde(default)]
    pub looks: Vec<Looked>,
}

/// A cheap look at an answer and what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Who looked.
    pub agent: AgentId,
    /// Under which lease.
    pub lease: LeaseId,
    /// The unit that ran again; `None` for the kernel's own check of all of them.
    pub unit: Option<u64>,
    /// Whether it found the answer right.
    pub right: bool,
    /// The chance that the kernel's own check lets a wrong answer pass, as it says, in parts of 10^18; 0 for a unit that ran again.
    pub error_e18: u64,
    /// Fuel that it took, as the agent says; absent in evidence of before looks were paid.
    #[serde(default)]
    pub fuel: u64,
}

/// How sure an accepted shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Structural checks only: the mode, or the draw, asked for no copy.
    #[default]
    Structural,
    /// At least one copy on another agent gave the same bits.
    Matched,
    /// A check was wanted and no other agent was there to make it.
    Unchecked,
    /// Some of its units ran again elsewhere and gave the same bits.
    Sampled,
    /// The kernel's own check, run elsewhere, found it sound.
    Checked,
}

/// What the checks of a whole job found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// The policy's mode.
    pub mode: VerifyMode,
    /// Shards accepted.
    pub shards: u64,
    /// Shards whose copies were compared.
    pub checked: u64,
    /// Of these, shards where all copies were equal.
    pub matched: u64,
    /// Of these, shards where an agent was outvoted.
    pub refuted: u64,
    /// Shards that failed on an agent and were accepted from another attempt.
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
    /// Shards that the kernel's own check found sound.
    #[serde(default)]
    pub proved: u64,
    /// Agents outvoted.
    pub agents_refuted: Vec<AgentId>,
    /// What may still be wrong; `None` where the mode promises nothing.
    #[serde(default)]
    pub bound: Option<ErrorBound>,
    /// Shards whose mean lies oddly far from that of the others, most striking first. Advice alone: nobody is judged by it.
    #[serde(default)]
    pub outliers: Vec<Outlier>,
}

/// What may still be wrong with a result, by the audit policy's argument (docs/verification.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBound {
    /// Expected share of wrong shards among those that rest on one owner alone, at most, per million.
    pub shard_ppm: u32,
    /// Shards that rest on one owner alone.
    pub alone: u64,
    /// Probability that any shard of the job is wrong, at most, per million.
    pub job_ppm: u32,
}

impl ErrorBound {
    /// The bound of a job with so many shards that rest on one owner alone.
    #[must_use]
    pub fn of(policy: &AuditPolicy, alone: u64) -> Self {
        let job = alone.saturating_mul(u64::from(policy.error_ppm)).min(1_000_000);
        Self { shard_ppm: policy.error_ppm, alone, job_ppm: u32::try_from(job).unwrap_or(u32::MAX) }
    }
}

impl VerificationReport {
    /// Counts one accepted shard.
    pub fn add(&mut self, verdict: &Verdict) {
        self.shards += 1;
        let compared = !verdict.agreed.is_empty() || !verdict.refuted.is_empty();
        self.checked += u64::from(compared);
        self.matched += u64::from(compared && verdict.refuted.is_empty());
        self.refuted += u64::from(!verdict.refuted.is_empty());
        self.reassigned += u64::from(verdict.failed > 0);
        self.unchecked += u64::from(verdict.standing == Standing::Unchecked);
        self.sampled += u64::from(verdict.looks.iter().any(|look| look.unit.is_some()));
        self.proved += u64::from(verdict.looks.iter().any(|look| look.unit.is_none()));
        for agent in &verdict.refuted {
            if !self.agents_refuted.contains(agent) {
                self.agents_refuted.push(*agent);
            }
        }
    }
}

#[cfg(test)]
mod tests;
