//! The pool: every job and every agent, as one deterministic machine.

use std::collections::BTreeSet;

use forge_contract::{AgentId, Capability, JobId};
use serde::Serialize;

use crate::Millis;
use crate::action::{Action, Snapshot};
use crate::event::{Event, SessionId};

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
    /// Shards drawn for a second run under `spotcheck`, per million.
    pub spotcheck_ppm: u32,
    /// Shortest lease, milliseconds.
    pub lease_ms_min: u64,
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
    /// Whether slow last shards get a second copy on an idle agent.
    pub hedge: bool,
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
            spotcheck_ppm: 80_000,
            lease_ms_min: 60_000,
            lease_slack: 20,
            fuel_per_ms_assumed: 100_000,
            no_agents_ms: 30_000,
            spotcheck_wait_ms: 1_000,
            quorum_wait_ms: 10_000,
            progress_ms: 100,
            hedge: true,
        }
    }
}

/// An agent as the pool sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentView {
    /// The agent.
    pub agent: AgentId,
    /// Its session.
    pub session: SessionId,
    /// What it offers.
    pub capability: Capability,
    /// Leases it holds.
    pub leases: u64,
    /// Whether it takes no more work of its own will.
    pub draining: bool,
    /// Whether it was refuted and gets no more work.
    pub quarantined: bool,
    /// Answers of it in this process.
    pub reported: u64,
    /// Failed attempts of it in this process.
    pub failed: u64,
    /// Measured fuel per millisecond of one shard; 0 before the first.
    pub fuel_per_ms: u64,
}

/// Every job and every agent.
///
/// Call [`Pool::apply`] with each event in the order it happened, perform the actions in order, and send
/// [`Event::Tick`] at [`Pool::deadline`] at the latest. `now` never goes back.
pub struct Pool {
    settings: Settings,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes one event and says what to do.
    pub fn apply(&mut self, now: Millis, event: Event, actions: &mut Vec<Action>) {
        let _ = (now, event, actions, &self.settings);
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        None
    }

    /// How far a job is; `None` once it is over.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<Snapshot> {
        let _ = job;
        None
    }

    /// Agents, by session.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentView> {
        Vec::new()
    }
}
