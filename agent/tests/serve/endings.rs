//! How agents end, and how they come back.

use forge_contract::FailureCode;
use forge_contract::report::Outcome;
use forge_protocol::LinkEvent;
use rustix::process::Signal;

use crate::hub::{Hub, noop, soon, spin};
use crate::process::Agent;

/// Fuel for some seconds of spinning.
const SOME: u64 = 20_000_000_000;
/// Fuel for hours.
const ENDLESS: u64 = 1 << 50;

#[tokio::test]
async fn an_agent_asked_to_end_finishes_what_it_runs_and_gives_the_rest_back() {
    let mut hub = Hub::new();
    let mut agent = Agent::start(&hub);
    hub.joined().await;
    let long = spin(&hub, SOME);
    let running = hub.grant(&long);
    hub.running(1).await;
    let waiting = [hub.grant(&long), hub.grant(&long)];
    agent.signal(Signal::TERM);
    let (mut declined, mut drained) = (Vec::new(), false);
    let report = loop {
        match hub.event().await {
            LinkEvent::Draining { .. } => drained = true,
            LinkEvent::LeaseBroken { lease, code, .. } => {
                assert_eq!(code, FailureCode::AgentDeclined);
                declined.push(lease);
            }
            LinkEvent::Report { report, .. } => break report,
            other => panic!("{other:?}"),
        }
    };
    declined.sort();
    assert_eq!((report.lease, &*declined, drained), (running, &waiting[..], true));
    let Outcome::Failed(failure) = report.outcome else { panic!() };
    assert_eq!(failure.code, FailureCode::AgentFuelExhausted);
    assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
    assert!(agent.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut hub = Hub::new();
    let mut agent = Agent::start(&hub);
    hub.joined().await;
    let endless = spin(&hub, ENDLESS);
    hub.grant(&endless);
    hub.running(1).await;
    agent.signal(Signal::TERM);
    assert!(matches!(hub.event().await, LinkEvent::Draining { .. }));
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_left_of_an_agent_whose_parent_is_gone_or_that_is_killed() {
    use crate::process::lives;
    for killed in [false, true] {
        let mut hub = Hub::new();
        let mut agent = Agent::start(&hub);
        hub.joined().await;
        let endless = spin(&hub, ENDLESS);
        hub.grant(&endless);
        hub.running(1).await;
        let workers = agent.workers();
        assert!(!workers.is_empty());
        if killed {
            agent.signal(Signal::KILL);
        } else {
            drop(agent.child.stdin.take());
        }
        let status = agent.ended().await;
        assert_eq!(status.success(), !killed);
        soon(async {
            while workers.iter().any(|worker| lives(*worker)) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_comes_back_to_a_hub_that_was_away_and_needs_no_token_then() {
    let mut hub = Hub::new();
    let data = tempfile::tempdir().unwrap();
    let token = hub.token.to_string();
    let mut agent = Agent::start_in(&hub, data.path(), &["--enroll", &token]);
    let LinkEvent::Joined { agent: first, .. } = hub.joined().await else { panic!() };
    let (address, record) = (hub.address, hub.record.clone());
    hub.endpoint.shutdown().await;
    drop(hub);
    // The socket closes with the last of its tasks.
    while std::net::UdpSocket::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
    let mut hub = Hub::at(address, record);
    let LinkEvent::Joined { agent: second, .. } = hub.joined().await else { panic!() };
    assert_eq!(first, second);
    let honest = noop(&hub);
    hub.grant(&honest);
    assert!(matches!(hub.report().await.outcome, Outcome::Completed(_)));

    agent.signal(Signal::TERM);
    assert!(agent.ended().await.success());
    while !matches!(hub.event().await, LinkEvent::Left { .. }) {}
    // The hub's key is remembered, the agent's key is known.
    let mut agent = Agent::start_in(&hub, data.path(), &[]);
    let LinkEvent::Joined { agent: third, .. } = hub.joined().await else { panic!() };
    assert_eq!(first, third);
    let mut rival = Agent::start_in(&hub, data.path(), &[]);
    assert_eq!(rival.ended().await.code(), Some(1));
    agent.signal(Signal::INT);
    assert!(agent.ended().await.success());
}

#[tokio::test]
async fn an_agent_that_is_refused_ends_and_says_so() {
    let hub = Hub::new();
    let data = tempfile::tempdir().unwrap();
    let key = hub.token.hub_key.to_string();
    let mut stranger = Agent::start_in(&hub, data.path(), &["--hub-key", &key]);
    assert_eq!(stranger.ended().await.code(), Some(1));
}
