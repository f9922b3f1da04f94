//! The one engine constructor: every setting with its reason, and the profile that names them all.

use core::fmt::Write as _;
use std::sync::Arc;

use forge_contract::Digest;
use forge_contract::limits::{FUEL_MAX, MEMORY_BYTES_MAX, OUTPUT_BYTES_MAX};
use wasmtime::{
    Config, Engine, Inlining, InstanceAllocationStrategy, OperatorCost, OptLevel, RegallocAlgorithm, Strategy,
    WasmBacktraceDetails, WasmFeatures,
};

pub use crate::bounds::{
    FUEL_PER_BYTE, FUEL_PER_HOSTCALL, FUEL_PER_OPEN, HANDLES_MAX, HOSTCALL_BYTES_MAX, INSTANCES_MAX,
    TABLE_ELEMENTS_MAX, THREAD_STACK_BYTES, WASM_STACK_BYTES,
};
use crate::memory::Reservations;

/// The engine's version. A new one keeps a profile only if the golden corpus is identical in bits and fuel.
pub const WASMTIME: &str = "48.0.8";
/// Who turns WebAssembly into something that runs. All give the same bits and burn the same fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Cranelift, optimising: what agents use.
    CraneliftSpeed,
    /// Cranelift, not optimising: a second opinion on its optimiser.
    CraneliftNone,
    /// The Pulley interpreter: a second opinion on Cranelift's machine backends. Slow.
    Pulley,
}

impl Backend {
    /// Every backend, the one that agents use first.
    pub const ALL: [Self; 3] = [Self::CraneliftSpeed, Self::CraneliftNone, Self::Pulley];
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot run the engine: {reason}")]
pub struct EngineError {
    /// What wasmtime says.
    pub reason: String,
}

/// An engine that compiles and runs.
///
/// # Errors
/// `EngineError` where the processor or operating system is not supported.
pub fn engine(backend: Backend) -> Result<Engine, EngineError> {
    build(&config(backend)?)
}

/// An engine that runs compiled code and has no compiler: what a worker process holds.
///
/// # Errors
/// As [`engine`].
pub fn runtime_engine(backend: Backend) -> Result<Engine, EngineError> {
    let mut config = config(backend)?;
    config.enable_compiler(false);
    build(&config)
}

fn build(config: &Config) -> Result<Engine, EngineError> {
    Engine::new(config).map_err(|error| EngineError { reason: format!("{error:#}") })
}

fn config(backend: Backend) -> Result<Config, EngineError> {
    let mut config = Config::new();
    set_semantics(&mut config);
    set_memory(&mut config);
    set_compiler(&mut config, backend)?;
    Ok(config)
}

/// What decides bits and fuel.
fn set_semantics(config: &mut Config) {
    // An allow-list: what a later engine adds is off until it is named here.
    config.wasm_features(WasmFeatures::all(), false);
    config.wasm_features(features(), true);
    // Fuel is the meter and the limit: the same on every machine.
    config.consume_fuel(true);
    // wasmtime promises no fuel values across versions; this table does.
    config.operator_cost(operator_cost());
    // Bits of a NaN differ between processors otherwise.
    config.cranelift_nan_canonicalization(true);
    // Relaxed SIMD is not in the allow-list; should it ever be, it stays deterministic.
    config.relaxed_simd_deterministic(true);
    // Fuel bounds the work and the parent kills the process when time is up, so a check on every loop for the same end
    // would only cost time: 4% of mc@1, measured.
    config.epoch_interruption(false);
    // Where the stack ends, so that recursion ends in a trap and not in a fault.
    config.max_wasm_stack(WASM_STACK_BYTES);
    // Unused without async, yet the engine insists that it is not the smaller one.
    config.async_stack_size(WASM_STACK_BYTES);
    // The default reads an environment variable.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // A trap is reported by its code; walking the stack would only cost time.
    config.wasm_backtrace_max_frames(None);
}

/// Where memory lives.
fn set_memory(config: &mut Config) {
    // With it, whether a machine offers memfd would decide whether initialisation runs as code and burns fuel.
    config.memory_init_cow(false);
    // The pooling allocator has leaked between instances (RUSTSEC-2026-0088).
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    // All that 32 bits address, and a guard: bounds are checked by the processor, for nothing.
    config.memory_reservation(4 << 30);
    config.memory_guard_size(32 << 20);
    // Never moved, so a base address is a constant of the instance.
    config.memory_may_move(false);
    // Cleared and used again by the next unit: page faults would be a tenth of mc@1's time.
    config.with_host_memory(Arc::new(Reservations::default()));
}

/// How it is compiled: neutral to bits and fuel, but the depth of the stack depends on it.
fn set_compiler(config: &mut Config, backend: Backend) -> Result<(), EngineError> {
    // Winch is the one that had the sandbox escapes.
    config.strategy(Strategy::Cranelift);
    config.cranelift_opt_level(match backend {
        Backend::CraneliftSpeed => OptLevel::Speed,
        Backend::CraneliftNone | Backend::Pulley => OptLevel::None,
    });
    // Linear-time register allocation gives slower code; a compile bomb meets the compile child's limits instead.
    config.cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking);
    // Inlining between modules moves the depth of the stack and the time of compilation.
    config.compiler_inlining(Inlining::No);
    // Maps code back to WebAssembly offsets, for messages we do not show.
    config.generate_address_map(false);
    match backend {
        // Off, it would also disable the Spectre mitigations of bounds checks.
        Backend::CraneliftSpeed | Backend::CraneliftNone => config.signals_based_traps(true),
        Backend::Pulley => {
            config.target("pulley64").map_err(|error| EngineError { reason: format!("{error:#}") })?;
            // An interpreter raises no signals.
            config.signals_based_traps(false)
        }
    };
    Ok(())
}

/// The WebAssembly that kernels may use. Left out with intent: relaxed SIMD (differs between processors), threads and
/// shared memory (races), memory64, multi-memory, tail calls, GC, exceptions, component async (attack surface).
fn features() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::CALL_INDIRECT_OVERLONG
        | WasmFeatures::BULK_MEMORY_OPT
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::SIMD
        | WasmFeatures::COMPONENT_MODEL
}

/// Units: fuel per operator. One each, nothing for what makes no code, and what depends on a length by that length.
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    // Bytes moved by one instruction are work like any other.
    cost.variable.memory_copy_per_byte = 1;
    cost.variable.memory_fill_per_byte = 1;
    cost.variable.memory_init_per_byte = 1;
    cost.variable.table_copy_per_element = 1;
    cost.variable.table_fill_per_element = 1;
    cost.variable.table_init_per_element = 1;
    cost.variable.table_grow_per_element = 1;
    // A page is 64 KiB the machine must find and clear; by default it would be free.
    cost.variable.memory_grow_per_page = 64;
    cost
}

/// The engine profile: what must be equal for two agents to be comparable in bits and fuel.
///
/// Determinism: a constant of this build, the same on every architecture and backend.
#[must_use]
pub fn engine_profile() -> Digest {
    Digest::tagged("forgepool v1 engine profile", profile_text().as_bytes())
}

fn profile_text() -> String {
    let mut text = format!("wasmtime {WASMTIME}\n");
    let settings: [(&str, u64); 14] = [
        ("nan canonicalization", 1),
        ("memory init cow", 0),
        ("wasm stack bytes", WASM_STACK_BYTES as u64),
        ("table elements", TABLE_ELEMENTS_MAX as u64),
        ("instances", INSTANCES_MAX as u64),
        ("handles", u64::from(HANDLES_MAX)),
        ("hostcall bytes", HOSTCALL_BYTES_MAX as u64),
        ("memory bytes", MEMORY_BYTES_MAX),
        ("output bytes", OUTPUT_BYTES_MAX),
        ("fuel", FUEL_MAX),
        ("printed bytes", crate::log::PRINTED_BYTES_MAX),
        ("fuel per input open", FUEL_PER_OPEN),
        ("fuel per host call", FUEL_PER_HOSTCALL),
        ("fuel per byte", FUEL_PER_BYTE),
    ];
    for (name, value) in settings {
        let _ = writeln!(text, "{name} = {value}");
    }
    let _ = writeln!(text, "features = {:?}", features().bits());
    let _ = writeln!(text, "cost = {:?}", operator_cost());
    text.push_str(include_str!("../../../wit/kernel.wit"));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_backend_has_an_engine() {
        for backend in Backend::ALL {
            engine(backend).unwrap();
            runtime_engine(backend).unwrap();
        }
    }

    #[test]
    fn the_profile_is_pinned() {
        // It changes only together with every golden answer: agents of different profiles are never compared.
        assert_eq!(engine_profile().to_string(), "75bb9e4f330eec7bfaa7c999897c23d050075c8c7b058fb9f3a2e2d08a93b8ce");
    }

    #[test]
    fn the_profile_names_the_engine_that_is_linked() {
        let lock = include_str!("../../../Cargo.lock");
        let at = lock.find("name = \"wasmtime\"\n").unwrap();
        assert!(lock[at..].lines().nth(1).unwrap().contains(WASMTIME));
    }
}
