//! Going on from what was recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use forge_contract::fragment::Fragment;
use forge_contract::{Failure, JobId};

use super::waves::Settled;
use super::{Effects, Job};
use crate::Millis;
use crate::action::Accepted;
use crate::plan::Plan;
use crate::settings::Settings;

impl Job {
    /// A job of an earlier process. What was accepted stays accepted and is not recorded again; the rest runs anew.
    pub fn restored(
        now: Millis,
        id: JobId,
        plan: Arc<Plan>,
        settings: Arc<Settings>,
        (accepted_at, accepted): (Millis, Vec<Accepted>),
        fx: &mut Effects<'_>,
    ) -> Result<Self, Failure> {
        let mut job = Self::new(now, id, plan, settings, accepted_at)?;
        let mut by_stage: BTreeMap<u32, Vec<Accepted>> = BTreeMap::new();
        for shard in accepted.into_iter().filter(|shard| shard.job == id) {
            by_stage.entry(shard.stage).or_default().push(shard);
        }
        for (stage, shards) in by_stage {
            if job.over || job.run.index != stage {
                break;
            }
            for shard in shards {
                job.put_back(&shard)?;
            }
            job.look_at_rule()?;
            if job.run.is_done() {
                job.end_stage(now, fx);
            }
        }
        Ok(job)
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
}
