//! Who stands behind accepted shards: where nobody does any more, they run anew.

use std::collections::{BTreeMap, BTreeSet};

use forge_contract::AgentId;

use super::{Effects, Job};
use crate::Millis;
use crate::action::{Accepted, Action, Forgotten, Record};

/// A shard's place: stage, shard.
type Place = (u32, u32);

/// The agents behind each accepted shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Backing {
    behind: BTreeMap<Place, Vec<AgentId>>,
    of: BTreeMap<AgentId, BTreeSet<Place>>,
}

impl Backing {
    /// Notes an accepted shard.
    pub fn add(&mut self, place: Place, agent: AgentId, agreed: &[AgentId]) {
        let agents: Vec<AgentId> = core::iter::once(agent).chain(agreed.iter().copied()).collect();
        for agent in &agents {
            self.of.entry(*agent).or_default().insert(place);
        }
        self.behind.insert(place, agents);
    }

    /// Shards of a stage from this one on count no more.
    pub fn supersede(&mut self, stage: u32, shard: u32) {
        let gone = |(of, number): &Place| *of == stage && *number >= shard;
        self.behind.retain(|place, _| !gone(place));
        self.of.values_mut().for_each(|places| places.retain(|place| !gone(place)));
    }

    /// Shards of this agent behind which everybody is out.
    fn without(&self, agent: AgentId, is_out: impl Fn(&AgentId) -> bool) -> BTreeSet<Place> {
        let places = self.of.get(&agent).into_iter().flatten().copied();
        let lost = |place: &Place| self.behind.get(place).is_none_or(|agents| agents.iter().all(&is_out));
        places.filter(lost).collect()
    }
}

/// Whether nobody who is still trusted stands behind an accepted shard.
pub(super) fn is_unbacked(accepted: &Accepted, is_out: impl Fn(&AgentId) -> bool) -> bool {
    core::iter::once(&accepted.agent).chain(&accepted.verdict.agreed).all(is_out)
}

impl Job {
    /// Whether accepted shards rest on this agent alone, or on it and others that are out.
    pub fn rests_on(&self, agent: AgentId, is_out: impl Fn(&AgentId) -> bool) -> bool {
        !self.backing.without(agent, |other| *other == agent || is_out(other)).is_empty()
    }

    /// Forgets what rested on an agent that was taken out. The rest comes back by `JobReopened`; until then nothing is
    /// given out. A later stage read what the earlier one gave, so it is forgotten whole.
    pub fn reopen(&mut self, now: Millis, agent: AgentId, is_out: impl Fn(&AgentId) -> bool, fx: &mut Effects<'_>) {
        let lost = self.backing.without(agent, is_out);
        let Some(stage) = lost.first().map(|(stage, _)| *stage).filter(|_| !self.over) else { return };
        let leases: Vec<_> = self.run.grants.keys().copied().collect();
        for lease in leases {
            self.revoke(now, lease, fx);
        }
        let shards: Vec<u32> = lost.into_iter().filter(|(of, _)| *of == stage).map(|(_, shard)| shard).collect();
        self.report.forgotten += shards.len() as u64;
        fx.record(Record::Forgotten(Forgotten { job: self.id, stage, shards }));
        self.rounds += 1;
        self.reloading = true;
        fx.actions.push(Action::Reload { job: self.id, round: self.rounds });
    }

    /// Whether it waits for its accepted shards, and for which request's.
    pub fn reload_round(&self) -> Option<u32> {
        self.reloading.then_some(self.rounds)
    }
}
