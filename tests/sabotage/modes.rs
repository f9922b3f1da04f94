//! Two liars among five honest agents, in every mode that promises something: the result is the honest one, the liars
//! are out and nobody else is, and all of it is in the evidence.

use forge_tests::pool::Pool;
use forge_tests::saboteur::Saboteurs;
use serde_json::{Value, json};

use crate::jobs::{SABOTEUR, attempts, contract, digest, evidence, honest, quarantined, settled, strangers};

/// Agents that do their work.
const HONEST: usize = 5;

/// Runs the job among these liars; gives the verification report.
async fn among(pool: Pool, liars: Saboteurs, verify: &str) -> Value {
    let expected = honest().await;
    let answer = pool.api.execute(&contract(verify)).await;
    assert_eq!(digest(&answer.body), expected, "{verify}");
    let job = answer.job();
    let codes = quarantined(&pool, &liars.agents).await;
    assert_eq!(codes.iter().collect::<Vec<_>>(), ["verification.mismatch"]);
    let report = evidence(&pool, &job).await;
    let named = |report: &Value| {
        let mut named: Vec<String> = serde_json::from_value(report["agents_refuted"].clone()).unwrap();
        named.sort();
        named
    };
    let mut refuted = liars.agents.clone();
    refuted.sort();
    assert_eq!(named(&report), refuted, "{report:#}");
    let total = settled(&pool, &job, &liars.agents).await;
    // Their lies are there to be read, signed by them.
    let attempts = attempts(&pool, &job).await;
    for liar in &liars.agents {
        let said = attempts.iter().filter(|attempt| attempt["agent_id"] == liar.as_str());
        assert!(said.filter(|attempt| attempt["signature"].is_string()).count() > 0, "{liar} left no trace");
    }
    println!("{verify}: {total} attempts; {report}");
    pool.stop().await;
    liars.stop().await;
    report
}

/// Newcomers are audited whole, so nothing that they say alone is believed: to lie later or now and then helps nobody.
#[tokio::test(flavor = "multi_thread")]
async fn spotcheck_finds_the_lazy_and_who_lies_now_and_then() {
    let pool = strangers(HONEST, &[]).await;
    let liars = Saboteurs::start(SABOTEUR, &pool, &["lazy", "wrong-bits,after=5,rate=500000"], &[]).await;
    let report = among(pool, liars, "spotcheck").await;
    assert_eq!(report["unchecked"], 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_finds_wrong_fuel_and_answers_of_another_shard() {
    let pool = strangers(HONEST, &[]).await;
    let liars = Saboteurs::start(SABOTEUR, &pool, &["wrong-fuel,after=3", "earlier"], &[]).await;
    let report = among(pool, liars, "quorum").await;
    assert_eq!(report["checked"], report["shards"], "{report:#}");
}

/// Agents of one provider, who agree on every lie, never check each other.
#[tokio::test(flavor = "multi_thread")]
async fn accomplices_of_one_provider_never_check_each_other() {
    let pool = strangers(HONEST, &[]).await;
    let shared = pool.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let wish = [json!({"provider": "accomplices"})];
    let hub = pool.quic();
    let manners = (&["told,count=2"][..], &wish[..]);
    let more = ["--shared", shared.to_str().unwrap()];
    let liars = Saboteurs::start_at(SABOTEUR, &pool, &hub, manners, &more).await;
    among(pool, liars, "spotcheck").await;
}

/// Accomplices of two providers agree with each other, but not with the operator's verifier.
#[tokio::test(flavor = "multi_thread")]
async fn full_finds_accomplices_by_its_verifier() {
    let mut pool = strangers(HONEST, &[]).await;
    // The operator's own.
    pool.join().await;
    let shared = pool.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let more = ["--shared", shared.to_str().unwrap()];
    let liars = Saboteurs::start(SABOTEUR, &pool, &["told,count=2"], &more).await;
    let report = among(pool, liars, "full").await;
    assert_eq!(report["checked"], report["shards"], "{report:#}");
}
