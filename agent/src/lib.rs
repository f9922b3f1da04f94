//! The provider's side: dials out to a hub, fetches kernels, runs shards in its sandbox, answers with signed reports.
//!
//! ```text
//! session     connects, reconnects, takes leases          (keys and network stay here)
//!   lease     one shard: prepare, run, report
//!     components   fetch by digest -> compile in a child -> cached code; small inputs
//!     stock        large inputs, what is read of them; transfer: over sessions that break
//!     bench        N seats for caged worker processes, one worker per job, spares kept warm
//! limits, hours    what the owner gives and when; control: the owner's word while it runs
//! ```
//!
//! An agent knows its task, not the job: what is computed for whom is the hub's affair.

mod backoff;
mod bench;
mod capability;
mod components;
mod config;
mod control;
mod hours;
mod lease;
mod limits;
mod session;
mod stock;
mod transfer;

pub use config::{Args, Config, ConfigError, LogFormat, data_directory};
pub use control::{ControlError, Request, State, Status, ask};
pub use hours::{Hours, HoursError};
pub use limits::Limits;
pub use session::{AgentError, News};

/// The hidden argument by which this program becomes a worker.
pub const WORKER: &str = "__worker";
/// The hidden argument by which this program becomes a compiler of one component.
pub const COMPILE: &str = "__compile";

/// Runs an agent until `stop` completes: it then finishes the shards it runs, gives the others back, and returns.
///
/// Needs a multi-thread runtime. Children are this program again, with [`WORKER`] or [`COMPILE`] as only argument.
///
/// # Errors
/// What trying again cannot mend; see [`AgentError`]. A hub that is away is not an error: the agent keeps trying.
pub async fn run(args: Args, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    run_telling(args, stop, |_| ()).await
}

/// As [`run`], and tells when it joins and leaves a hub.
///
/// # Errors
/// As [`run`].
pub async fn run_telling(args: Args, stop: impl Future<Output = ()>, tell: impl FnMut(News)) -> Result<(), AgentError> {
    session::run(Config::of(args)?, stop, tell).await
}

/// Becomes a caged child where the command line says so; call it first in `main`.
pub fn become_child() {
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some(WORKER) => forge_sandbox::worker_main(),
        Some(COMPILE) => forge_sandbox::compile_main(),
        _ => {}
    }
}
