//! The wire between hub and agents: QUIC, TLS 1.3, one connection per agent, dialled by the agent.
//!
//! [`message`], [`frame`], [`proof`] and [`session`] are pure: bytes, sizes, order, and what proves a piece of an object. [`identity`] holds the keys both ends are
//! known by. [`link`] is the only place that does IO, and the only home of quinn.

pub mod frame;
pub mod identity;
pub mod link;
pub mod message;
pub mod proof;
pub mod session;

pub use identity::{AgentKey, EnrolToken, HubIdentity, HubKey, Identity};
pub use link::agent::{AgentEvent, AgentLink, Introduction, ShardResponder};
pub use link::hub::{HubEndpoint, LinkEvent, LinkEvents};
pub use link::{
    Content, ContentBody, ContentData, FetchError, Fetcher, Gate, LinkError, LinkSettings, Partial, Unavailable,
};
pub use message::{Load, Standing};

/// The application protocol both ends must name in the TLS handshake; its number changes when old and new cannot talk.
pub const ALPN: &[u8] = b"forgepool/1";
/// The revision spoken within [`ALPN`]; a peer of another revision is refused by name.
pub const REVISION: u32 = 4;
