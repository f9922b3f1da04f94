//! Those who do not speak the protocol.

use std::time::Duration;

use forge_contract::LeaseId;
use forge_contract::trace::TraceContext;
use forge_protocol::message::{Drain, Heartbeat, Kind, Load, Message, Progress, RefusalCode, Refused};
use forge_protocol::{ALPN, LinkEvent, LinkSettings, REVISION, frame};
use quinn::ConnectionError;

use crate::pair::{Hub, lease_of, report, settings, soon, task};
use crate::raw::{self, Agent, Certificate, close_code, connect, header, number};

const PROTOCOL: u64 = 3;

#[tokio::test]
async fn another_application_protocol_or_none_is_turned_away_in_the_handshake() {
    let hub = Hub::new();
    for alpn in [&b"forgepool/2"[..], b"h3", b"forgepool"] {
        let error = connect(hub.address, alpn, Certificate::Ed25519([9; 32])).await.unwrap_err();
        // TLS alert 120: no_application_protocol.
        let ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
        assert_eq!(u64::from(close.error_code), 0x100 + 120);
    }
}

#[tokio::test]
async fn who_proves_no_ed25519_key_does_not_become_a_session() {
    let mut hub = Hub::new();
    for certificate in [Certificate::Nothing, Certificate::Ecdsa] {
        // With TLS 1.3 a client may believe the handshake done before the hub has looked at its certificate.
        if let Ok(connection) = connect(hub.address, ALPN, certificate).await {
            let closed = soon(connection.closed()).await;
            assert!(matches!(closed, ConnectionError::ConnectionClosed(_)), "{closed}");
        }
    }
    assert_eq!(hub.endpoint.sessions(), 0);
    assert!(hub.events.try_recv().is_none());
}

/// What the hub does with a known agent that opens its control stream with these bytes.
async fn opened_with(bytes: &[u8]) -> u64 {
    let hub = Hub::new();
    hub.enrolled(9);
    let connection = connect(hub.address, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let _ = send.finish();
    let code = close_code(&connection).await;
    assert_eq!(hub.endpoint.sessions(), 0);
    code
}

#[tokio::test]
async fn a_first_message_that_is_no_hello_ends_the_connection() {
    let hello = frame::encode(&raw::hello()).unwrap();
    let cases: [&[u8]; 7] = [
        &[],
        &hello[..hello.len() - 1],
        &header(u32::MAX, number(Kind::Hello)),
        &header(u32::try_from(Kind::Hello.bytes_max()).unwrap() + 1, number(Kind::Hello)),
        &frame::encode(&Progress { units_done: 1 }).unwrap(),
        &header(0, 200),
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in cases {
        assert_eq!(opened_with(bytes).await, PROTOCOL, "{bytes:?}");
    }
}

#[tokio::test]
async fn another_revision_is_refused_by_name() {
    let hub = Hub::new();
    hub.enrolled(9);
    let connection = connect(hub.address, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    raw::say(&mut send, &forge_protocol::message::Hello { revision: REVISION + 1, ..raw::hello() }).await;
    let refused: Refused = raw::hear(&mut recv).await;
    assert_eq!(refused.code, RefusalCode::Revision);
    assert!(refused.detail.contains(&format!("revision {REVISION}")));
}

async fn said_after_welcome(bytes: &[u8]) -> (u64, String) {
    let mut hub = Hub::new();
    hub.enrolled(9);
    let mut agent = Agent::join(hub.address, [9; 32]).await;
    hub.joined().await;
    agent.send.write_all(bytes).await.unwrap();
    let code = close_code(&agent.connection).await;
    match hub.event().await {
        LinkEvent::Left { reason, .. } => (code, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_out_of_order_ends_the_session() {
    let hello = frame::encode(&raw::hello()).unwrap();
    let (code, reason) = said_after_welcome(&hello).await;
    assert_eq!((code, &*reason), (PROTOCOL, "a Hello message is not legal here"));
    let (code, reason) = said_after_welcome(&header(u32::MAX, Heartbeat::KIND as u8)).await;
    assert_eq!(code, PROTOCOL);
    assert!(reason.contains("exceeds 256"), "{reason}");
}

#[tokio::test]
async fn a_second_drain_ends_the_session() {
    let mut hub = Hub::new();
    hub.enrolled(9);
    let mut agent = Agent::join(hub.address, [9; 32]).await;
    hub.joined().await;
    raw::say(&mut agent.send, &Drain).await;
    assert!(matches!(hub.event().await, LinkEvent::Draining { .. }));
    raw::say(&mut agent.send, &Heartbeat { load: Load::default() }).await;
    raw::say(&mut agent.send, &Drain).await;
    assert_eq!(close_code(&agent.connection).await, PROTOCOL);
    assert!(matches!(hub.event().await, LinkEvent::Left { .. }));
    let _ = soon(agent.recv.read_to_end(1)).await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let hub = Hub::with(LinkSettings { handshake: Duration::from_millis(200), ..settings() });
    hub.enrolled(9);
    let connection = connect(hub.address, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
    soon(connection.closed()).await;
    assert_eq!(hub.endpoint.sessions(), 0);
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_refused_and_others_are_served() {
    let hub = Hub::with(LinkSettings { address_burst: 3, address_refill: Duration::from_secs(3600), ..settings() });
    for _ in 0..3 {
        connect(hub.address, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
    }
    let error = connect(hub.address, ALPN, Certificate::Ed25519([9; 32])).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error}");
}

/// Datagrams that look like the first of a connection, and some that look like nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_datagrams_leaves_sessions_alone() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    let flood = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, mut datagram) = (hub.address, vec![0u8; 1200]);
    let flooding = tokio::task::spawn_blocking(move || {
        for round in 0u32..20_000 {
            // Long header, fixed bit, initial; version 1; an 8-byte destination id that changes each time.
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            datagram[6..10].copy_from_slice(&round.to_le_bytes());
            datagram[14..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
            let length = if round % 3 == 0 { 1200 } else { usize::try_from(round % 1200).unwrap() };
            let _ = flood.send_to(&datagram[..length], address);
        }
    });
    for number in 1..=20 {
        hub.endpoint.dispatch(session, LeaseId(number), task(1), 60_000, TraceContext::default());
        let (lease, found, responder) = lease_of(&mut link).await;
        tokio::spawn(responder.report(report(lease, &found, vec![1])));
        assert!(matches!(hub.event().await, LinkEvent::Report { .. }));
    }
    soon(flooding).await.unwrap();
    assert_eq!(hub.endpoint.sessions(), 1);
}
