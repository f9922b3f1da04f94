//! A bad network: loss, reordering, repetition, half-open connections.

use std::time::Duration;

use forge_tests::pool::Pool;
use forge_tests::relay::{Cut, Relay, Weather};
use forge_tests::{until, within};

use crate::jobs::{
    attempts, contract, count, ended, long_contract, nothing_counts_twice, reached, times, undisturbed, worth,
};

/// One datagram in twenty is lost, one in ten arrives late, one in fifty twice.
const STORM: Weather = Weather { lost: 50, doubled: 20, held: 100, hold_ms: 30 };

/// A pool whose agents reach their hub through relays.
async fn behind_relays(agents: u64, hub_args: &[&str], weather: Weather) -> (Pool, Vec<Relay>) {
    let mut pool = Pool::start_with(0, hub_args).await;
    let mut relays = Vec::new();
    for seed in 0..agents {
        let relay = Relay::start(&pool.quic(), weather, 0x5eed + seed).await;
        pool.join_at(&relay.address(), &[]).await;
        relays.push(relay);
    }
    (pool, relays)
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_reordering_and_repetition_change_nothing() {
    let shards = 48 * times();
    let contract = contract(shards);
    let expected = undisturbed(&contract).await;
    let (pool, relays) = behind_relays(3, &[], STORM).await;
    let job = pool.api.submit(&contract).await;
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    nothing_counts_twice(&attempts(&pool, &job).await, shards, false);
    for relay in &relays {
        let tally = relay.tally();
        println!("{tally:?}");
        assert!(tally.lost > 0 && tally.held > 0 && tally.doubled > 0, "the storm did not happen: {tally:?}");
    }
    pool.stop().await;
}

/// The agent hears nothing, or is not heard; each side believes for a while that the connection stands.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_cost_time_and_no_shard() {
    let shards = 48 * times();
    let contract = long_contract(shards);
    let expected = undisturbed(&contract).await;
    let (pool, relays) = behind_relays(3, &["--lease-ms", "3000"], Weather::default()).await;
    let job = pool.api.submit(&contract).await;
    reached(&pool, &job, 4).await;
    relays[0].cut(Cut::ToAgent);
    relays[1].cut(Cut::ToHub);
    reached(&pool, &job, shards * 3 / 4).await;
    let state = ended(&pool, &job).await;
    assert_eq!(worth(&state), expected);
    let attempts = attempts(&pool, &job).await;
    nothing_counts_twice(&attempts, shards, false);
    assert!(count(&attempts, "REPORTED") < attempts.len(), "the cuts met no shard under way");
    relays.iter().for_each(|relay| relay.cut(Cut::Nothing));
    connected(&pool, 3).await;
    // And they work again: with the third cut off, somebody must have come back.
    relays[2].cut(Cut::Both);
    let again = pool.api.execute(&contract).await;
    assert_eq!(worth(&again.body), expected);
    pool.stop().await;
}

/// Waits until this many agents are connected.
pub async fn connected(pool: &Pool, agents: u64) {
    until("agents that are back", || async {
        let listed = pool.api.get("/api/v0/agents").await;
        let items = listed.body["items"].as_array().cloned().unwrap_or_default();
        let here = items.iter().filter(|agent| agent["state"] == "connected").count();
        (here as u64 >= agents).then_some(())
    })
    .await;
}

/// The same seed and the same datagrams: the same fate for each.
#[tokio::test]
async fn a_relay_is_repeatable() {
    let mut tallies = Vec::new();
    for _ in 0..2 {
        let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(&far.local_addr().unwrap().to_string(), STORM, 7).await;
        let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for number in 0..200_u64 {
            near.send_to(&number.to_le_bytes(), relay.address()).await.unwrap();
            // One after the other: nothing is lost but what the relay loses.
            within("datagram at the relay", async {
                while relay.tally().seen <= number {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        }
        tallies.push(relay.tally());
    }
    assert_eq!(tallies[0], tallies[1]);
    assert!(tallies[0].lost > 0 && tallies[0].held > 0 && tallies[0].doubled > 0, "{:?}", tallies[0]);
}
