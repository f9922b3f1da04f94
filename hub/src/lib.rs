//! The hub: admits, plans, dispatches, verifies, reduces, records; it never computes.
//!
//! Invariant: no crate this one is built from depends on wasmtime.

pub mod admission;
pub mod api;
pub mod backup;
pub mod clock;
pub mod code;
pub mod condition;
pub mod config;
pub mod convergence;
pub mod coordinator;
pub mod document;
pub mod garbage;
pub mod grants;
pub mod links;
pub mod metrics;
pub mod prices;
pub mod process;
pub mod registry;
mod server;
pub mod signed;
mod standing;
mod start;
pub mod store;
pub mod tenancy;
mod tls;
pub mod trail;
mod trees;
pub mod upload;
mod validity;
pub mod vmem;

pub use config::{Config, ConfigError, HubArgs};
pub use registry::KernelSource;
pub use start::{Running, StartError, start};
pub use tls::{Tls, TlsError, TlsFiles};
