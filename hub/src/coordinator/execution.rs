//! Attempts as they are recorded and shown: who computed which shard, and what came of it.

use forge_contract::report::Usage;
use forge_lifecycle::action::{Asked, Attempt, Ending, Placement, Reason};
use forge_lifecycle::plan::Plan;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::board::Signed;
use crate::store::AttemptRow;

/// One execution of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    /// Who ran it.
    pub agent_id: String,
    /// `<stage>/<shard>`.
    pub shard_id: String,
    /// Name of the stage.
    pub stage: String,
    /// Index of the shard in its stage.
    pub shard: u32,
    /// The stage's key, 64 hexadecimal digits: unit `u` draws from ChaCha8 with this key and stream id `u`.
    pub seed: String,
    /// First unit.
    pub first_unit: u64,
    /// Number of units.
    pub units: u64,
    /// What the kernel's own check drew from, where it was one; 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// Digest of the fragment it looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The lease it ran under.
    pub lease: u64,
    /// `REPORTED`, `FAILED`, `REVOKED`, `LATE`, or `SUPERSEDED`: an answer beyond the unit at which its stage ended.
    pub status: String,
    /// Why it ran: `first`, `retry`, `hedge`, `check` (a whole copy), `unit` (one unit again) or `proof` (the kernel's
    /// own check).
    pub reason: String,
    /// The failure's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Digest over fragment, units and fuel: equal for equal answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_hash: Option<String>,
    /// Fuel of its units.
    pub fuel: u64,
    /// Wall time in the worker, microseconds.
    pub wall_us: u64,
    /// Processor time in the worker, microseconds.
    pub cpu_us: u64,
    /// Time to fetch and compile before it, microseconds.
    pub prepare_us: u64,
    /// When it was given out, ms since 1970.
    pub started_at_ms: u64,
    /// When it ended, ms since 1970.
    pub ended_at_ms: u64,
    /// Load of the agent when it was chosen, leases per thousand cores.
    pub placed_load_permille: u64,
    /// Failed share of the agent's last attempts when it was chosen, per thousand.
    pub placed_failed_permille: u64,
    /// The agent's measured microseconds per million fuel when it was chosen; 0 is unknown.
    pub placed_us_per_megafuel: u64,
    /// The agent's measured round trip when it was chosen, microseconds; 0 is unknown.
    #[serde(default)]
    pub placed_rtt_us: u64,
    /// Engine profile it ran under, where it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The agent's Ed25519 public key, where it answered; base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<String>,
    /// The agent's signature of its report: lease, task, engine and outcome; base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What the kernel printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// The word of an answer that was not needed: its stage ended before it.
pub const SUPERSEDED: &str = "SUPERSEDED";

/// The word of an ending, from a closed set.
#[must_use]
pub const fn ending_word(ending: Ending) -> &'static str {
    match ending {
        Ending::Reported => "REPORTED",
        Ending::Failed => "FAILED",
        Ending::Revoked => "REVOKED",
        Ending::Late => "LATE",
    }
}

/// The word of why an attempt was made, from a closed set.
#[must_use]
pub const fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::First => "first",
        Reason::Retry => "retry",
        Reason::Hedge => "hedge",
        Reason::Check => "check",
        Reason::Unit => "unit",
        Reason::Proof => "proof",
    }
}

impl Execution {
    /// An attempt at a shard of this plan; `None` for the plan where the job is no longer in hand.
    #[must_use]
    pub fn of(attempt: &Attempt, plan: Option<&Plan>, signed: Option<&Signed>) -> Self {
        let stage = plan.and_then(|plan| plan.stages.get(usize::try_from(attempt.stage).ok()?));
        let span = stage.map_or(0, |stage| stage.shard_units);
        let first_unit = span.saturating_mul(u64::from(attempt.shard));
        let units = stage.map_or(0, |stage| span.min(stage.units.saturating_sub(first_unit)));
        let (first_unit, units) = match attempt.asked {
            Asked::Shard => (first_unit, units),
            Asked::Unit(unit) => (unit, 1),
            Asked::Check(_) => (first_unit, units),
        };
        let Usage { wall_us, cpu_us, prepare_us } = attempt.usage;
        let Placement { load_permille, failed_permille, us_per_megafuel, rtt_us, .. } = attempt.placement;
        let examined = match attempt.asked {
            Asked::Check(examination) => Some(examination),
            Asked::Shard | Asked::Unit(_) => None,
        };
        Self {
            challenge: examined.map(|examined| forge_contract::Digest::from_bytes(examined.challenge.0).to_string()),
            found: examined.map(|examined| examined.found.digest.to_string()),
            agent_id: attempt.agent.to_string(),
            shard_id: format!("{}/{}", attempt.stage, attempt.shard),
            stage: stage.map_or_else(String::new, |stage| stage.name.clone()),
            shard: attempt.shard,
            seed: stage.map_or_else(String::new, |stage| forge_contract::Digest::from_bytes(stage.key.0).to_string()),
            first_unit,
            units,
            lease: attempt.lease.0,
            status: ending_word(attempt.ending).into(),
            reason: reason_word(attempt.reason).into(),
            code: attempt.code.map(|code| code.as_str().into()),
            detail: attempt.detail.clone(),
            result_hash: attempt.result.map(|digest| digest.to_string()),
            fuel: attempt.fuel,
            wall_us,
            cpu_us,
            prepare_us,
            started_at_ms: attempt.started_at,
            ended_at_ms: attempt.ended_at,
            placed_load_permille: load_permille,
            placed_failed_permille: failed_permille,
            placed_us_per_megafuel: us_per_megafuel,
            placed_rtt_us: rtt_us,
            engine: signed.map(|signed| signed.engine.to_string()),
            agent_key: signed.map(|signed| signed.key.to_string()),
            signature: signed.map(|signed| signed.signature.to_string()),
            log: attempt.log.clone(),
        }
    }
}

/// The row an attempt is stored as.
#[must_use]
pub fn row_of(attempt: &Attempt, plan: Option<&Plan>, signed: Option<&Signed>) -> AttemptRow {
    let execution = Execution::of(attempt, plan, signed);
    AttemptRow {
        job: attempt.job,
        stage: attempt.stage,
        shard: attempt.shard,
        lease: attempt.lease,
        agent: attempt.agent,
        code: attempt.code,
        // A struct of texts and integers always has a JSON form.
        body: serde_json::to_string(&execution).unwrap_or_default(),
    }
}
