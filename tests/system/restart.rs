//! `kill -9` of the hub in the middle of a job, again and again: nothing acknowledged is lost, the bits are the same.

use forge_tests::contract::{changed, insurance};
use forge_tests::dice::Dice;
use forge_tests::pool::Pool;
use forge_tests::until;
use serde_json::{Value, json};

use crate::answers::digest;

/// How often the hub is killed.
const KILLS: u32 = 25;
const SHARDS: u64 = 32;

fn contract(seed: &str) -> Value {
    let changes = [("/policy/shards", json!(SHARDS)), ("/policy/max_agents", json!(0)), ("/seed/value", json!(seed))];
    changed(insurance(16_000_000), &changes)
}

/// Waits for the shard count at which the hub is to die, or the job's end if that comes first.
async fn reach(pool: &Pool, job: &str, shards: u64) {
    let mut events = pool.api.events(job).await;
    while let Some(event) = events.next().await {
        if event.data["shards_done"].as_u64().unwrap_or(0) >= shards {
            return;
        }
    }
}

#[tokio::test]
async fn a_hub_killed_at_any_moment_goes_on_where_it_was() {
    let mut dice = Dice::new(0x5eed_f04e);
    let mut pool = Pool::start(2).await;
    let mut expected = std::collections::BTreeMap::new();
    for seed in ["A", "B"] {
        expected.insert(seed, digest(&pool.api.execute(&contract(seed)).await.body));
    }
    let mut acknowledged = Vec::new();
    let mut resumed_in_the_middle = 0;
    for kill in 0..KILLS {
        let seed = if dice.below(2) == 0 { "A" } else { "B" };
        let job = pool.api.submit(&contract(seed)).await;
        acknowledged.push((job.clone(), seed));
        let moment = dice.below(SHARDS);
        if moment > 0 {
            reach(&pool, &job, moment).await;
        }
        pool.kill_hub().await;
        pool.restart_hub().await;
        let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
        assert_eq!(state.status, 200, "kill {kill}: the job is lost: {}", state.text);
        resumed_in_the_middle += u32::from(!forge_tests::api::is_final(&state.body));
        let state = until("end of the job", || async {
            let answer = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
            forge_tests::api::is_final(&answer.body).then_some(answer.body)
        })
        .await;
        assert_eq!(digest(&state), expected[seed], "kill {kill} after {moment} shards");
    }
    assert!(resumed_in_the_middle >= KILLS / 2, "only {resumed_in_the_middle} of {KILLS} kills met a running job");
    for (job, seed) in &acknowledged {
        let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
        assert_eq!(&digest(&state.body), &expected[seed], "an earlier job changed");
    }
    let listed = pool.api.get("/api/v0/jobs?limit=100").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), acknowledged.len() + 2, "a job is lost or doubled");
    pool.stop().await;
}
