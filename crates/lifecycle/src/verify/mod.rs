//! Verdicts: what must hold of every answer, which answers are looked at again, and what answers that differ mean.
//!
//! `none` runs the structural checks and samples a few shards at the platform's cost. `spotcheck` audits an answer with
//! a probability that falls with its agent's clean record and never reaches zero. `quorum` wants two owners for every
//! shard, one of them proven; `full` two owners and a verifier, all equal. Agents of one owner never check each other.
//! Answers that differ are settled by a verifier, an agent that the operator runs.

pub mod policy;
mod structure;

use forge_contract::AgentId;
use forge_contract::envelope::VerifyMode;
use serde::{Deserialize, Serialize};

pub use policy::{Askable, AuditPolicy, Decision, From, Vote, coin, decide};
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
    /// A copy was wanted and no other agent was there to make it.
    Unchecked,
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
    /// Agents outvoted.
    pub agents_refuted: Vec<AgentId>,
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
        for agent in &verdict.refuted {
            if !self.agents_refuted.contains(agent) {
                self.agents_refuted.push(*agent);
            }
        }
    }
}

#[cfg(test)]
mod tests;
