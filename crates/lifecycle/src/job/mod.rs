//! One job: a state machine over its stages. It knows which agent did what, and nothing about agents beyond that.

mod answers;
mod backing;
mod clock;
mod end;
mod looks;
mod pace;
mod restore;
mod stage;
mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forge_contract::envelope::{Requires, VerifyMode};
use forge_contract::fragment::{Fragment, Moments, Part};
use forge_contract::task::{InputRef, Task};
use forge_contract::{AgentId, Digest, Failure, FailureCode, JobId, LeaseId};

use crate::Millis;
use crate::action::{
    Accepted, Action, Asked, Attempt, Ending, Estimate, Phase, Reason, Record, Snapshot, StageFragment,
};
use crate::action::{Placement, Target, Work};
use crate::converge::{Convergence, Measured};
use crate::dispatch::{Agents, Mark, Need};
use crate::member::{ProjectTag, SessionId};
use crate::plan::{Plan, PlannedSource, StagePlan};
use crate::reduce;
use crate::settings::Settings;
use crate::verify::{From, Looked, Screen, Standing, VerificationReport};
use backing::Backing;
pub(crate) use stage::Grant;
use stage::{Shard, StageRun, Wish};
use waves::Settled;

/// Shards open at once at least, whatever the pool's size: the others stay untouched in their run.
const WINDOW_MIN: usize = 256;
/// Shards open at once per lease the pool can hold.
const WINDOW_PER_LEASE: usize = 4;
/// Shards given out before a kernel has given its first sound answer.
const CANARY_SHARDS: usize = 4;
/// Longest lease, milliseconds: a day.
const LEASE_MS_MAX: u64 = 24 * 3600 * 1000;

/// What a step of a job asks of the pool.
pub(crate) struct Effects<'a> {
    pub actions: &'a mut Vec<Action>,
    /// Leases that ended, with what is needed to recognise a late answer.
    pub ended: Vec<(LeaseId, Grant, u32)>,
    /// What the step showed of agents.
    pub marks: Vec<(AgentId, Mark, FailureCode)>,
}

impl<'a> Effects<'a> {
    pub fn new(actions: &'a mut Vec<Action>) -> Self {
        Self { actions, ended: Vec::new(), marks: Vec::new() }
    }

    fn record(&mut self, record: Record) {
        self.actions.push(Action::Record(record));
    }
}

/// A job under way.
pub(crate) struct Job {
    id: JobId,
    project: Arc<str>,
    tag: ProjectTag,
    plan: Arc<Plan>,
    requires: Option<Arc<Requires>>,
    settings: Arc<Settings>,
    accepted_at: Millis,
    phase: Phase,
    run: StageRun,
    fragments: Vec<StageFragment>,
    engine: Option<Digest>,
    /// Agents that hold a lease of it, and how many.
    active: BTreeMap<AgentId, u32>,
    used: BTreeSet<AgentId>,
    backing: Backing,
    /// How often accepted shards were forgotten, over all its lives in this process.
    rounds: u32,
    /// Whether it waits for its accepted shards.
    reloading: bool,
    /// How what was accepted once did not fold: nobody's word alone is taken from then on.
    wary: Option<Failure>,
    /// Answers that were accepted once and forgotten, by stage and shard: who gave them, and their digest.
    former: BTreeMap<(u32, u32), (AgentId, Digest)>,
    shards_done: u64,
    work: Work,
    report: VerificationReport,
    /// The means of the current stage's shards.
    screen: Screen,
    /// Accepted shards that one owner alone stands behind.
    alone: u64,
    agents_peak: u64,
    /// Copies asked for because another one is slow.
    hedges: u64,
    /// Whether its kernel has not given a sound answer yet: a few shards go first.
    canary: bool,
    unserved_since: Option<Millis>,
    /// Until when a strict job waits for its agents.
    gate: Option<Millis>,
    progress_at: Millis,
    dirty: bool,
    estimate: Option<(String, Moments)>,
    convergence: Option<Convergence>,
    over: bool,
}

impl Job {
    pub fn new(
        now: Millis,
        id: JobId,
        (plan, project): (Arc<Plan>, Arc<str>),
        settings: Arc<Settings>,
        accepted_at: Millis,
    ) -> Result<Self, Failure> {
        let first = plan
            .stages
            .first()
            .ok_or_else(|| Failure::new(FailureCode::AggregationIncomplete, "the plan has no stage"))?;
        let run = StageRun::new(0, first, inputs(first, &[])?);
        let asked = plan.asked();
        let strict = plan.parallel.strict && plan.parallel.min_agents > 0;
        Ok(Self {
            id,
            tag: ProjectTag::of(&project),
            project,
            requires: (!asked.is_empty()).then(|| Arc::new(asked)),
            gate: strict.then(|| now + settings.no_agents_ms),
            report: VerificationReport { mode: plan.verify, ..VerificationReport::default() },
            plan,
            settings,
            accepted_at,
            phase: Phase::Queued,
            run,
            fragments: Vec::new(),
            engine: None,
            active: BTreeMap::new(),
            used: BTreeSet::new(),
            backing: Backing::default(),
            rounds: 0,
            reloading: false,
            wary: None,
            former: BTreeMap::new(),
            shards_done: 0,
            work: Work::default(),
            screen: Screen::default(),
            alone: 0,
            hedges: 0,
            canary: false,
            agents_peak: 0,
            unserved_since: None,
            progress_at: now,
            dirty: true,
            estimate: None,
            convergence: None,
            over: false,
        })
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    fn stage(&self) -> Option<&StagePlan> {
        self.plan.stages.get(self.fragments.len())
    }

    /// What it asks of an agent now.
    pub fn need(&self) -> Need {
        let memory_bytes = self.stage().map_or(0, |stage| stage.limits.memory_bytes);
        Need {
            target: self.plan.target,
            memory_bytes,
            engine: self.engine,
            requires: self.requires.clone(),
            project: Some(self.tag),
        }
    }

    fn window(&self, agents: &Agents) -> usize {
        if self.canary {
            return CANARY_SHARDS;
        }
        usize::try_from(agents.leases()).unwrap_or(usize::MAX).saturating_mul(WINDOW_PER_LEASE).max(WINDOW_MIN)
    }

    /// Lets a few shards go first: a kernel that nobody has seen run may fail everywhere.
    pub fn goes_first(&mut self) {
        self.canary = true;
    }

    /// Whether its kernel has given a sound answer, here or in another job.
    pub fn has_run(&self) -> bool {
        !self.canary
    }

    /// Whose it is.
    pub fn project(&self) -> &Arc<str> {
        &self.project
    }

    /// The kernel it runs.
    pub fn component(&self) -> Digest {
        self.plan.component
    }

    /// Looks at who is connected: after a join, a leave, a quarantine, and before the first grant.
    pub fn look(&mut self, now: Millis, agents: &Agents) {
        let untouched = self.work == Work::default() && self.waiting() == (0, 0);
        if untouched && self.run.grants.is_empty() {
            // Nothing computed yet: the engine profile with the most cores decides; later ones must equal it.
            self.engine = agents.engine(&Need { engine: None, ..self.need() });
        }
        let suitable = agents.suitable(&self.need());
        self.agents_peak = self.agents_peak.max(suitable);
        if suitable >= self.plan.parallel.min_agents {
            self.gate = None;
        }
        self.unserved_since = match suitable {
            0 => self.unserved_since.or(Some(now)),
            _ => None,
        };
    }

    /// Whether a shard waits for an agent.
    pub fn is_hungry(&self, agents: &Agents) -> bool {
        !self.over && !self.reloading && self.gate.is_none() && self.run.is_hungry(self.window(agents))
    }

    /// The free agents it may ask, best first: all, or those it already uses where the policy allows no more.
    pub fn candidates(&self, agents: &Agents) -> Vec<(Placement, SessionId)> {
        let mut known: Vec<_> = self.active.keys().filter_map(|agent| agents.placement(*agent)).collect();
        known.sort_unstable();
        known
    }

    /// Whether it uses as many agents as the policy allows.
    pub fn is_at_agent_limit(&self) -> bool {
        let max = self.plan.parallel.max_agents;
        max > 0 && self.active.len() as u64 >= max
    }

    /// Shards never given out that may be now.
    pub fn fresh_left(&self) -> u64 {
        self.run.fresh_left()
    }

    /// The next shard for an agent. `plenty`: there is more work than cores, so agents may hold some ahead.
    pub fn offer(&mut self, session: SessionId, agents: &Agents, plenty: bool) -> Option<(u32, Reason)> {
        let agent = agents.agent(session)?;
        let need = self.need();
        if !agents.suits(agent, &need) || !agents.has_room(agent, &need, plenty) {
            return None;
        }
        let holder = (&agent.id, agents.trust(agent.id));
        let sizes = (self.window(agents), self.settings.audits.proven);
        let first = !agents.drags(agent, self.run.fresh_left(), &need);
        self.run.next(holder, sizes, (agents, &need), first)
    }

    /// Gives a shard to an agent: the task, and the milliseconds its lease lasts.
    pub fn grant(&mut self, now: Millis, lease: LeaseId, grant: Grant, agents: &Agents) -> Option<(Arc<Task>, u64)> {
        let (shard, agent) = (grant.shard, grant.agent);
        let lease_ms = self.lease_ms(shard, agents.agent(grant.session).map_or((0, 0), |agent| agents.pace(agent)));
        let want = match self.plan.verify {
            VerifyMode::None | VerifyMode::Spotcheck => 1,
            VerifyMode::Quorum => 2,
            VerifyMode::Full => 3,
        };
        let (plan, id, stage) = (Arc::clone(&self.plan), self.id, self.run.index);
        let checkable = self.stage().is_some_and(|stage| stage.checks);
        let new = (want, checkable);
        let task = self.run.grant(lease, grant, new, |inputs| plan.task(id, stage, shard, inputs.to_vec()))?;
        *self.active.entry(agent).or_default() += 1;
        self.ask(shard, agents);
        self.run.file(shard, now + self.settings.quorum_wait_ms);
        self.enter(Phase::Running);
        self.dirty = true;
        Some((task, lease_ms))
    }

    /// Who the next copy of a shard should come from, before any answer is in.
    fn ask(&mut self, shard: u32, agents: &Agents) {
        let (need, proven, mode) = (self.need(), self.settings.audits.proven, self.plan.verify);
        let Some(open) = self.run.open.get_mut(&shard).filter(|open| open.answers.is_empty()) else { return };
        let trusted = open.trusts().any(|trust| trust.is_of(From::Proven, proven));
        let verified = open.trusts().any(|trust| trust.verifier);
        let wished = match mode {
            VerifyMode::Quorum if !trusted => From::Proven,
            VerifyMode::Full if !verified && open.live.len() >= 2 => From::Verifier,
            _ => From::Anyone,
        };
        let there = agents.any_trusted(&need, wished, proven, |_, owner| open.has_owner(owner));
        open.from = if there { wished } else { From::Anyone };
    }

    /// A lease as long as the work should take at the agent's measured rate, many times over: it catches what hangs.
    fn lease_ms(&self, shard: u32, (us_per_megafuel, queued): (u64, u64)) -> u64 {
        let Some(stage) = self.stage() else { return self.settings.lease_ms_min };
        let (_, units) = stage.shard_run(shard).unwrap_or((0, 1));
        let fuel = units.saturating_mul(stage.fuel_expected.max(self.run.unit_fuel()));
        let assumed_ms = fuel / self.settings.fuel_per_ms_assumed.max(1);
        let measured_ms = (fuel / 1_000_000).saturating_mul(us_per_megafuel) / 1000;
        let work_ms = assumed_ms.max(measured_ms).saturating_mul(queued + 1).saturating_mul(self.settings.lease_slack);
        let tries = self.run.open.get(&shard).map_or(0, |open| open.attempts.min(4));
        self.settings.lease_ms_min.saturating_add(work_ms).saturating_mul(1 << tries).min(LEASE_MS_MAX)
    }

    fn enter(&mut self, phase: Phase) {
        if phase != self.phase {
            self.phase = phase;
            self.progress_at = 0;
            self.dirty = true;
        }
    }

    /// Notes how far a running shard is.
    pub fn progress(&mut self, lease: LeaseId, units_done: u64) {
        let Some(grant) = self.run.grants.get_mut(&lease).filter(|grant| grant.asked == Asked::Shard) else { return };
        let units = self.run.open.get(&grant.shard).map_or(0, |open| open.task.unit_count);
        let done = units_done.min(units);
        if done > grant.units_done {
            self.run.units_running += done - grant.units_done;
            grant.units_done = done;
            self.dirty = true;
        }
    }

    /// Tells how far it is, not too often.
    pub fn say(&mut self, now: Millis, fx: &mut Effects<'_>) {
        if !self.over && self.run.only_copies_left() {
            self.enter(Phase::Verifying);
        }
        let due = now >= self.progress_at.saturating_add(self.settings.progress_ms) || self.progress_at == 0;
        if self.dirty && due && !self.over {
            self.dirty = false;
            self.progress_at = now;
            fx.actions.push(Action::Progress { job: self.id, snapshot: self.snapshot() });
        }
    }

    /// How far it is.
    pub fn snapshot(&self) -> Snapshot {
        let estimate = self.estimate.as_ref().and_then(|(name, m)| {
            let variance = m.m2 / (m.n.checked_sub(1).filter(|n| *n > 0)? as f64);
            let half = reduce::NORMAL_975 * (variance / m.n as f64).sqrt();
            let target = self.target(name, m);
            Some(Estimate { name: name.clone(), n: m.n, mean: m.mean, ci95_half_width: half, target })
                .filter(|e| e.mean.is_finite() && half.is_finite())
        });
        let (shards_waiting, units_waiting) = self.waiting();
        let units_done = self.work.units + units_waiting + self.run.units_running;
        Snapshot {
            phase: self.phase,
            stage: self.run.index,
            shards_total: self.plan.shards_total(),
            shards_done: self.shards_done + shards_waiting,
            units_total: self.plan.units_total(),
            units_done: units_done.min(self.plan.units_total()),
            items_done: self.work.items,
            agents_active: self.active.len() as u64,
            estimate,
        }
    }

    /// What the stop rule asks of this part's interval.
    fn target(&self, part: &str, moments: &Moments) -> Option<Target> {
        let stop = self.stage()?.stop.as_ref().filter(|stop| stop.part == part)?;
        Some(Target {
            confidence: stop.rule.confidence.probability(),
            half_width: stop.rule.half_width?,
            relative: Measured::of(&stop.rule, moments, None).relative,
            checkpoint: self.run.waves.as_ref()?.watch().next(),
        })
    }

    /// Shards and units accepted beyond the checkpoint that is looked at next.
    fn waiting(&self) -> (u64, u64) {
        self.run.waves.as_ref().map_or((0, 0), waves::Waves::waiting)
    }

    /// Accepts a shard: once, for good.
    fn accept(&mut self, now: Millis, accepted: Accepted, fragment: Fragment, agents: &Agents, fx: &mut Effects<'_>) {
        self.run.shape.get_or_insert_with(|| fragment.shape());
        let gone = self.run.settle(accepted.shard);
        for digest in gone.iter().flat_map(Shard::published) {
            fx.actions.push(Action::Withdraw { job: self.id, digest });
        }
        let rest = gone.map(|open| open.live).unwrap_or_default();
        let refuted = accepted.verdict.refuted.clone();
        let taken = self.take_in(Settled::of(&accepted, fragment)).and_then(|()| self.look_at_rule());
        fx.record(Record::Accepted(accepted));
        // What rests on an agent that is refuted here is about to be forgotten: the stage is not done after all.
        let is_out = |agent: &AgentId| refuted.contains(agent) || agents.is_quarantined(*agent);
        let shaken = refuted.iter().any(|agent| self.rests_on(*agent, is_out));
        for holder in rest {
            self.revoke(now, holder.lease, fx);
        }
        for agent in refuted {
            fx.marks.push((agent, Mark::Refuted, FailureCode::VerificationMismatch));
        }
        match taken {
            // It is folded anew without what is about to be forgotten.
            _ if shaken => {}
            Err(failure) => self.distrust(now, failure, agents, fx),
            Ok(()) if self.run.is_done() => self.end_stage(now, agents, fx),
            Ok(()) => {}
        }
    }

    /// Counts an accepted shard, or keeps it until the checkpoint before it was looked at.
    fn take_in(&mut self, settled: Settled) -> Result<(), Failure> {
        self.dirty = true;
        self.backing.add((self.run.index, settled.shard), settled.agent, &settled.verdict.agreed);
        let beyond = self.run.is_beyond(settled.shard);
        match self.run.waves.as_mut().filter(|_| beyond) {
            Some(waves) => {
                waves.hold(settled);
                Ok(())
            }
            None => self.count(settled),
        }
    }

    /// Looks at the stop rule at every checkpoint that is reached. A failure is one that waited for its turn.
    fn look_at_rule(&mut self) -> Result<(), Failure> {
        while let Some(waves) = &mut self.run.waves {
            let released = waves.look(self.run.folded, &self.run.fold).map_err(|e| reduce::fold_failure(&e))?;
            if let Some(failure) = waves.due_failure() {
                return Err(failure.clone());
            }
            let Some(released) = released else { break };
            for settled in released {
                self.count(settled)?;
            }
        }
        Ok(())
    }

    /// Fails for a shard; for one beyond the checkpoint not before the stage gets there.
    fn fail_shard(&mut self, now: Millis, shard: u32, failure: Failure, fx: &mut Effects<'_>) {
        if !self.run.is_beyond(shard) {
            return self.fail(now, failure, fx);
        }
        for stage::Holder { lease, .. } in self.run.doom(shard, failure) {
            self.revoke(now, lease, fx);
        }
    }

    /// Counts an accepted shard and folds its fragment.
    fn count(&mut self, settled: Settled) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        let stage = plan.stages.get(self.fragments.len());
        let stage = stage.ok_or_else(|| Failure::new(FailureCode::AggregationIncomplete, "no stage is under way"))?;
        let (first, count) = stage.shard_run(settled.shard).unwrap_or((0, 0));
        let items = stage.items_of(first, count);
        self.estimate = estimate(self.estimate.take(), stage, &settled.fragment);
        self.screen.add(settled.shard, settled.agent, &stage.parts, &settled.fragment);
        self.used.insert(settled.agent);
        self.shards_done += 1;
        self.work.items = self.work.items.saturating_add(items);
        self.work.units += count;
        self.work.fuel = self.work.fuel.saturating_add(settled.fuel);
        within_fuel(&plan, self.work.fuel)?;
        self.report.add(&settled.verdict);
        self.alone += u64::from(settled.verdict.agreed.is_empty());
        self.run.folded += count;
        self.run.fold.insert(first, count, settled.fragment).map_err(|e| reduce::fold_failure(&e))
    }

    /// Takes a lease back.
    pub fn revoke(&mut self, now: Millis, lease: LeaseId, fx: &mut Effects<'_>) {
        let Some((grant, _)) = self.end(lease, fx) else { return };
        fx.actions.push(Action::Revoke { lease, session: grant.session });
        fx.record(Record::Attempt(self.attempt(now, lease, &grant, Ending::Revoked)));
    }

    /// Takes a lease back whose shard is still wanted: it goes to another agent.
    pub fn withdraw(&mut self, now: Millis, lease: LeaseId, fx: &mut Effects<'_>) {
        let Some((shard, asked)) = self.run.grants.get(&lease).map(|grant| (grant.shard, grant.asked)) else { return };
        let holder = self.run.open.get(&shard).and_then(|open| open.live.iter().find(|holder| holder.lease == lease));
        let about = holder.and_then(|holder| holder.about);
        self.revoke(now, lease, fx);
        // A look that was taken back is still wanted, as long as the answer it is about stands undoubted.
        let wanted = |open: &Shard| about.filter(|about| !open.doubted() && open.answer_of(*about).is_some());
        if let Some(about) = self.run.open.get(&shard).and_then(wanted) {
            self.run.wish(shard, [Wish { asked, about }]);
        }
        self.run.file(shard, now.saturating_add(self.settings.quorum_wait_ms));
    }

    /// Ends a lease in the books. Gives the answer it was to look at, too, where it was a look.
    fn end(&mut self, lease: LeaseId, fx: &mut Effects<'_>) -> Option<(Grant, Option<LeaseId>)> {
        let (grant, about) = self.run.end(lease)?;
        if let Some(count) = self.active.get_mut(&grant.agent) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&grant.agent);
            }
        }
        fx.ended.push((lease, grant.clone(), self.run.index));
        self.dirty = true;
        Some((grant, about))
    }

    fn attempt(&self, now: Millis, lease: LeaseId, grant: &Grant, ending: Ending) -> Attempt {
        attempt(self.id, self.run.index, now, lease, grant, ending)
    }
}

/// The record of an attempt, without what only an answer or a failure knows.
pub(crate) fn attempt(job: JobId, stage: u32, now: Millis, lease: LeaseId, grant: &Grant, ending: Ending) -> Attempt {
    Attempt {
        job,
        stage,
        shard: grant.shard,
        lease,
        agent: grant.agent,
        reason: grant.reason,
        asked: grant.asked,
        ending,
        code: None,
        detail: None,
        unit: None,
        started_at: grant.started_at,
        ended_at: now,
        usage: forge_contract::report::Usage::default(),
        fuel: 0,
        result: None,
        log: String::new(),
        placement: grant.placement,
    }
}

/// A kernel can burn more than its author expected, and with it more than its project may.
fn within_fuel(plan: &Plan, burned: u64) -> Result<(), Failure> {
    match plan.terms.fuel_max {
        Some(most) if burned > most => {
            let detail = format!(
                "the job has burned {burned} fuel and this project's jobs may burn {most} (fuel_per_job); ask for a higher limit \
                 or for less work"
            );
            Err(Failure::new(FailureCode::RequestQuota, detail))
        }
        _ => Ok(()),
    }
}

/// What a stage's units read, by content.
fn inputs(stage: &StagePlan, done: &[StageFragment]) -> Result<Vec<InputRef>, Failure> {
    let resolve = |source: &PlannedSource| match source {
        PlannedSource::Content { digest, bytes, .. } => bytes.map(|bytes| (*digest, bytes)),
        PlannedSource::Stage { index } => {
            let fragment = done.get(usize::try_from(*index).ok()?)?;
            Some((fragment.digest, fragment.bytes.len() as u64))
        }
    };
    let input = |planned: &crate::plan::PlannedInput| {
        let missing = || Failure::new(FailureCode::RequestNotFound, format!("input '{}' is not stored", planned.name));
        let (digest, bytes) = resolve(&planned.source).ok_or_else(missing)?;
        Ok(InputRef { name: planned.name.clone(), digest, bytes })
    };
    stage.inputs.iter().map(input).collect()
}

/// The running mean of the first shown distribution of a stage; a later stage with one starts anew.
fn estimate(so_far: Option<(String, Moments)>, stage: &StagePlan, fragment: &Fragment) -> Option<(String, Moments)> {
    let shown = stage.parts.iter().zip(&fragment.parts).filter(|(spec, _)| spec.shown);
    let found = shown.filter_map(|(_, named)| match &named.part {
        Part::Moments(moments) => Some((&named.name, *moments)),
        Part::Distribution(distribution) => Some((&named.name, distribution.moments)),
        _ => None,
    });
    let Some((name, new)) = found.into_iter().next() else { return so_far };
    match so_far {
        Some((old, moments)) if old == *name => Some((old, reduce::merged(&moments, &new))),
        _ => Some((name.clone(), new)),
    }
}

fn standing(unchecked: bool, agreed: &[AgentId], looks: &[Looked]) -> Standing {
    let mut right = looks.iter().filter(|look| look.right).map(|look| look.unit);
    match right.next() {
        _ if !agreed.is_empty() => Standing::Matched,
        _ if unchecked => Standing::Unchecked,
        Some(None) => Standing::Checked,
        Some(Some(_)) => Standing::Sampled,
        None => Standing::Structural,
    }
}
