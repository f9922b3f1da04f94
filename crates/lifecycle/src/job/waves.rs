//! A stage that may end early, under way: its shards are given out up to the checkpoint and one further, and what
//! lies beyond the checkpoint waits until the rule was looked at. Neither an answer nor a failure there shows before
//! the stage gets there, so the end never depends on what arrived first.

use std::collections::BTreeMap;

use forge_contract::fragment::Fragment;
use forge_contract::fragment::tree::{Fold, FoldError};
use forge_contract::report::Usage;
use forge_contract::{AgentId, Failure};

use crate::action::Accepted;
use crate::converge::{Stopped, Watch};
use crate::plan::{PlannedStop, StagePlan};
use crate::verify::Verdict;

/// What counts of an accepted shard.
#[derive(Debug)]
pub(crate) struct Settled {
    pub shard: u32,
    pub agent: AgentId,
    pub units: u64,
    pub fuel: u64,
    pub usage: Usage,
    pub verdict: Verdict,
    pub fragment: Fragment,
}

impl Settled {
    pub fn of(accepted: &Accepted, fragment: Fragment) -> Self {
        Self {
            shard: accepted.shard,
            agent: accepted.agent,
            units: accepted.units.len() as u64,
            fuel: accepted.fuel(),
            usage: accepted.usage,
            verdict: accepted.verdict.clone(),
            fragment,
        }
    }
}

/// Where a stage with a stop rule is.
#[derive(Debug)]
pub(crate) struct Waves {
    watch: Watch,
    shard_units: u64,
    held: BTreeMap<u32, Settled>,
    units_held: u64,
    doomed: BTreeMap<u32, Failure>,
    stopped: Option<Stopped>,
}

impl Waves {
    pub fn new(stop: &PlannedStop, stage: &StagePlan) -> Self {
        Self {
            watch: Watch::new(stop, stage.units),
            shard_units: stage.shard_units.max(1),
            held: BTreeMap::new(),
            units_held: 0,
            doomed: BTreeMap::new(),
            stopped: None,
        }
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    fn shards(&self, units: u64) -> u32 {
        u32::try_from(units.div_ceil(self.shard_units)).unwrap_or(u32::MAX)
    }

    /// Shards up to the checkpoint: each ends at it or before.
    pub fn until(&self) -> u32 {
        self.shards(self.watch.next())
    }

    /// Shards up to the checkpoint after it: none further is given out.
    pub fn ahead(&self) -> u32 {
        if self.stopped.is_some() { self.until() } else { self.shards(self.watch.after_next()) }
    }

    /// Shards and units accepted beyond the checkpoint.
    pub fn waiting(&self) -> (u64, u64) {
        (self.held.len() as u64, self.units_held)
    }

    /// Keeps an accepted shard beyond the checkpoint.
    pub fn hold(&mut self, settled: Settled) {
        self.units_held += settled.units;
        self.held.insert(settled.shard, settled);
    }

    /// Notes that a shard beyond the checkpoint cannot be had.
    pub fn doom(&mut self, shard: u32, failure: Failure) {
        self.doomed.insert(shard, failure);
    }

    /// Looks at the rule where the fold stands at the checkpoint. Gives what may be folded next; `None` where there is
    /// nothing to look at yet, or the stage ends here.
    pub fn look(&mut self, folded: u64, fold: &Fold) -> Result<Option<Vec<Settled>>, FoldError> {
        if self.stopped.is_some() || folded != self.watch.next() {
            return Ok(None);
        }
        let Some(prefix) = fold.prefix(folded)? else { return Ok(None) };
        self.stopped = self.watch.look(&prefix);
        if self.stopped.is_some() {
            return Ok(None);
        }
        let beyond = self.held.split_off(&self.until());
        let released: Vec<Settled> = core::mem::replace(&mut self.held, beyond).into_values().collect();
        self.units_held -= released.iter().map(|settled| settled.units).sum::<u64>();
        Ok(Some(released))
    }

    /// The first failure before the checkpoint.
    pub fn due_failure(&self) -> Option<&Failure> {
        self.doomed.range(..self.until()).map(|(_, failure)| failure).next()
    }

    /// What was accepted in vain: it is forgotten. Its workers' time, summed.
    pub fn drop_held(&mut self) -> Usage {
        self.units_held = 0;
        let add = |sum: Usage, held: &Settled| Usage {
            wall_us: sum.wall_us.saturating_add(held.usage.wall_us),
            cpu_us: sum.cpu_us.saturating_add(held.usage.cpu_us),
            prepare_us: sum.prepare_us.saturating_add(held.usage.prepare_us),
        };
        core::mem::take(&mut self.held).values().fold(Usage::default(), add)
    }
}
