//! Stakes, what becomes of them, and doubts about finished jobs.

use forge_contract::{AgentId, Digest, FailureCode, JobId};
use forge_lifecycle::books::price::Charge;
use forge_lifecycle::books::{Bearer, Pay, Stamp, Transaction};
use forge_lifecycle::bundle::erratum::ErratumVerdict;
use forge_lifecycle::settle::{SettlePolicy, Share};

use super::{FAR, accept, attempt, end, job, new_job, shard};
use crate::store::books::Settlement;
use crate::store::settlement::{DoubtfulJob, Earnings, ErratumState, StakeState};
use crate::store::*;

const POLICY: SettlePolicy = SettlePolicy { shards: 10, ms: 1_000 };

pub(super) async fn run(store: &dyn Store) {
    stakes_settle_by_shards_and_by_time(store).await;
    who_is_out_settles_nothing(store).await;
    a_refutation_casts_doubt(store).await;
    an_end_written_late_is_doubted_at_once(store).await;
}

async fn enrolled(store: &dyn Store, key: u8) -> AgentId {
    let hash = Digest::of(&[key, key]);
    let project = "a".into();
    store
        .submit(Write::EnrolToken { hash, project, expires_ms: FAR, verifier: false, provider: None, reserved: None })
        .await
        .unwrap();
    let redeemed = store.submit(Write::Redeem { hash, public_key: [key; 32] }).await.unwrap();
    assert_eq!(redeemed, Written::Redeemed(true));
    AgentId::of_public_key(&[key; 32])
}

async fn clean(store: &dyn Store, agent: AgentId, count: u64) {
    store.submit(Write::Clean { shards: vec![(agent, count)], settle: POLICY }).await.unwrap();
}

fn stake(agent: AgentId, shards_alone: u64, credits_micro: u64) -> NewStake {
    let share = Share { shards_alone, fuel_alone: 5, shards_confirmed: 1, fuel_confirmed: 7 };
    NewStake { agent, share, credits_micro }
}

/// Accepts a job and ends it with these stakes.
async fn ended(store: &dyn Store, number: u128, finished_ms: u64, stakes: Vec<NewStake>) {
    assert_eq!(accept(store, new_job(number, "a", None, "x")).await, Written::Done);
    finish(store, number, finished_ms, stakes, None).await;
}

async fn finish(store: &dyn Store, number: u128, finished_ms: u64, stakes: Vec<NewStake>, erratum: Option<ErratumEnd>) {
    let settlement = Some(earned(number, finished_ms, &stakes));
    let finished = FinishedJob { finished_ms, settlement, stakes, erratum, ..end(number, "document") };
    store.submit(Write::Finish(Box::new(finished))).await.unwrap();
}

/// What the platform pays for these stakes.
fn earned(number: u128, at_ms: u64, stakes: &[NewStake]) -> Settlement {
    let pay = |stake: &NewStake| Pay { agent: stake.agent, work_micro: stake.credits_micro, checks_micro: 0 };
    let pay: Vec<Pay> = stakes.iter().map(pay).collect();
    let (stamp, charge) = (Stamp { at_ms, salt: number }, Charge::default());
    let transaction =
        Transaction::settle(stamp, job(number), Bearer::Platform { project: "a" }, &charge, &pay).unwrap();
    Settlement { charge, eur_micro: 0, transaction, correction: None }
}

async fn states(store: &dyn Store, number: u128) -> Vec<(AgentId, StakeState)> {
    store.stakes(job(number)).await.unwrap().into_iter().map(|row| (row.agent, row.state)).collect()
}

async fn earnings(store: &dyn Store, agent: AgentId) -> (u64, u64, u64) {
    let Earnings { held_micro, payable_micro, forfeited_micro } =
        store.agent_record(agent, 0).await.unwrap().unwrap().earnings;
    (held_micro, payable_micro, forfeited_micro)
}

async fn kinds(store: &dyn Store, agent: AgentId) -> Vec<AgentEventKind> {
    let events = store.agent_record(agent, 100).await.unwrap().unwrap().events;
    assert!(events.is_sorted_by_key(|row| std::cmp::Reverse(row.seq)));
    events.into_iter().map(|row| row.event.kind).collect()
}

async fn settle(store: &dyn Store, now_ms: u64) -> u64 {
    let Written::Settled(settled) = store.submit(Write::Settle { policy: POLICY, now_ms }).await.unwrap() else {
        panic!()
    };
    settled
}

async fn stakes_settle_by_shards_and_by_time(store: &dyn Store) {
    let agent = enrolled(store, 100).await;
    clean(store, agent, 7).await;
    ended(store, 80, 9, vec![stake(agent, 2, 100)]).await;
    // An end is written once, and so are its stakes.
    finish(store, 80, 9, vec![stake(agent, 9, 900)], None).await;
    let row = store.stakes(job(80)).await.unwrap()[0];
    assert_eq!((row.share, row.credits_micro, row.accepted, row.taken_ms), (stake(agent, 2, 0).share, 100, 7, 9));
    assert_eq!((row.state, row.ended_ms), (StakeState::Held, None));
    assert_eq!(earnings(store, agent).await, (100, 0, 0));
    clean(store, agent, 9).await;
    assert_eq!(states(store, 80).await, [(agent, StakeState::Held)], "nine further shards are not ten");
    clean(store, agent, 1).await;
    assert_eq!(states(store, 80).await, [(agent, StakeState::Payable)]);
    assert_eq!(earnings(store, agent).await, (0, 100, 0));
    assert_eq!(kinds(store, agent).await, [AgentEventKind::Payable, AgentEventKind::Enrolled]);

    ended(store, 81, 100, vec![stake(agent, 1, 30)]).await;
    assert_eq!((settle(store, 1_099).await, settle(store, 1_100).await, settle(store, FAR).await), (0, 1, 0));
    assert_eq!(earnings(store, agent).await, (0, 130, 0));
    let record = store.agent_record(agent, 1).await.unwrap().unwrap();
    assert_eq!((record.agent.clean, record.agent.accepted, record.events.len()), (17, 17, 1));
    assert_eq!(store.agent_record(AgentId(Digest::of(b"nobody")), 1).await.unwrap(), None);
}

async fn who_is_out_settles_nothing(store: &dyn Store) {
    let agent = enrolled(store, 101).await;
    ended(store, 82, 100, vec![stake(agent, 1, 5)]).await;
    // Not for a wrong answer: it keeps what it holds, and gets it once it is in again.
    let code = FailureCode::AgentProtocol;
    store.submit(Write::Quarantine { agent, code, job: job(82) }).await.unwrap();
    clean(store, agent, 500).await;
    assert_eq!(settle(store, FAR).await, 0);
    assert_eq!((states(store, 82).await, earnings(store, agent).await), (vec![(agent, StakeState::Held)], (5, 0, 0)));
    assert_eq!(store.errata(job(82)).await.unwrap(), []);
    let place = Some((0, 3));
    let strike =
        AgentEvent { agent, kind: AgentEventKind::Strike, job: Some(job(82)), place, detail: Some("d".into()) };
    store.submit(Write::AgentEvent(Box::new(strike.clone()))).await.unwrap();
    let record = store.agent_record(agent, 1).await.unwrap().unwrap();
    assert_eq!((record.strikes, &record.events[0].event), (1, &strike));
    for expected in [true, false] {
        assert_eq!(store.submit(Write::Readmit { agent }).await.unwrap(), Written::Applied(expected));
    }
    let record = store.agent_record(agent, 0).await.unwrap().unwrap();
    assert_eq!((record.strikes, record.agent.quarantined, record.agent.clean), (0, None, 0));
    assert!(record.agent.readmitted_ms.is_some());
    assert_eq!(settle(store, FAR).await, 1);

    // Removed for good: what it holds is lost, what it did is doubted, no token brings it back.
    ended(store, 83, FAR, vec![stake(agent, 1, 6)]).await;
    for expected in [true, false] {
        assert_eq!(store.submit(Write::Remove { agent }).await.unwrap(), Written::Applied(expected));
    }
    assert_eq!(earnings(store, agent).await, (0, 5, 6));
    let doubts = store.errata(job(83)).await.unwrap();
    assert_eq!((doubts[0].reason.as_str(), doubts[0].state), ("removed", ErratumState::Pending));
    store.submit(Write::VoidErrata { job: job(83) }).await.unwrap();
    assert_eq!(store.errata(job(83)).await.unwrap()[0].state, ErratumState::Void);
    assert_eq!(store.agent_key(agent).await.unwrap(), None);
    assert_eq!(store.submit(Write::Readmit { agent }).await.unwrap(), Written::Applied(false));
    let hash = Digest::of(b"another token");
    let project = "a".into();
    store
        .submit(Write::EnrolToken { hash, project, expires_ms: FAR, verifier: false, provider: None, reserved: None })
        .await
        .unwrap();
    let redeemed = store.submit(Write::Redeem { hash, public_key: [101; 32] }).await.unwrap();
    assert_eq!(redeemed, Written::Redeemed(false));
    assert_eq!(store.submit(Write::Redeem { hash, public_key: [110; 32] }).await.unwrap(), Written::Redeemed(true));
}

async fn begin(store: &dyn Store, run: u128, of: u128, stage: u32, shards: Vec<u32>) -> Written {
    let (run, of) = (new_job(run, "a", None, "x"), job(of));
    store.submit(Write::BeginErratum(Box::new(NewErratum { run, of, stage, shards, after: 40 }))).await.unwrap()
}

async fn accepted(store: &dyn Store, number: u128) -> Vec<(u32, u32)> {
    store.accepted(job(number)).await.unwrap().into_iter().map(|row| (row.stage, row.shard)).collect()
}

async fn doubtful(store: &dyn Store, now_ms: u64) -> Vec<JobId> {
    store.doubtful(now_ms).await.unwrap().into_iter().map(|doubt| doubt.job).collect()
}

async fn a_refutation_casts_doubt(store: &dyn Store) {
    let (liar, honest) = (enrolled(store, 102).await, enrolled(store, 103).await);
    assert_eq!(accept(store, new_job(84, "a", None, "x")).await, Written::Done);
    for (stage, number) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
        let row = AcceptedRow { job: job(84), stage, ..shard(number, vec![9]) };
        store.submit(Write::Accepted(Box::new(row))).await.unwrap();
        let row = AttemptRow { job: job(84), stage, ..attempt(number, u64::from(number) + 30, None) };
        store.submit(Write::Attempt(Box::new(row))).await.unwrap();
    }
    finish(store, 84, 9, vec![stake(liar, 2, 9), stake(honest, 1, 1)], None).await;
    assert_eq!(doubtful(store, FAR).await, []);
    let code = FailureCode::VerificationMismatch;
    store.submit(Write::Quarantine { agent: liar, code, job: job(1) }).await.unwrap();
    assert_eq!((earnings(store, liar).await, earnings(store, honest).await), ((0, 0, 9), (1, 0, 0)));
    use AgentEventKind::{Enrolled, Forfeited, Quarantined};
    assert_eq!(kinds(store, liar).await, [Forfeited, Quarantined, Enrolled]);
    let doubts = store.errata(job(84)).await.unwrap();
    assert_eq!((doubts.len(), doubts[0].agent, doubts[0].reason.as_str()), (1, liar, "verification.mismatch"));
    assert_eq!(store.doubtful(FAR).await.unwrap(), [DoubtfulJob { job: job(84), agents: vec![liar] }]);
    assert_eq!(doubtful(store, doubts[0].noted_ms - 1).await, []);
    let origin = store.origin(job(84)).await.unwrap().unwrap();
    assert_eq!((origin.project.as_str(), origin.plan.as_str(), origin.erratum), ("a", "{}", None));

    // A run takes over what is not doubted, once.
    assert_eq!(begin(store, 85, 84, 0, vec![1]).await, Written::Applied(true));
    assert_eq!(begin(store, 86, 84, 0, vec![1]).await, Written::Applied(false));
    assert_eq!(store.job("a", job(86)).await.unwrap(), None);
    assert_eq!((accepted(store, 85).await, accepted(store, 84).await.len()), (vec![(0, 0), (0, 2)], 4));
    let attempts = store.attempts(job(85), Page { offset: 0, limit: 9 }).await.unwrap();
    assert_eq!(attempts.iter().map(|row| row.lease.0).collect::<Vec<_>>(), [30, 32]);
    let unfinished = store.unfinished().await.unwrap();
    let run = unfinished.iter().find(|row| row.job == job(85)).unwrap();
    assert_eq!(run.erratum, Some(ErratumOf { of: job(84), after: forge_contract::LeaseId(40) }));
    assert_eq!(doubtful(store, FAR).await, [], "one run at a time");

    // It fails: the doubt waits for the next one.
    finish(store, 85, 1_000, vec![], None).await;
    let doubt = store.errata(job(84)).await.unwrap().remove(0);
    assert_eq!((doubt.state, doubt.failed, doubt.run), (ErratumState::Pending, 1, None));
    assert_eq!((doubtful(store, 60_999).await, doubtful(store, 61_000).await), (vec![], vec![job(84)]));
    assert_eq!(begin(store, 86, 84, 0, vec![1]).await, Written::Applied(true));
    let (before, after, record) = (Some(Digest::of(b"b")), Some(Digest::of(b"a")), Digest::of(b"record"));
    let end = ErratumEnd { verdict: ErratumVerdict::Corrected, before, after, record };
    finish(store, 86, 2_000, vec![stake(honest, 1, 2)], Some(end)).await;
    let doubt = store.errata(job(84)).await.unwrap().remove(0);
    assert_eq!((doubt.state, doubt.run, doubt.shards), (ErratumState::Corrected, Some(job(86)), Some(1)));
    assert_eq!((doubt.before, doubt.after, doubt.record), (before, after, Some(record)));
    assert_eq!((doubt.ended_ms, doubtful(store, FAR).await), (Some(2_000), vec![]));

    // Who ran it again is refuted in turn: a doubt about the job behind the run, not a second about the run.
    store.submit(Write::Quarantine { agent: honest, code, job: job(1) }).await.unwrap();
    assert_eq!(store.errata(job(86)).await.unwrap(), []);
    let mut agents = vec![liar, honest];
    agents.sort_unstable();
    assert_eq!(store.doubtful(FAR).await.unwrap(), [DoubtfulJob { job: job(84), agents }]);
    assert_eq!(store.errata(job(84)).await.unwrap().len(), 2);
    store.submit(Write::VoidErrata { job: job(84) }).await.unwrap();
    assert_eq!(doubtful(store, FAR).await, []);
    assert_eq!(store.errata(job(84)).await.unwrap()[0].state, ErratumState::Corrected, "what ended stays");
}

async fn an_end_written_late_is_doubted_at_once(store: &dyn Store) {
    let liar = AgentId::of_public_key(&[102; 32]);
    ended(store, 87, 9, vec![stake(liar, 1, 4)]).await;
    assert_eq!(states(store, 87).await, [(liar, StakeState::Forfeited)]);
    assert_eq!((earnings(store, liar).await, doubtful(store, FAR).await), ((0, 0, 13), vec![job(87)]));
    store.submit(Write::VoidErrata { job: job(87) }).await.unwrap();
}
