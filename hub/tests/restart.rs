//! `kill -9`, and what stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use forge_contract::Digest;
use forge_hub::store::blobs::Blobs;
use forge_hub::store::sqlite::Sqlite;
use forge_hub::store::{LedgerLine, Page, Store as _};
use forge_protocol::Identity;
use serde_json::json;
use support::{Agent, Hub, Script, answer, contract};

#[tokio::test]
async fn a_killed_hub_goes_on_from_what_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut asked = contract(4096);
    asked["policy"]["shards"] = json!(64);
    let expected = {
        let hub = Hub::start(&folder.path().join("undisturbed"), &[]);
        let _agent = hub.agent(Script::default()).await;
        answer(hub.execute(&asked)).await.body["hub"]["replay"]["result_digest"].as_str().unwrap().to_owned()
    };
    for answers_max in [0, 1, 7, 40, 63] {
        let data = folder.path().join(format!("after-{answers_max}"));
        let hub = Hub::start(&data, &[]);
        let key = Arc::new(Identity::generate().unwrap());
        let token = hub.token().await;
        let agent = Agent::join(
            &hub.quic(),
            &token,
            Arc::clone(&key),
            Script { answers_max: Some(answers_max), ..Script::default() },
        )
        .await;
        let accepted =
            answer(hub.execute(&asked).header("prefer", "respond-async").header("idempotency-key", "k")).await;
        assert_eq!(accepted.status, 202);
        let place = accepted.header("location").to_owned();
        // Progress says what the pool has accepted; that it is on the disk as well is shown below.
        while answer(hub.get(&place)).await.body["progress"]["shards_done"].as_u64() < Some(answers_max) {}
        let quic = hub.quic();
        hub.kill();
        drop(agent);

        let hub = Hub::on(&data, &quic, &[]);
        let shown = answer(hub.get(&place)).await;
        assert_eq!(shown.status, 200, "{}", shown.body);
        assert_ne!(shown.body["status"], "COMPLETED");
        // The key is known, so the agent needs no second token.
        let agent = Agent::join(&hub.quic(), &token, key, Script::default()).await;
        let done = answer(hub.execute(&asked).header("idempotency-key", "k")).await;
        assert_eq!(done.status, 200, "{}", done.body);
        assert_eq!(done.header("idempotency-replayed"), "true");
        assert_eq!(done.body["links"]["self"], place);
        assert_eq!(done.body["hub"]["replay"]["result_digest"], expected);
        assert_eq!(done.body["hub"]["metrics"]["units"], 4096);
        let recomputed = agent.answered.load(std::sync::atomic::Ordering::SeqCst);
        assert!(recomputed <= 64 && recomputed >= 64 - answers_max, "{recomputed} after {answers_max}");
        // What is acknowledged survives the next kill unchanged.
        hub.kill();
        let hub = Hub::start(&data, &[]);
        assert_eq!(answer(hub.get(&place)).await.body, done.body);
    }
}

#[tokio::test]
async fn every_job_is_settled_once_whoever_asks_how_often() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let _agents = (hub.agent(Script::default()).await, hub.agent(Script::default()).await);
    let mut asked = contract(50);
    asked["ctx"]["billing"]["mode"] = json!("billable");
    let requests = (0..60).map(|n| {
        let request = hub.execute(&asked).header("idempotency-key", format!("k{}", n % 20));
        tokio::spawn(answer(request))
    });
    let mut credits = std::collections::BTreeMap::new();
    for task in requests.collect::<Vec<_>>() {
        let given = task.await.unwrap();
        assert_eq!(given.status, 200, "{}", given.body);
        let job = given.body["job_id"].as_str().unwrap().to_owned();
        credits.insert(job, given.body["billing"]["credits_micro"].to_string());
    }
    assert_eq!(credits.len(), 20);
    hub.kill();

    let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).unwrap());
    let store = Sqlite::open(&folder.path().join("hub.db"), blobs).await.unwrap();
    let lines = store.ledger(Page { offset: 0, limit: 100 }).await.unwrap();
    assert_eq!(lines.len(), 20, "one line per job");
    let mut previous = Digest::from_bytes([0; 32]);
    for (line, seq) in lines.iter().zip(1..) {
        assert_eq!((line.seq, line.previous), (seq, previous), "a chain without gaps");
        assert_eq!(line.digest, LedgerLine::digest_of(&previous, &line.entry));
        previous = line.digest;
        let entry: serde_json::Value = serde_json::from_str(&line.entry).unwrap();
        assert_eq!(entry["credits_micro"].as_str(), credits.get(&line.job.to_string()).map(String::as_str));
        assert_eq!((&entry["charged"], &entry["mode"]), (&json!(true), &json!("billable")));
    }
}

#[tokio::test]
async fn a_hub_whose_parent_is_gone_ends_and_a_second_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_forge-hub"))
        .args(["--http", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another hub"));
    // A job that waits does not hold the end up.
    let accepted = answer(hub.execute(&contract(10)).header("prefer", "respond-async")).await;
    assert_eq!(accepted.status, 202);
    assert!(hub.leave().success());
}
