//! Progress as server-sent events.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn progress_rises_to_the_end_and_a_stream_can_be_taken_up_again() {
    let pool = Pool::start(2).await;
    let contract = changed(insurance(6_000_000), &[("/policy/shards", json!(32))]);
    let job = pool.api.submit(&contract).await;
    let mut events = pool.api.events(&job).await;
    let (mut done, mut widths, mut last_id) = (Vec::new(), Vec::new(), None);
    while let Some(event) = events.next().await {
        if let Some(units) = event.data["units_done"].as_u64() {
            done.push(units);
            assert!(units <= event.data["units_total"].as_u64().unwrap());
        }
        widths.extend(event.data.pointer("/estimate/ci95_half_width").and_then(Value::as_f64));
        last_id = event.id.or(last_id);
    }
    assert!(done.len() >= 2, "{done:?}");
    assert!(done.is_sorted(), "{done:?}");
    assert!(widths.len() >= 2 && widths.last() < widths.first(), "the interval shrinks: {widths:?}");
    let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(state.body["status"], "COMPLETED", "the stream ends with the job");

    // Whoever comes late or again gets the end at least, and the stream closes.
    let again = pool.api.request(Method::GET, &format!("/api/v0/jobs/{job}/events"));
    let again = pool.api.send(again.header("last-event-id", last_id.expect("events carry ids"))).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.headers["content-type"], "text/event-stream");
    let mut late = pool.api.events(&job).await;
    let mut names = Vec::new();
    while let Some(event) = late.next().await {
        names.push(event.name);
    }
    assert!(!names.is_empty());
    pool.stop().await;
}

#[tokio::test]
async fn a_listener_that_leaves_does_not_end_the_job() {
    let pool = Pool::start(1).await;
    let job = pool.api.submit(&insurance(4_000_000)).await;
    let mut events = pool.api.events(&job).await;
    events.next().await.expect("something happens");
    drop(events);
    assert_eq!(pool.api.finished(&job).await["status"], "COMPLETED");
    pool.stop().await;
}
