//! Virtual time around one pool: nothing is lost on the way, agents answer after a drawn time, identities cost nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use forge_contract::envelope::VerifyMode;
use forge_contract::report::{Completed, Outcome, Report, Usage};
use forge_contract::{AgentId, Capability, Digest, JobId, LeaseId};
use forge_lifecycle::action::{Accepted, Action, JobOutcome, Record};
use forge_lifecycle::event::{Event, Membership, OwnerId, SessionId};
use forge_lifecycle::plan::Plan;
use forge_lifecycle::pool::{Pool, Settings};
use forge_lifecycle::verify::Standing;

use super::bound::at_stake;
use super::cell::{Cell, Tally};
use super::chance::Chance;
use super::kernel;
use super::prediction::attempts;
use super::strategy::{Career, Rumour};

/// Milliseconds a shard takes.
const SHARD_MS: (u64, u64) = (30, 50);
/// How often a faulty core errs, per million.
const FAULT_PPM: u32 = 1_000;
/// Mean milliseconds between two departures, where agents come and go.
const CHURN_MS: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Honest,
    Verifier,
    Faulty,
    Bad,
}

/// A place in the pool; whoever is taken out of it is followed by a fresh identity.
struct Seat {
    nature: Nature,
    identity: usize,
    session: Option<SessionId>,
    live: Vec<(LeaseId, JobId, u32)>,
}

/// An agent's name and its record.
struct Identity {
    nature: Nature,
    seat: usize,
    clean: u64,
    accepted: u64,
    career: Career,
    /// Shards it has answered that are not settled.
    unsettled: Vec<(JobId, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Answer {
        seat: usize,
        lease: LeaseId,
    },
    Join {
        seat: usize,
    },
    /// The identity of a seat was taken out: a fresh one follows it.
    Renew {
        seat: usize,
    },
    Leave,
    Reopen {
        job: JobId,
        round: u32,
    },
}

/// A job under way.
struct Running {
    accepted: Vec<Option<Accepted>>,
    rumours: Vec<Rumour>,
    attempts: u64,
    /// Attempts in vain: refuted answers, and answers and leases of those taken out or gone.
    lost: u64,
    forgotten: u64,
    begun_with: f64,
}

pub struct World {
    cell: Cell,
    pool: Pool,
    now: u64,
    chance: Chance,
    plan: Arc<Plan>,
    keys: Vec<Digest>,
    truths: Vec<Completed>,
    results: Vec<Digest>,
    seats: Vec<Seat>,
    identities: Vec<Identity>,
    seat_of: Vec<usize>,
    running: BTreeMap<JobId, Running>,
    jobs: u128,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    sequence: u64,
    tally: Tally,
}

fn agent_id(identity: usize) -> AgentId {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&(identity as u64).to_be_bytes());
    AgentId(Digest::from_bytes(bytes))
}

fn identity_of(agent: &AgentId) -> usize {
    u64::from_be_bytes(*agent.0.as_bytes().first_chunk().unwrap()) as usize
}

/// Runs a cell to its end.
pub fn run(cell: &Cell) -> Tally {
    let mut world = World::new(*cell);
    // Where most jobs fail there may never be enough.
    let most = 2 * cell.shards / u64::from(cell.job) + 8;
    while world.tally.delivered < cell.shards && u64::try_from(world.jobs).unwrap() < most {
        while world.running.len() < cell.jobs {
            world.submit();
        }
        world.step();
    }
    world.tally.identities = world.identities.len() as u64;
    world.tally
}

impl World {
    fn new(cell: Cell) -> Self {
        let plan = kernel::planned(cell.job, &cell.mode.to_string());
        let key = |shard| plan.task(JobId::from_bits(0), 0, shard, vec![]).unwrap().key_digest();
        let truths: Vec<Completed> = (0..cell.job).map(|shard| kernel::answer(kernel::truth(shard))).collect();
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&cell.seed.to_le_bytes());
        let settings = Settings { hub_secret: secret, audits: cell.policy, ..Settings::default() };
        let mut world = Self {
            cell,
            pool: Pool::new(settings),
            now: 1_000,
            chance: Chance::new(cell.seed),
            keys: (0..cell.job).map(key).collect(),
            results: truths.iter().map(Completed::result_digest).collect(),
            truths,
            plan: Arc::new(plan),
            seats: Vec::new(),
            identities: Vec::new(),
            seat_of: Vec::new(),
            running: BTreeMap::new(),
            jobs: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            tally: Tally::default(),
        };
        let natures = (0..cell.strangers + cell.verifiers).map(|seat| match seat {
            seat if seat < cell.bad_seats() => Nature::Bad,
            seat if seat >= cell.strangers => Nature::Verifier,
            seat if cell.faulty && seat + 1 == cell.strangers => Nature::Faulty,
            _ => Nature::Honest,
        });
        for nature in natures {
            world.seats.push(Seat { nature, identity: 0, session: None, live: Vec::new() });
            world.enrol(world.seats.len() - 1);
        }
        if cell.churn {
            world.after(CHURN_MS, Happening::Leave);
        }
        world
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + ms, self.sequence, happening)));
    }

    fn submit(&mut self) {
        self.jobs += 1;
        let (job, shards) = (JobId::from_bits(self.jobs), self.cell.job as usize);
        let running = Running {
            accepted: vec![None; shards],
            rumours: vec![Rumour::default(); shards],
            attempts: 0,
            lost: 0,
            forgotten: 0,
            begun_with: self.attempts_expected(),
        };
        self.running.insert(job, running);
        self.tell(Event::JobAccepted { job, plan: Arc::clone(&self.plan), project: "p".into() });
    }

    /// What a shard should take as the records stand.
    fn attempts_expected(&self) -> f64 {
        let record = |seat: &Seat| match seat.nature {
            Nature::Verifier => None,
            _ => Some(self.identities[seat.identity].clean),
        };
        let records: Vec<Option<u64>> = self.seats.iter().map(record).collect();
        attempts(&self.cell.policy, self.cell.mode, &records)
    }

    fn step(&mut self) {
        let next = self.queue.peek().map(|Reverse((at, ..))| *at);
        let alarm = self.pool.deadline();
        let at = [next, alarm].into_iter().flatten().min().expect("jobs wait and nothing will ever happen");
        self.now = self.now.max(at);
        if next.is_none_or(|next| next > self.now) {
            return self.tell(Event::Tick);
        }
        let Some(Reverse((_, _, happening))) = self.queue.pop() else { return };
        match happening {
            Happening::Answer { seat, lease } => self.answer(seat, lease),
            Happening::Join { seat } if self.seats[seat].session.is_some() => {}
            Happening::Join { seat } => self.join(seat),
            Happening::Renew { seat } => {
                self.leave(seat);
                self.enrol(seat);
            }
            Happening::Leave => self.churn(),
            Happening::Reopen { job, round } => self.reopen(job, round),
        }
    }

    /// A seat gets a fresh identity, of an owner of its own.
    fn enrol(&mut self, seat: usize) {
        let nature = self.seats[seat].nature;
        self.seats[seat].identity = self.identities.len();
        let (clean, career) = (self.cell.start, Career::default());
        self.identities.push(Identity { nature, seat, clean, accepted: 0, career, unsettled: Vec::new() });
        self.join(seat);
    }

    fn join(&mut self, seat: usize) {
        let session = SessionId(self.seat_of.len() as u64);
        self.seat_of.push(seat);
        let place = &mut self.seats[seat];
        place.session = Some(session);
        place.live.clear();
        let (identity, verifier) = (place.identity, place.nature == Nature::Verifier);
        let capability = Capability {
            cores: self.cell.leases,
            leases: self.cell.leases,
            memory_bytes: 1 << 30,
            arch: "sim".into(),
            os: "sim".into(),
            cpu: true,
            gpu: false,
            labels: vec![],
            projects: vec![],
            engine: Digest::of(b"engine"),
            cage: "none".into(),
        };
        let membership = Membership {
            owner: OwnerId(identity as u64),
            verifier,
            clean: self.identities[identity].clean,
            reserved: None,
        };
        self.tell(Event::AgentJoined { agent: agent_id(identity), session, capability, membership });
    }

    fn leave(&mut self, seat: usize) {
        let place = &mut self.seats[seat];
        place.live.clear();
        if let Some(session) = place.session.take() {
            self.tell(Event::AgentLeft { session });
        }
    }

    /// Somebody goes, and comes back under the old name or, one in four, under a new one.
    fn churn(&mut self) {
        let seat = self.chance.from(0, self.seats.len() as u64 - 1) as usize;
        let ms = self.chance.from(1, 2 * CHURN_MS);
        self.after(ms, Happening::Leave);
        if self.seats[seat].session.is_none() {
            return;
        }
        for (_, job, _) in &self.seats[seat].live {
            if let Some(running) = self.running.get_mut(job) {
                running.lost += 1;
            }
        }
        self.leave(seat);
        if self.chance.ppm(250_000) {
            self.enrol(seat);
        } else {
            let ms = self.chance.from(1, 2_000);
            self.after(ms, Happening::Join { seat });
        }
    }

    fn answer(&mut self, seat: usize, lease: LeaseId) {
        let place = &mut self.seats[seat];
        let Some(at) = place.live.iter().position(|(live, ..)| *live == lease) else { return };
        let (_, job, shard) = place.live.swap_remove(at);
        let (Some(session), identity) = (place.session, place.identity) else { return };
        let value = self.says(identity, job, shard);
        self.identities[identity].unsettled.push((job, shard));
        let completed = match value == kernel::truth(shard) {
            true => self.truths[shard as usize].clone(),
            false => kernel::answer(value),
        };
        let report = Report {
            lease,
            task: self.keys[shard as usize],
            engine: Digest::of(b"engine"),
            outcome: Outcome::Completed(completed),
            usage: Usage::default(),
            log: String::new(),
        };
        self.tell(Event::ReportArrived { session, report });
    }

    fn says(&mut self, identity: usize, job: JobId, shard: u32) -> u64 {
        let known = &mut self.identities[identity];
        let truth = kernel::truth(shard);
        match known.nature {
            Nature::Honest | Nature::Verifier => truth,
            Nature::Faulty => truth + u64::from(self.chance.ppm(FAULT_PPM)) * kernel::LIES,
            Nature::Bad => {
                let Some(running) = self.running.get_mut(&job) else { return truth };
                let rumour = &mut running.rumours[shard as usize];
                let said = self.cell.strategy.says(shard, &mut known.career, rumour, &mut self.chance);
                if said != truth {
                    self.tally.lies += 1;
                    self.tally.variance += at_stake(known.accepted);
                }
                said
            }
        }
    }

    fn reopen(&mut self, job: JobId, round: u32) {
        let Some(running) = self.running.get(&job) else { return };
        let accepted = running.accepted.iter().flatten().cloned().collect();
        self.tell(Event::JobReopened { job, round, accepted });
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.pool.apply(self.now, event, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dispatch { lease, session, task, .. } => {
                let seat = self.seat_of[session.0 as usize];
                self.seats[seat].live.push((lease, task.job, task.shard));
                if let Some(running) = self.running.get_mut(&task.job) {
                    running.attempts += 1;
                    if self.seats[seat].nature == Nature::Bad {
                        running.rumours[task.shard as usize].holders += 1;
                    }
                }
                let ms = self.chance.from(SHARD_MS.0, SHARD_MS.1);
                self.after(ms, Happening::Answer { seat, lease });
            }
            Action::Revoke { lease, session } => {
                let seat = &mut self.seats[self.seat_of[session.0 as usize]];
                if let Some(at) = seat.live.iter().position(|(live, ..)| *live == lease) {
                    let (_, job, shard) = seat.live.swap_remove(at);
                    if let Some(running) = self.running.get_mut(&job) {
                        running.lost += 1;
                        let rumour = &mut running.rumours[shard as usize];
                        rumour.holders = rumour.holders.saturating_sub(1);
                    }
                }
            }
            Action::Record(Record::Accepted(accepted)) => self.accepted(accepted),
            Action::Record(Record::Forgotten(forgotten)) => {
                let Some(running) = self.running.get_mut(&forgotten.job) else { return };
                running.forgotten += forgotten.shards.len() as u64;
                for shard in forgotten.shards {
                    running.accepted[shard as usize] = None;
                }
            }
            Action::Record(Record::Quarantined { agent, .. }) => self.taken_out(identity_of(&agent)),
            Action::Reload { job, round } => self.after(1, Happening::Reopen { job, round }),
            Action::Finish { job, outcome } => self.finished(job, &outcome),
            Action::Record(Record::Attempt(_) | Record::Superseded { .. }) => {}
            Action::Publish { .. } | Action::Withdraw { .. } => {}
            Action::Progress { .. } | Action::TrialEnded { .. } => {}
        }
    }

    fn accepted(&mut self, accepted: Accepted) {
        let first = &mut self.identities[identity_of(&accepted.agent)];
        first.accepted += 1;
        let wrong = accepted.result != self.results[accepted.shard as usize];
        self.tally.accepted += 1;
        self.tally.accepted_of_bad += u64::from(first.nature == Nature::Bad);
        let by_accident = wrong && first.nature == Nature::Faulty;
        self.tally.wrong += u64::from(wrong && !by_accident);
        self.tally.wrong_by_accident += u64::from(by_accident);
        let earns = match accepted.verdict.standing {
            Standing::Matched => true,
            Standing::Structural | Standing::Sampled | Standing::Checked => self.cell.mode != VerifyMode::None,
            Standing::Unchecked => false,
        };
        if earns {
            for agent in core::iter::once(&accepted.agent).chain(&accepted.verdict.agreed) {
                self.identities[identity_of(agent)].clean += 1;
            }
        }
        let verdict = &accepted.verdict;
        for agent in core::iter::once(&accepted.agent).chain(&verdict.agreed).chain(&verdict.refuted) {
            let place = (accepted.job, accepted.shard);
            self.identities[identity_of(agent)].unsettled.retain(|unsettled| *unsettled != place);
        }
        let Some(running) = self.running.get_mut(&accepted.job) else { return };
        running.lost += verdict.refuted.len() as u64;
        let shard = accepted.shard as usize;
        assert!(running.accepted[shard].replace(accepted).is_none(), "shard {shard} accepted twice");
    }

    /// An identity is out; its seat gets a fresh one at once.
    fn taken_out(&mut self, identity: usize) {
        let Identity { nature, seat, .. } = self.identities[identity];
        for (job, _) in core::mem::take(&mut self.identities[identity].unsettled) {
            if let Some(running) = self.running.get_mut(&job) {
                running.lost += 1;
            }
        }
        match nature {
            Nature::Honest | Nature::Verifier => self.tally.harmed += 1,
            Nature::Faulty => self.tally.faulty_out += 1,
            Nature::Bad => self.tally.burned += 1,
        }
        if self.seats[seat].identity == identity {
            self.after(0, Happening::Renew { seat });
        }
    }

    fn finished(&mut self, job: JobId, outcome: &JobOutcome) {
        let Some(running) = self.running.remove(&job) else { return };
        if !matches!(outcome, JobOutcome::Completed(_)) {
            self.tally.jobs_failed += 1;
            return;
        }
        let expected = (running.begun_with + self.attempts_expected()) / 2.0;
        let delivered = running.accepted.iter().flatten().count() as u64;
        assert_eq!(delivered, u64::from(self.cell.job), "a complete job has every shard");
        let wrong = |a: &&Accepted| a.result != self.results[a.shard as usize];
        let by_accident = |a: &&Accepted| self.identities[identity_of(&a.agent)].nature == Nature::Faulty;
        let of = |a: &&Accepted| wrong(a) && !by_accident(a);
        self.tally.delivered_wrong += running.accepted.iter().flatten().filter(of).count() as u64;
        self.tally.delivered += delivered;
        self.tally.executions += running.attempts;
        self.tally.predicted += expected * (delivered + running.forgotten) as f64 + running.lost as f64;
    }
}
