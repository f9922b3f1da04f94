//! Retrying a request is safe.

use forge_tests::contract::{changed, insurance, quickstart_text};
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::json;

use crate::answers::digest;

async fn send(pool: &Pool, key: &str, body: String) -> forge_tests::api::Answer {
    let request = pool.api.request(Method::POST, "/api/v0/ops/execute");
    pool.api.send(request.header("content-type", "application/json").header("idempotency-key", key).body(body)).await
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_job_and_another_body_is_refused() {
    let pool = Pool::start(2).await;
    let first = send(&pool, "k-1", quickstart_text()).await;
    digest(&first.body);
    let again = send(&pool, "k-1", quickstart_text()).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.job(), first.job());
    assert_eq!(again.body["hub"], first.body["hub"]);
    let other = send(&pool, "k-1", changed(insurance(1_000_000), &[("/ctx/job_id", json!("other"))]).to_string()).await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert_eq!(other.at("/code"), "request.idempotency_mismatch");
    assert!(other.at("/detail").as_str().unwrap().contains("dempotency"), "{}", other.text);
    let fresh = send(&pool, "k-2", quickstart_text()).await;
    assert_ne!(fresh.job(), first.job());
    pool.stop().await;
}

#[tokio::test]
async fn racing_requests_with_one_key_make_one_job() {
    let pool = Pool::start(2).await;
    let body = insurance(300_000).to_string();
    let racing = (0..12).map(|_| send(&pool, "race", body.clone()));
    let mut jobs: Vec<String> = Vec::new();
    for answer in join_all(racing.collect()).await {
        assert!(answer.status.is_success(), "{}", answer.text);
        jobs.push(answer.job());
    }
    jobs.dedup();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let listed = pool.api.get("/api/v0/jobs").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    pool.stop().await;
}

#[tokio::test]
async fn a_retry_after_the_hub_died_finds_its_job() {
    let mut pool = Pool::start(1).await;
    let body = insurance(2_000_000).to_string();
    let later = |pool: &Pool| {
        let request = pool.api.request(Method::POST, "/api/v0/ops/execute").header("idempotency-key", "k-restart");
        request.header("content-type", "application/json").header("prefer", "respond-async").body(body.clone())
    };
    let first = pool.api.send(later(&pool)).await;
    assert_eq!(first.status, 202, "{}", first.text);
    pool.kill_hub().await;
    pool.restart_hub().await;
    let again = pool.api.send(later(&pool)).await;
    assert_eq!(again.job(), first.job());
    digest(&send(&pool, "k-restart", body.clone()).await.body);
    let listed = pool.api.get("/api/v0/jobs").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1, "{}", listed.text);
    pool.stop().await;
}

/// Polls all of them in turn until each has given its value.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, value) in &mut pending {
            if value.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(given) => *value = Some(given),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().map(|(_, value)| value.expect("all are ready")).collect()
}
