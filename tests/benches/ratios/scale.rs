//! One job of a hundred thousand shards: how fast it goes, and what the hub needs for it.

use std::time::Instant;

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::memory_kib;
use serde_json::json;

use crate::figures::Report;

/// Runs a job of `shards` shards, each a lease, a stream, a worker's call and a signed report, on a hub of its own, so
/// that its peak is this job's.
pub fn measure(report: &mut Report, shards: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = Pool::start(2).await;
        let op = json!({"name": "noop", "version": 1, "profile": "count.v1"});
        let args = json!({"units": shards});
        let policy = [("/policy/shards", json!(shards)), ("/policy/max_agents", json!(0))];
        let contract = changed(changed(insurance(1), &[("/op", op), ("/args", args)]), &policy);
        let before = memory_kib(pool.hub.id(), "VmHWM");
        let start = Instant::now();
        let job = pool.api.submit(&contract).await;
        let state = pool.api.finished(&job).await;
        let took_s = start.elapsed().as_secs_f64();
        assert_eq!(state["status"], "COMPLETED", "{state}");
        assert_eq!(state["hub"]["metrics"]["shards"], json!(shards));
        let peak = memory_kib(pool.hub.id(), "VmHWM");
        let note = format!("{shards} shards of one unit in {took_s:.1} s, evidence written");
        report.add("a large job", shards as f64 / took_s, "shards/s", "", note);
        let note = format!("peak while it ran; {:.0} MiB before", before as f64 / 1024.0);
        report.add("hub memory for a large job", peak as f64 / 1024.0, "MiB", "< 256", note);
        pool.stop().await;
    });
}
