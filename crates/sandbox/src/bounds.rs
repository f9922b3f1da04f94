//! The numbers of the engine profile: sizes, counts and what the host charges.

/// Stack a unit may use, bytes. How deep that is differs between backends, so running out of it is no verdict.
pub const WASM_STACK_BYTES: usize = 8 << 20;
/// Stack of a thread that runs kernels, bytes: the unit's own, and ample room for the host beneath it.
pub const THREAD_STACK_BYTES: usize = 32 << 20;
/// Elements of a table.
pub const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Core instances, memories and tables of one unit, each.
pub const INSTANCES_MAX: usize = 16;
/// Handles (inputs, streams) a unit may hold at once.
pub const HANDLES_MAX: u32 = 1_000;
/// Bytes the host lifts out of a unit in one call from it (what it prints, names it opens).
pub const HOSTCALL_BYTES_MAX: usize = 16 << 20;

/// Fuel of opening an input.
pub const FUEL_PER_OPEN: u64 = 1_000;
/// Fuel of any other call to the host, before what it moves.
pub const FUEL_PER_HOSTCALL: u64 = 100;
/// Fuel of each byte moved between host and unit: a copy costs what `memory.copy` costs.
pub const FUEL_PER_BYTE: u64 = 1;
