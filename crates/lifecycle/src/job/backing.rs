//! Who stands behind accepted shards: where nobody does any more, they run anew.

use std::collections::{BTreeMap, BTreeSet};

use forge_contract::failure::Family;
use forge_contract::{AgentId, Failure};

use super::{Effects, Job};
use crate::Millis;
use crate::action::{Accepted, Action, Forgotten, Record};
use crate::dispatch::Agents;

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

    /// Agents that stand behind a shard alone.
    fn alone(&self) -> BTreeSet<AgentId> {
        let alone = |agents: &Vec<AgentId>| agents.first().copied().filter(|_| agents.len() == 1);
        self.behind.values().filter_map(alone).collect()
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

/// Whether two owners or a verifier stand behind an accepted shard.
pub(super) fn is_confirmed(accepted: &Accepted, agents: &Agents) -> bool {
    !accepted.verdict.agreed.is_empty() || agents.trust(accepted.agent).verifier
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
        let shards: Vec<u32> = lost.into_iter().filter(|(of, _)| *of == stage).map(|(_, shard)| shard).collect();
        self.report.forgotten += shards.len() as u64;
        self.reload(now, Some(Forgotten { job: self.id, stage, shards }), fx);
    }

    /// Asks for what was accepted, after some of it was forgotten. Nothing is given out until it comes.
    fn reload(&mut self, now: Millis, forgotten: Option<Forgotten>, fx: &mut Effects<'_>) {
        let leases: Vec<_> = self.run.grants.keys().copied().collect();
        for lease in leases {
            self.revoke(now, lease, fx);
        }
        if let Some(forgotten) = forgotten {
            fx.record(Record::Forgotten(forgotten));
        }
        self.rounds += 1;
        self.reloading = true;
        fx.actions.push(Action::Reload { job: self.id, round: self.rounds });
    }

    /// Accepted shards do not fold together. One sound lie is enough for that, so before the job ends with it, whatever
    /// one stranger alone stands behind runs anew and is settled by two owners or a verifier. If that does not fold
    /// either, or nobody else comes, the job ends with it.
    pub(super) fn distrust(&mut self, now: Millis, failure: Failure, agents: &Agents, fx: &mut Effects<'_>) {
        let unfolded = failure.code.family() == Family::Aggregation;
        let doubtful = self.backing.alone().iter().any(|one| !agents.trust(*one).verifier);
        if self.wary.is_some() || !unfolded || !doubtful {
            return self.fail(now, failure, fx);
        }
        self.wary = Some(failure);
        self.reload(now, None, fx);
    }

    /// Whether it waits for its accepted shards, and for which request's.
    pub fn reload_round(&self) -> Option<u32> {
        self.reloading.then_some(self.rounds)
    }
}
