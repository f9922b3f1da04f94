//! Verdicts.

use forge_contract::envelope::VerifyMode;
use forge_contract::AgentId;
use serde::{Deserialize, Serialize};

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
    /// Agents outvoted.
    pub agents_refuted: Vec<AgentId>,
}
