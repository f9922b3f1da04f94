//! Compiling and running in this very process: for tests, goldens and benches of one's own kernels.
//!
//! Nothing here is caged. Untrusted components go through [`crate::worker`].

use forge_contract::task::Task;
use forge_contract::{Failure, FailureCode};

use crate::engine::{self, Backend};
use crate::execute::{self, ShardResult, UnitRun, UnitRunner, with_ample_stack};
use crate::inputs::Inputs;

/// A kernel compiled by one backend, loaded in this process.
pub struct LocalKernel {
    runner: UnitRunner,
    code_bytes: usize,
}

/// Compiles and loads a component.
///
/// # Errors
/// `agent.compile`, as [`crate::code::compile`] and [`UnitRunner::load`].
pub fn compile(component: &[u8], backend: Backend) -> Result<LocalKernel, Failure> {
    let no_engine = |error: engine::EngineError| Failure::new(FailureCode::AgentCompile, error.to_string());
    let engine = engine::engine(backend).map_err(no_engine)?;
    let code = on_own_thread(|| crate::code::compile(&engine, component))?;
    let runner = UnitRunner::load(&engine, &code)?;
    Ok(LocalKernel { runner, code_bytes: code.len() })
}

impl LocalKernel {
    /// Size of the native code, bytes.
    #[must_use]
    pub fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// Whether the kernel can check units.
    #[must_use]
    pub fn checks(&self) -> bool {
        self.runner.checks()
    }
}

/// Runs one unit on a thread of its own.
///
/// # Errors
/// As [`UnitRunner::run_unit`].
pub fn run_unit(kernel: &LocalKernel, task: &Task, unit: u64, inputs: &Inputs) -> Result<UnitRun, Failure> {
    on_own_thread(|| kernel.runner.run_unit(task, unit, inputs))
}

/// Runs a shard, or checks what was found for it as its duty says, on a thread of its own.
#[must_use]
pub fn run_shard(
    kernel: &LocalKernel,
    task: &Task,
    inputs: &Inputs,
    on_progress: impl FnMut(u64) + Send,
) -> ShardResult {
    on_own_thread(|| Ok(execute::run_shard(&kernel.runner, task, inputs, on_progress)))
        .unwrap_or_else(ShardResult::failed)
}

pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let no_thread = |error: std::io::Error| Err(Failure::new(FailureCode::AgentWorkerLost, error.to_string()));
    with_ample_stack(work).unwrap_or_else(no_thread)
}
