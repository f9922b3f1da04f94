//! Leases one by one: late, repeated and foreign answers, agents that reconnect, drain or stop.

use std::sync::Arc;

use forge_contract::{Capability, FailureCode, LeaseId};
use forge_lifecycle::action::{Action, Ending, JobOutcome, Reason, Record};
use forge_lifecycle::event::{Event, SessionId};
use serde_json::json;

use crate::hand::{Hand, member};
use crate::world::agent_id;

#[test]
fn a_late_answer_is_recorded_and_discarded() {
    let mut hand = Hand::new();
    hand.join(0, 1, 1);
    let given = hand.submit(json!({"verify": "none", "shards": 4})).remove(0);
    hand.now = hand.pool.deadline().unwrap();
    while hand.pool.agents()[0].leases == 1 {
        hand.tell(Event::Tick);
        hand.now = hand.pool.deadline().unwrap().max(hand.now);
    }
    assert_eq!(hand.endings(), [(0, Reason::First, Ending::Failed, Some(FailureCode::AgentDeadline))]);
    hand.answer(&given, given.2);
    assert_eq!(hand.endings()[1], (0, Reason::First, Ending::Late, None));
    assert!(hand.accepted().is_empty());
    // A second copy of the same is nobody's any more.
    hand.answer(&given, given.2);
    assert_eq!((hand.endings().len(), hand.pool.stray_reports()), (2, 1));
}

#[test]
fn a_repeated_or_foreign_answer_changes_nothing() {
    let mut hand = Hand::new();
    hand.join(0, 1, 1);
    let first = hand.submit(json!({"verify": "none", "shards": 4})).remove(0);
    hand.join(1, 2, 1);
    // Another session answers a lease it does not hold.
    hand.answer(&first, SessionId(2));
    assert_eq!((hand.accepted().len(), hand.pool.stray_reports()), (0, 1));
    hand.answer(&first, SessionId(1));
    assert_eq!(hand.accepted(), [0]);
    hand.answer(&first, SessionId(1));
    assert_eq!(hand.accepted(), [0]);
    let unknown = (LeaseId(999), first.1, first.2, Arc::clone(&first.3));
    hand.answer(&unknown, SessionId(1));
    assert_eq!(hand.accepted(), [0]);
}

#[test]
fn an_answer_for_another_shard_is_a_breach() {
    let mut hand = Hand::new();
    hand.join(0, 1, 2);
    let given = hand.submit(json!({"verify": "none", "shards": 4}));
    let moved = (given[0].0, given[0].1, given[0].2, Arc::clone(&given[1].3));
    hand.answer(&moved, SessionId(1));
    assert_eq!(hand.endings(), [(0, Reason::First, Ending::Failed, Some(FailureCode::AgentProtocol))]);
    assert!(hand.accepted().is_empty());
}

#[test]
fn an_agent_that_reconnects_starts_anew() {
    let mut hand = Hand::new();
    hand.join(0, 1, 1);
    let old = hand.submit(json!({"verify": "none", "shards": 4})).remove(0);
    let new = hand.join(0, 2, 1).remove(0);
    assert_eq!(hand.endings(), [(0, Reason::First, Ending::Failed, Some(FailureCode::AgentLost))]);
    assert_eq!((new.2, new.3.shard), (SessionId(2), 0), "the lost shard is given out first");
    assert!(new.0 > old.0);
    // The old session's end comes late and must not touch the new one.
    hand.tell(Event::AgentLeft { session: SessionId(1) });
    assert_eq!(hand.pool.agents().len(), 1);
    hand.answer(&new, SessionId(2));
    assert_eq!(hand.accepted(), [0]);
}

#[test]
fn a_draining_agent_ends_what_it_has_and_gets_no_more() {
    let mut hand = Hand::new();
    hand.join(0, 1, 1);
    let given = hand.submit(json!({"verify": "none", "shards": 4})).remove(0);
    hand.tell(Event::AgentDraining { session: SessionId(1) });
    // Longer than a job waits for agents, shorter than the lease: its work is not thrown away.
    hand.now += 40_000;
    hand.tell(Event::Tick);
    assert!(hand.outcome().is_none());
    assert!(hand.answer(&given, SessionId(1)).is_empty());
    assert_eq!(hand.accepted(), [0]);
    hand.now += 31_000;
    hand.tell(Event::Tick);
    assert!(
        matches!(hand.outcome(), Some(JobOutcome::Failed { failure, .. }) if failure.code == FailureCode::SchedulingNoAgents)
    );
}

#[test]
fn a_hub_that_stops_leaves_its_jobs_as_recorded() {
    let mut hand = Hand::new();
    hand.join(0, 1, 2);
    let given = hand.submit(json!({"verify": "none", "shards": 4}));
    hand.answer(&given[0], SessionId(1));
    hand.tell(Event::ShutdownRequested);
    hand.tell(Event::AgentLeft { session: SessionId(1) });
    assert!(hand.join(1, 2, 4).is_empty(), "nothing new is given out");
    assert_eq!((hand.pool.deadline(), hand.pool.leases()), (None, 0));
    assert!(hand.outcome().is_none(), "the job is not over: the next process goes on");
    assert_eq!(hand.accepted(), [0]);
}

#[test]
fn a_job_whose_engines_differ_runs_on_one_of_them() {
    let mut hand = Hand::new();
    hand.join(0, 1, 4);
    let capability =
        Capability { engine: forge_contract::Digest::of(b"older"), ..hand.pool.agents()[0].capability.clone() };
    let older = Capability { cores: 2, leases: 2, ..capability };
    hand.tell(Event::AgentJoined {
        agent: agent_id(1),
        session: SessionId(2),
        capability: older,
        membership: member(1),
    });
    let given = hand.submit(json!({"verify": "none", "shards": 4}));
    assert!(
        given.iter().all(|(_, agent, ..)| *agent == agent_id(0)),
        "bits and fuel are promised within one profile only"
    );
    assert_eq!(given.len(), 4);
}

#[test]
fn logs_and_placements_reach_the_record() {
    let mut hand = Hand::new();
    hand.join(0, 1, 1);
    let given = hand.submit(json!({"verify": "none", "shards": 4})).remove(0);
    hand.answer(&given, SessionId(1));
    let attempt = hand.seen.iter().find_map(|action| match action {
        Action::Record(Record::Attempt(attempt)) => Some(attempt),
        _ => None,
    });
    let attempt = attempt.unwrap();
    assert_eq!((attempt.log.as_str(), attempt.ending, attempt.fuel), ("printed", Ending::Reported, 900_000));
    assert_eq!(attempt.placement.load_permille, 0);
}
