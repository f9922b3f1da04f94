//! Measurements, run by hand: `cargo test -p forge-protocol --test link -- --ignored --nocapture scale`.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout)]

use std::time::Instant;

use forge_contract::LeaseId;
use forge_protocol::{LinkEvent, LinkSettings};
use tokio::task::JoinSet;

use crate::pair::{Hub, lease_of, report, task};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Both ends are in this process, so the hub's share is less than what is printed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn two_thousand_idle_agents() {
    const AGENTS: u16 = 2000;
    let mut hub = Hub::with(LinkSettings { address_burst: u32::from(AGENTS), ..LinkSettings::default() });
    let before = resident_kib();
    let began = Instant::now();
    let mut links = Vec::new();
    for agent in 0..AGENTS {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&agent.to_le_bytes());
        let identity = std::sync::Arc::new(forge_protocol::Identity::from_seed(&seed));
        hub.book.keys.lock().unwrap().insert(identity.public_key());
        links.push(hub.dial(&identity, None).await.unwrap());
        hub.joined().await;
    }
    println!("{AGENTS} agents joined in {:?}", began.elapsed());
    for _ in 0..5 * AGENTS {
        hub.events.recv().await.unwrap();
    }
    assert_eq!(hub.endpoint.sessions(), usize::from(AGENTS));
    println!("both ends take {} MiB", (resident_kib() - before) >> 10);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn small_shards_per_second() {
    const SHARDS: u64 = 50_000;
    const AT_ONCE: u64 = 16;
    let (mut hub, mut link, session) = Hub::with_agent().await;
    let agent = tokio::spawn(async move {
        let mut answers = JoinSet::new();
        for _ in 0..SHARDS {
            let (lease, found, responder) = lease_of(&mut link).await;
            answers.spawn(responder.report(report(lease, &found, vec![1; 200])));
        }
        answers.join_all().await;
    });
    let began = Instant::now();
    for lease in 0..AT_ONCE {
        hub.endpoint.dispatch(session, LeaseId(lease), task(1), 60_000);
    }
    for done in 0..SHARDS {
        assert!(matches!(hub.event().await, LinkEvent::Report { .. }));
        if done + AT_ONCE < SHARDS {
            hub.endpoint.dispatch(session, LeaseId(done + AT_ONCE), task(1), 60_000);
        }
    }
    println!("{:.0} shards/s", SHARDS as f64 / began.elapsed().as_secs_f64());
    agent.await.unwrap();
}
