//! A hub that is killed under its agents, and agents that know more than one hub.

use forge_tests::dice::Dice;
use forge_tests::pool::Pool;
use forge_tests::relay::{Cut, Relay, Weather};
use forge_tests::saboteur::Saboteurs;

use crate::jobs::{
    SABOTEUR, attempts, contract, ended, long_contract, nothing_counts_twice, reached, times, undisturbed, worth,
};
use crate::network::connected;

/// Agents at the restarted hub.
const AGENTS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_back_to_a_hub_that_was_killed() {
    let restarts = 3 * times();
    let shards = 16 * restarts + 32;
    let contract = contract(shards);
    let expected = undisturbed(&contract).await;
    let mut pool = Pool::start(0).await;
    let light = Weather { lost: 10, doubled: 5, held: 50, hold_ms: 10 };
    let mut relays = Vec::new();
    for seed in 0..AGENTS {
        let relay = Relay::start(&pool.quic(), light, seed).await;
        pool.join_later_at(&relay.address(), &[]);
        relays.push(relay);
    }
    connected(&pool, AGENTS).await;
    let mut dice = Dice::new(0xb007);
    let job = pool.api.submit(&contract).await;
    for restart in 0..restarts {
        reached(&pool, &job, restart * 16 + dice.below(16)).await;
        pool.kill_hub().await;
        pool.restart_hub().await;
    }
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    nothing_counts_twice(&attempts(&pool, &job).await, shards, true);
    connected(&pool, AGENTS).await;
    pool.stop().await;
}

/// Fifty agents, each with a session of its own, that all come back at once.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_agents_come_back_at_once() {
    let restarts = 2 * times();
    let shards = 64 * restarts;
    let contract = contract(shards);
    let expected = undisturbed(&contract).await;
    let mut pool = Pool::start(0).await;
    let crowd = Saboteurs::start(SABOTEUR, &pool, &["honest,count=50"], &[]).await;
    let mut dice = Dice::new(0x50);
    let job = pool.api.submit(&contract).await;
    for restart in 0..restarts {
        reached(&pool, &job, restart * 48 + 1 + dice.below(32)).await;
        pool.kill_hub().await;
        pool.restart_hub().await;
        connected(&pool, 50).await;
    }
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    nothing_counts_twice(&attempts(&pool, &job).await, shards, true);
    // Nobody enrolled a second time.
    let listed = pool.api.get("/api/v0/agents").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 50, "{}", listed.text);
    pool.stop().await;
    crowd.stop().await;
}

/// Two addresses of one hub: the first goes dead in the middle of a job, the second takes the agent in.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_to_its_next_hub() {
    let shards = 32 * times();
    let contract = long_contract(shards);
    let expected = undisturbed(&contract).await;
    let mut pool = Pool::start(0).await;
    let first = Relay::start(&pool.quic(), Weather::default(), 1).await;
    let second = Relay::start(&pool.quic(), Weather::default(), 2).await;
    let hubs = format!("{},{}", first.address(), second.address());
    pool.join_at(&hubs, &[]).await;
    assert_eq!(second.tally().seen, 0, "the first hub is tried first");
    let job = pool.api.submit(&contract).await;
    reached(&pool, &job, 4).await;
    first.cut(Cut::Both);
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    nothing_counts_twice(&attempts(&pool, &job).await, shards, false);
    assert!(second.tally().seen > 0, "the job ended before the agent had to change its hub");
    pool.stop().await;
}
