//! Where untrusted kernels are compiled and run. The only home of wasmtime.
//!
//! ```text
//! parent process (keys, network)          caged child processes (nothing)
//!   worker::Compiler  -- component bytes -->  worker::compile_main
//!        ^                <-- native code --
//!        | cache::Cache
//!   worker::Worker    -- code, inputs, task -> worker::worker_main
//!   inputs::Supply    <-- a large input's ranges, as units read them -->
//!                         <-- shard result --     execute::run_shard, one fresh instance per unit,
//!                                                 to compute it or to check what was found for it
//! ```
//!
//! Determinism: what a unit gives, and the fuel it burns, is a function of the component and its task alone. Every
//! setting that this rests on is in [`engine`], each with its reason.

pub mod bounds;
pub mod cache;
pub mod cage;
pub mod code;
pub mod engine;
mod examine;
pub mod execute;
pub mod inputs;
pub mod kernel;
mod lift;
mod limiter;
pub mod local;
mod log;
mod memory;
pub mod module;
mod trap;
pub mod wasi;
pub mod worker;

pub use cage::{CageLevel, CageReport};
pub use engine::engine_profile;
pub use execute::{ShardResult, UnitRun, UnitRunner};
pub use inputs::{Inputs, Piece, Supply, Want};
pub use worker::{CompileLimits, Compiler, Worker, WorkerError, compile_main, worker_main};
