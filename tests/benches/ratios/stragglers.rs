//! One agent of twenty that is twenty times slower: what it does to the time of jobs, and what making up for it costs.

use std::time::Instant;

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::saboteur::Saboteurs;
use serde_json::{Value, json};

use crate::figures::{Report, quantile};

const SABOTEUR: &str = env!("CARGO_BIN_EXE_forge-saboteur");
/// Jobs one after the other.
const JOBS: u64 = 60;
/// Shards of each, one unit of mc@1.
const SHARDS: u64 = 64;
/// Iterations of a unit.
const UNIT: u64 = 65_536;
/// What a shard takes at a quick agent, ms: far more than its few ms of processor time, so that twenty agents in one
/// process are twenty machines and not twenty halves of two cores.
const SHARD_MS: u64 = 200;

/// What a stream of jobs took.
struct Stream {
    seconds: Vec<f64>,
    attempts: usize,
    hedges: usize,
}

/// Measures both pools.
pub fn measure(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let quick = runtime.block_on(stream(&["honest,count=20"]));
    let mixed = runtime.block_on(stream(&["honest,count=19", "slow,times=20"]));
    let at = |stream: &Stream, share| quantile(stream.seconds.clone(), share);
    let note =
        |stream: &Stream| format!("{JOBS} jobs of {SHARDS} shards of {SHARD_MS} ms, {} attempts", stream.attempts);
    report.add("20 quick agents, job p50", at(&quick, 0.5), "s", "", note(&quick));
    report.add("20 quick agents, job p99", at(&quick, 0.99), "s", "", format!("{} hedges", quick.hedges));
    report.add("19 quick and 1 slow, job p50", at(&mixed, 0.5), "s", "", note(&mixed));
    report.add("19 quick and 1 slow, job p99", at(&mixed, 0.99), "s", "", "the slow one takes 20 times as long".into());
    let ratio = at(&mixed, 0.99) / at(&quick, 0.99);
    report.add("p99 with the slow one / without", ratio, "x", "<= 1.5", "of the two lines above".into());
    let extra = mixed.hedges as f64 / (JOBS * SHARDS) as f64 * 100.0;
    report.add("second copies of slow shards", extra, "%", "<= 5", format!("{} hedges", mixed.hedges));
}

async fn stream(manners: &[&str]) -> Stream {
    let pool = Pool::start(0).await;
    let agents = Saboteurs::start(SABOTEUR, &pool, manners, &["--least-ms", &SHARD_MS.to_string()]).await;
    completed(&pool, &contract(0)).await;
    let mut stream = Stream { seconds: Vec::new(), attempts: 0, hedges: 0 };
    for number in 1..=JOBS {
        let start = Instant::now();
        let job = completed(&pool, &contract(number)).await;
        stream.seconds.push(start.elapsed().as_secs_f64());
        let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await;
        let attempts = executions.body["items"].as_array().expect("a list of attempts").clone();
        stream.attempts += attempts.len();
        stream.hedges += attempts.iter().filter(|attempt| attempt["reason"] == "hedge").count();
    }
    agents.stop().await;
    pool.stop().await;
    stream
}

async fn completed(pool: &Pool, contract: &Value) -> String {
    let answer = pool.api.execute(contract).await;
    assert_eq!(answer.at("/status"), "COMPLETED", "{}", answer.text);
    answer.job()
}

fn contract(number: u64) -> Value {
    let policy =
        [("/policy/shards", json!(SHARDS)), ("/policy/max_agents", json!(0)), ("/policy/verify", json!("none"))];
    changed(changed(insurance(SHARDS * UNIT), &policy), &[("/seed/value", json!(format!("stream {number}")))])
}
