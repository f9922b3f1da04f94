//! Virtual time around one pool: agents, links, and the hub's durable records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forge_contract::duty::Duty;
use forge_contract::envelope::VerifyMode;
use forge_contract::report::{Checked, Completed, Finding, Outcome, Report, UnitRecord, UnitVerdict, Usage};
use forge_contract::task::Task;
use forge_contract::{AgentId, Capability, Digest, FailureCode, JobId, LeaseId};
use forge_lifecycle::action::{Accepted, Action, Asked, Forgotten, JobOutcome, Reason, Record, StageFragment};
use forge_lifecycle::event::{Event, Membership, OwnerId, ProjectTag, SessionId};
use forge_lifecycle::plan::Plan;
use forge_lifecycle::pool::{Pool, Settings};
use forge_lifecycle::verify::Standing;

use crate::dice::Dice;
use crate::kernel;

/// How an agent behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Takes leases and never answers.
    Hangs,
    /// Answers each lease twice.
    Repeats,
    /// Its answers are other bits, of its own.
    Lies,
    /// Honest for so many answers, then its answers are other bits.
    Turns(u64),
    /// Its answers are other bits now and then, per million.
    LiesAt(u32),
    /// Its answers are other bits, the same as its accomplices'.
    LiesAlike,
    /// Invents this share of a shard's units instead of computing them, percent. What is asked as a single unit it computes.
    Skips(u64),
    /// Its fragments are sound by themselves and fold with nobody's.
    Misfits,
    /// Its sums are sound by themselves, and any two of them overflow.
    Inflates,
    /// Says that the kernel fails.
    ClaimsTraps,
    /// Honest about shards, and lies about single units: it slanders others.
    Slanders,
    /// Its answers are no fragments.
    Garbles,
    /// Every attempt fails for a reason of the machine.
    Breaks,
    /// Answers for other leases than its own too.
    Steals,
}

pub struct Machine {
    pub manner: Manner,
    pub owner: u64,
    pub verifier: bool,
    pub labels: Vec<String>,
    /// The only projects it works for; all where it names none.
    pub projects: Vec<String>,
    /// The project whose work alone it does.
    pub reserved: Option<ProjectTag>,
    /// Clean shards it joins with the first time.
    pub clean: u64,
    /// Answers given.
    pub answered: u64,
    pub cores: u32,
    /// Virtual milliseconds per shard.
    pub shard_ms: u64,
    session: Option<SessionId>,
    held: BTreeSet<LeaseId>,
}

enum Happening {
    ToPool(u64, Box<Event>),
    Join(usize),
    Leave(usize),
    Crash,
}

/// What an honest agent would say of a task; a kernel may fail instead.
pub type Compute = fn(&Task, &[StageFragment]) -> Outcome;

pub fn honest(task: &Task, inputs: &[StageFragment]) -> Outcome {
    Outcome::Completed(kernel::shard(task, inputs))
}

pub struct World {
    pub dice: Dice,
    pub pool: Pool,
    pub now: u64,
    pub machines: Vec<Machine>,
    pub settings: Settings,
    pub compute: Compute,
    /// Whether the kernel's own check traps.
    pub checks_trap: bool,
    /// Messages lost, percent.
    pub loss: u64,
    pub jobs: BTreeMap<JobId, Arc<Plan>>,
    pub started: BTreeMap<JobId, u64>,
    pub finished: BTreeMap<JobId, JobOutcome>,
    pub accepted: BTreeMap<(JobId, u32, u32), Accepted>,
    pub quarantined: BTreeSet<AgentId>,
    pub dispatched: u64,
    pub crashes: u64,
    /// Clean shards of each agent, as the hub's records have them.
    pub clean: BTreeMap<AgentId, u64>,
    /// Shards accepted and forgotten again.
    pub forgotten: u64,
    /// Attempts that failed for the kernel's sake.
    pub traps: u64,
    /// Units of attempts that ended, by why they ran.
    pub units: BTreeMap<Reason, u64>,
    /// Every answer that was ever accepted, forgotten ones too, by agent.
    pub ever: BTreeMap<AgentId, u64>,
    /// Jobs in the order in which shards were given out.
    pub turns: Vec<JobId>,
    /// Which job was ever given to which machine, for whatever reason.
    pub placed: BTreeSet<(JobId, usize)>,
    /// The hub dies in the middle of what the next message makes it do.
    pub dies_next: bool,
    published: Vec<StageFragment>,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    life: u64,
    sessions: u64,
    last_lease: u64,
    live: BTreeMap<LeaseId, (JobId, AgentId)>,
}

pub fn agent_id(machine: usize) -> AgentId {
    AgentId::of_public_key(&[machine as u8 + 1; 32])
}

pub fn engine() -> Digest {
    Digest::of(b"engine")
}

impl World {
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            dice: Dice::new(seed),
            pool: Pool::new(settings.clone()),
            now: 1_000,
            machines: Vec::new(),
            settings,
            compute: honest,
            checks_trap: false,
            loss: 0,
            jobs: BTreeMap::new(),
            started: BTreeMap::new(),
            finished: BTreeMap::new(),
            accepted: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            dispatched: 0,
            crashes: 0,
            clean: BTreeMap::new(),
            forgotten: 0,
            traps: 0,
            units: BTreeMap::new(),
            ever: BTreeMap::new(),
            turns: Vec::new(),
            placed: BTreeSet::new(),
            dies_next: false,
            published: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            life: 0,
            sessions: 0,
            last_lease: 0,
            live: BTreeMap::new(),
        }
    }

    pub fn machine(&mut self, manner: Manner, cores: u32, shard_ms: u64, joins_at: u64) -> usize {
        let owner = self.machines.len() as u64;
        let (verifier, labels, clean, answered, held) = (false, Vec::new(), 0, 0, BTreeSet::new());
        self.machines.push(Machine {
            manner,
            owner,
            verifier,
            labels,
            projects: Vec::new(),
            reserved: None,
            clean,
            answered,
            cores,
            shard_ms,
            session: None,
            held,
        });
        let index = self.machines.len() - 1;
        self.at(joins_at, Happening::Join(index));
        index
    }

    pub fn leaves_at(&mut self, machine: usize, at: u64) {
        self.at(at, Happening::Leave(machine));
    }

    pub fn joins_at(&mut self, machine: usize, at: u64) {
        self.at(at, Happening::Join(machine));
    }

    pub fn crashes_at(&mut self, at: u64) {
        self.at(at, Happening::Crash);
    }

    pub fn event_at(&mut self, at: u64, event: Event) {
        // An event of the client, not of a connection: every life of the hub takes it.
        self.at(at, Happening::ToPool(u64::MAX, Box::new(event)));
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), happening);
    }

    pub fn submit(&mut self, number: u128, plan: Plan) -> JobId {
        self.submit_for("p", number, plan)
    }

    pub fn submit_for(&mut self, project: &str, number: u128, plan: Plan) -> JobId {
        let id = JobId::from_bits(number);
        let plan = Arc::new(plan);
        self.jobs.insert(id, Arc::clone(&plan));
        self.started.insert(id, self.now);
        self.tell(Event::JobAccepted { job: id, plan, project: project.into() });
        id
    }

    /// Runs until every job is over. Panics where that takes forever.
    pub fn run(&mut self) {
        for _ in 0..200_000 {
            if self.finished.len() == self.jobs.len() {
                return;
            }
            self.step();
        }
        panic!(
            "no end at {}: {} of {} jobs, {:?}\n{:?}",
            self.now,
            self.finished.len(),
            self.jobs.len(),
            self.pool.jobs().map(|job| self.pool.job(job)).collect::<Vec<_>>(),
            self.pool.agents()
        );
    }

    /// The next thing that happens, be it time alone.
    pub fn step(&mut self) {
        {
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let alarm = self.pool.deadline();
            let Some(at) = [next, alarm].into_iter().flatten().min() else {
                let jobs: Vec<_> = self.pool.jobs().map(|job| (job, self.pool.job(job))).collect();
                panic!("jobs wait and nothing will ever happen: {jobs:?}\n{:?}", self.pool.agents());
            };
            assert!(
                at < 100_000_000,
                "a day passed: {:?}\n{:?}",
                self.pool.jobs().map(|job| self.pool.job(job)).collect::<Vec<_>>(),
                self.pool.agents()
            );
            self.now = self.now.max(at);
            if next.is_some_and(|next| next <= self.now) {
                let (_, happening) = self.queue.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.tell(Event::Tick);
                assert!(self.pool.deadline().is_none_or(|next| next > self.now), "the alarm does not move");
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToPool(life, event) => {
                if life == self.life || life == u64::MAX {
                    if core::mem::take(&mut self.dies_next) { self.tell_and_die(*event) } else { self.tell(*event) }
                }
            }
            Happening::Join(index) => self.join(index),
            Happening::Leave(index) => {
                if let Some(session) = self.machines[index].session.take() {
                    self.machines[index].held.clear();
                    self.tell(Event::AgentLeft { session });
                }
            }
            Happening::Crash => self.crash(),
        }
    }

    fn join(&mut self, index: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let machine = &mut self.machines[index];
        machine.session = Some(session);
        machine.held.clear();
        let capability = Capability {
            cores: machine.cores,
            leases: machine.cores + 2,
            memory_bytes: 1 << 30,
            arch: "sim".into(),
            os: "sim".into(),
            cpu: true,
            gpu: false,
            labels: machine.labels.clone(),
            projects: machine.projects.clone(),
            engine: engine(),
            cage: "none".into(),
        };
        let Machine { owner, verifier, clean, reserved, .. } = *machine;
        let clean = self.clean.get(&agent_id(index)).copied().unwrap_or(clean);
        let membership = Membership { owner: OwnerId(owner), verifier, clean, reserved };
        self.tell(Event::AgentJoined { agent: agent_id(index), session, capability, membership });
    }

    /// The hub dies and comes back from its records; agents reconnect.
    fn crash(&mut self) {
        self.crashes += 1;
        self.life += 1;
        self.live.clear();
        let settings = Settings {
            first_lease: self.last_lease + 1,
            quarantined: self.quarantined.clone(),
            ..self.settings.clone()
        };
        self.pool = Pool::new(settings);
        for machine in &mut self.machines {
            machine.held.clear();
        }
        let open: Vec<JobId> = self.jobs.keys().filter(|id| !self.finished.contains_key(id)).copied().collect();
        for job in open {
            let mut accepted: Vec<Accepted> =
                self.accepted.range((job, 0, 0)..=(job, u32::MAX, u32::MAX)).map(|(_, a)| a.clone()).collect();
            self.dice.shuffle(&mut accepted);
            let (plan, accepted_at) = (Arc::clone(&self.jobs[&job]), self.started[&job]);
            self.tell(Event::JobRestored { job, plan, project: "p".into(), accepted, accepted_at });
        }
        for index in 0..self.machines.len() {
            if self.machines[index].session.is_some() {
                let at = self.now + self.dice.from(10, 800);
                self.at(at, Happening::Join(index));
            }
        }
    }

    /// Gives the pool an event and performs what it asks, all of it.
    pub fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.pool.apply(self.now, event, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    /// Gives the pool an event, performs only some of what it asks, and lets the hub die there.
    pub fn tell_and_die(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.pool.apply(self.now, event, &mut actions);
        let kept = self.dice.from(0, actions.len() as u64) as usize;
        for action in actions.into_iter().take(kept) {
            self.perform(action);
        }
        self.crash();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dispatch { lease, agent, session, task, deadline_ms } => {
                self.dispatch(lease, (agent, session), &task, deadline_ms)
            }
            Action::Revoke { lease, session } => {
                self.live.remove(&lease);
                if let Some(machine) = self.machines.iter_mut().find(|m| m.session == Some(session)) {
                    machine.held.remove(&lease);
                }
            }
            Action::Publish { digest, bytes, .. } => {
                assert_eq!(digest, Digest::of(&bytes));
                self.published.push(StageFragment { stage: String::new(), digest, bytes: bytes.to_vec() });
            }
            Action::Withdraw { digest, .. } => {
                let at = self.published.iter().position(|published| published.digest == digest);
                self.published.swap_remove(at.expect("only what was published is withdrawn"));
            }
            Action::Record(Record::Accepted(accepted)) => {
                let place = (accepted.job, accepted.stage, accepted.shard);
                assert!(!self.finished.contains_key(&accepted.job), "accepted after the end");
                let sampled = self.jobs[&accepted.job].verify == VerifyMode::None;
                let standing = accepted.verdict.standing;
                if standing == Standing::Matched || (standing != Standing::Unchecked && !sampled) {
                    for agent in core::iter::once(&accepted.agent).chain(&accepted.verdict.agreed) {
                        let index = (0..self.machines.len()).find(|index| agent_id(*index) == *agent).unwrap();
                        *self.clean.entry(*agent).or_insert(self.machines[index].clean) += 1;
                    }
                }
                *self.ever.entry(accepted.agent).or_default() += 1;
                assert!(self.accepted.insert(place, accepted).is_none(), "shard {place:?} accepted twice");
            }
            Action::Record(Record::Forgotten(Forgotten { job, stage, shards })) => {
                assert!(!self.finished.contains_key(&job), "forgotten after the end");
                for shard in shards {
                    assert!(
                        self.accepted.remove(&(job, stage, shard)).is_some(),
                        "only what was accepted is forgotten"
                    );
                    self.forgotten += 1;
                }
                self.accepted.retain(|(of, later, _), _| *of != job || *later <= stage);
            }
            Action::Reload { job, round } => {
                let mut accepted: Vec<Accepted> =
                    self.accepted.range((job, 0, 0)..=(job, u32::MAX, u32::MAX)).map(|(_, a)| a.clone()).collect();
                self.dice.shuffle(&mut accepted);
                let at = self.now + self.dice.from(1, 300);
                self.at(at, Happening::ToPool(self.life, Box::new(Event::JobReopened { job, round, accepted })));
            }
            Action::Record(Record::Attempt(attempt)) => {
                let (_, shard) =
                    self.jobs[&attempt.job].stages[attempt.stage as usize].shard_run(attempt.shard).unwrap();
                let units = if attempt.asked == Asked::Shard { shard } else { 1 };
                *self.units.entry(attempt.reason).or_default() += units;
                self.traps += u64::from(attempt.code == Some(FailureCode::AgentTrap));
                self.live.remove(&attempt.lease);
                for machine in &mut self.machines {
                    machine.held.remove(&attempt.lease);
                }
            }
            Action::Record(Record::Superseded { job, stage, shard, .. }) => {
                assert!(shard < self.jobs[&job].stages[stage as usize].shards);
                assert!(self.live.values().all(|(of, _)| *of != job), "a lease outlives its stage");
            }
            Action::Record(Record::Quarantined { agent, .. }) => {
                self.clean.insert(agent, 0);
                self.quarantined.insert(agent);
            }
            Action::Progress { job, snapshot } => {
                assert!(!self.finished.contains_key(&job), "progress after the end");
                assert!(snapshot.shards_done <= snapshot.shards_total && snapshot.units_done <= snapshot.units_total);
            }
            Action::TrialEnded { trial, .. } => panic!("{trial:?} ended that nobody asked for"),
            Action::Finish { job, outcome } => {
                assert!(self.live.values().all(|(of, _)| *of != job), "a lease outlives its job");
                assert!(self.finished.insert(job, *outcome).is_none(), "{job} finished twice");
            }
        }
    }

    fn dispatch(&mut self, lease: LeaseId, (agent, session): (AgentId, SessionId), task: &Arc<Task>, deadline_ms: u64) {
        assert!(lease.0 > self.last_lease, "leases rise");
        assert!(!self.quarantined.contains(&agent), "work for a refuted agent");
        assert!(deadline_ms > 0);
        self.last_lease = lease.0;
        self.dispatched += 1;
        self.turns.push(task.job);
        self.live.insert(lease, (task.job, agent));
        self.check_agents(task.job);
        let index =
            self.machines.iter().position(|m| m.session == Some(session)).expect("dispatched to a live session");
        self.placed.insert((task.job, index));
        let machine = &mut self.machines[index];
        machine.held.insert(lease);
        assert!(machine.held.len() <= machine.cores as usize + 2, "more leases than the agent takes");
        if self.dice.chance(self.loss) {
            // The stream dies: half the time the hub notices.
            if self.dice.chance(50) {
                let at = self.now + self.dice.from(1, 3_000);
                let broken = Event::LeaseBroken { lease, code: FailureCode::AgentLost, detail: "stream reset".into() };
                self.at(at, Happening::ToPool(self.life, Box::new(broken)));
            }
            return;
        }
        self.answer(index, lease, session, task);
    }

    fn answer(&mut self, index: usize, lease: LeaseId, session: SessionId, task: &Arc<Task>) {
        let Machine { manner, shard_ms, cores, ref held, .. } = self.machines[index];
        let queued = held.len() as u64 / u64::from(cores) + 1;
        let took = self.dice.from(shard_ms / 2, shard_ms * 2).max(1) * queued;
        let at = self.now + took + self.dice.from(1, 40);
        let outcome = match manner {
            Manner::Hangs => return,
            Manner::Breaks => Outcome::Failed(kernel::failure(FailureCode::AgentWorkerLost, None)),
            Manner::ClaimsTraps => Outcome::Failed(kernel::failure(FailureCode::AgentTrap, Some(task.first_unit))),
            Manner::Slanders if matches!(task.duty, Duty::Check(_)) => {
                let wrong = UnitVerdict { finding: Finding::Wrong { reason: "it says so".into() }, fuel: 9 };
                Outcome::Checked(Checked { units: vec![wrong; task.unit_count as usize] })
            }
            _ if matches!(task.duty, Duty::Check(_)) => self.checked(task),
            Manner::Honest | Manner::Repeats | Manner::Steals => (self.compute)(task, &self.published),
            Manner::Misfits | Manner::Inflates => match (self.compute)(task, &self.published) {
                Outcome::Completed(completed) => {
                    let bend = if self.machines[index].manner == Manner::Misfits { halve } else { inflate };
                    Outcome::Completed(bent(completed, bend))
                }
                other => other,
            },
            Manner::Lies => self.lied(task, index),
            Manner::LiesAlike => self.lied(task, 0),
            Manner::Turns(after) if self.machines[index].answered >= after => self.lied(task, index),
            Manner::LiesAt(ppm) if self.dice.from(0, 999_999) < u64::from(ppm) => self.lied(task, index),
            Manner::Turns(_) | Manner::LiesAt(_) => (self.compute)(task, &self.published),
            Manner::Slanders if task.unit_count == 1 => self.lied(task, index),
            Manner::Skips(percent) if task.unit_count > 1 => self.skipped(task, percent),
            Manner::Slanders | Manner::Skips(_) => (self.compute)(task, &self.published),
            Manner::Garbles => {
                let unit = UnitRecord { digest: Digest::of(b"?"), fuel: 1 };
                Outcome::Completed(Completed { fragment: vec![1, 200, 7], units: vec![unit; task.unit_count as usize] })
            }
        };
        self.machines[index].answered += 1;
        let usage = Usage { wall_us: took * 1000, cpu_us: took * 1000, prepare_us: 0 };
        let report = Report { lease, task: task.key_digest(), engine: engine(), outcome, usage, log: String::new() };
        let copies = if manner == Manner::Repeats { 2 } else { 1 };
        for copy in 0..copies {
            let event = Event::ReportArrived { session, report: report.clone() };
            self.at(at + copy * 7, Happening::ToPool(self.life, Box::new(event)));
        }
        if manner == Manner::Steals && lease.0 > 1 {
            let stolen = Report { lease: LeaseId(lease.0 - 1), ..report };
            self.at(at, Happening::ToPool(self.life, Box::new(Event::ReportArrived { session, report: stolen })));
        }
        let progress = Event::ShardProgress { lease, units_done: task.unit_count / 2 + 1 };
        self.at(self.now + took / 2, Happening::ToPool(self.life, Box::new(progress)));
    }

    fn lied(&self, task: &Task, index: usize) -> Outcome {
        match (self.compute)(task, &self.published) {
            Outcome::Completed(completed) => Outcome::Completed(lie(completed, index as u64)),
            other => other,
        }
    }

    /// An honest check, which here compares with what it computes itself.
    fn checked(&self, task: &Task) -> Outcome {
        if self.checks_trap {
            return Outcome::Failed(kernel::failure(FailureCode::AgentTrap, Some(task.first_unit)));
        }
        let Duty::Check(examination) = task.duty else { panic!("it was to check") };
        let found = self.published.iter().find(|published| published.digest == examination.found.digest);
        let found =
            forge_contract::fragment::Fragment::decode(&found.expect("what is checked is served").bytes).unwrap();
        let verdict = |index: u64| {
            let same = found.unit(index as usize) == Some(kernel::unit(task, task.first_unit + index, &self.published));
            let finding = if same { Finding::Sound { error: 1e-9 } } else { Finding::Wrong { reason: "other".into() } };
            UnitVerdict { finding, fuel: 10 }
        };
        Outcome::Checked(Checked { units: (0..task.unit_count).map(verdict).collect() })
    }

    /// The answer of an agent that did not run some of the units: what it commits to for them is made up.
    fn skipped(&mut self, task: &Task, percent: u64) -> Outcome {
        let Outcome::Completed(honest) = (self.compute)(task, &self.published) else { panic!("it was to compute") };
        let mut units = honest.units;
        let mut made_up = false;
        for unit in &mut units {
            if self.dice.chance(percent) {
                unit.digest = Digest::of(&self.dice.from(0, u64::MAX - 1).to_le_bytes());
                made_up = true;
            }
        }
        let fragment = if made_up {
            lie(Completed { fragment: honest.fragment, units: units.clone() }, 1).fragment
        } else {
            honest.fragment
        };
        Outcome::Completed(Completed { fragment, units })
    }

    /// Units of attempts that ran for this reason.
    pub fn units_by_reason(&self, reason: Reason) -> u64 {
        self.units.get(&reason).copied().unwrap_or(0)
    }

    /// Answers of a machine that were accepted, be they forgotten later.
    pub fn escaped(&self, machine: usize) -> u64 {
        self.ever.get(&agent_id(machine)).copied().unwrap_or(0)
    }

    fn check_agents(&self, job: JobId) {
        let max = self.jobs[&job].parallel.max_agents;
        let agents: BTreeSet<AgentId> =
            self.live.values().filter(|(of, _)| *of == job).map(|(_, agent)| *agent).collect();
        assert!(max == 0 || agents.len() as u64 <= max, "{} agents, {max} allowed", agents.len());
    }

    /// Asserts that a job completed with the reference bits.
    pub fn assert_completed(&self, job: JobId, expected: &[StageFragment]) {
        match &self.finished[&job] {
            JobOutcome::Completed(completed) => {
                assert_eq!(completed.stage_fragments, expected, "other bits");
                assert_eq!(completed.result_digest, forge_lifecycle::reduce::result_digest(expected));
                let plan = &self.jobs[&job];
                assert_eq!(completed.summary.shards, plan.shards_total());
                assert_eq!(completed.summary.work.units, plan.units_total());
                let fuel: u64 = plan.stages.iter().flat_map(|stage| (0..stage.units).map(kernel::fuel)).sum();
                assert_eq!(completed.summary.work.fuel, fuel, "each unit's fuel counts once");
            }
            other => panic!("expected a result, found {other:?}"),
        }
    }

    pub fn failure_of(&self, job: JobId) -> &forge_contract::Failure {
        match &self.finished[&job] {
            JobOutcome::Failed { failure, .. } => failure,
            other => panic!("expected a failure, found {other:?}"),
        }
    }
}

/// The same answer with its parts bent, as well committed to as can be.
pub fn bent(honest: Completed, bend: fn(&mut forge_contract::fragment::Part)) -> Completed {
    let mut fragment = forge_contract::fragment::Fragment::decode(&honest.fragment).unwrap();
    fragment.parts.iter_mut().for_each(|named| bend(&mut named.part));
    let bytes = fragment.encode();
    let mut units = honest.units;
    if let [only] = units.as_mut_slice() {
        only.digest = Digest::of(&bytes);
    }
    Completed { fragment: bytes, units }
}

/// Histograms in buckets of half the width.
fn halve(part: &mut forge_contract::fragment::Part) {
    use forge_contract::fragment::{Histogram, Part};
    let Part::Distribution(distribution) = part else { return };
    let bits = distribution.histogram.mantissa_bits + 1;
    distribution.histogram.mantissa_bits = bits;
    let buckets = &mut distribution.histogram.buckets;
    buckets.iter_mut().for_each(|(key, _)| *key <<= 1);
    buckets.first_mut().unwrap().0 = Histogram::key(distribution.extrema.min, bits);
    buckets.last_mut().unwrap().0 = Histogram::key(distribution.extrema.max, bits);
}

/// Sums of which no two can be added.
pub fn inflate(part: &mut forge_contract::fragment::Part) {
    if let forge_contract::fragment::Part::Sum(sum) = part {
        *sum = f64::MAX;
    }
}

/// The same answer with one number changed, structurally sound, and committed to as if it were true.
fn lie(honest: Completed, by: u64) -> Completed {
    use forge_contract::fragment::{Fragment, Part};
    let mut fragment = Fragment::decode(&honest.fragment).unwrap();
    for named in &mut fragment.parts {
        match &mut named.part {
            Part::Sum(sum) => *sum += 1.0 + by as f64,
            Part::Bytes(bytes) => bytes[0] ^= by as u8 + 1,
            Part::Tiles(tiles) => tiles[0].values[0] ^= by as u8 + 1,
            _ => {}
        }
    }
    let bytes = fragment.encode();
    let mut units = honest.units;
    let first = fragment.unit(0).map(|unit| unit.digest());
    units[0].digest = if let Some(first) = first {
        first
    } else if units.len() == 1 {
        Digest::of(&bytes)
    } else {
        Digest::of(&by.to_le_bytes())
    };
    Completed { fragment: bytes, units }
}
