//! Cancelling.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::json;

#[tokio::test]
async fn a_cancelled_job_ends_is_recorded_and_frees_the_agents() {
    let pool = Pool::start(2).await;
    let job = pool.api.submit(&changed(insurance(900_000_000), &[("/policy/shards", json!(1000))])).await;
    let mut events = pool.api.events(&job).await;
    events.find("first finished shard", |event| event.data["shards_done"].as_u64().unwrap_or(0) >= 1).await;
    let answer = pool.api.cancel(&job).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let state = pool.api.finished(&job).await;
    assert_eq!(state["status"], "CANCELLED");
    assert_eq!(state["ok"], false);
    // Were the agents still busy with it, this would take minutes.
    let next = pool.api.execute(&insurance(100_000)).await;
    assert_eq!(next.body["status"], "COMPLETED", "{}", next.text);
    let again = pool.api.cancel(&job).await;
    assert!(again.status.is_success(), "cancelling twice is no error: {}", again.text);
    let done = pool.api.cancel(&next.job()).await;
    assert_eq!(
        pool.api.get(&format!("/api/v0/jobs/{}", next.job())).await.body["status"],
        "COMPLETED",
        "{}",
        done.text
    );
    pool.stop().await;
}

#[tokio::test]
async fn a_job_whose_time_runs_out_fails_with_its_code() {
    let pool = Pool::start(1).await;
    let contract = changed(insurance(900_000_000), &[("/policy/timeout_ms", json!(300))]);
    let answer = pool.api.execute(&contract).await;
    let job = answer.job();
    let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(state.body["status"], "FAILED", "{}", state.text);
    assert_eq!(state.body["error"]["code"], "scheduling.timeout", "{}", state.text);
    pool.stop().await;
}
