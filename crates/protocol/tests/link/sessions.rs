//! How sessions begin, end and follow each other.

use std::sync::mpsc;
use std::time::Duration;

use forge_contract::LeaseId;
use forge_contract::trace::TraceContext;
use forge_protocol::message::{Load, RefusalCode};
use forge_protocol::{AgentEvent, AgentLink, Identity, LinkError, LinkEvent, LinkSettings, Standing};

use crate::pair::{Hub, closed, lease_of, report, settings, soon, task};

#[tokio::test]
async fn heartbeats_carry_the_load() {
    let (mut hub, link, session) = Hub::with_agent().await;
    let load = Load { running: 2, waiting: 3, memory_free_bytes: 4 };
    link.set_load(load);
    loop {
        match soon(hub.events.recv()).await.unwrap() {
            LinkEvent::Heartbeat { load: found, session: of, .. } if found == load => break assert_eq!(of, session),
            LinkEvent::Heartbeat { load: found, .. } => assert_eq!(found, Load::default()),
            other => panic!("{other:?}"),
        }
    }
}

async fn told(link: &mut AgentLink) -> Standing {
    match soon(link.next()).await {
        AgentEvent::Standing(standing) => standing,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_is_told_how_it_stands_and_the_latest_word_counts() {
    let (hub, mut link, session) = Hub::with_agent().await;
    let word = |clean| Standing { clean, quarantined: Some("a\u{1b}b".into()), ..Standing::default() };
    hub.endpoint.tell(session, word(1));
    let first = told(&mut link).await;
    assert_eq!((first.clean, first.quarantined.as_deref()), (1, Some("ab")), "nothing a terminal would obey");
    // Said faster than it is sent: what is old by then is left out.
    for clean in 2..=40 {
        hub.endpoint.tell(session, word(clean));
    }
    assert_eq!(told(&mut link).await.clean, 40);
    hub.endpoint.drain();
    assert!(matches!(soon(link.next()).await, AgentEvent::Drain));
    hub.endpoint.tell(session, word(41));
    assert_eq!(told(&mut link).await.clean, 41, "also while it drains");
    hub.endpoint.tell(session + 9, word(42));
}

#[tokio::test]
async fn a_newer_session_of_a_key_takes_the_place_of_the_older() {
    let (mut hub, mut older, first) = Hub::with_agent().await;
    hub.endpoint.dispatch(first, LeaseId(1), task(1), 1000, TraceContext::default());
    let (.., responder) = lease_of(&mut older).await;
    let identity = hub.enrolled(9);
    let _newer = hub.dial(&identity, None).await.unwrap();
    assert!(matches!(closed(&mut older).await, LinkError::Replaced));
    soon(responder.revoked()).await;
    match hub.event().await {
        LinkEvent::Left { session, .. } => assert_eq!(session, first),
        other => panic!("{other:?}"),
    }
    assert!(hub.joined().await > first);
    assert_eq!(hub.endpoint.sessions(), 1);
}

#[tokio::test]
async fn an_agent_that_vanishes_is_missed() {
    let mut hub = Hub::with(LinkSettings { silence: Duration::from_millis(300), ..settings() });
    let identity = hub.enrolled(9);
    let (address, key) = (hub.address.to_string(), hub.identity.hub_key());
    let (stop, stopped) = mpsc::channel::<()>();
    // A runtime of its own, which ends without a word.
    let agent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let introduction = crate::pair::introduction(None);
        let link = runtime.block_on(async {
            forge_protocol::AgentLink::connect(&[address], key, &identity, &introduction, &settings()).await.unwrap()
        });
        let _ = stopped.recv();
        runtime.shutdown_background();
        core::mem::forget(link);
    });
    let session = hub.joined().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(1), 60_000, TraceContext::default());
    drop(stop);
    match hub.event().await {
        LinkEvent::Left { session: gone, reason } => assert_eq!((gone, &*reason), (session, "no heartbeat")),
        other => panic!("{other:?}"),
    }
    assert_eq!(hub.endpoint.sessions(), 0);
    agent.join().unwrap();
}

#[tokio::test]
async fn draining_is_passed_on_both_ways_and_running_shards_end() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(1), 1000, TraceContext::default());
    let (lease, found, responder) = lease_of(&mut link).await;
    hub.endpoint.drain();
    assert!(matches!(soon(link.next()).await, AgentEvent::Drain));
    link.drain();
    assert!(matches!(hub.event().await, LinkEvent::Draining { .. }));
    tokio::spawn(responder.report(report(lease, &found, vec![])));
    assert!(matches!(hub.event().await, LinkEvent::Report { .. }));
    let late = hub.enrolled(8);
    match hub.dial(&late, None).await {
        Err(LinkError::Refused(refused)) => assert_eq!(refused.code, RefusalCode::Draining),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_report_that_was_sent_before_parting_arrives_before_the_parting() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(1), 1000, TraceContext::default());
    let (lease, found, responder) = lease_of(&mut link).await;
    soon(responder.report(report(lease, &found, vec![7; 1 << 20]))).await.unwrap();
    link.close().await;
    assert!(matches!(hub.event().await, LinkEvent::Report { .. }));
    assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
}

#[tokio::test]
async fn a_hub_that_stops_says_so_and_its_last_events_are_there() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.shutdown().await;
    assert!(matches!(closed(&mut link).await, LinkError::Closed { .. }));
    match hub.event().await {
        LinkEvent::Left { session: gone, .. } => assert_eq!(gone, session),
        other => panic!("{other:?}"),
    }
    let Hub { endpoint, mut events, .. } = hub;
    drop(endpoint);
    while let Some(event) = soon(events.recv()).await {
        assert!(matches!(event, LinkEvent::Heartbeat { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_session_is_closed_on_request() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.close(session, "expelled");
    match closed(&mut link).await {
        LinkError::Closed { reason } => assert!(reason.contains("expelled"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
}

/// A hub that is killed and started again on its old address, with its old key.
#[tokio::test]
async fn an_agent_learns_from_the_new_process_that_its_hub_was_killed() {
    let killed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = killed.spawn(async { Hub::new() }).await.unwrap();
    let (address, identity) = (first.address, first.enrolled(9));
    let mut link = first.dial(&identity, None).await.unwrap();
    // Its tasks end before the endpoint is dropped, so nothing is left that could say goodbye.
    let ended = tokio::task::spawn_blocking(move || killed.shutdown_timeout(Duration::from_secs(30)));
    ended.await.unwrap();
    drop(first);
    let mut second = Hub::at(address, Identity::from_seed(&[1; 32]), settings());
    match closed(&mut link).await {
        LinkError::Closed { reason } => assert_eq!(reason, "reset by peer"),
        other => panic!("{other:?}"),
    }
    second.enrolled(9);
    let again = second.dial(&identity, None).await.unwrap();
    assert_eq!(second.joined().await, again.welcome().session);
}
