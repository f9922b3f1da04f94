//! A pool driven event by event.

use std::sync::Arc;

use forge_contract::report::{Outcome, Report, Usage};
use forge_contract::task::Task;
use forge_contract::{AgentId, Capability, FailureCode, JobId, LeaseId};
use forge_lifecycle::action::{Action, Ending, JobOutcome, Reason, Record};
use forge_lifecycle::event::{Event, Membership, OwnerId, SessionId};
use forge_lifecycle::pool::{Pool, Settings};

use crate::kernel::{planned, shard};
use crate::world::{agent_id, engine};

/// A pool driven by hand.
pub struct Hand {
    pub pool: Pool,
    pub now: u64,
    pub seen: Vec<Action>,
}

/// Lease, agent, session, task.
pub type Given = (LeaseId, AgentId, SessionId, Arc<Task>);

impl Hand {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        Self { pool: Pool::new(settings), now: 1_000, seen: Vec::new() }
    }

    /// Leases given out by this event.
    pub fn tell(&mut self, event: Event) -> Vec<Given> {
        let mut actions = Vec::new();
        self.pool.apply(self.now, event, &mut actions);
        let given = actions.iter().filter_map(|action| match action {
            Action::Dispatch { lease, agent, session, task, .. } => Some((*lease, *agent, *session, Arc::clone(task))),
            _ => None,
        });
        let given = given.collect();
        self.seen.extend(actions);
        given
    }

    pub fn join(&mut self, agent: usize, session: u64, cores: u32) -> Vec<Given> {
        self.join_as(agent, session, cores, 0)
    }

    /// An agent with so many clean shards.
    pub fn join_as(&mut self, agent: usize, session: u64, cores: u32, clean: u64) -> Vec<Given> {
        let capability = Capability {
            cores,
            leases: cores,
            memory_bytes: 1 << 30,
            arch: "sim".into(),
            os: "sim".into(),
            cpu: true,
            gpu: false,
            labels: vec![],
            projects: vec![],
            engine: engine(),
            cage: "none".into(),
        };
        self.tell(Event::AgentJoined {
            agent: agent_id(agent),
            session: SessionId(session),
            capability,
            membership: Membership { clean, ..member(agent) },
        })
    }

    pub fn submit(&mut self, policy: serde_json::Value) -> Vec<Given> {
        let plan = planned("one.v1", 12, policy);
        self.tell(Event::JobAccepted { job: JobId::from_bits(1), plan: Arc::new(plan), project: "p".into() })
    }

    pub fn answer(&mut self, given: &Given, session: SessionId) -> Vec<Given> {
        let (lease, _, _, task) = given;
        let outcome = Outcome::Completed(shard(task, &[]));
        let (task, engine, usage) = (task.key_digest(), engine(), Usage::default());
        let report = Report { lease: *lease, task, engine, outcome, usage, log: "printed".into() };
        self.tell(Event::ReportArrived { session, report })
    }

    pub fn endings(&self) -> Vec<(u32, Reason, Ending, Option<FailureCode>)> {
        let attempts = self.seen.iter().filter_map(|action| match action {
            Action::Record(Record::Attempt(a)) => Some((a.shard, a.reason, a.ending, a.code)),
            _ => None,
        });
        attempts.collect()
    }

    pub fn accepted(&self) -> Vec<u32> {
        let accepted = self.seen.iter().filter_map(|action| match action {
            Action::Record(Record::Accepted(a)) => Some(a.shard),
            _ => None,
        });
        accepted.collect()
    }

    pub fn outcome(&self) -> Option<&JobOutcome> {
        let mut finishes = self.seen.iter().filter_map(|action| match action {
            Action::Finish { outcome, .. } => Some(outcome.as_ref()),
            _ => None,
        });
        let first = finishes.next();
        assert!(finishes.next().is_none(), "one end");
        first
    }
}

pub fn member(owner: usize) -> Membership {
    Membership { owner: OwnerId(owner as u64), ..Membership::default() }
}
