//! Members of the pool: agents by the session they are connected by.

use forge_contract::canon::Writer;
use forge_contract::{AgentId, Capability, Digest};
use serde::{Deserialize, Serialize};

/// One connection of one agent; numbers are unique while the hub runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// The account an agent was enrolled by. Agents of one owner never check each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(pub u64);

impl OwnerId {
    /// The owner of an agent that nobody was named for: itself.
    #[must_use]
    pub fn alone(agent: AgentId) -> Self {
        Self::of(&Digest::tagged("forgepool v1 lone owner", agent.0.as_bytes()))
    }

    /// The provider of this name in an organisation.
    #[must_use]
    pub fn named(organisation: &str, provider: &str) -> Self {
        let mut w = Writer::new();
        w.str(organisation);
        w.str(provider);
        Self::of(&Digest::tagged("forgepool v1 provider", &w.into_bytes()))
    }

    fn of(digest: &Digest) -> Self {
        Self(digest.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head)))
    }
}

/// A project, as agents' reservations name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectTag(Digest);

impl ProjectTag {
    /// The tag of a project.
    #[must_use]
    pub fn of(project: &str) -> Self {
        Self(Digest::tagged("forgepool v1 project", project.as_bytes()))
    }
}

/// What the hub knows of an agent from before it joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Its owner.
    pub owner: OwnerId,
    /// Whether the operator runs it: its answers settle what others disagree about.
    pub verifier: bool,
    /// Shards accepted from it since its enrolment or its last fault.
    pub clean: u64,
    /// The project whose work alone it does.
    pub reserved: Option<ProjectTag>,
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
    /// Whether the operator runs it and trusts it to settle what a kernel gives.
    pub verifier: bool,
    /// Leases it holds.
    pub leases: u64,
    /// Whether it takes no more work of its own will.
    pub draining: bool,
    /// Whether it was refuted and gets no more work.
    pub quarantined: bool,
    /// Shards accepted from it since its enrolment or its last fault.
    pub clean: u64,
    /// Answers of it in this process.
    pub reported: u64,
    /// Failed attempts of it in this process.
    pub failed: u64,
    /// Measured fuel per millisecond of one shard; 0 before the first.
    pub fuel_per_ms: u64,
    /// Measured microseconds of a round trip; 0 before the first.
    pub rtt_us: u64,
}
