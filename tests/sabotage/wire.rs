//! Liars that break the protocol, and those that play with time: nothing of what they say counts, each trace stays.

use std::collections::BTreeMap;

use forge_tests::pool::Pool;
use forge_tests::saboteur::Saboteurs;
use serde_json::Value;

use crate::jobs::{SABOTEUR, attempts, contract, digest, evidence, honest, quarantined, settled, strangers};

/// The job's attempts by agent.
async fn by_agent(pool: &Pool, job: &str) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for attempt in attempts(pool, job).await {
        found.entry(attempt["agent_id"].as_str().unwrap().to_owned()).or_default().push(attempt);
    }
    found
}

/// How an agent's attempts ended, code and words.
fn ended(attempts: &[Value], code: &str, words: &str) -> usize {
    let detail = |attempt: &Value| attempt["detail"].as_str().unwrap_or_default().contains(words);
    attempts.iter().filter(|attempt| attempt["code"] == code && detail(attempt)).count()
}

/// Manner, code, a word of the detail.
const BROKEN: [(&str, &str, &str); 5] = [
    ("garbage", "agent.protocol", "is not a kind of message"),
    ("stolen-lease", "agent.protocol", "on the stream of lease"),
    ("other-signature", "agent.protocol", "signature"),
    ("twice", "agent.protocol", "follow the report"),
    ("babble,rate=300000", "agent.lost", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_protocol_gains_nothing_and_is_out() {
    let expected = honest().await;
    let pool = strangers(3, &[]).await;
    let liars = Saboteurs::start(SABOTEUR, &pool, &BROKEN.map(|broken| broken.0), &[]).await;
    let answer = pool.api.execute(&contract("spotcheck")).await;
    assert_eq!(digest(&answer.body), expected);
    let job = answer.job();
    let found = by_agent(&pool, &job).await;
    for ((manner, code, words), liar) in BROKEN.iter().zip(&liars.agents) {
        let own = found.get(liar).map_or(&[][..], Vec::as_slice);
        assert!(ended(own, code, words) > 0, "{manner}: {own:#?}");
    }
    // Who only loses its session is out of luck, not out.
    let (breakers, babbler) = liars.agents.split_at(4);
    let codes = quarantined(&pool, breakers).await;
    assert_eq!(codes.iter().collect::<Vec<_>>(), ["agent.protocol"]);
    for liar in breakers {
        assert!(found[liar].iter().all(|attempt| attempt["status"] != "REPORTED"), "{:#?}", found[liar]);
    }
    assert!(found.contains_key(&babbler[0]));
    let report = evidence(&pool, &job).await;
    assert_eq!(report["agents_refuted"], serde_json::json!([]), "{report:#}");
    settled(&pool, &job, breakers).await;
    pool.stop().await;
    liars.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_late_or_never_costs_time_alone_and_who_slanders_the_kernel_is_out() {
    let expected = honest().await;
    let pool = strangers(3, &["--lease-ms", "1500"]).await;
    let manners = ["late,rate=200000", "silent,rate=200000", "slow,times=5", "trap,rate=500000"];
    let liars = Saboteurs::start(SABOTEUR, &pool, &manners, &[]).await;
    let answer = pool.api.execute(&contract("spotcheck")).await;
    assert_eq!(digest(&answer.body), expected);
    let job = answer.job();
    let found = by_agent(&pool, &job).await;
    let of = |at: usize| found.get(&liars.agents[at]).map_or(&[][..], Vec::as_slice);
    for late in [0, 1] {
        // Its lease ran out, or a copy elsewhere was quicker and it was taken back.
        let overdue = ended(of(late), "agent.deadline", "") + revoked(of(late));
        assert!(overdue > 0, "{}: {:#?}", manners[late], of(late));
    }
    assert!(!of(2).is_empty() && ended(of(2), "agent.protocol", "") == 0, "{:#?}", of(2));
    assert!(ended(of(3), "agent.trap", "") > 0, "{:#?}", of(3));
    // What it says of the kernel, two others do not see.
    let slanderer = &liars.agents[3..];
    let codes = quarantined(&pool, slanderer).await;
    assert_eq!(codes.iter().collect::<Vec<_>>(), ["verification.mismatch"]);
    let report = evidence(&pool, &job).await;
    assert_eq!(report["agents_refuted"], serde_json::json!([]), "{report:#}");
    settled(&pool, &job, slanderer).await;
    pool.stop().await;
    liars.stop().await;
}

fn revoked(attempts: &[Value]) -> usize {
    attempts.iter().filter(|attempt| attempt["status"] == "REVOKED").count()
}
