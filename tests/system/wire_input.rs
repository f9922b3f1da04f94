//! Bad input 27-30 and 32 of the security design: peers that are no agents, against a real hub.
//!
//! (31 is in `agent_input`.) None of it reaches the job that runs meanwhile, and the hub's memory stays where it was.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use forge_protocol::message::{Heartbeat, Hello, Kind, Message, Progress, RefusalCode, Refused};
use forge_protocol::{ALPN, REVISION, frame};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::memory_kib;
use forge_tests::relay::{Relay, Weather};
use quinn::{ConnectionError, Endpoint};
use serde_json::{Value, json};

use crate::answers::digest;
use crate::stranger::{
    Certificate, Stranger, client, close_code, connect, counting_kernel, header, hear, hello, number,
};

/// What the hub closes a connection with that breaks the protocol.
const PROTOCOL: u64 = 3;

fn contract() -> Value {
    changed(insurance(4_000_000), &[("/policy/shards", json!(32)), ("/policy/verify", json!("none"))])
}

/// The largest the hub ever was, KiB.
fn peak_kib(pool: &Pool) -> u64 {
    memory_kib(pool.hub.id(), "VmHWM")
}

/// First datagrams of real clients, taken by somebody who never answers them.
async fn initials(count: usize) -> Vec<Vec<u8>> {
    let catcher = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = catcher.local_addr().unwrap();
    let (mut caught, mut datagram) = (Vec::new(), vec![0; 65_536]);
    for _ in 0..count {
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let dialling = endpoint.connect_with(client(ALPN, &Certificate::Nothing), target, "any").unwrap();
        let bytes = forge_tests::within("a first datagram", catcher.recv(&mut datagram)).await.unwrap();
        caught.push(datagram[..bytes].to_vec());
        drop(dialling);
    }
    caught
}

/// 27: first datagrams by the ten thousand, from hundreds of addresses and ports all over the loopback that never answer
/// the hub's retry. The agents at work keep their sessions and their leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_first_datagrams_costs_no_memory_and_no_lease() {
    const DATAGRAMS: usize = 60_000;
    const CLIENTS: usize = 256;
    const ADDRESSES: u8 = 60;
    const PORTS: usize = 8;
    const MOST: Duration = Duration::from_secs(6);
    let pool = Pool::start(2).await;
    let contract = contract();
    let expected = digest(&pool.api.execute(&contract).await.body);
    let caught = initials(CLIENTS).await;
    let hub: SocketAddr = pool.quic().parse().unwrap();
    let before = peak_kib(&pool);
    let joined = pool.api.get("/api/v0/agents").await;
    let job = pool.api.submit(&contract).await;
    let flood = tokio::task::spawn_blocking(move || {
        let address = |host: u8| Ipv4Addr::new(127, 3 * host, 7 * (host % 30), host);
        let addresses = (2..2 + ADDRESSES).map(address).flat_map(|address| std::iter::repeat_n(address, PORTS));
        let sources: Vec<UdpSocket> = addresses.map(|address| UdpSocket::bind((address, 0)).unwrap()).collect();
        let (began, mut sent) = (Instant::now(), 0);
        while sent < DATAGRAMS && began.elapsed() < MOST {
            let mut datagram = caught[sent % caught.len()].clone();
            // One in four has a destroyed body, one in eight an id that no client drew.
            match sent % 8 {
                3 | 7 => datagram[600..].fill(0x5a),
                5 => datagram[6..14].copy_from_slice(&(sent as u64).to_le_bytes()),
                _ => {}
            }
            let _ = sources[sent / 7 % sources.len()].send_to(&datagram, hub);
            sent += 1;
        }
        sent
    });
    let sent = forge_tests::within("end of the flood", flood).await.unwrap();
    assert!(sent >= 10_000, "only {sent} datagrams");
    let state = pool.api.finished(&job).await;
    assert_eq!(digest(&state), expected);
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await;
    let attempts = executions.body["items"].as_array().unwrap();
    // A copy of a slow shard may be taken back.
    let kept = |attempt: &Value| attempt["status"] == "REPORTED" || attempt["status"] == "REVOKED";
    assert!(attempts.iter().all(kept), "a lease was lost: {}", executions.text);
    // The record of an agent changes when it leaves and joins: nobody did.
    let listed = pool.api.get("/api/v0/agents").await;
    let seen = |list: &Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|agent| agent["last_seen_at_ms"].clone()).collect()
    };
    assert_eq!(seen(&listed.body), seen(&joined.body), "an agent lost its session: {}", listed.text);
    let grown = peak_kib(&pool) - before;
    println!("{sent} first datagrams, the hub's peak grew by {grown} KiB from {before} KiB");
    assert!(grown < 48 << 10, "the hub grew by {grown} KiB");
    pool.stop().await;
}

/// What the hub does with a connection that opens its control stream with these bytes.
async fn opened_with(hub: &str, bytes: &[u8]) -> u64 {
    let connection = connect(hub, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let _ = send.finish();
    close_code(&connection).await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_speak_otherwise_are_turned_away_and_a_job_goes_on() {
    let mut pool = Pool::start(1).await;
    let contract = contract();
    let expected = digest(&pool.api.execute(&contract).await.body);
    let job = pool.api.submit(&contract).await;
    let hub = pool.quic();

    // 28 and 32: another protocol, an older one, none; in the handshake, by TLS's alert 120.
    for alpn in [&b"forgepool/2"[..], b"forgepool/0", b"h3", b"forgepool"] {
        match connect(&hub, alpn, Certificate::Ed25519([9; 32])).await.map(drop) {
            Err(ConnectionError::ConnectionClosed(close)) => assert_eq!(u64::from(close.error_code), 0x100 + 120),
            other => panic!("{other:?}"),
        }
    }
    // 28: no certificate, one of another kind. What a certificate says of itself, its dates too, is not looked at.
    for certificate in [Certificate::Nothing, Certificate::Ecdsa] {
        if let Ok(connection) = connect(&hub, ALPN, certificate).await {
            let closed = forge_tests::within("the hub's word", connection.closed()).await;
            assert!(matches!(closed, ConnectionError::ConnectionClosed(_)), "{closed}");
        }
    }
    // 29: lengths far beyond any message, and messages cut short.
    let whole = frame::encode(&hello()).unwrap();
    let too_long = u32::try_from(Kind::Hello.bytes_max()).unwrap() + 1;
    let cases: [&[u8]; 8] = [
        &header(u32::MAX, number(Kind::Hello)),
        &header(too_long, number(Kind::Hello)),
        // The first bytes of a QUIC integer of 2^62 - 1, which no frame here begins with.
        &[0xff; 16],
        &whole[..whole.len() - 1],
        &whole[..3],
        &[],
        // 32: a kind that does not exist, and one that does not belong here.
        &header(0, 200),
        &frame::encode(&Progress { units_done: 1 }).unwrap(),
    ];
    for bytes in cases {
        assert_eq!(opened_with(&hub, bytes).await, PROTOCOL, "{bytes:?}");
    }
    // 32: another revision is refused by name, an agent nobody enrolled too.
    let revisions =
        [(0, RefusalCode::Revision), (REVISION + 1, RefusalCode::Revision), (REVISION, RefusalCode::NotEnrolled)];
    for (revision, code) in revisions {
        let connection = connect(&hub, ALPN, Certificate::Ed25519([9; 32])).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame::encode(&Hello { revision, ..hello() }).unwrap()).await.unwrap();
        let refused: Refused = hear(&mut recv).await;
        assert_eq!(refused.code, code, "{refused:?}");
    }
    // 29 and 32 after the welcome: the session ends, and its agent may come again.
    for (seed, bytes) in [(30, header(u32::MAX, Heartbeat::KIND as u8).to_vec()), (31, header(0, 200).to_vec())] {
        let mut stranger = Stranger::join(&mut pool, seed).await;
        stranger.send.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&stranger.connection).await, PROTOCOL);
    }
    assert_eq!(digest(&pool.api.finished(&job).await), expected);
    pool.stop().await;
}

/// 32: a version of QUIC that nobody speaks is answered with those that are, and nothing is kept of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_answered_without_a_session() {
    let pool = Pool::start(0).await;
    let mut datagram = initials(1).await.remove(0);
    datagram[1..5].copy_from_slice(&0x0a1a_2a3a_u32.to_be_bytes());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&datagram, pool.quic()).await.unwrap();
    let mut answer = vec![0; 2048];
    let bytes = forge_tests::within("versions", socket.recv(&mut answer)).await.unwrap();
    assert!(bytes > 7 && answer[0] & 0x80 != 0, "no long header");
    assert_eq!(answer[1..5], [0; 4], "version negotiation has version 0");
    pool.stop().await;
}

/// 30: one byte a write, over a network that turns the order of half of all datagrams around.
#[tokio::test(flavor = "multi_thread")]
async fn single_bytes_out_of_order_are_one_message() {
    let mut pool = Pool::start(1).await;
    let contract = contract();
    let expected = digest(&pool.api.execute(&contract).await.body);
    let before = peak_kib(&pool);
    let job = pool.api.submit(&contract).await;
    let weather = Weather { held: 500, hold_ms: 20, doubled: 200, lost: 0 };
    let relay = Relay::start(&pool.quic(), weather, 30).await;
    for seed in 60..68 {
        let stranger = Stranger::join_at(&mut pool, &relay.address(), seed).await;
        stranger.connection.close(0_u32.into(), b"");
    }
    assert!(relay.tally().held > 10, "{:?}", relay.tally());
    assert_eq!(digest(&pool.api.finished(&job).await), expected);
    let grown = peak_kib(&pool) - before;
    assert!(grown < 48 << 10, "the hub grew by {grown} KiB");
    pool.stop().await;
}

/// How a lease of a job ended, once it has.
async fn ending_of(pool: &Pool, job: &str, lease: u64) -> Option<Value> {
    let mut offset = 0;
    loop {
        let page = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000&offset={offset}")).await;
        let items = page.body["items"].as_array().unwrap().clone();
        if let Some(attempt) = items.iter().find(|attempt| attempt["lease"] == lease) {
            return Some(attempt["status"].clone());
        }
        if items.is_empty() {
            return None;
        }
        offset += items.len();
    }
}

/// 30 on the streams of leases: whole reports, each byte in a datagram of its own, half of them overtaken by others.
#[tokio::test(flavor = "multi_thread")]
async fn reports_of_single_bytes_out_of_order_are_reports() {
    let mut pool = Pool::start(1).await;
    let contract = json!({
        "ctx": {}, "op": { "name": "noop", "version": 1, "profile": "count.v1" },
        "seed": { "mode": "derived" },
        "policy": { "verify": "none", "shards": 2048, "max_agents": 0 },
        "args": { "units": 8192 }
    });
    let expected = digest(&pool.api.execute(&contract).await.body);
    let kernel = counting_kernel();
    let before = peak_kib(&pool);
    let weather = Weather { held: 500, hold_ms: 20, doubled: 100, lost: 0 };
    let mut strangers = Vec::new();
    for seed in 70..74 {
        let relay = Relay::start(&pool.quic(), weather, seed.into()).await;
        strangers.push((Stranger::join_at(&mut pool, &relay.address(), seed).await, relay));
    }
    let job = pool.api.submit(&contract).await;
    let answer = async |(stranger, relay): &(Stranger, Relay)| {
        let mut granted = stranger.granted().await;
        let (head, fragment) = stranger.signed(stranger.honest(&kernel, &granted));
        let bytes = [frame::encode(&head).unwrap(), fragment].concat();
        for byte in &bytes {
            let seen = relay.tally().seen;
            granted.answer.write_all(&[*byte]).await.unwrap();
            // Gone before the next: no two share a datagram.
            forge_tests::within("the datagram", async {
                while relay.tally().seen == seen {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        granted.answer.finish().unwrap();
        assert!(relay.tally().held > bytes.len() as u64 / 4, "{:?} for {} bytes", relay.tally(), bytes.len());
        (granted.lease.lease.0, bytes.len())
    };
    let [a, b, c, d] = &strangers[..] else { panic!("four strangers") };
    let answers: [(u64, usize); 4] = tokio::join!(answer(a), answer(b), answer(c), answer(d)).into();
    // Each counts as if it had come in one piece.
    for (lease, _) in &answers {
        let ended = forge_tests::until("the report", || async { ending_of(&pool, &job, *lease).await }).await;
        assert_eq!(ended, "REPORTED", "{answers:?}");
    }
    for (stranger, _) in &strangers {
        stranger.connection.close(0_u32.into(), b"");
    }
    assert_eq!(digest(&pool.api.finished(&job).await), expected);
    let grown = peak_kib(&pool) - before;
    println!("{answers:?} (lease, bytes), the hub's peak grew by {grown} KiB from {before} KiB");
    assert!(grown < 48 << 10, "the hub grew by {grown} KiB");
    pool.stop().await;
}
