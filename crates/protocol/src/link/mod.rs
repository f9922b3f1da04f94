//! The link: real sockets, real streams. The only home of quinn.
//!
//! A lease's whole conversation is one bidirectional stream. The hub ends its half with the lease itself, so that
//! granting costs one packet; it revokes by stopping the other half.

mod admission;
pub mod agent;
mod fetch;
pub mod hub;
mod lease;
mod session;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::Digest;
use quinn::{IdleTimeout, TransportConfig, VarInt};

pub use fetch::{FetchError, Fetcher, Partial};

use crate::identity::AgentKey;
use crate::message::Refused;
use crate::proof::{ReadAt, Tree};

/// What the link is allowed, and how patient it is. The defaults are the values of the security design.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// From the first packet to the welcome.
    pub handshake: Duration,
    /// How often agents give a sign of life.
    pub heartbeat: Duration,
    /// Silence after which the other end counts as gone; several heartbeats.
    pub silence: Duration,
    /// QUIC's own idle timeout.
    pub idle: Duration,
    /// QUIC's own keep-alive, sent by agents.
    pub keep_alive: Duration,
    /// Streams the other end may have open at once.
    pub streams: u32,
    /// Bytes in flight on one stream.
    pub stream_window: u32,
    /// Bytes in flight on one connection.
    pub connection_window: u32,
    /// Connection attempts not yet answered, at most.
    pub incoming: usize,
    /// Connections between first packet and welcome, at most.
    pub handshakes: usize,
    /// Connections one address may open at once; the allowance refills over `address_refill`.
    pub address_burst: u32,
    /// Time in which an address' whole allowance comes back.
    pub address_refill: Duration,
    /// Leases the hub gives one agent at once, at most.
    pub leases: u32,
    /// Events that wait for the hub's coordinator, at most.
    pub events: usize,
    /// Bytes of large fragments that arrive or wait for the coordinator, all agents together.
    pub fragment_bytes: u32,
    /// Several datagrams per system call. Off for networks that cannot.
    pub segmentation_offload: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            streams: 64,
            stream_window: 1 << 20,
            connection_window: 8 << 20,
            incoming: 1024,
            handshakes: 1024,
            address_burst: 512,
            address_refill: Duration::from_secs(8),
            leases: 512,
            events: 1024,
            fragment_bytes: 256 << 20,
            segmentation_offload: true,
        }
    }
}

impl LinkSettings {
    /// QUIC's parameters; `streams` is what the other end may open.
    fn transport(&self, streams: u32, keep_alive: bool) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(u64::from(self.connection_window))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle).ok())
            .keep_alive_interval(keep_alive.then_some(self.keep_alive))
            // A first guess, corrected by the first answer: a lost first packet is repeated after 0.3 s, not 1 s.
            .initial_rtt(Duration::from_millis(100))
            .enable_segmentation_offload(self.segmentation_offload);
        transport
    }
}

/// Why there is no link, or no longer one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The socket cannot be had.
    #[error("the socket {address}: {reason}")]
    Socket {
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The keys or the TLS configuration cannot be used.
    #[error("the TLS configuration: {reason}")]
    Tls {
        /// What the library says.
        reason: String,
    },
    /// No address of the hub could be reached.
    #[error("the hub at {address} does not answer: {reason}")]
    Unreachable {
        /// The address tried last.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The server's key is not the pinned one.
    #[error("the server at {address} does not have the pinned hub key")]
    WrongHub {
        /// Its address.
        address: String,
    },
    /// The hub refused the hello.
    #[error("{}: {}", .0.code.as_str(), .0.detail)]
    Refused(Refused),
    /// A newer session with the same key took this one's place.
    #[error("another agent with this key has joined")]
    Replaced,
    /// The other end broke the protocol.
    #[error("the other end broke the protocol: {reason}")]
    Protocol {
        /// How.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection ended: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

/// Numbers that close a connection or end a stream.
pub(crate) mod code {
    use quinn::VarInt;

    /// No reason to complain.
    pub const DONE: VarInt = VarInt::from_u32(0);
    /// The hub takes a lease back.
    pub const REVOKED: VarInt = VarInt::from_u32(1);
    /// The agent gives a lease back.
    pub const DECLINED: VarInt = VarInt::from_u32(2);
    /// The other end broke the protocol.
    pub const PROTOCOL: VarInt = VarInt::from_u32(3);
    /// A newer session of the same key is there.
    pub const REPLACED: VarInt = VarInt::from_u32(4);
    /// The hello was refused.
    pub const REFUSED: VarInt = VarInt::from_u32(5);
    /// No sign of life.
    pub const SILENT: VarInt = VarInt::from_u32(6);
    /// The hub stops.
    pub const STOPPING: VarInt = VarInt::from_u32(7);
}

/// The hub cannot answer now; the agent is told to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record cannot be read now")]
pub struct Unavailable;

/// Who may join. The hub's record of agents and tokens.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Whether this key is enrolled and not expelled.
    async fn known(&self, key: &AgentKey) -> Result<bool, Unavailable>;

    /// Uses a token up and enrols the key, in one step: at most one call for a token returns true.
    ///
    /// `secret` is [`crate::EnrolToken::stored`] of the token, which is all the hub keeps of it.
    async fn redeem(&self, secret: &Digest, key: &AgentKey) -> Result<bool, Unavailable>;
}

/// What agents may fetch, by content address.
#[async_trait]
pub trait Content: Send + Sync + 'static {
    /// The object of this digest, for the agent of a session; `None` where there is none, or none for it. The agent
    /// verifies it, the link does not.
    async fn open(&self, session: u64, digest: &Digest) -> Option<ContentBody>;
}

/// An object's bytes and what proves them.
#[derive(Clone, Debug)]
pub struct ContentBody {
    /// The bytes.
    pub data: ContentData,
    /// The hash tree over them.
    pub tree: Arc<Tree>,
}

/// An object's bytes, to be read anywhere.
#[derive(Clone)]
pub enum ContentData {
    /// In memory, shared.
    Bytes(Bytes),
    /// Read as they are sent, on threads that may block.
    Stored(Arc<dyn ReadAt + Send + Sync>),
}

impl core::fmt::Debug for ContentData {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "ContentData::Bytes({})", bytes.len()),
            Self::Stored(_) => f.write_str("ContentData::Stored"),
        }
    }
}

/// A UDP socket with ample buffers, as far as the system grants them.
fn socket(address: SocketAddr) -> Result<std::net::UdpSocket, LinkError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // A refusal leaves the system's default, which is slower but right.
        let _ = socket.set_recv_buffer_size(4 << 20);
        let _ = socket.set_send_buffer_size(4 << 20);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|error: std::io::Error| LinkError::Socket { address, reason: error.to_string() })
}

/// The runtime quinn runs on.
fn runtime() -> Arc<dyn quinn::Runtime> {
    Arc::new(quinn::TokioRuntime)
}
