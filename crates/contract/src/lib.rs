//! The nouns every part of Forge Pool shares: pure data, its one encoding, and what folding it means.
//!
//! Nothing here reads a clock, a file or a random number, and nothing imports another crate of ours.
//! The order of the modules is the order in which a job meets them.

pub mod array;
pub mod canon;
pub mod capability;
pub mod digest;
pub mod duty;
pub mod envelope;
pub mod failure;
pub mod fragment;
pub mod id;
pub mod input;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod report;
pub mod seed;
pub mod stop;
pub mod task;
pub mod trace;
pub mod vmem;

pub use capability::Capability;
pub use digest::Digest;
pub use failure::{Failure, FailureCode, Family};
pub use id::{AgentId, JobId, LeaseId};
