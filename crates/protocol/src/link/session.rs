//! One agent's session at the hub: greeting, sign of life, fetches, and the leases it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, LeaseId};
use quinn::crypto::rustls::HandshakeData;
use quinn::rustls::pki_types::CertificateDer;
use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::hub::{Hub, LinkEvent, sentence};
use super::stream::{self, StreamError};
use super::{code, fetch, lease, tls};
use crate::identity::{AgentKey, EnrolToken, Verifier};
use crate::message::{Drain, Heartbeat, Hello, Kind, RefusalCode, Refused, Standing, Welcome};
use crate::session::{HubControl, refused};
use crate::{ALPN, REVISION, frame};

/// Above leases: a heartbeat waits for nothing.
const CONTROL_PRIORITY: i32 = 1;
/// Heartbeats between two words on how the agent stands, at least.
const STANDING_BEATS: u32 = 3;
/// How long a refused agent has to read why.
const REFUSAL: Duration = Duration::from_secs(2);

/// A session that is open.
pub(super) struct HubSession {
    pub number: u64,
    pub agent: AgentId,
    pub verifier: Verifier,
    pub connection: Connection,
    /// How the agent stands, for its owner.
    pub standing: watch::Sender<Option<Standing>>,
    leases: Mutex<Leases>,
    gone: watch::Sender<bool>,
}

struct Leases {
    tasks: HashMap<LeaseId, AbortHandle>,
    /// Cloned into every lease's task; `None` once the session takes no more.
    running: Option<mpsc::Sender<()>>,
}

impl HubSession {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a lease's conversation; false where the session is over.
    pub fn grant(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        lease: LeaseId,
        task: Arc<Task>,
        deadline_ms: u64,
        trace: TraceContext,
    ) -> bool {
        let mut leases = self.leases();
        let Some(running) = leases.running.clone() else { return false };
        let conversation = lease::carry(hub.clone(), self.clone(), lease, task, (deadline_ms, trace));
        let handle = tokio::spawn(async move {
            conversation.await;
            drop(running);
        });
        if let Some(older) = leases.tasks.insert(lease, handle.abort_handle()) {
            older.abort();
        }
        true
    }

    pub fn revoke(&self, lease: LeaseId) {
        if let Some(task) = self.leases().tasks.remove(&lease) {
            task.abort();
        }
    }

    /// Whether it still takes leases.
    pub fn is_open(&self) -> bool {
        self.leases().running.is_some()
    }

    pub fn forget(&self, lease: LeaseId) {
        self.leases().tasks.remove(&lease);
    }
}

/// A connection whose agent may join.
struct Guest {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    control: HubControl,
    hello: Hello,
    key: AgentKey,
    verifier: Verifier,
}

/// Serves a connection from its first packet to its end.
pub(super) async fn serve(hub: Arc<Hub>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let remote = incoming.remote_address();
    let greeted = tokio::time::timeout(hub.settings.handshake, greet(&hub, incoming)).await;
    drop(permit);
    match greeted {
        Ok(Ok(guest)) => host(hub, guest).await,
        Ok(Err(reason)) => tracing::debug!(%remote, %reason, "a connection did not become a session"),
        Err(_) => tracing::debug!(%remote, "a connection did not become a session in time"),
    }
}

async fn greet(hub: &Hub, incoming: Incoming) -> Result<Guest, String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let outcome = introduce(hub, &connection).await;
    match outcome {
        Ok(guest) => Ok(guest),
        Err(Turned::Away(mut send, refusal)) => {
            let reason = format!("{}: {}", refusal.code.as_str(), refusal.detail);
            if stream::write(&mut send, &refusal).await.is_ok() {
                let _ = send.finish();
                let _ = tokio::time::timeout(REFUSAL, connection.closed()).await;
            }
            connection.close(code::REFUSED, reason.as_bytes());
            Err(reason)
        }
        Err(Turned::Out(reason)) => {
            connection.close(code::PROTOCOL, reason.as_bytes());
            Err(reason)
        }
    }
}

enum Turned {
    /// With an answer.
    Away(SendStream, Refused),
    /// Without.
    Out(String),
}

impl From<StreamError> for Turned {
    fn from(error: StreamError) -> Self {
        Self::Out(error.to_string())
    }
}

async fn introduce(hub: &Hub, connection: &Connection) -> Result<Guest, Turned> {
    let (key, verifier) =
        proven_key(connection).ok_or_else(|| Turned::Out("no Ed25519 key or another protocol".into()))?;
    let (send, mut recv) = connection.accept_bi().await.map_err(|error| Turned::Out(error.to_string()))?;
    let _ = send.set_priority(CONTROL_PRIORITY);
    let mut control = HubControl::default();
    let hello: Hello = stream::read(&mut recv).await?;
    if let Err(refusal) = control.hello(&hello) {
        return Err(Turned::Away(send, refusal));
    }
    if let Err(refusal) = admit(hub, &key, hello.enrol_secret.as_ref()).await {
        return Err(Turned::Away(send, refusal));
    }
    Ok(Guest { connection: connection.clone(), send, recv, control, hello, key, verifier })
}

/// The key the other end proved in the TLS handshake, under our protocol's name.
fn proven_key(connection: &Connection) -> Option<(AgentKey, Verifier)> {
    let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    if handshake.protocol.as_deref() != Some(ALPN) {
        return None;
    }
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = tls::key_of(chain.first()?)?;
    Some((key, Verifier::of(&key)?))
}

async fn admit(hub: &Hub, key: &AgentKey, secret: Option<&[u8; 32]>) -> Result<(), Refused> {
    if *hub.draining.borrow() {
        return Err(refused(RefusalCode::Draining, "this hub is stopping".into()));
    }
    let unavailable = |_| refused(RefusalCode::Unavailable, "this hub cannot read its record now".into());
    if hub.gate.known(key).await.map_err(unavailable)? {
        return Ok(());
    }
    let Some(secret) = secret else {
        let detail = "this agent's key is not enrolled here; start it with an enrolment token".into();
        return Err(refused(RefusalCode::NotEnrolled, detail));
    };
    if hub.gate.redeem(&EnrolToken::stored_of(secret), key).await.map_err(unavailable)? {
        return Ok(());
    }
    Err(refused(RefusalCode::Token, "the enrolment token is unknown, used or expired; ask for a new one".into()))
}

/// Opens the session, keeps it, and cleans up after it.
async fn host(hub: Arc<Hub>, guest: Guest) {
    let Guest { connection, mut send, recv, mut control, hello, key, verifier } = guest;
    let agent = AgentId::of_public_key(&key);
    let (running, mut ended) = mpsc::channel(1);
    let session = Arc::new(HubSession {
        number: hub.number(),
        agent,
        verifier,
        connection: connection.clone(),
        standing: watch::Sender::default(),
        leases: Mutex::new(Leases { tasks: HashMap::new(), running: Some(running) }),
        gone: watch::Sender::new(false),
    });
    if let Some(older) = hub.seat(&session) {
        older.connection.close(code::REPLACED, b"a newer session of this key");
        // It ends only by itself, and does: its connection is closed.
        let _ = older.gone.subscribe().wait_for(|gone| *gone).await;
    }
    let reason = match welcome(&hub, &session, &mut send).await {
        Ok(()) => {
            control.welcome();
            let joined = LinkEvent::Joined {
                session: session.number,
                agent,
                key,
                capability: hello.capability,
                software: hello.software,
                remote: connection.remote_address(),
            };
            hub.send(joined).await;
            let reason = keep(&hub, &session, control, send, recv).await;
            Some(reason)
        }
        Err(_) => None,
    };
    connection.close(code::DONE, b"");
    session.leases().running = None;
    // Reports that arrived whole are still delivered; `None` comes when every lease's task has ended.
    let _ = ended.recv().await;
    if let Some(reason) = reason {
        hub.send(LinkEvent::Left { session: session.number, reason }).await;
    }
    // Only now may another of this key join: the order of events is the order of sessions.
    hub.unseat(&session);
    session.gone.send_replace(true);
}

async fn welcome(hub: &Hub, session: &HubSession, send: &mut SendStream) -> Result<(), StreamError> {
    let settings = &hub.settings;
    let welcome = Welcome {
        revision: REVISION,
        agent: session.agent,
        session: session.number,
        heartbeat_ms: u32::try_from(settings.heartbeat.as_millis()).unwrap_or(u32::MAX),
        leases_max: settings.leases,
    };
    stream::write(send, &welcome).await
}

/// Runs until the session ends, and says why it did.
async fn keep(
    hub: &Arc<Hub>,
    session: &Arc<HubSession>,
    control: HubControl,
    mut send: SendStream,
    mut recv: RecvStream,
) -> String {
    let connection = &session.connection;
    tokio::select! {
        reason = listen(hub, session, control, &mut recv) => {
            if connection.close_reason().is_none() {
                connection.close(code::PROTOCOL, reason.as_bytes());
            }
            reason
        }
        reason = serve_fetches(hub, session) => reason,
        reason = speak(hub, session, &mut send) => reason,
        error = connection.closed() => sentence(&error),
    }
}

/// Reads the control stream until it breaks.
async fn listen(hub: &Hub, session: &HubSession, mut control: HubControl, recv: &mut RecvStream) -> String {
    loop {
        let next = tokio::time::timeout(hub.settings.silence, stream::read_frame(recv, control.legal())).await;
        let (kind, body) = match next {
            Ok(Ok(message)) => message,
            Ok(Err(StreamError::Lost(error))) => return sentence(&error),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => {
                session.connection.close(code::SILENT, b"no heartbeat");
                return "no heartbeat".to_owned();
            }
        };
        if kind == Kind::Heartbeat {
            match frame::decode::<Heartbeat>(&body) {
                Ok(Heartbeat { load }) => {
                    let (session, rtt) = (session.number, session.connection.rtt());
                    let _ = hub.events.try_send((LinkEvent::Heartbeat { session, load, rtt }, None));
                }
                Err(error) => return error.to_string(),
            }
        } else {
            if let Err(error) = control.drain() {
                return error.to_string();
            }
            hub.send(LinkEvent::Draining { session: session.number }).await;
        }
    }
}

async fn serve_fetches(hub: &Hub, session: &HubSession) -> String {
    let number = session.number;
    loop {
        match session.connection.accept_bi().await {
            // QUIC's limit on open streams bounds the number of these tasks.
            Ok((send, recv)) => drop(tokio::spawn(fetch::serve(hub.content.clone(), number, send, recv))),
            Err(error) => return sentence(&error),
        }
    }
}

/// Tells the agent how it stands as that moves, not too often, and once that the hub drains. Returns what broke.
async fn speak(hub: &Hub, session: &HubSession, send: &mut SendStream) -> String {
    let (mut draining, mut standing) = (hub.draining.subscribe(), session.standing.subscribe());
    let (mut drains, mut next) = (false, Instant::now());
    // What was said before anybody listened counts.
    if standing.borrow().is_some() {
        standing.mark_changed();
    }
    loop {
        let written = tokio::select! {
            () = drained(&mut draining), if !drains => {
                drains = true;
                stream::write(send, &Drain).await
            }
            () = moved(&mut standing, next) => {
                next = Instant::now() + hub.settings.heartbeat.saturating_mul(STANDING_BEATS);
                let word = standing.borrow_and_update().clone();
                stream::write(send, &word.unwrap_or_default()).await
            }
        };
        if let Err(error) = written {
            return error.to_string();
        }
    }
}

/// Returns once the hub drains. Cancel-safe.
async fn drained(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        core::future::pending().await
    }
}

/// Returns once there is something new to say and it is time to. Cancel-safe.
async fn moved(standing: &mut watch::Receiver<Option<Standing>>, next: Instant) {
    tokio::time::sleep_until(next).await;
    if standing.changed().await.is_err() {
        core::future::pending().await
    }
}
