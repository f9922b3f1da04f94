//! Going on from what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forge_contract::fragment::Fragment;
use forge_contract::{Failure, JobId};

use super::backing::{is_confirmed, is_unbacked};
use super::stage::Shard;
use super::waves::Settled;
use super::{Effects, Job};
use crate::Millis;
use crate::action::{Accepted, Forgotten, Record};
use crate::dispatch::Agents;
use crate::plan::Plan;
use crate::settings::Settings;

impl Job {
    /// A job of an earlier process. What was accepted stays accepted and is not recorded again; the rest runs anew.
    ///
    /// What rests on nobody but agents that are out is forgotten: the process before may have ended in the middle of it.
    pub fn restored(
        now: Millis,
        id: JobId,
        of: (Arc<Plan>, Arc<str>),
        settings: Arc<Settings>,
        (accepted_at, accepted): (Millis, Vec<Accepted>),
        agents: &Agents,
        fx: &mut Effects<'_>,
    ) -> Result<Self, Failure> {
        let job = Self::new(now, id, of, settings, accepted_at)?;
        job.refilled(now, accepted, agents, fx)
    }

    /// Fills a job that is new with what was accepted of it.
    fn refilled(
        self,
        now: Millis,
        accepted: Vec<Accepted>,
        agents: &Agents,
        fx: &mut Effects<'_>,
    ) -> Result<Self, Failure> {
        let mut job = self;
        let id = job.id;
        let mut by_stage: BTreeMap<u32, Vec<Accepted>> = BTreeMap::new();
        let mut lost: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for shard in accepted.into_iter().filter(|shard| shard.job == id) {
            let unbacked = is_unbacked(&shard, |agent| agents.is_quarantined(*agent));
            if unbacked || (job.wary.is_some() && !is_confirmed(&shard, agents)) {
                lost.entry(shard.stage).or_default().insert(shard.shard);
                job.former.insert((shard.stage, shard.shard), (shard.agent, shard.result));
            } else {
                by_stage.entry(shard.stage).or_default().push(shard);
            }
        }
        if let Some((stage, shards)) = lost.pop_first() {
            by_stage.retain(|of, _| *of <= stage);
            job.report.forgotten += shards.len() as u64;
            fx.record(Record::Forgotten(Forgotten { job: id, stage, shards: shards.into_iter().collect() }));
        }
        for (stage, shards) in by_stage {
            if job.over || job.reloading || job.run.index != stage {
                break;
            }
            let folded = shards.iter().try_for_each(|shard| job.put_back(shard)).and_then(|()| job.look_at_rule());
            if let Err(failure) = folded {
                job.distrust(now, failure, agents, fx);
                break;
            }
            if job.run.is_done() {
                job.end_stage(now, agents, fx);
            }
        }
        Ok(job)
    }

    /// Takes over answers that are not settled.
    fn go_on_with(&mut self, now: Millis, open: BTreeMap<u32, Shard>, agents: &Agents, fx: &mut Effects<'_>) {
        let due = now.saturating_add(self.settings.spotcheck_wait_ms);
        for (shard, mut open) in open {
            open.answers.retain(|answer| !agents.is_quarantined(answer.agent));
            open.answers.iter_mut().for_each(|answer| answer.odd |= self.wary.is_some());
            if open.answers.is_empty() || self.run.is_settled(shard) {
                continue;
            }
            self.run.resume(shard, open);
            self.run.file(shard, due);
            self.decide(now, shard, agents, fx);
            if self.over {
                return;
            }
        }
    }

    /// Puts one accepted shard back. One that cannot be read again, or stands twice, is left out and runs anew.
    fn put_back(&mut self, accepted: &Accepted) -> Result<(), Failure> {
        let Some(stage) = self.stage() else { return Ok(()) };
        if accepted.shard >= stage.shards || self.run.is_settled(accepted.shard) {
            return Ok(());
        }
        let (first, count) = stage.shard_run(accepted.shard).unwrap_or((0, 0));
        let Ok(fragment) = Fragment::decode(&accepted.fragment) else { return Ok(()) };
        if fragment.check(&stage.parts, stage.items_of(first, count)).is_err() {
            return Ok(());
        }
        self.engine = Some(accepted.engine);
        self.run.settle(accepted.shard);
        self.take_in(Settled::of(accepted, fragment))
    }

    /// The same job from its accepted shards, after some were forgotten. Answers that waited for their check go on
    /// waiting: whoever else lied must not be let off because one was found.
    pub fn reopened(
        &mut self,
        now: Millis,
        accepted: Vec<Accepted>,
        agents: &Agents,
        fx: &mut Effects<'_>,
    ) -> Result<Self, Failure> {
        let (of, settings) = ((Arc::clone(&self.plan), Arc::clone(&self.project)), Arc::clone(&self.settings));
        let mut job = Self::new(now, self.id, of, settings, self.accepted_at)?;
        job.wary = self.wary.take();
        job.former = core::mem::take(&mut self.former);
        job.rounds = self.rounds;
        let mut job = job.refilled(now, accepted, agents, fx)?;
        job.agents_peak = self.agents_peak;
        job.report.malformed = self.report.malformed;
        for agent in &self.report.agents_refuted {
            if !job.report.agents_refuted.contains(agent) {
                job.report.agents_refuted.push(*agent);
            }
        }
        job.report.forgotten += self.report.forgotten;
        job.hedges = self.hedges;
        if job.run.index == self.run.index && !job.over && !job.reloading {
            let open = core::mem::take(&mut self.run.open);
            job.go_on_with(now, open, agents, fx);
        }
        Ok(job)
    }
}
