//! The hub's end: one endpoint, one session per agent key, leases out and reports in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forge_contract::report::Report;
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Capability, FailureCode, LeaseId};
use quinn::{Endpoint, EndpointConfig, ServerConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::admission::Admission;
use super::session::{self, HubSession};
use super::{Content, Gate, LinkError, LinkSettings, code, tls};
use crate::identity::{AgentKey, HubIdentity};
use crate::message::{Load, Signature, Standing};

/// How long a stopping endpoint waits for its last packets.
const FAREWELL: Duration = Duration::from_secs(2);

/// What happened on the links, for the hub's coordinator.
///
/// Order: a session's `Joined` comes before and its `Left` after all its other events, except that `LeaseBroken` with
/// `agent.lost` may follow `Left` for a lease that was dispatched meanwhile. A session that takes another's place
/// joins after the other left.
#[derive(Debug)]
pub enum LinkEvent {
    /// An agent is there.
    Joined {
        /// The session; numbers rise over the life of the process.
        session: u64,
        /// Who.
        agent: AgentId,
        /// Its public key.
        key: AgentKey,
        /// What it offers; checked.
        capability: Capability,
        /// Its software, for people.
        software: String,
        /// Where it dials from.
        remote: SocketAddr,
    },
    /// A session is over; its leases are lost.
    Left {
        /// The session.
        session: u64,
        /// Why, for people.
        reason: String,
    },
    /// An agent takes no more leases; running ones go on.
    Draining {
        /// The session.
        session: u64,
    },
    /// Units of a shard are done.
    Progress {
        /// The session.
        session: u64,
        /// The lease.
        lease: LeaseId,
        /// Units done; rises.
        units_done: u64,
    },
    /// A shard was answered: lease and task are those of the stream, the signature is the agent's.
    Report {
        /// The session.
        session: u64,
        /// The answer.
        report: Report,
        /// The agent's signature of [`Report::statement`], checked.
        signature: Signature,
    },
    /// A lease ended without a report while its session goes on.
    LeaseBroken {
        /// The session.
        session: u64,
        /// The lease.
        lease: LeaseId,
        /// `agent.declined`, `agent.protocol` or `agent.lost`.
        code: FailureCode,
        /// One sentence for people.
        detail: String,
    },
    /// An agent lives. Dropped where the coordinator is behind.
    Heartbeat {
        /// The session.
        session: u64,
        /// What the agent has in hand.
        load: Load,
        /// A round trip to it, as the connection measures it.
        rtt: Duration,
    },
}

pub(super) type Delivery = (LinkEvent, Option<OwnedSemaphorePermit>);

/// Where events come out.
#[derive(Debug)]
pub struct LinkEvents {
    events: mpsc::Receiver<Delivery>,
}

impl LinkEvents {
    /// The next event; `None` once the endpoint is gone and every event was taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        self.events.recv().await.map(|(event, _)| event)
    }

    /// An event that is there already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok().map(|(event, _)| event)
    }
}

pub(super) struct Hub {
    pub endpoint: Endpoint,
    pub gate: Arc<dyn Gate>,
    pub content: Arc<dyn Content>,
    pub settings: LinkSettings,
    pub events: mpsc::Sender<Delivery>,
    /// Bytes of large fragments that may be in memory.
    pub fragments: Arc<Semaphore>,
    pub draining: watch::Sender<bool>,
    sessions: Mutex<Sessions>,
    next_session: AtomicU64,
}

#[derive(Default)]
struct Sessions {
    by_number: HashMap<u64, Arc<HubSession>>,
    by_agent: HashMap<AgentId, u64>,
}

impl Hub {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, number: u64) -> Option<Arc<HubSession>> {
        self.sessions().by_number.get(&number).cloned()
    }

    pub fn number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a session in its agent's place; gives the one that had it, which must end first.
    pub fn seat(&self, session: &Arc<HubSession>) -> Option<Arc<HubSession>> {
        let mut sessions = self.sessions();
        sessions.by_number.insert(session.number, session.clone());
        let older = sessions.by_agent.insert(session.agent, session.number)?;
        sessions.by_number.get(&older).cloned()
    }

    pub fn unseat(&self, session: &HubSession) {
        let mut sessions = self.sessions();
        sessions.by_number.remove(&session.number);
        if sessions.by_agent.get(&session.agent) == Some(&session.number) {
            sessions.by_agent.remove(&session.agent);
        }
    }

    pub async fn send(&self, event: LinkEvent) {
        // Nobody listens any more: the process is stopping.
        let _ = self.events.send((event, None)).await;
    }
}

/// The hub's endpoint. Dropping it closes every session.
pub struct HubEndpoint {
    hub: Arc<Hub>,
}

impl core::fmt::Debug for HubEndpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HubEndpoint").field("address", &self.hub.endpoint.local_addr()).finish_non_exhaustive()
    }
}

impl HubEndpoint {
    /// Listens on `address` (port 0 picks one). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `Socket`, `Tls`.
    pub fn bind(
        address: SocketAddr,
        identity: &HubIdentity,
        gate: Arc<dyn Gate>,
        content: Arc<dyn Content>,
        settings: LinkSettings,
    ) -> Result<(Self, LinkEvents), LinkError> {
        let endpoint = endpoint(address, identity, &settings)?;
        let (events, receiver) = mpsc::channel(settings.events.max(1));
        let fragment_bytes = usize::try_from(settings.fragment_bytes).unwrap_or(usize::MAX);
        let hub = Arc::new(Hub {
            endpoint,
            gate,
            content,
            events,
            fragments: Arc::new(Semaphore::new(fragment_bytes.min(Semaphore::MAX_PERMITS))),
            draining: watch::Sender::new(false),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            settings,
        });
        tokio::spawn(accept(hub.clone()));
        Ok((Self { hub }, LinkEvents { events: receiver }))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// `Socket`.
    pub fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let failed = |error: std::io::Error| LinkError::Socket { address: unknown, reason: error.to_string() };
        self.hub.endpoint.local_addr().map_err(failed)
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.hub.sessions().by_number.values().filter(|session| session.is_open()).count()
    }

    /// Gives a lease to a session. Never waits; what becomes of it comes as an event.
    pub fn dispatch(&self, session: u64, lease: LeaseId, task: Arc<Task>, deadline_ms: u64, trace: TraceContext) {
        let granted =
            self.hub.session(session).is_some_and(|found| found.grant(&self.hub, lease, task, deadline_ms, trace));
        if !granted {
            let hub = self.hub.clone();
            tokio::spawn(async move {
                let detail = "the session is over".to_owned();
                hub.send(LinkEvent::LeaseBroken { session, lease, code: FailureCode::AgentLost, detail }).await;
            });
        }
    }

    /// Takes a lease back; no event of it follows, except one that waits already.
    pub fn revoke(&self, session: u64, lease: LeaseId) {
        if let Some(session) = self.hub.session(session) {
            session.revoke(lease);
        }
    }

    /// Tells a session's agent how it stands; the latest word counts. Never waits: what moves often is sent now and then.
    pub fn tell(&self, session: u64, standing: Standing) {
        if let Some(session) = self.hub.session(session) {
            session.standing.send_replace(Some(standing));
        }
    }

    /// Ends a session; `Left` follows.
    pub fn close(&self, session: u64, reason: &str) {
        if let Some(session) = self.hub.session(session) {
            session.connection.close(code::DONE, reason.as_bytes());
        }
    }

    /// Takes no new agents and tells those that are there that no more leases come.
    pub fn drain(&self) {
        self.hub.draining.send_replace(true);
    }

    /// Closes every session; `Left` follows for each. The socket closes once this endpoint is dropped and its last
    /// task has ended.
    pub async fn shutdown(&self) {
        self.end();
        let _ = tokio::time::timeout(FAREWELL, self.hub.endpoint.wait_idle()).await;
    }

    fn end(&self) {
        self.hub.endpoint.close(code::STOPPING, b"the hub stops");
    }
}

impl Drop for HubEndpoint {
    fn drop(&mut self) {
        self.end();
    }
}

fn endpoint(address: SocketAddr, identity: &HubIdentity, settings: &LinkSettings) -> Result<Endpoint, LinkError> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server(identity)?));
    server.transport_config(Arc::new(settings.transport(settings.streams, false)));
    server.max_incoming(settings.incoming);
    let mut config = EndpointConfig::new(Arc::new(tls::ResetKey::of(identity)));
    config.cid_generator(|| Box::new(tls::RandomIds));
    let socket = super::socket(address)?;
    let failed = |error: std::io::Error| LinkError::Socket { address, reason: error.to_string() };
    Endpoint::new(config, Some(server), socket, super::runtime()).map_err(failed)
}

/// Takes connections in: proves addresses first, then holds each to its allowance.
async fn accept(hub: Arc<Hub>) {
    let settings = &hub.settings;
    let mut admission = Admission::new(settings.address_burst, settings.address_refill);
    let handshakes = Arc::new(Semaphore::new(settings.handshakes));
    while let Some(incoming) = hub.endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // It fails only for an address that is validated.
            let _ = incoming.retry();
            continue;
        }
        if !admission.take(incoming.remote_address().ip(), Instant::now()) {
            incoming.refuse();
            continue;
        }
        match handshakes.clone().try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(session::serve(hub.clone(), incoming, permit))),
            Err(_) => incoming.refuse(),
        }
    }
}

/// What a connection's end means, in one sentence.
pub(super) fn sentence(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!(
                "closed by the other end with code {}: {}",
                close.error_code,
                String::from_utf8_lossy(&close.reason)
            )
        }
        quinn::ConnectionError::TimedOut => "no sign of life".to_owned(),
        other => other.to_string(),
    }
}

/// The code an application closed a connection with.
pub(super) fn close_code(error: &quinn::ConnectionError) -> Option<VarInt> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code),
        _ => None,
    }
}
