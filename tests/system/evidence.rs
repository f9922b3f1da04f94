//! What a job leaves behind: executions, artifacts, and the same after a restart.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::json;

use crate::answers::digest;

#[tokio::test]
async fn executions_and_artifacts_are_complete_and_immutable() {
    let mut pool = Pool::start(2).await;
    let contract = changed(insurance(2_000_000), &[("/policy/shards", json!(8)), ("/policy/verify", json!("none"))]);
    let answer = pool.api.execute(&contract).await;
    digest(&answer.body);
    let (job, shards) = (answer.job(), answer.body["hub"]["metrics"]["shards"].as_u64().unwrap());
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions")).await;
    let items = executions.body["items"].as_array().unwrap();
    // A slow shard may have had a second copy, which was taken back.
    let attempts: Vec<_> = items.iter().filter(|attempt| attempt["status"] == "REPORTED").collect();
    let firsts = items.iter().filter(|attempt| attempt["reason"] == "first").count();
    assert_eq!(firsts as u64, shards, "one first attempt per shard; a hedge or a sample may come on top");
    let on_top =
        attempts.iter().filter(|attempt| !["first", "check", "hedge"].contains(&attempt["reason"].as_str().unwrap()));
    assert_eq!(on_top.count(), 0, "nothing was lost, so nothing was tried again: {}", executions.text);
    for attempt in attempts {
        for field in ["agent_id", "shard_id", "seed", "result_hash", "wall_us", "cpu_us", "fuel", "engine", "signature"]
        {
            assert!(!attempt[field].is_null(), "{field} is missing in {attempt:#}");
        }
    }
    let artifacts = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts")).await;
    let listed = artifacts.body["items"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().filter_map(|artifact| artifact["name"].as_str()).collect();
    for name in ["result_json", "executions_json", "metrics_json", "shards_json", "evidence_json"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for artifact in listed {
        assert!(artifact["digest"].is_string() && artifact["bytes"].as_u64().is_some(), "{artifact:#}");
    }
    pool.kill_hub().await;
    pool.restart_hub().await;
    let after = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts")).await;
    assert_eq!(after.body["items"], artifacts.body["items"]);
    let after = pool.api.get(&format!("/api/v0/jobs/{job}/executions")).await;
    assert_eq!(after.body["items"], executions.body["items"]);
    pool.stop().await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let pool = Pool::start(0).await;
    let document = pool.api.get("/api/v0/openapi.json").await;
    assert_eq!(document.status, 200, "{}", document.text);
    assert!(document.at("/openapi").as_str().unwrap().starts_with("3.1"));
    let paths = document.at("/paths").as_object().unwrap();
    for path in ["/api/v0/ops/execute", "/api/v0/ops/plan", "/api/v0/jobs", "/api/v0/jobs/{id}/events"] {
        assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys().collect::<Vec<_>>());
    }
    pool.stop().await;
}
