//! Many clients at once: what each of them waits, whether any of them is turned away, and what the hub needs meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::memory_kib;
use reqwest::StatusCode;
use serde_json::json;

use crate::figures::{Report, quantile};

const CLIENTS: u64 = 64;

/// Clients that send one small job after the other, each waiting for its answer, for `seconds`.
///
/// # Panics
/// An answer that is neither a result nor a documented 429 with its `Retry-After`.
pub fn measure(report: &mut Report, seconds: u64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = Pool::start(2).await;
        let api = Arc::new(pool.api.clone());
        let resident = || memory_kib(pool.hub.id(), "VmRSS") as f64 / 1024.0;
        let start = Instant::now();
        let until = start + Duration::from_secs(seconds);
        let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(one(Arc::clone(&api), client, until))).collect();
        // A quarter in, caches and pools have what they need.
        tokio::time::sleep(Duration::from_secs(seconds) / 4).await;
        let early = resident();
        let (mut times, mut refused) = (Vec::new(), 0);
        for client in clients {
            let (took, turned_away) = client.await.expect("a client");
            times.extend(took);
            refused += turned_away;
        }
        let (jobs, took_s, late) = (times.len(), start.elapsed().as_secs_f64(), resident());
        let note = format!("{CLIENTS} clients for {seconds} s: {jobs} jobs, {refused} answers 429, no other error");
        report.add("jobs under load", jobs as f64 / took_s, "jobs/s", "", note.clone());
        report.add("job under load, p50", quantile(times.clone(), 0.5), "ms", "", note.clone());
        report.add("job under load, p99", quantile(times, 0.99), "ms", "", note);
        let note = format!("{late:.0} MiB at the end, {early:.0} MiB after a quarter of the time");
        report.add("hub memory under load, growth", late / early.max(1.0), "x", "", note);
        pool.stop().await;
    });
}

/// What each job took, milliseconds, and how often it was turned away.
async fn one(api: Arc<forge_tests::api::Api>, client: u64, until: Instant) -> (Vec<f64>, u64) {
    let (mut took, mut refused, mut number) = (Vec::new(), 0, 0u64);
    while Instant::now() < until {
        number += 1;
        let seed = json!(format!("LOAD-{client}-{number}"));
        let contract = changed(insurance(1_000), &[("/seed/value", seed)]);
        let begun = Instant::now();
        let answer = api.execute(&contract).await;
        match answer.status {
            StatusCode::OK => took.push(begun.elapsed().as_secs_f64() * 1e3),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                refused += 1;
                tokio::time::sleep(Duration::from_secs(wait.expect("429 says when to try again"))).await;
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    (took, refused)
}
