//! Everything that can happen to the pool.

use std::sync::Arc;

use forge_contract::report::Report;
use forge_contract::{AgentId, Capability, FailureCode, JobId, LeaseId};

use crate::Millis;
use crate::action::Accepted;
pub use crate::member::{Membership, OwnerId, ProjectTag, SessionId};
use crate::plan::Plan;
use crate::trial::{Exam, Grounds, TrialId};

/// Something that happened. Events that name what is not there any more are no error: they change nothing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job was recorded and may start.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Its plan, inputs resolved ([`Plan::resolve`]).
        plan: Arc<Plan>,
        /// Whose it is: projects take turns, whatever number of jobs each has.
        project: Arc<str>,
    },
    /// A job of an earlier process goes on from what was accepted.
    JobRestored {
        /// The job.
        job: JobId,
        /// Its plan as recorded.
        plan: Arc<Plan>,
        /// Whose it is.
        project: Arc<str>,
        /// Every recorded acceptance, in any order.
        accepted: Vec<Accepted>,
        /// When it was first accepted.
        accepted_at: Millis,
    },
    /// The accepted shards that [`crate::action::Action::Reload`] asked for.
    JobReopened {
        /// The job.
        job: JobId,
        /// The request's number.
        round: u32,
        /// Every recorded acceptance that was not forgotten, in any order.
        accepted: Vec<Accepted>,
    },
    /// The client wants no more of it.
    CancelRequested {
        /// The job.
        job: JobId,
    },
    /// A kernel's known answers are to be run by verifiers.
    TrialRequested {
        /// The trial.
        trial: TrialId,
        /// Its units.
        exams: Vec<Exam>,
        /// Where they may run.
        grounds: Grounds,
    },
    /// An agent connected. A session of the same agent that is still open counts as left.
    AgentJoined {
        /// The agent.
        agent: AgentId,
        /// Its session.
        session: SessionId,
        /// What it offers.
        capability: Capability,
        /// What is known of it.
        membership: Membership,
    },
    /// A session ended.
    AgentLeft {
        /// The session.
        session: SessionId,
    },
    /// The operator lifts an agent's quarantine, which is recorded: it starts again as a stranger, with little work.
    AgentReadmitted {
        /// The agent.
        agent: AgentId,
    },
    /// The operator takes an agent out for good, which is recorded: what rests on it alone is forgotten.
    AgentRemoved {
        /// The agent.
        agent: AgentId,
    },
    /// The operator reserves an agent for a project, or for none any more. What it runs it finishes.
    AgentReserved {
        /// The agent.
        agent: AgentId,
        /// The project whose work alone it does from now on.
        project: Option<ProjectTag>,
    },
    /// An agent finishes what it has and takes no more.
    AgentDraining {
        /// The session.
        session: SessionId,
    },
    /// An agent lives, and how far away it is.
    AgentHeard {
        /// The session.
        session: SessionId,
        /// Microseconds of a round trip.
        rtt_us: u64,
    },
    /// An agent is on its way through a shard.
    ShardProgress {
        /// The lease.
        lease: LeaseId,
        /// Units finished so far.
        units_done: u64,
    },
    /// An agent answered. Its signature was checked by the link.
    ReportArrived {
        /// The session it came by.
        session: SessionId,
        /// The answer.
        report: Report,
    },
    /// A lease ended without an answer: stream reset, declined, not deliverable.
    LeaseBroken {
        /// The lease.
        lease: LeaseId,
        /// Why.
        code: FailureCode,
        /// For people.
        detail: String,
    },
    /// Time passed; due at [`crate::pool::Pool::deadline`] at the latest.
    Tick,
    /// The hub stops: nothing new is dispatched, jobs stay as recorded.
    ShutdownRequested,
}
