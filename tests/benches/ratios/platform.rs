//! The whole platform: hub and agents as processes on loopback.

use std::time::Instant;

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::figures::{Report, median, quantile};
use crate::kernel::{Sandboxed, UNIT};

/// Agents of one core each; the bare loop uses as many threads.
const CORES: u64 = 2;

fn completed(answer: &forge_tests::api::Answer) -> &Value {
    assert_eq!(answer.at("/status"), "COMPLETED", "{}", answer.text);
    &answer.body
}

/// Runs all measurements on one pool.
pub fn measure(report: &mut Report, rounds: usize, iterations: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = Pool::start(CORES as usize).await;
        overhead(report, &pool, rounds, iterations).await;
        throughput(report, &pool, rounds).await;
        latency(report, &pool).await;
        pool.stop().await;
    });
}

async fn overhead(report: &mut Report, pool: &Pool, rounds: usize, iterations: u64) {
    let units = iterations.div_ceil(UNIT);
    let whole = units.next_multiple_of(CORES * 16);
    let sandboxed = Sandboxed::load();
    let contract = insurance(whole * UNIT);
    completed(&pool.api.execute(&insurance(UNIT * CORES)).await);
    let (mut ratios, mut walls) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        completed(&pool.api.execute(&contract).await);
        let platform_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for core in 0..CORES {
                let (sandboxed, share) = (&sandboxed, whole / CORES);
                scope.spawn(move || {
                    for first in (core * share..(core + 1) * share).step_by(16) {
                        sandboxed.run(&sandboxed.task(whole, first, 16.min((core + 1) * share - first)));
                    }
                });
            }
        });
        ratios.push(start.elapsed().as_secs_f64() / platform_s);
        walls.push(platform_s);
    }
    let note = format!("{} iterations in {:.2} s through hub and {CORES} agents", whole * UNIT, median(walls));
    report.add("platform speed / bare kernel loop", median(ratios), "x", ">= 0.95", note);
}

async fn throughput(report: &mut Report, pool: &Pool, rounds: usize) {
    let units = 200_000u64;
    let contract = noop(units);
    completed(&pool.api.execute(&noop(1000)).await);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        completed(&pool.api.execute(&contract).await);
        rates.push(units as f64 / start.elapsed().as_secs_f64());
    }
    let rate = median(rates);
    report.add(
        "no-op units through everything",
        rate,
        "units/s",
        ">= 9500",
        format!("{units} units, each in a fresh instance"),
    );

    // One unit per shard: every unit is a lease, a stream, a worker call and a signed report of its own.
    let shards = 20_000u64;
    let contract = changed(noop(shards), &[("/policy/shards", json!(shards))]);
    let start = Instant::now();
    completed(&pool.api.execute(&contract).await);
    let rate = shards as f64 / start.elapsed().as_secs_f64();
    report.add("no-op shards through everything", rate, "shards/s", "", format!("{shards} shards of one unit"));
}

async fn latency(report: &mut Report, pool: &Pool) {
    let contract = insurance(1_000);
    let mut times = Vec::new();
    for round in 0..220 {
        let start = Instant::now();
        completed(&pool.api.execute(&contract).await);
        if round >= 20 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let note = "200 jobs of 1,000 iterations, request to answer, one after the other".to_owned();
    report.add("small warm job, p50", quantile(times.clone(), 0.5), "ms", "<= 10", note.clone());
    report.add("small warm job, p99", quantile(times, 0.99), "ms", "", note);
}

fn noop(units: u64) -> Value {
    let op = json!({"name": "noop", "version": 1, "profile": "count.v1"});
    changed(insurance(1), &[("/op", op), ("/args", json!({"units": units}))])
}
