//! What time brings to a job: its end, copies that found nobody, slow shards.

use forge_contract::envelope::VerifyMode;
use forge_contract::{AgentId, Failure, FailureCode, LeaseId};

use super::{Effects, Job};
use crate::Millis;
use crate::dispatch::Agents;
use crate::verify::From;

/// Hedges begun at one time.
const HEDGES_AT_ONCE: u64 = 8;

impl Job {
    /// When it wants to be called at the latest.
    pub fn wake(&self, agents: &Agents) -> Option<Millis> {
        if self.over {
            return None;
        }
        let timeout = (self.plan.timeout_ms > 0).then(|| self.accepted_at.saturating_add(self.plan.timeout_ms));
        let unserved = self.unserved_since.map(|since| since.saturating_add(self.settings.no_agents_ms));
        let copy = self.run.overdue().map(|(due, _)| due);
        let hedge = self.hedge_at(agents);
        let progress = self.dirty.then(|| self.progress_at.saturating_add(self.settings.progress_ms));
        [timeout, unserved, self.gate, copy, hedge, progress].into_iter().flatten().min()
    }

    fn hedge_at(&self, agents: &Agents) -> Option<Millis> {
        let spent = self.hedges >= self.hedges_max();
        if !self.settings.hedge || spent || self.run.is_hungry(self.window(agents)) {
            return None;
        }
        self.slow_at()
    }

    /// Copies of slow shards that the whole job may have.
    fn hedges_max(&self) -> u64 {
        let share = self.plan.shards_total().saturating_mul(self.settings.hedges_permille) / 1000;
        share.max(self.settings.hedges_min)
    }

    /// When the oldest lease without a hedge counts as slow.
    fn slow_at(&self) -> Option<Millis> {
        let (started_at, lease) = self.run.oldest()?;
        let after = self.run.slow_ms().unwrap_or_else(|| self.first_hedge_ms(lease));
        Some(started_at.saturating_add(after.max(self.settings.hedge_ms_min)))
    }

    /// Before anything was measured, a shard is slow when it takes longer than an agent assumed to be slow.
    fn first_hedge_ms(&self, lease: LeaseId) -> u64 {
        let shard = self.run.grants.get(&lease).map_or(0, |grant| grant.shard);
        let fuel = self
            .stage()
            .map_or(0, |stage| stage.shard_run(shard).unwrap_or((0, 0)).1.saturating_mul(stage.fuel_expected));
        self.settings.hedge_ms_min + fuel / self.settings.fuel_per_ms_assumed.max(1)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Millis, agents: &Agents, fx: &mut Effects<'_>) {
        if self.over {
            return;
        }
        if self.plan.timeout_ms > 0 && now >= self.accepted_at.saturating_add(self.plan.timeout_ms) {
            let detail = format!(
                "policy.timeout_ms, {}, passed; {} of {} shards were done",
                self.plan.timeout_ms,
                self.shards_done,
                self.plan.shards_total()
            );
            return self.fail(now, Failure::new(FailureCode::SchedulingTimeout, detail), fx);
        }
        if self.unserved_since.is_some_and(|since| now >= since.saturating_add(self.settings.no_agents_ms)) {
            if self.run.grants.is_empty() {
                return self.fail(now, self.no_agents(), fx);
            }
            // A draining agent still works for it: wait for what it answers.
            self.unserved_since = Some(now);
        }
        if self.gate.is_some_and(|gate| now >= gate) {
            let detail = format!(
                "policy.min_agents asks strictly for {} agents; {} were connected",
                self.plan.parallel.min_agents, self.agents_peak
            );
            return self.fail(now, Failure::new(FailureCode::SchedulingTooFewAgents, detail), fx);
        }
        while let Some((_, shard)) = self.run.overdue().filter(|(due, _)| *due <= now) {
            self.copy_is_overdue(now, shard, agents, fx);
            if self.over {
                return;
            }
        }
        // Asked once: the first hedge makes the job hungry, and the others are as slow.
        let left = self.hedges_max().saturating_sub(self.hedges).min(HEDGES_AT_ONCE);
        let hedges = if self.hedge_at(agents).is_some() { left } else { 0 };
        for _ in 0..hedges {
            let Some(at) = self.slow_at().filter(|at| *at <= now) else { break };
            let Some((started_at, lease)) = self.run.oldest().filter(|(started_at, _)| *started_at <= at) else {
                break;
            };
            let asked = self.run.hedge(started_at, lease, now + self.settings.quorum_wait_ms);
            self.hedges += u64::from(asked);
        }
        self.say(now, fx);
    }

    fn no_agents(&self) -> Failure {
        let (target, memory, waited) = (self.plan.target, self.need().memory_bytes, self.settings.no_agents_ms);
        let mut detail =
            format!("no connected agent can run the job (target {target}, {memory} bytes of memory) for {waited} ms");
        if let Some(requires) = &self.requires {
            detail.push_str(&format!("; policy and project ask for agents with {requires}"));
        }
        Failure::new(FailureCode::SchedulingNoAgents, detail)
    }

    /// A copy found no agent in its time: another is there and busy, or there is none.
    fn copy_is_overdue(&mut self, now: Millis, shard: u32, agents: &Agents, fx: &mut Effects<'_>) {
        let (need, proven, light) = (self.need(), self.settings.audits.proven, self.is_light());
        let Some(open) = self.run.open.get_mut(&shard) else { return };
        let again = now.saturating_add(self.settings.quorum_wait_ms.max(1));
        if open.wants_hedge_only() {
            if !agents.any_other(&need, |agent| open.has(agent)) {
                // Nobody to hedge with: go on waiting for the slow one.
                open.hedged = false;
            }
            return self.run.file(shard, again);
        }
        let asked = open.live.iter().any(|holder| holder.trust.is_of(open.from, proven));
        // A check of a sample waits for who is busy, not for who rests because it fails.
        let patient = open.disputed() || open.doubted() || !light;
        let there = |agent: &AgentId, owner| open.has_owner(owner) || (!patient && agents.rests(*agent));
        if asked || agents.any_trusted(&need, open.from, proven, there) {
            return self.run.file(shard, again);
        }
        if !open.wishes.is_empty() {
            return self.give_up_looking(now, shard, agents, fx);
        }
        let weaker = match open.from {
            From::Verifier if open.disputed() || open.doubted() => Some(From::Anyone),
            From::Proven => Some(From::Anyone),
            From::Anyone | From::Verifier => None,
        };
        let weaker = weaker.filter(|from| agents.any_trusted(&need, *from, proven, |_, owner| open.has_owner(owner)));
        if let Some(from) = weaker {
            open.from = from;
            return self.run.file(shard, again);
        }
        self.nobody_left(now, shard, agents, fx);
    }

    /// The copy that was wanted cannot be had.
    fn nobody_left(&mut self, now: Millis, shard: u32, agents: &Agents, fx: &mut Effects<'_>) {
        let mode = self.plan.verify;
        let Some(open) = self.run.open.get_mut(&shard) else { return };
        let owners = open.votes().len();
        if let Some(failure) = self.wary.as_ref().filter(|_| !open.disputed()).cloned() {
            return self.fail_shard(now, shard, failure, fx);
        }
        if open.disputed() || open.doubted() {
            let detail = format!("shard {shard}: what was found of it differs and nobody is there to settle it");
            return self.fail_shard(now, shard, Failure::new(FailureCode::VerificationUnsettled, detail), fx);
        }
        let lacking = match mode {
            VerifyMode::None | VerifyMode::Spotcheck => None,
            VerifyMode::Quorum => (owners < 2).then_some("two distinct owners"),
            VerifyMode::Full => Some("two distinct owners and a verifier"),
        };
        if let Some(wanted) = lacking {
            let detail = format!(
                "policy.verify \"{mode}\" wants every shard on {wanted}; shard {shard} found {owners}; connect further \
                 agents or choose a lighter mode"
            );
            return self.fail_shard(now, shard, Failure::new(FailureCode::VerificationTooFewAgents, detail), fx);
        }
        open.want = u32::try_from(owners).unwrap_or(u32::MAX).max(1);
        open.unchecked = true;
        self.run.file(shard, now);
        self.decide(now, shard, agents, fx);
    }
}
