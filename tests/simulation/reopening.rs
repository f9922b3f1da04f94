//! A job that reads its accepted shards back after some were forgotten.

use forge_contract::JobId;
use forge_lifecycle::action::{Accepted, Action, JobOutcome, Record};
use forge_lifecycle::event::Event;
use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::hand::Hand;
use crate::world::agent_id;

const JOB: JobId = JobId::from_bits(1);

/// Everything accepted and not forgotten.
fn kept(hand: &Hand) -> Vec<Accepted> {
    let mut kept: Vec<Accepted> = Vec::new();
    for action in &hand.seen {
        match action {
            Action::Record(Record::Accepted(accepted)) => kept.push(accepted.clone()),
            Action::Record(Record::Forgotten(gone)) => kept.retain(|accepted| !gone.shards.contains(&accepted.shard)),
            _ => {}
        }
    }
    kept
}

/// The request to read back, where there was one.
fn reload(hand: &Hand) -> Option<u32> {
    hand.seen.iter().find_map(|action| match action {
        Action::Reload { round, .. } => Some(*round),
        _ => None,
    })
}

/// A proven agent has answered a shard that was accepted, and a stranger one that waits for its check. Then the proven
/// one is taken out. Gives what is left for the stranger to answer.
fn taken_out() -> (Hand, u32, u32) {
    // Who is proven is audited now and then: the first secret under which its answer is not.
    let settled = |secret: u8| {
        let mut hand = Hand::with(Settings { hub_secret: [secret; 32], ..Settings::default() });
        hand.join_as(0, 1, 1, 1_000_000);
        let first = hand.submit(json!({"verify": "spotcheck", "shards": 4})).remove(0);
        let second = hand.join(1, 2, 1).remove(0);
        hand.answer(&first, first.2);
        let accepted = *hand.accepted().first()?;
        hand.answer(&second, second.2);
        Some((hand, accepted, u32::try_from(second.3.first_unit).unwrap()))
    };
    let (mut hand, accepted, waiting) = (0..50).find_map(settled).expect("an answer that is not audited");
    assert_eq!(hand.accepted(), [accepted], "the stranger's answer waits for its check");
    hand.tell(Event::AgentRemoved { agent: agent_id(0) });
    assert_eq!(reload(&hand), Some(1));
    (hand, accepted, waiting)
}

#[test]
fn nothing_is_accepted_before_what_was_accepted_is_there_again() {
    let (mut hand, accepted, _) = taken_out();
    // Long enough for the check to be given up: nobody else is connected.
    for _ in 0..20 {
        hand.now += 60_000;
        hand.tell(Event::Tick);
    }
    assert_eq!(hand.accepted(), [accepted]);
    assert!(hand.outcome().is_none());
}

#[test]
fn an_answer_that_waited_for_its_check_is_not_asked_for_again() {
    let (mut hand, accepted, waiting) = taken_out();
    let mut given = hand.tell(Event::JobReopened { job: JOB, round: 1, accepted: kept(&hand) });
    let mut shards = Vec::new();
    for _ in 0..200 {
        match given.pop() {
            Some(next) => {
                shards.push(u32::try_from(next.3.first_unit).unwrap());
                given.extend(hand.answer(&next, next.2));
            }
            None => {
                hand.now += 10_000;
                given.extend(hand.tell(Event::Tick));
            }
        }
    }
    shards.sort_unstable();
    let expected: Vec<u32> = (0..4).filter(|shard| *shard != waiting).collect();
    assert_eq!(shards, expected, "shard {accepted} runs again, shard {waiting} does not");
    assert!(matches!(hand.outcome(), Some(JobOutcome::Completed(_))), "{:?}", hand.outcome());
    let lasting: Vec<u32> = kept(&hand).iter().map(|accepted| accepted.shard).collect();
    assert_eq!(lasting.len(), 4, "{lasting:?}");
}
