//! The agent's program against a hub's endpoint: real processes, real QUIC, real kernels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod endings;
mod hub;
mod inputs;
mod process;
mod shards;
