//! Who may join.

use std::sync::Arc;

use forge_contract::AgentId;
use forge_protocol::message::RefusalCode;
use forge_protocol::{AgentLink, HubKey, Identity, LinkError, LinkEvent, LinkSettings};

use crate::pair::{Hub, introduction, settings, soon};

#[track_caller]
fn refusal(outcome: Result<AgentLink, LinkError>) -> RefusalCode {
    match outcome {
        Err(LinkError::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_enrols_one_agent_once() {
    let mut hub = Hub::new();
    let token = hub.token();
    let first = Arc::new(Identity::generate().unwrap());
    let link = hub.dial(&first, Some(token.secret)).await.unwrap();
    match hub.event().await {
        LinkEvent::Joined { session, agent, key, capability, software, .. } => {
            assert_eq!(agent, AgentId::of_public_key(&first.public_key()));
            assert_eq!((agent, session), (link.welcome().agent, link.welcome().session));
            assert_eq!(key, first.public_key());
            assert_eq!(capability, introduction(None).capability);
            assert_eq!(software, "test 1");
        }
        other => panic!("{other:?}"),
    }
    let thief = Arc::new(Identity::generate().unwrap());
    assert_eq!(refusal(hub.dial(&thief, Some(token.secret)).await), RefusalCode::Token);

    // The agent itself is known from now on, with the used token or without.
    link.close().await;
    assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
    for secret in [None, Some(token.secret)] {
        hub.dial(&first, secret).await.unwrap().close().await;
        hub.joined().await;
        assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
    }
}

#[tokio::test]
async fn an_agent_without_a_right_to_join_is_told_why() {
    let hub = Hub::new();
    let stranger = Arc::new(Identity::generate().unwrap());
    assert_eq!(refusal(hub.dial(&stranger, None).await), RefusalCode::NotEnrolled);
    assert_eq!(refusal(hub.dial(&stranger, Some([0; 32])).await), RefusalCode::Token);
    *hub.book.closed.lock().unwrap() = true;
    assert_eq!(refusal(hub.dial(&stranger, None).await), RefusalCode::Unavailable);
    assert_eq!(hub.endpoint.sessions(), 0);
}

#[tokio::test]
async fn a_capability_that_breaks_a_rule_is_refused() {
    let hub = Hub::new();
    let identity = hub.enrolled(2);
    let mut introduction = introduction(None);
    introduction.capability.cores = 0;
    let (hubs, settings) = ([hub.address.to_string()], settings());
    let dialled = AgentLink::connect(&hubs, hub.identity.hub_key(), &identity, &introduction, &settings);
    assert_eq!(refusal(soon(dialled).await), RefusalCode::Malformed);
}

#[tokio::test]
async fn a_hub_with_another_key_is_not_spoken_to() {
    let mut hub = Hub::new();
    let identity = hub.enrolled(2);
    let hubs = [hub.address.to_string()];
    let wrong = HubKey(Identity::generate().unwrap().public_key());
    let dialled = soon(AgentLink::connect(&hubs, wrong, &identity, &introduction(None), &settings())).await;
    assert!(matches!(dialled, Err(LinkError::WrongHub { .. })), "{dialled:?}");
    hub.endpoint.shutdown().await;
    let event = hub.events.try_recv();
    assert!(event.is_none(), "{event:?}");
}

#[tokio::test]
async fn the_first_address_that_answers_is_used() {
    let mut hub = Hub::new();
    let identity = hub.enrolled(2);
    // A socket that never answers: bound, not read.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hubs = [mute.local_addr().unwrap().to_string(), hub.address.to_string()];
    let settings = LinkSettings { handshake: std::time::Duration::from_millis(500), ..settings() };
    let key = hub.identity.hub_key();
    let link = soon(AgentLink::connect(&hubs, key, &identity, &introduction(None), &settings)).await.unwrap();
    assert_eq!(hub.joined().await, link.welcome().session);
    let none = soon(AgentLink::connect(&hubs[..1], key, &identity, &introduction(None), &settings)).await;
    assert!(matches!(none, Err(LinkError::Unreachable { .. })), "{none:?}");
}
