//! The suite every backend passes. A backend gives a function that opens the same storage again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod books;
mod data;
mod settlement;
mod tenancy;
mod trail;

use std::sync::Arc;

use forge_contract::{AgentId, Digest, FailureCode, JobId, LeaseId};

use super::tenancy::{NewProject, OPERATOR};
use super::*;

const FAR: u64 = 1 << 50;

/// Runs every test; `open(false)` must reopen what earlier calls wrote.
pub async fn run(open: impl AsyncFn(bool) -> Arc<dyn Store>) {
    let store = open(true).await;
    for (id, name) in [("a", "first"), ("b", "second")] {
        let new = NewProject { name: name.into(), ..NewProject::plain(id, OPERATOR) };
        assert!(tenancy::change(&*store, TenancyWrite::Project(new)).await);
    }
    acceptance_and_idempotency(&*store).await;
    order_and_isolation(&*store).await;
    shards_survive_and_are_accepted_once(&*store).await;
    an_end_is_written_once(&*store).await;
    a_bad_change_leaves_its_neighbours(&*store).await;
    tokens_work_once(&*store).await;
    kernels_never_change(&*store).await;
    content_belongs_to_projects(&*store).await;
    data::run(&*store).await;
    settlement::run(&*store).await;
    tenancy::run(&*store).await;
    books::run(&*store).await;
    trail::run(&*store).await;
    let first = store.submit(Write::ReserveLeases).await.unwrap();
    store.close().await;
    assert!(matches!(store.submit(Write::ReserveLeases).await, Err(StoreError::Closed)));
    drop(store);
    let store = open(false).await;
    trail::reopened(&*store).await;
    reopened(&*store, &first).await;
}

fn job(number: u128) -> JobId {
    JobId::new(1_000 + u64::try_from(number).unwrap(), number)
}

fn new_job(number: u128, project: &str, key: Option<&str>, body: &str) -> NewJob {
    NewJob {
        job: job(number),
        project: project.into(),
        client_job_id: Some(format!("client-{number}")),
        trace_id: "t".into(),
        op: "mc@1 insurance.v1".into(),
        envelope: body.into(),
        envelope_digest: Digest::of(body.as_bytes()),
        plan: "{}".into(),
        accepted_ms: 7,
        idempotency_key: key.map(Into::into),
        request_digest: Digest::of(body.as_bytes()),
        replay_of: (number == 3).then(|| job(1)),
        content: vec![Digest::of(b"component")],
        charge: None,
    }
}

async fn accept(store: &dyn Store, job: NewJob) -> Written {
    store.submit(Write::Accept(Box::new(job))).await.unwrap()
}

async fn acceptance_and_idempotency(store: &dyn Store) {
    assert_eq!(accept(store, new_job(1, "a", Some("k"), "one")).await, Written::Done);
    assert_eq!(accept(store, new_job(2, "a", Some("k"), "one")).await, Written::Existing(job(1)));
    assert_eq!(accept(store, new_job(2, "a", Some("k"), "two")).await, Written::Mismatch(job(1)));
    assert_eq!(store.job("a", job(2)).await.unwrap(), None);
    // Another project's same key is another key.
    assert_eq!(accept(store, new_job(3, "b", Some("k"), "two")).await, Written::Done);
    let row = store.job("a", job(1)).await.unwrap().unwrap();
    assert_eq!((row.phase, row.client_job_id.as_deref(), row.accepted_ms), (Phase::Running, Some("client-1"), 7));
}

async fn order_and_isolation(store: &dyn Store) {
    // Not awaited one by one: the queue keeps the order and the batch is one transaction.
    let acks: Vec<Ack> = (10..60).map(|n| store.submit(Write::Accept(Box::new(new_job(n, "a", None, "x"))))).collect();
    for ack in acks {
        assert_eq!(ack.await.unwrap(), Written::Done);
    }
    let newest = store.jobs("a", None, None, 3).await.unwrap();
    assert_eq!(newest.iter().map(|row| row.job).collect::<Vec<_>>(), [job(59), job(58), job(57)]);
    let next = store.jobs("a", Some(job(57)), Some(Phase::Running), 2).await.unwrap();
    assert_eq!(next.iter().map(|row| row.job).collect::<Vec<_>>(), [job(56), job(55)]);
    assert_eq!(store.jobs("a", None, Some(Phase::Failed), 9).await.unwrap(), []);
    assert_eq!(store.job("b", job(59)).await.unwrap(), None);
    assert_eq!(store.jobs("b", None, None, 9).await.unwrap().len(), 1);
}

fn shard(shard: u32, fragment: Vec<u8>) -> AcceptedRow {
    AcceptedRow { job: job(1), stage: 0, shard, body: vec![1, 2], fragment }
}

fn attempt(shard: u32, lease: u64, code: Option<FailureCode>) -> AttemptRow {
    let agent = AgentId(Digest::of(b"agent"));
    AttemptRow {
        job: job(1),
        stage: 0,
        shard,
        lease: LeaseId(lease),
        agent,
        code,
        body: format!("{{\"lease\":{lease},\"status\":\"{}\"}}", if code.is_some() { "FAILED" } else { "REPORTED" }),
    }
}

async fn shards_survive_and_are_accepted_once(store: &dyn Store) {
    let large: Vec<u8> = (0..400_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for row in [shard(1, large.clone()), shard(0, vec![9]), shard(0, vec![8])] {
        store.submit(Write::Accepted(Box::new(row))).await.unwrap();
    }
    assert_eq!(store.accepted(job(1)).await.unwrap(), [shard(0, vec![9]), shard(1, large)]);
    assert_eq!(store.accepted(job(3)).await.unwrap(), []);
    let bodies = store.accepted_bodies(job(1), Page { offset: 1, limit: 9 }).await.unwrap();
    assert_eq!(bodies, [vec![1, 2]]);
    let planned = PlannedRow { envelope: "one".into(), plan: "{}".into() };
    assert_eq!(store.planned("a", job(1)).await.unwrap(), Some(planned));
    assert_eq!(store.planned("b", job(1)).await.unwrap(), None);
    let unfinished = store.unfinished().await.unwrap();
    let of = |number| unfinished.iter().find(|row| row.job == job(number)).unwrap().replay_of;
    assert_eq!((of(1), of(3)), (None, Some(job(1))));
    let attempts = [attempt(1, 5, None), attempt(0, 6, Some(FailureCode::AgentLost)), attempt(0, 7, None)];
    for row in attempts.clone() {
        store.submit(Write::Attempt(Box::new(row))).await.unwrap();
    }
    let [late, first, second] = attempts;
    let all = store.attempts(job(1), Page { offset: 0, limit: 10 }).await.unwrap();
    assert_eq!(all, [first, second.clone(), late]);
    assert_eq!(store.attempts(job(1), Page { offset: 1, limit: 1 }).await.unwrap(), [second]);
    assert_eq!(store.attempts_count(job(1)).await.unwrap(), 3);
    // Answers from shard 1 on are not needed; what came before it stays as it was, and other stages do.
    for (stage, from) in [(1, 0), (0, 1)] {
        let restate = Write::Restate { job: job(1), stage, shard: from, from: "REPORTED", to: "SUPERSEDED" };
        store.submit(restate).await.unwrap();
    }
    let all = store.attempts(job(1), Page { offset: 0, limit: 10 }).await.unwrap();
    let bodies: Vec<&str> = all.iter().map(|row| row.body.as_str()).collect();
    let line = |lease: u64, status: &str| format!("{{\"lease\":{lease},\"status\":\"{status}\"}}");
    assert_eq!(bodies, [line(6, "FAILED"), line(7, "REPORTED"), line(5, "SUPERSEDED")]);
}

fn end(number: u128, document: &str) -> FinishedJob {
    let object = b"result".to_vec();
    FinishedJob {
        job: job(number),
        phase: Phase::Completed,
        code: None,
        finished_ms: 9,
        document: document.into(),
        artifacts: vec![ArtifactRow {
            name: "result_json".into(),
            media_type: "application/json".into(),
            digest: Digest::of(&object),
            bytes: 6,
        }],
        objects: vec![object],
        entry: format!("{{\"job\":{number}}}"),
        settlement: None,
        stakes: vec![],
        erratum: None,
        kept: super::data::Kept::default(),
    }
}

async fn an_end_is_written_once(store: &dyn Store) {
    store.submit(Write::Finish(Box::new(end(1, "first")))).await.unwrap();
    store.submit(Write::Finish(Box::new(end(1, "second")))).await.unwrap();
    store.submit(Write::Finish(Box::new(end(3, "other")))).await.unwrap();
    let row = store.job("a", job(1)).await.unwrap().unwrap();
    assert_eq!((row.phase, row.finished_ms, row.document.as_deref()), (Phase::Completed, Some(9), Some("first")));
    assert_eq!(store.artifacts(job(1)).await.unwrap(), end(1, "").artifacts);
    assert_eq!(store.object(&Digest::of(b"result")).await.unwrap().unwrap(), b"result");
    assert_eq!(store.object(&Digest::of(b"nothing")).await.unwrap(), None);
    let lines = store.ledger(Page { offset: 0, limit: 9 }).await.unwrap();
    assert_eq!(lines.iter().map(|line| (line.seq, line.job)).collect::<Vec<_>>(), [(1, job(1)), (2, job(3))]);
    assert_eq!(lines[0].previous, Digest::from_bytes([0; 32]));
    assert_eq!(lines[1].previous, lines[0].digest);
    for line in &lines {
        assert_eq!(line.digest, LedgerLine::digest_of(&line.previous, &line.entry));
    }
}

async fn a_bad_change_leaves_its_neighbours(store: &dyn Store) {
    let before = store.submit(Write::Accept(Box::new(new_job(70, "a", None, "x"))));
    let bad = store.submit(Write::Accept(Box::new(new_job(71, "no such project", None, "x"))));
    let after = store.submit(Write::Accept(Box::new(new_job(72, "a", None, "x"))));
    assert_eq!(before.await.unwrap(), Written::Done);
    assert!(bad.await.is_err());
    assert_eq!(after.await.unwrap(), Written::Done);
    assert!(store.job("a", job(70)).await.unwrap().is_some());
    assert!(store.job("a", job(72)).await.unwrap().is_some());
}

async fn tokens_work_once(store: &dyn Store) {
    let (good, old) = (Digest::of(b"token"), Digest::of(b"old"));
    store
        .submit(Write::EnrolToken {
            hash: good,
            project: "a".into(),
            expires_ms: FAR,
            verifier: false,
            provider: None,
            reserved: None,
        })
        .await
        .unwrap();
    store
        .submit(Write::EnrolToken {
            hash: old,
            project: "a".into(),
            expires_ms: 1,
            verifier: false,
            provider: None,
            reserved: None,
        })
        .await
        .unwrap();
    let redeem = async |hash, key: u8| store.submit(Write::Redeem { hash, public_key: [key; 32] }).await.unwrap();
    assert_eq!(redeem(old, 1).await, Written::Redeemed(false));
    assert_eq!(redeem(Digest::of(b"unknown"), 1).await, Written::Redeemed(false));
    assert_eq!(redeem(good, 1).await, Written::Redeemed(true));
    assert_eq!(redeem(good, 1).await, Written::Redeemed(true));
    assert_eq!(redeem(good, 2).await, Written::Redeemed(false));
    let agent = AgentId::of_public_key(&[1; 32]);
    assert_eq!(store.agent_key(agent).await.unwrap(), Some([1; 32]));
    assert_eq!(store.agent_key(AgentId::of_public_key(&[2; 32])).await.unwrap(), None);
    store.submit(Write::AgentState { agent, state: "connected", capability: Some("{}".into()) }).await.unwrap();
    store.submit(Write::AgentState { agent, state: "gone", capability: None }).await.unwrap();
    let agents = store.agents().await.unwrap();
    assert_eq!(agents.len(), 1);
    assert_eq!((agents[0].state.as_str(), agents[0].capability.as_deref()), ("gone", Some("{}")));
    assert_eq!(agents[0].quarantined, None);
    assert!(!agents[0].verifier && !store.membership(agent).await.unwrap().verifier);
    let trusted = Digest::of(b"trusted");
    store
        .submit(Write::EnrolToken {
            hash: trusted,
            project: "a".into(),
            expires_ms: FAR,
            verifier: true,
            provider: Some("p".into()),
            reserved: None,
        })
        .await
        .unwrap();
    assert_eq!(redeem(trusted, 1).await, Written::Redeemed(true));
    assert!(store.membership(agent).await.unwrap().verifier && store.agents().await.unwrap()[0].verifier);
    let stranger = store.membership(AgentId::of_public_key(&[2; 32])).await.unwrap();
    assert_eq!((stranger.verifier, stranger.clean), (false, 0));
    assert_ne!(stranger.owner, store.membership(agent).await.unwrap().owner);
    for _ in 0..2 {
        store.submit(Write::Clean { shards: vec![(agent, 3)], settle: SettlePolicy::default() }).await.unwrap();
    }
    assert_eq!(store.membership(agent).await.unwrap().clean, 6);
    for code in [FailureCode::VerificationMismatch, FailureCode::AgentLost] {
        store.submit(Write::Quarantine { agent, code, job: job(1) }).await.unwrap();
    }
    assert_eq!(store.agents().await.unwrap()[0].quarantined, Some(FailureCode::VerificationMismatch));
    assert_eq!(store.membership(agent).await.unwrap().clean, 0, "a fault ends the clean record");
    assert_eq!(store.submit(Write::Barrier).await.unwrap(), Written::Done);
}

fn kernel(bytes: &[u8], standing: Standing) -> KernelRow {
    KernelRow {
        name: "a/mc".into(),
        version: 1,
        digest: Digest::of(bytes),
        bytes: bytes.len() as u64,
        manifest: "{}".into(),
        project: Some("a".into()),
        recorded_ms: 5,
        standing,
    }
}

async fn kernels_never_change(store: &dyn Store) {
    let record = async |bytes: &[u8]| store.submit(Write::Kernel(Box::new(kernel(bytes, Standing::pending())))).await;
    let stand = async |bytes: &[u8], standing: &Standing| {
        let (digest, standing) = (Digest::of(bytes), Box::new(standing.clone()));
        store.submit(Write::KernelStanding { digest, standing }).await.unwrap();
    };
    record(b"one").await.unwrap();
    let taken =
        |refused| matches!(refused, Err(StoreError::KernelTaken { existing, .. }) if existing == Digest::of(b"one"));
    assert!(taken(record(b"two").await), "a pending kernel holds its label");
    let refused = Standing {
        state: KernelState::Refused,
        code: Some(FailureCode::AgentTrap),
        reason: Some("why".into()),
        decided_ms: Some(9),
        checks: "[1]".into(),
    };
    stand(b"other bytes", &refused).await;
    assert_eq!(store.kernels().await.unwrap(), [kernel(b"one", Standing::pending())]);
    stand(b"one", &refused).await;
    assert_eq!(store.kernels().await.unwrap(), [kernel(b"one", refused.clone())]);
    // A refused one gives way, to itself and to others.
    record(b"one").await.unwrap();
    assert_eq!(store.kernels().await.unwrap(), [kernel(b"one", Standing::pending())]);
    stand(b"one", &refused).await;
    record(b"two").await.unwrap();
    stand(b"two", &refused).await;
    record(b"one").await.unwrap();
    for state in [KernelState::Admitted, KernelState::Deprecated, KernelState::Yanked] {
        let standing = Standing { state, ..Standing::built_in() };
        stand(b"one", &standing).await;
        assert!(taken(record(b"two").await), "{state:?}");
        record(b"one").await.unwrap();
        assert_eq!(store.kernels().await.unwrap(), [kernel(b"one", standing)]);
    }
}

async fn content_belongs_to_projects(store: &dyn Store) {
    let digests: Vec<Digest> = (0..5_u8).map(|n| Digest::of(&[n])).collect();
    let put = async |project: &str, digest: Digest| {
        store.submit(Write::Blob { project: project.into(), digest, bytes: 1 }).await.unwrap();
    };
    for digest in &digests {
        put("a", *digest).await;
    }
    let first = store.blob("a", &digests[0]).await.unwrap().unwrap();
    put("a", digests[0]).await;
    assert_eq!(store.blob("a", &digests[0]).await.unwrap(), Some(first));
    assert_eq!(store.blob("b", &digests[0]).await.unwrap(), None);
    put("b", digests[0]).await;
    assert_eq!(store.blobs("b", None, 9).await.unwrap().len(), 1);
    let all = store.blobs("a", None, 9).await.unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by_key(|row| std::cmp::Reverse((row.created_ms, row.digest))));
    assert_eq!(store.blobs("a", Some(&all[1].digest), 2).await.unwrap(), all[2..4]);
    assert_eq!(store.blobs("b", Some(&all[0].digest), 9).await.unwrap(), []);
    assert!(store.submit(Write::Blob { project: "no such".into(), digest: digests[0], bytes: 1 }).await.is_err());
}

async fn reopened(store: &dyn Store, first: &Written) {
    let Written::FirstLease(before) = first else { panic!("{first:?}") };
    let Written::FirstLease(after) = store.submit(Write::ReserveLeases).await.unwrap() else { panic!() };
    assert!(after > *before + 1_000_000, "a lease number could come twice");
    let waiting = store.unfinished().await.unwrap();
    assert_eq!(waiting.len(), 52);
    assert_eq!((waiting[0].job, waiting[0].envelope.as_str(), waiting[0].plan.as_str()), (job(10), "x", "{}"));
    assert_eq!(store.accepted(job(1)).await.unwrap().len(), 2);
    store.ready().await.unwrap();
    store.close().await;
}
