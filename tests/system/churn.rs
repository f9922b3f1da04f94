//! Agents that die, join, freeze and come back in the middle of a job.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::digest;

/// A job of many shards that runs long enough for something to happen in its middle.
fn long_job() -> Value {
    changed(insurance(80_000_000), &[("/policy/shards", json!(64)), ("/policy/max_agents", json!(0))])
}

/// What the same job gives when nothing happens.
async fn undisturbed(contract: &Value) -> String {
    let pool = Pool::start(2).await;
    let answer = pool.api.execute(contract).await;
    let digest = digest(&answer.body);
    pool.stop().await;
    digest
}

fn shards_done(data: &Value) -> u64 {
    data["shards_done"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn agents_that_are_killed_and_join_leave_the_bits_alone() {
    let contract = long_job();
    let expected = undisturbed(&contract).await;
    let mut pool = Pool::start(3).await;
    let job = pool.api.submit(&contract).await;
    let mut events = pool.api.events(&job).await;
    events.find("4 finished shards", |event| shards_done(&event.data) >= 4).await;
    pool.kill_agent(0).await;
    pool.join_later();
    events.find("16 finished shards", |event| shards_done(&event.data) >= 16).await;
    pool.kill_agent(1).await;
    pool.kill_agent(2).await;
    pool.join_later();
    let state = pool.api.finished(&job).await;
    assert_eq!(digest(&state), expected);
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions")).await;
    let attempts = executions.body["items"].as_array().unwrap();
    let lost = attempts.iter().filter(|attempt| attempt["code"] == "agent.lost").count();
    assert!(lost >= 1, "none of {} attempts was lost with its agent: the test met no shard in flight", attempts.len());
    pool.stop().await;
}

#[tokio::test]
async fn a_frozen_agent_is_passed_over_and_its_late_report_changes_nothing() {
    let contract = long_job();
    let expected = undisturbed(&contract).await;
    let pool = Pool::start(2).await;
    let job = pool.api.submit(&contract).await;
    let mut events = pool.api.events(&job).await;
    events.find("2 finished shards", |event| shards_done(&event.data) >= 2).await;
    pool.freeze_agent(0);
    let state = pool.api.finished(&job).await;
    assert_eq!(digest(&state), expected);
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await;
    let attempts = executions.body["items"].as_array().unwrap();
    let again =
        attempts.iter().filter(|attempt| attempt["reason"] != "first" && attempt["status"] == "REPORTED").count();
    assert!(again >= 1, "no shard of the frozen agent ran elsewhere: the test met none in flight\n{}", executions.text);
    pool.thaw_agent(0);
    // The job is over for good: what the agent says now finds nothing to change.
    let second = pool.api.execute(&contract).await;
    assert_eq!(digest(&second.body), expected);
    let stored = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(stored.body["hub"], state["hub"]);
    pool.stop().await;
}

#[tokio::test]
async fn a_job_waits_for_the_first_agent() {
    let mut pool = Pool::start(0).await;
    let contract = insurance(200_000);
    let job = pool.api.submit(&contract).await;
    let waiting = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(waiting.status, 200);
    assert!(!forge_tests::api::is_final(&waiting.body), "{}", waiting.text);
    pool.join().await;
    assert_eq!(pool.api.finished(&job).await["status"], "COMPLETED");
    pool.stop().await;
}
