//! Native code: made from a component, loaded to run.

use forge_contract::{Failure, FailureCode};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::trap::cut;

/// Largest native code of a component, bytes.
pub const CODE_BYTES_MAX: usize = 64 << 20;

/// Compiles a component to code that only an engine of the same settings on a machine of the same kind loads.
///
/// Not bounded in time or memory: callers run it in a compile child, except for components of their own.
///
/// # Errors
/// `agent.compile` where the component is not valid for the engine or its code is too large.
pub fn compile(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, Failure> {
    let code = engine.precompile_component(component).map_err(|error| refused(&error))?;
    if code.len() > CODE_BYTES_MAX {
        let detail = format!("the component compiles to {} bytes where the limit is {CODE_BYTES_MAX}", code.len());
        return Err(Failure::new(FailureCode::AgentCompile, detail));
    }
    Ok(code)
}

/// Loads compiled code.
///
/// The code is trusted like a program: it must come from [`compile`] through one's own compile child or cache, never
/// from the network. wasmtime refuses code of other settings, of another version or for another processor, which is
/// not a check of its origin.
///
/// # Errors
/// `agent.worker_lost` where it is not code for this engine: whoever keeps it should make it anew.
pub(crate) fn load(engine: &Engine, code: &[u8]) -> Result<Component, Failure> {
    #[expect(unsafe_code, reason = "wasmtime cannot check that native code is its own")]
    // SAFETY: callers pass what `compile` gave, through a pipe of this process's parent or a cache entry whose digest
    // was checked; both are as trusted as this program's own file.
    let loaded = unsafe { Component::deserialize(engine, code) };
    loaded.map_err(|error| {
        Failure::new(FailureCode::AgentWorkerLost, cut(format!("the code cannot be loaded: {error:#}")))
    })
}

/// A component or code that the engine refuses.
pub(crate) fn refused(error: &wasmtime::Error) -> Failure {
    Failure::new(FailureCode::AgentCompile, cut(format!("{error:#}")))
}
