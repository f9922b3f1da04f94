//! One job of a hundred thousand shards: how fast it goes, and what the hub needs for it.

use std::time::Instant;

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::memory_kib;
use serde_json::json;

use crate::figures::Report;

/// Shards of the job, each a lease, a stream, a worker's call and a signed report.
const SHARDS: u64 = 100_000;

/// Runs the job on a hub of its own, so that its peak is this job's.
pub fn measure(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = Pool::start(2).await;
        let op = json!({"name": "noop", "version": 1, "profile": "count.v1"});
        let args = json!({"units": SHARDS});
        let policy = [("/policy/shards", json!(SHARDS)), ("/policy/max_agents", json!(0))];
        let contract = changed(changed(insurance(1), &[("/op", op), ("/args", args)]), &policy);
        let before = memory_kib(pool.hub.id(), "VmHWM");
        let start = Instant::now();
        let answer = pool.api.execute(&contract).await;
        let took_s = start.elapsed().as_secs_f64();
        assert_eq!(answer.at("/status"), "COMPLETED", "{}", answer.text);
        assert_eq!(answer.at("/hub/metrics/shards"), &json!(SHARDS));
        let peak = memory_kib(pool.hub.id(), "VmHWM");
        let note = format!("{SHARDS} shards of one unit in {took_s:.1} s, evidence written");
        report.add("a large job", SHARDS as f64 / took_s, "shards/s", "", note);
        let note = format!("peak while it ran; {:.0} MiB before", before as f64 / 1024.0);
        report.add("hub memory for a large job", peak as f64 / 1024.0, "MiB", "< 256", note);
        pool.stop().await;
    });
}
