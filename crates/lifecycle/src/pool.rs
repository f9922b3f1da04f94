//! The pool: every job and every agent, as one deterministic machine.

mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forge_contract::report::{Outcome, Report};
use forge_contract::{AgentId, Capability, Digest, Failure, FailureCode, JobId, LeaseId};

use crate::Millis;
use crate::action::{Accepted, Action, Asked, Ending, JobOutcome, Placement, Reason, Record, Snapshot, Summary};
use crate::dispatch::{Agents, Mark};
use crate::event::{Event, SessionId};
use crate::job::{Effects, Grant, Job, attempt};
pub use crate::member::AgentView;
use crate::member::Membership;
use crate::plan::Plan;
pub use crate::settings::Settings;
use crate::trial::{Trial, TrialId};
use crate::turns::Turns;

/// Ended leases remembered, so that a late answer is recorded with its shard.
const ENDED_MAX: usize = 4096;
/// Rounds of timers and dispatch for one event.
const ROUNDS_MAX: usize = 16;

/// Every job and every agent.
///
/// Call [`Pool::apply`] with each event in the order it happened, perform the actions in order, and send
/// [`Event::Tick`] at [`Pool::deadline`] at the latest. `now` never goes back.
pub struct Pool {
    settings: Arc<Settings>,
    agents: Agents,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs in the order in which they are offered the next free agent.
    turns: Turns,
    /// Kernels on trial, in the order in which they came.
    trials: BTreeMap<TrialId, Trial>,
    leases: BTreeMap<LeaseId, Held>,
    by_session: BTreeMap<SessionId, BTreeSet<LeaseId>>,
    lease_ends: BTreeSet<(Millis, LeaseId)>,
    ended: BTreeMap<LeaseId, Ended>,
    wakes: BTreeSet<(Millis, JobId)>,
    wake_of: BTreeMap<JobId, Millis>,
    /// Kernels that gave a sound answer in this process.
    seasoned: BTreeSet<Digest>,
    next_lease: u64,
    stray_reports: u64,
    stopping: bool,
}

/// A lease under way.
struct Held {
    owner: Owner,
    session: SessionId,
    ends_at: Millis,
}

/// What a lease is for.
#[derive(Clone, Copy)]
enum Owner {
    Job(JobId),
    Trial(TrialId),
}

/// A lease that is over and was not answered.
struct Ended {
    job: JobId,
    stage: u32,
    grant: Grant,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            agents: Agents::new(settings.quarantined.clone())
                .with_readmitted(settings.readmitted.clone(), settings.audits.probation),
            next_lease: settings.first_lease,
            settings: Arc::new(settings),
            jobs: BTreeMap::new(),
            turns: Turns::default(),
            trials: BTreeMap::new(),
            leases: BTreeMap::new(),
            by_session: BTreeMap::new(),
            lease_ends: BTreeSet::new(),
            ended: BTreeMap::new(),
            wakes: BTreeSet::new(),
            wake_of: BTreeMap::new(),
            seasoned: BTreeSet::new(),
            stray_reports: 0,
            stopping: false,
        }
    }

    /// Takes one event and says what to do.
    pub fn apply(&mut self, now: Millis, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::JobAccepted { job, plan, project } => self.begin(now, job, (plan, project), actions),
            Event::JobRestored { job, plan, project, accepted, accepted_at } => {
                self.restore(now, (job, plan, project), (accepted_at, accepted), actions)
            }
            Event::JobReopened { job, round, accepted } => self.reopened(now, job, round, accepted, actions),
            Event::CancelRequested { job } => self.step(now, job, actions, |job, _, fx| job.cancel(now, fx)),
            Event::TrialRequested { trial, exams, grounds } => self.begin_trial(trial, (exams, grounds), actions),
            Event::AgentJoined { agent, session, capability, membership } => {
                self.join(now, (agent, session), (capability, membership), actions)
            }
            Event::AgentLeft { session } => self.leave(now, session, actions),
            Event::AgentReadmitted { agent } => {
                self.agents.readmit(agent);
                self.look_all(now);
            }
            Event::AgentRemoved { agent } => {
                if self.agents.quarantine(agent) {
                    self.expel(now, agent, actions);
                }
            }
            Event::AgentReserved { agent, project } => {
                self.agents.reserve(agent, project);
                self.look_all(now);
            }
            Event::AgentDraining { session } => {
                self.agents.drain(session);
                self.look_all(now);
            }
            Event::AgentHeard { session, rtt_us } => self.agents.hear(session, rtt_us),
            Event::ShardProgress { lease, units_done } => self.on_lease(now, lease, actions, |job, _, fx| {
                job.progress(lease, units_done);
                job.say(now, fx);
            }),
            Event::ReportArrived { session, report } => self.report(now, session, report, actions),
            Event::LeaseBroken { lease, code, detail } => self.broken(now, lease, Failure::new(code, detail), actions),
            Event::Tick => {}
            Event::ShutdownRequested => self.stop(now, actions),
        }
        for _ in 0..ROUNDS_MAX {
            self.advance(now, actions);
            self.dispatch_trials(now, actions);
            self.dispatch(now, actions);
            // What was given out may have made something else due, such as a copy of a slow last shard.
            if self.deadline().is_none_or(|at| at > now) {
                break;
            }
        }
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        if self.stopping {
            return None;
        }
        let lease = self.lease_ends.first().map(|(at, _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        [lease, wake, self.agents.deadline()].into_iter().flatten().min()
    }

    /// How far a job is; `None` once it is over.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<Snapshot> {
        self.jobs.get(&job).map(Job::snapshot)
    }

    /// Jobs under way, by id.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    /// Agents, by session.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentView> {
        self.agents.views()
    }

    /// Leases under way.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Answers to leases nobody remembers: of an earlier process, or long over. They are discarded.
    #[must_use]
    pub fn stray_reports(&self) -> u64 {
        self.stray_reports
    }

    fn begin(&mut self, now: Millis, id: JobId, (plan, project): (Arc<Plan>, Arc<str>), actions: &mut Vec<Action>) {
        if self.jobs.contains_key(&id) {
            return;
        }
        let shards_total = plan.shards_total();
        match Job::new(now, id, (plan, project), Arc::clone(&self.settings), now) {
            Ok(job) => self.admit(now, id, job, actions),
            Err(failure) => refuse(id, failure, shards_total, actions),
        }
    }

    fn restore(
        &mut self,
        now: Millis,
        (id, plan, project): (JobId, Arc<Plan>, Arc<str>),
        accepted: (Millis, Vec<Accepted>),
        actions: &mut Vec<Action>,
    ) {
        if self.jobs.contains_key(&id) {
            return;
        }
        let shards_total = plan.shards_total();
        let mut fx = Effects::new(actions);
        match Job::restored(now, id, (plan, project), Arc::clone(&self.settings), accepted, &self.agents, &mut fx) {
            Ok(job) => self.admit(now, id, job, actions),
            Err(failure) => refuse(id, failure, shards_total, actions),
        }
    }

    /// A job gets back what was not forgotten of it. One that ended meanwhile, or forgot more, wants nothing of this.
    fn reopened(&mut self, now: Millis, id: JobId, round: u32, accepted: Vec<Accepted>, actions: &mut Vec<Action>) {
        let Some(old) = self.jobs.get_mut(&id).filter(|job| job.reload_round() == Some(round)) else { return };
        let mut fx = Effects::new(actions);
        match old.reopened(now, accepted, &self.agents, &mut fx) {
            Ok(job) => {
                let Effects { ended, marks, .. } = fx;
                self.jobs.remove(&id);
                self.turns.leave(id);
                rearm(&mut self.wakes, &mut self.wake_of, id, None);
                self.admit(now, id, job, actions);
                self.follow(now, id, ended, marks, actions);
            }
            Err(failure) => self.step(now, id, actions, |job, _, fx| job.fail(now, failure, fx)),
        }
    }

    fn admit(&mut self, now: Millis, id: JobId, mut job: Job, actions: &mut Vec<Action>) {
        if job.is_over() {
            return;
        }
        job.look(now, &self.agents);
        if !self.seasoned.contains(&job.component()) {
            job.goes_first();
        }
        self.turns.join(job.project(), id);
        self.jobs.insert(id, job);
        self.step(now, id, actions, |job, _, fx| job.say(now, fx));
    }

    fn join(
        &mut self,
        now: Millis,
        (agent, session): (AgentId, SessionId),
        (capability, membership): (Capability, Membership),
        actions: &mut Vec<Action>,
    ) {
        if let Some(old) = self.agents.session_of(agent) {
            self.leave(now, old, actions);
        }
        self.agents.join(agent, session, capability, membership);
        self.look_all(now);
    }

    fn leave(&mut self, now: Millis, session: SessionId, actions: &mut Vec<Action>) {
        if self.agents.leave(session).is_none() {
            return;
        }
        for lease in self.by_session.get(&session).cloned().unwrap_or_default() {
            self.broken(now, lease, Failure::new(FailureCode::AgentLost, "the agent disconnected"), actions);
        }
        self.by_session.remove(&session);
        self.look_all(now);
    }

    fn look_all(&mut self, now: Millis) {
        for (id, job) in &mut self.jobs {
            job.look(now, &self.agents);
            rearm(&mut self.wakes, &mut self.wake_of, *id, job.wake(&self.agents));
        }
    }

    fn report(&mut self, now: Millis, session: SessionId, report: Report, actions: &mut Vec<Action>) {
        let lease = report.lease;
        match self.leases.get(&lease) {
            Some(held) if held.session == session => match held.owner {
                Owner::Job(_) => {
                    self.on_lease(now, lease, actions, |job, agents, fx| job.report(now, report, agents, fx))
                }
                Owner::Trial(trial) => self.report_trial(now, trial, report, actions),
            },
            // Another session's lease: whoever sends this does not hold it.
            Some(_) => self.stray_reports += 1,
            None => self.late(now, session, &report, actions),
        }
    }

    /// An answer to a lease that is over.
    fn late(&mut self, now: Millis, session: SessionId, report: &Report, actions: &mut Vec<Action>) {
        let known = self.ended.get(&report.lease).is_some_and(|ended| ended.grant.session == session);
        let Some(ended) = known.then(|| self.ended.remove(&report.lease)).flatten() else {
            self.stray_reports += 1;
            return;
        };
        let mut late = attempt(ended.job, ended.stage, now, report.lease, &ended.grant, Ending::Late);
        late.usage = report.usage;
        match &report.outcome {
            Outcome::Completed(completed) => {
                late.fuel = completed.fuel();
                late.result = Some(completed.result_digest());
            }
            Outcome::Failed(failure) => late.code = Some(failure.code),
            Outcome::Checked(checked) => {
                late.fuel = checked.fuel();
                late.result = Some(checked.result_digest());
            }
        }
        actions.push(Action::Record(Record::Attempt(late)));
    }

    /// Lets a job take a step, and does what the step asks of the pool.
    fn step(
        &mut self,
        now: Millis,
        id: JobId,
        actions: &mut Vec<Action>,
        step: impl FnOnce(&mut Job, &Agents, &mut Effects<'_>),
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut fx = Effects::new(actions);
        let before = job.has_run();
        step(job, &self.agents, &mut fx);
        if !before && job.has_run() {
            self.seasoned.insert(job.component());
        }
        let Effects { ended, marks, .. } = fx;
        rearm(&mut self.wakes, &mut self.wake_of, id, job.wake(&self.agents));
        if job.is_over() {
            self.jobs.remove(&id);
            self.turns.leave(id);
        }
        self.follow(now, id, ended, marks, actions);
    }

    /// Does what a step of a job asks of the pool: books of leases, and what it showed of agents.
    fn follow(
        &mut self,
        now: Millis,
        id: JobId,
        ended: Vec<(LeaseId, Grant, u32)>,
        marks: Vec<(AgentId, Mark, FailureCode)>,
        actions: &mut Vec<Action>,
    ) {
        for (lease, grant, stage) in ended {
            self.release(lease, Ended { job: id, stage, grant });
        }
        for (agent, mark, code) in marks {
            if self.agents.mark(now, agent, mark) {
                self.quarantine(now, agent, id, code, actions);
            }
        }
    }

    /// Lets the job a lease is of take a step; a trial's lease is none of a job's.
    fn on_lease(
        &mut self,
        now: Millis,
        lease: LeaseId,
        actions: &mut Vec<Action>,
        step: impl FnOnce(&mut Job, &Agents, &mut Effects<'_>),
    ) {
        if let Some(Held { owner: Owner::Job(job), .. }) = self.leases.get(&lease) {
            self.step(now, *job, actions, step);
        }
    }

    /// A lease ended without an answer.
    fn broken(&mut self, now: Millis, lease: LeaseId, failure: Failure, actions: &mut Vec<Action>) {
        match self.leases.get(&lease).map(|held| held.owner) {
            Some(Owner::Job(_)) => {
                self.on_lease(now, lease, actions, |job, agents, fx| job.broken(now, lease, failure, agents, fx))
            }
            Some(Owner::Trial(trial)) => self.break_trial(now, trial, lease, failure, actions),
            None => {}
        }
    }

    /// Takes a lease back whose work is still wanted.
    fn withdraw(&mut self, now: Millis, lease: LeaseId, actions: &mut Vec<Action>) {
        match self.leases.get(&lease).map(|held| held.owner) {
            Some(Owner::Job(_)) => self.on_lease(now, lease, actions, |job, _, fx| job.withdraw(now, lease, fx)),
            Some(Owner::Trial(trial)) => self.withdraw_trial(trial, lease, actions),
            None => {}
        }
    }

    /// Takes a lease out of the books. False where it is not there.
    fn let_go(&mut self, lease: LeaseId) -> bool {
        let Some(held) = self.leases.remove(&lease) else { return false };
        self.lease_ends.remove(&(held.ends_at, lease));
        if let Some(leases) = self.by_session.get_mut(&held.session) {
            leases.remove(&lease);
        }
        self.agents.release(held.session);
        true
    }

    fn release(&mut self, lease: LeaseId, ended: Ended) {
        if !self.let_go(lease) {
            return;
        }
        self.ended.insert(lease, ended);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_first();
        }
    }

    /// Takes an agent out: what it still runs goes elsewhere.
    fn quarantine(&mut self, now: Millis, agent: AgentId, job: JobId, code: FailureCode, actions: &mut Vec<Action>) {
        if !self.agents.quarantine(agent) {
            return;
        }
        actions.push(Action::Record(Record::Quarantined { agent, job, code }));
        self.expel(now, agent, actions);
    }

    /// Takes back what an agent that is out still runs, and forgets what rests on it.
    fn expel(&mut self, now: Millis, agent: AgentId, actions: &mut Vec<Action>) {
        let held = self.agents.session_of(agent).and_then(|session| self.by_session.get(&session));
        for lease in held.cloned().unwrap_or_default() {
            self.withdraw(now, lease, actions);
        }
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.step(now, id, actions, |job, agents, fx| {
                job.disown(now, agent, agents, fx);
                job.reopen(now, agent, |other| agents.is_quarantined(*other), fx);
            });
        }
        self.look_all(now);
    }

    /// Does what time brings.
    fn advance(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        while let Some((_, lease)) = self.lease_ends.first().copied().filter(|(at, _)| *at <= now) {
            self.expire(now, lease, actions);
        }
        self.agents.tick(now);
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.step(now, id, actions, |job, agents, fx| job.tick(now, agents, fx));
            // A job that wants nothing more at this instant is looked at again in the next one.
            if self.wakes.contains(&(at, id)) {
                let later = self.wake_of.get(&id).map(|_| now + 1);
                rearm(&mut self.wakes, &mut self.wake_of, id, later);
            }
        }
    }

    fn expire(&mut self, now: Millis, lease: LeaseId, actions: &mut Vec<Action>) {
        let Some(held) = self.leases.get(&lease) else { return };
        actions.push(Action::Revoke { lease, session: held.session });
        let failure = Failure::new(FailureCode::AgentDeadline, "the lease ended without an answer");
        self.broken(now, lease, failure, actions);
    }

    /// Gives out shards while an agent is free and a job wants one: a shard per job and turn.
    fn dispatch(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut turns = core::mem::take(&mut self.turns);
        while !self.stopping && !self.agents.none_free() {
            let Some((id, (place, shard, reason))) = turns.next(|id| self.place(id)) else { break };
            self.give(now, id, place, (shard, reason), actions);
        }
        self.turns = turns;
    }

    /// The best free agent for a job, and a shard for it.
    fn place(&mut self, id: JobId) -> Option<((Placement, SessionId), u32, Reason)> {
        let plenty = self.is_plenty();
        let job = self.jobs.get_mut(&id)?;
        if !job.is_hungry(&self.agents) {
            return None;
        }
        let used = job.is_at_agent_limit().then(|| job.candidates(&self.agents));
        let mut offer = |place: (Placement, SessionId)| {
            let (shard, reason) = job.offer(place.1, &self.agents, plenty)?;
            Some((place, shard, reason))
        };
        match used {
            Some(used) => used.into_iter().find_map(&mut offer),
            None => self.agents.free().find_map(&mut offer),
        }
    }

    /// Whether all jobs together have more shards left than there are cores. Were it asked of each job alone, the last
    /// shards of a small one would never find room beside a large one that holds work ahead.
    fn is_plenty(&self) -> bool {
        let mut left = 0u64;
        self.jobs.values().any(|job| {
            left = left.saturating_add(job.fresh_left());
            left > self.agents.cores()
        })
    }

    fn give(
        &mut self,
        now: Millis,
        id: JobId,
        (placement, session): (Placement, SessionId),
        (shard, reason): (u32, Reason),
        actions: &mut Vec<Action>,
    ) {
        let Some(agent) = self.agents.agent(session).map(|agent| agent.id) else { return };
        let lease = self.number();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let trust = self.agents.trust(agent);
        let asked = Asked::Shard;
        let grant = Grant { shard, agent, session, reason, asked, placement, trust, started_at: now, units_done: 0 };
        let Some((task, deadline_ms)) = job.grant(now, lease, grant, &self.agents) else { return };
        self.hold(now, lease, session, Owner::Job(id), deadline_ms);
        actions.push(Action::Dispatch { lease, agent, session, task, deadline_ms });
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut fx = Effects::new(actions);
        job.say(now, &mut fx);
        rearm(&mut self.wakes, &mut self.wake_of, id, job.wake(&self.agents));
    }

    /// A lease number that was never given out before.
    fn number(&mut self) -> LeaseId {
        let lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        lease
    }

    /// Enters a lease into the books.
    fn hold(&mut self, now: Millis, lease: LeaseId, session: SessionId, owner: Owner, deadline_ms: u64) {
        let ends_at = now.saturating_add(deadline_ms);
        self.leases.insert(lease, Held { owner, session, ends_at });
        self.lease_ends.insert((ends_at, lease));
        self.by_session.entry(session).or_default().insert(lease);
        self.agents.hold(session);
    }

    /// Stops giving out; leases end, jobs stay as recorded.
    fn stop(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.stopping = true;
        for lease in self.leases.keys().copied().collect::<Vec<_>>() {
            self.withdraw(now, lease, actions);
        }
        self.wakes.clear();
        self.wake_of.clear();
    }
}

/// Moves a job's alarm.
fn rearm(wakes: &mut BTreeSet<(Millis, JobId)>, wake_of: &mut BTreeMap<JobId, Millis>, id: JobId, at: Option<Millis>) {
    let old = match at {
        Some(at) => wake_of.insert(id, at),
        None => wake_of.remove(&id),
    };
    if old == at {
        return;
    }
    if let Some(old) = old {
        wakes.remove(&(old, id));
    }
    if let Some(at) = at {
        wakes.insert((at, id));
    }
}

/// Ends a job that could not even begin.
fn refuse(job: JobId, failure: Failure, shards_total: u64, actions: &mut Vec<Action>) {
    let summary = Summary { shards_total, ..Summary::default() };
    actions.push(Action::Finish { job, outcome: Box::new(JobOutcome::Failed { failure, summary }) });
}
