//! Faults between and in real processes: a hub and agents that die, freeze, lose the network and come back.
//!
//! Whatever happens, the output is the undisturbed one, no shard counts twice, and the job ends. The size is that of a
//! quick run; `FORGEPOOL_FAULTS=N` makes everything N times as long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod deaths;
mod jobs;
mod network;
mod restarts;
