//! The agent's end: dials out, introduces itself, takes leases and answers them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forge_contract::report::{Outcome, Report};
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{Capability, LeaseId};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, RecvStream, SendStream};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::fetch::Fetcher;
use super::hub::{close_code, sentence};
use super::stream::{self, StreamError};
use super::{LinkError, LinkSettings, code, tls};
use crate::identity::{HubKey, Identity};
use crate::message::{self, Drain, Heartbeat, Hello, Kind, Load, Progress, Refused, ReportHead, Standing, Welcome};
use crate::session::AgentControl;
use crate::{REVISION, frame};

/// How long a parting agent waits for its last packets.
const FAREWELL: Duration = Duration::from_secs(2);
/// Leases that wait to be taken, at most.
const EVENTS: usize = 256;
/// Fragments above this size are hashed away from the runtime's threads.
const HEAVY_BYTES: usize = 512 << 10;

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Name and version of the software.
    pub software: String,
    /// What the machine offers.
    pub capability: Capability,
    /// The secret of an enrolment token, where there is one.
    pub enrol_secret: Option<[u8; 32]>,
}

/// What the hub wants.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every event is of the large variant")]
pub enum AgentEvent {
    /// A shard.
    Lease {
        /// The lease.
        lease: LeaseId,
        /// The shard.
        task: Task,
        /// How long the hub waits, from now.
        deadline: Duration,
        /// The span the shard is run in.
        trace: TraceContext,
        /// Where the answer goes.
        responder: ShardResponder,
    },
    /// No more leases come; running ones go on.
    Drain,
    /// How the hub thinks of this agent now.
    Standing(Standing),
    /// The session is over. Nothing follows.
    Closed(LinkError),
}

/// One session with a hub. Dropping it ends the session.
#[derive(Debug)]
pub struct AgentLink {
    endpoint: Endpoint,
    connection: Connection,
    welcome: Welcome,
    events: mpsc::Receiver<AgentEvent>,
    load: watch::Sender<Load>,
    drain: watch::Sender<bool>,
}

impl AgentLink {
    /// Opens a session with the first of `hubs` (`host:port`) that takes this agent in.
    ///
    /// # Errors
    /// `Refused`, at once where trying again cannot help; else what the last address gave: `Unreachable`, `WrongHub`,
    /// `Protocol`, `Socket`, `Tls`.
    pub async fn connect(
        hubs: &[String],
        hub_key: HubKey,
        identity: &Arc<Identity>,
        introduction: &Introduction,
        settings: &LinkSettings,
    ) -> Result<Self, LinkError> {
        let mut last = LinkError::Unreachable { address: String::new(), reason: "no address is given".into() };
        for hub in hubs {
            let addresses = match tokio::net::lookup_host(hub).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    last = LinkError::Unreachable { address: hub.clone(), reason: error.to_string() };
                    Vec::new()
                }
            };
            for address in addresses {
                match dial(address, hub_key, identity, introduction, settings).await {
                    Err(LinkError::Refused(refusal)) if !refusal.code.is_passing() => {
                        return Err(LinkError::Refused(refusal));
                    }
                    Err(error) => last = error,
                    Ok(link) => return Ok(link),
                }
            }
        }
        Err(last)
    }

    /// What the hub said at the start.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The address of the hub that took this agent in.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// What the hub wants next. Cancel-safe.
    pub async fn next(&mut self) -> AgentEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => AgentEvent::Closed(LinkError::Closed { reason: "the session is over".into() }),
        }
    }

    /// Fetches objects over this session.
    #[must_use]
    pub fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.connection.clone())
    }

    /// What the next heartbeat tells.
    pub fn set_load(&self, load: Load) {
        self.load.send_replace(load);
    }

    /// Tells the hub that this agent takes no more leases.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Ends the session. Reports whose `report` call returned have arrived.
    pub async fn close(self) {
        self.connection.close(code::DONE, b"the agent leaves");
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

impl Drop for AgentLink {
    fn drop(&mut self) {
        self.connection.close(code::DONE, b"the agent leaves");
    }
}

async fn dial(
    address: SocketAddr,
    hub_key: HubKey,
    identity: &Arc<Identity>,
    introduction: &Introduction,
    settings: &LinkSettings,
) -> Result<AgentLink, LinkError> {
    let (crypto, mismatch) = tls::client(identity, hub_key)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let streams = settings.streams.max(introduction.capability.leases.saturating_mul(2));
    config.transport_config(Arc::new(settings.transport(streams, true)));
    let endpoint = client_endpoint(address)?;
    let unreachable = |reason: String| LinkError::Unreachable { address: address.to_string(), reason };
    let connecting = endpoint.connect_with(config, address, tls::SERVER_NAME);
    let connecting = connecting.map_err(|error| unreachable(error.to_string()))?;
    let opening = async {
        let connection = connecting.await.map_err(|error| match mismatch.load(Ordering::Acquire) {
            true => LinkError::WrongHub { address: address.to_string() },
            false => unreachable(sentence(&error)),
        })?;
        let greeted = greet(&connection, introduction).await;
        if greeted.is_err() {
            connection.close(code::DONE, b"");
        }
        greeted.map(|(welcome, control, send, recv)| (connection, welcome, control, send, recv))
    };
    let opened = tokio::time::timeout(settings.handshake, opening).await;
    let opened = opened.map_err(|_| unreachable("no answer in time".into())).and_then(|opened| opened);
    let (connection, welcome, control, send, recv) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            return Err(error);
        }
    };
    Ok(start(endpoint, connection, welcome, (control, send, recv), identity, settings))
}

fn client_endpoint(hub: SocketAddr) -> Result<Endpoint, LinkError> {
    let any = match hub {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = SocketAddr::new(any, 0);
    let failed = |error: std::io::Error| LinkError::Socket { address, reason: error.to_string() };
    Endpoint::new(EndpointConfig::default(), None, super::socket(address)?, super::runtime()).map_err(failed)
}

type Greeted = (Welcome, AgentControl, SendStream, RecvStream);

async fn greet(connection: &Connection, introduction: &Introduction) -> Result<Greeted, LinkError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| ended(&error))?;
    let _ = send.set_priority(1);
    let hello = Hello {
        revision: REVISION,
        software: introduction.software.clone(),
        capability: introduction.capability.clone(),
        enrol_secret: introduction.enrol_secret,
    };
    let mut control = AgentControl::default();
    stream::write(&mut send, &hello).await.map_err(broken)?;
    let (kind, body) = stream::read_frame(&mut recv, control.legal()).await.map_err(broken)?;
    if kind == Kind::Refused {
        let refusal: Refused = frame::decode(&body).map_err(|error| broken(error.into()))?;
        return Err(LinkError::Refused(refusal));
    }
    let welcome: Welcome = frame::decode(&body).map_err(|error| broken(error.into()))?;
    control.welcome(&welcome).map_err(LinkError::Refused)?;
    Ok((welcome, control, send, recv))
}

fn broken(error: StreamError) -> LinkError {
    match error {
        StreamError::Lost(error) => ended(&error),
        StreamError::GivenUp { .. } => LinkError::Closed { reason: "the lease was taken back".into() },
        other => LinkError::Protocol { reason: other.to_string() },
    }
}

fn ended(error: &ConnectionError) -> LinkError {
    match close_code(error) {
        Some(found) if found == code::REPLACED => LinkError::Replaced,
        Some(found) if found == code::PROTOCOL => LinkError::Protocol { reason: sentence(error) },
        _ => LinkError::Closed { reason: sentence(error) },
    }
}

fn start(
    endpoint: Endpoint,
    connection: Connection,
    welcome: Welcome,
    (control, send, recv): (AgentControl, SendStream, RecvStream),
    identity: &Arc<Identity>,
    settings: &LinkSettings,
) -> AgentLink {
    let (sender, events) = mpsc::channel(EVENTS);
    let (load, loads) = watch::channel(Load::default());
    let (drain, draining) = watch::channel(false);
    let beat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1)));
    let voice = Voice { connection: connection.clone(), send, beat, silence: settings.silence, loads, draining };
    tokio::spawn(attend(connection.clone(), control, recv, voice, sender.clone()));
    tokio::spawn(accept(connection.clone(), identity.clone(), sender));
    AgentLink { endpoint, connection, welcome, events, load, drain }
}

/// Takes shard streams until the connection ends, and says how it did.
async fn accept(connection: Connection, identity: Arc<Identity>, events: mpsc::Sender<AgentEvent>) {
    let error = loop {
        match connection.accept_bi().await {
            // QUIC's limit on open streams bounds the number of these tasks.
            Ok((send, recv)) => {
                drop(tokio::spawn(take(connection.clone(), send, recv, identity.clone(), events.clone())));
            }
            Err(error) => break error,
        }
    };
    let _ = events.send(AgentEvent::Closed(ended(&error))).await;
}

async fn take(
    connection: Connection,
    send: SendStream,
    mut recv: RecvStream,
    identity: Arc<Identity>,
    events: mpsc::Sender<AgentEvent>,
) {
    match stream::read::<message::Lease>(&mut recv).await {
        Ok(message::Lease { lease, deadline_ms, trace, task }) => {
            let responder = ShardResponder { send, lease, identity, unsent: Vec::new(), ended: false };
            let deadline = Duration::from_millis(deadline_ms);
            let _ = events.send(AgentEvent::Lease { lease, task, deadline, trace, responder }).await;
        }
        Err(StreamError::Frame(error)) => connection.close(code::PROTOCOL, error.to_string().as_bytes()),
        // Revoked before it was read.
        Err(_) => {}
    }
}

/// What the agent says on the control stream.
struct Voice {
    connection: Connection,
    send: SendStream,
    beat: Duration,
    silence: Duration,
    loads: watch::Receiver<Load>,
    draining: watch::Receiver<bool>,
}

/// Keeps the control stream until it breaks; then the connection is closed.
async fn attend(
    connection: Connection,
    control: AgentControl,
    recv: RecvStream,
    voice: Voice,
    events: mpsc::Sender<AgentEvent>,
) {
    let error = tokio::select! {
        error = listen(control, recv, events) => error,
        error = voice.speak() => error,
    };
    match error {
        StreamError::Lost(_) => {}
        other => connection.close(code::PROTOCOL, other.to_string().as_bytes()),
    }
}

async fn listen(mut control: AgentControl, mut recv: RecvStream, events: mpsc::Sender<AgentEvent>) -> StreamError {
    loop {
        let (kind, body) = match stream::read_frame(&mut recv, control.legal()).await {
            Ok(message) => message,
            Err(error) => return error,
        };
        let event = match kind {
            Kind::Standing => {
                frame::decode::<Standing>(&body).map(|standing| Some(AgentEvent::Standing(standing.printable())))
            }
            // The only other message that is legal here is the drain, and only once.
            _ => frame::decode::<Drain>(&body).map(|_| control.drain().is_ok().then_some(AgentEvent::Drain)),
        };
        match event {
            Ok(Some(event)) => drop(events.send(event).await),
            Ok(None) => {}
            Err(error) => return error.into(),
        }
    }
}

impl Voice {
    async fn speak(mut self) -> StreamError {
        let mut ticker = tokio::time::interval(self.beat);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut quiet, mut told) = (0, Duration::ZERO, false);
        loop {
            let written = tokio::select! {
                _ = ticker.tick() => {
                    let datagrams = self.connection.stats().udp_rx.datagrams;
                    quiet = if datagrams == heard { quiet + self.beat } else { Duration::ZERO };
                    heard = datagrams;
                    if quiet >= self.silence {
                        self.connection.close(code::SILENT, b"the hub is silent");
                    }
                    let load = *self.loads.borrow();
                    stream::write(&mut self.send, &Heartbeat { load }).await
                }
                () = drained(&mut self.draining), if !told => {
                    told = true;
                    stream::write(&mut self.send, &Drain).await
                }
            };
            if let Err(error) = written {
                return error;
            }
        }
    }
}

async fn drained(draining: &mut watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}

/// Where one lease is answered. Dropped without a report, it gives the lease back.
#[derive(Debug)]
pub struct ShardResponder {
    send: SendStream,
    lease: LeaseId,
    identity: Arc<Identity>,
    /// Bytes of a progress message whose writing was broken off; they go before anything else.
    unsent: Vec<u8>,
    ended: bool,
}

impl ShardResponder {
    /// Tells how many units are done; the numbers rise. Cancel-safe. Left out where an earlier number still waits.
    ///
    /// # Errors
    /// `Closed` where the lease was taken back or the session ended.
    pub async fn progress(&mut self, units_done: u64) -> Result<(), LinkError> {
        if self.unsent.is_empty() {
            self.unsent = frame::encode(&Progress { units_done }).map_err(|error| broken(error.into()))?;
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.unsent.is_empty() {
            let written = self.send.write(&self.unsent).await.map_err(|error| broken(error.into()))?;
            self.unsent.drain(..written);
        }
        Ok(())
    }

    /// Completes when the hub takes the lease back or the session ends; also when a report has arrived.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Signs and sends the report, and waits until it has arrived. `report.lease` is set to this lease.
    ///
    /// # Errors
    /// `Closed` where the lease was taken back or the session ended; `Protocol` where the report exceeds the
    /// protocol's sizes (then the lease is given back).
    pub async fn report(mut self, mut report: Report) -> Result<(), LinkError> {
        report.lease = self.lease;
        let (report, statement) = stated(report).await;
        let signature = self.identity.sign_statement(&statement);
        let (head, fragment) = ReportHead::split(report, signature);
        let head = frame::encode(&head).map_err(|error| broken(error.into()))?;
        self.flush().await?;
        let sent = self.send.write_all_chunks(&mut [head.into(), fragment.into()]).await;
        sent.map_err(|error| broken(error.into()))?;
        let _ = self.send.finish();
        self.ended = true;
        match self.send.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LinkError::Closed { reason: "the lease was taken back".into() }),
            Err(error) => Err(LinkError::Closed { reason: error.to_string() }),
        }
    }

    /// Gives the lease back.
    pub fn decline(self) {}
}

impl Drop for ShardResponder {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.send.reset(code::DECLINED);
        }
    }
}

async fn stated(report: Report) -> (Report, forge_contract::Digest) {
    let heavy = matches!(&report.outcome, Outcome::Completed(completed) if completed.fragment.len() > HEAVY_BYTES);
    if !heavy {
        let statement = report.statement();
        return (report, statement);
    }
    let copy = Arc::new(report);
    let hashed = copy.clone();
    let statement = tokio::task::spawn_blocking(move || hashed.statement()).await;
    let statement = statement.unwrap_or_else(|_| copy.statement());
    (Arc::unwrap_or_clone(copy), statement)
}
