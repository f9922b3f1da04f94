//! How the pool behaves: every number that could be otherwise, with its unit.

use std::collections::BTreeSet;

use forge_contract::AgentId;

use crate::verify::AuditPolicy;

/// How the pool behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First lease number: above every one of the hub's life before.
    pub first_lease: u64,
    /// Keys the draws of spot checks. Kept by the hub, the same over restarts.
    pub hub_secret: [u8; 32],
    /// Agents refuted in earlier processes.
    pub quarantined: BTreeSet<AgentId>,
    /// Failed attempts of a shard until the job fails.
    pub attempts_max: u32,
    /// Attempts of a shard lost with their agent or declined until the job fails.
    pub losses_max: u32,
    /// Copies of a shard until a disagreement counts as unsettled.
    pub copies_max: u32,
    /// How often answers are audited.
    pub audits: AuditPolicy,
    /// Shortest lease, milliseconds.
    pub lease_ms_min: u64,
    /// What a lease of a trial has for fetching and compiling the kernel, milliseconds.
    pub trial_compile_ms: u64,
    /// A lease is this many times what the agent's measured rate suggests.
    pub lease_slack: u64,
    /// Fuel per millisecond assumed of an agent never measured.
    pub fuel_per_ms_assumed: u64,
    /// How long a job waits while no agent could run it, milliseconds.
    pub no_agents_ms: u64,
    /// How long a spot check waits for a second agent, milliseconds.
    pub spotcheck_wait_ms: u64,
    /// How long `quorum`, `full` and disagreements wait for a further agent, milliseconds.
    pub quorum_wait_ms: u64,
    /// Least time between two `Progress` of a job, milliseconds.
    pub progress_ms: u64,
    /// Whether slow last shards get a second copy on an idle agent: slow is what takes longer than 95 of 100.
    pub hedge: bool,
    /// A shard is not slow before this many milliseconds.
    pub hedge_ms_min: u64,
    /// Such copies of a job at most, per thousand of its shards.
    pub hedges_permille: u64,
    /// Such copies that every job may have, however small: what one silent agent may hold.
    pub hedges_min: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first_lease: 1,
            hub_secret: [0; 32],
            quarantined: BTreeSet::new(),
            attempts_max: 5,
            losses_max: 50,
            copies_max: 5,
            audits: AuditPolicy::default(),
            lease_ms_min: 60_000,
            trial_compile_ms: 300_000,
            lease_slack: 20,
            fuel_per_ms_assumed: 100_000,
            no_agents_ms: 30_000,
            spotcheck_wait_ms: 1_000,
            quorum_wait_ms: 10_000,
            progress_ms: 100,
            hedge: true,
            hedge_ms_min: 200,
            hedges_permille: 50,
            hedges_min: 4,
        }
    }
}
